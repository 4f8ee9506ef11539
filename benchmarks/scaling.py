"""How long a kimg takes on d devices: a model with few numbers, and how far it is from runs on 1 and 2 processes.

    python -m benchmarks.scaling FOLDER          # measures on this machine, prints the tables of docs/scaling.md

A round of a batch of B on d devices takes

    max(fixed + sample * B / d,  B / d / images) + traffic(d)
    traffic(d) = 2 (d - 1) / d * bytes / bandwidth + 2 (d - 1) * latency     a ring's all-reduce, once for each player

`fixed` is what a round costs however small it is, `sample` what a sample adds, `images` how many a second it can be
given, all of one device; `bytes` are the gradients' of both players. Nothing is taken to overlap. Processes have one
thread each. `fixed` and `sample` are a line through runs of one process at several batch sizes; bandwidth and latency
of processes of one machine are measured by all-reduces of two sizes.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import distributed

from ganlab import launch

SIZES, TURNS, KIMG = (16, 32, 64, 128), 3, 6.0
RUN = [
    "model=dcgan", "data=digits", "data.size=32", "terms=[]", f"max_kimg={KIMG:g}", "trainer.accelerator=cpu",
    "metrics.enabled=false", "callbacks.samples=null",
]  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """fixed, sample, latency in seconds; bandwidth in bytes a second; images a second that one device can be given"""

    fixed: float
    sample: float
    latency: float
    bandwidth: float
    images: float = 2e5

    def round(self, batch: int, devices: int, size: float, moves: int = 2) -> float:
        """Seconds. size: bytes of the gradients of both players; moves: how often gradients are summed"""
        share = batch / devices
        traffic = 2 * (devices - 1) / devices * size / self.bandwidth + moves * 2 * (devices - 1) * self.latency
        return max(self.fixed + self.sample * share, share / self.images) + traffic


def seconds(folder: Path, batch: int, devices: int) -> float:
    """Of a round, in a run of its own."""
    command = [sys.executable, "-m", "ganlab", *RUN, f"data.batch_size={batch}", f"trainer.devices={devices}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*command, f"hydra.run.dir={folder}"], check=True, capture_output=True, env=environment)
    return json.loads((folder / "result.json").read_text())["sec_per_kimg"] * batch / 1000


def sums(sizes: list[int], times: int) -> list[float]:
    """Seconds of an all-reduce of so many bytes, in this process's group."""
    distributed.init_process_group("gloo")
    told = []
    for size in sizes:
        x, taken = torch.zeros(size // 4), []
        for _ in range(times):
            distributed.barrier()
            begin = time.perf_counter()
            distributed.all_reduce(x)
            taken.append(time.perf_counter() - begin)
        told.append(median(taken))
    return told


def network() -> tuple[float, float]:
    """(bandwidth, latency) between two processes of this machine."""
    sizes = [4096, 1 << 22]
    small, large = launch.run(sums, sizes, 51, processes=2)
    return (sizes[1] - sizes[0]) / (large - small), small / 2


def measured(folder: Path) -> tuple[Machine, dict[tuple[int, int], list[float]]]:
    runs: dict[tuple[int, int], list[float]] = {}
    for turn in range(TURNS):
        for batch in SIZES:
            for devices in (1, 2):
                taken = seconds(folder / f"{turn}_{batch}_{devices}", batch, devices)
                runs.setdefault((batch, devices), []).append(taken)
                print(
                    f"turn {turn + 1} of {TURNS}: batch {batch}, {devices} process(es): {1000 * taken:.1f} ms",
                    flush=True,
                )
    sample, fixed = np.polyfit(SIZES, [median(runs[b, 1]) for b in SIZES], 1)
    bandwidth, latency = network()
    return Machine(max(float(fixed), 0.0), float(sample), latency, bandwidth), runs


EXAMPLES: dict[str, tuple[float, float, Machine]] = {  # what is assumed, of no machine that was measured
    "small G and D, 7 MB of gradients, batch 64": (64, 7e6, Machine(1e-3, 1e-5, 1e-5, 2e11)),
    "StyleGAN2 at 256x256, 200 MB, batch 64": (64, 2e8, Machine(2e-2, 1e-2, 1e-5, 2e11)),
    "the same, batch 2048": (2048, 2e8, Machine(2e-2, 1e-2, 1e-5, 2e11)),
    "the same, batch 2048, machines of 8 joined by 25 Gbit/s": (2048, 2e8, Machine(2e-2, 1e-2, 5e-5, 3e9)),
}


def planned() -> str:
    counts = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
    lines = ["| seconds per kimg | " + " | ".join(map(str, counts)) + " |", "| --- |" + " --- |" * len(counts)]
    for name, (batch, size, machine) in EXAMPLES.items():
        cells = [f"{machine.round(int(batch), d, size) * 1000 / batch:.3g}" if d <= batch else "-" for d in counts]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(folder: Path) -> dict[str, Any]:
    machine, runs = measured(folder)
    size = gradients(folder)
    print(f"\n{machine}\ngradients {size / 1e6:.2f} MB")
    print("\n| batch | 1 process, ms a round | the line | 2 processes | predicted | predicted / measured |")
    print("| --- | --- | --- | --- | --- | --- |")
    for batch in SIZES:
        one, two = median(runs[batch, 1]), median(runs[batch, 2])
        line, said = machine.round(batch, 1, size), machine.round(batch, 2, size)
        cells = [f"{1000 * x:.1f}" for x in (one, line, two, said)]
        print(f"| {batch} | " + " | ".join(cells) + f" | {said / two:.2f} |")
    print("\n" + planned())
    return {"machine": machine, "runs": runs, "bytes": size}


def gradients(folder: Path) -> float:
    """Bytes of both players' parameters, as a checkpoint has them."""
    from ganlab import checkpoint

    content = checkpoint.load(folder / f"0_{SIZES[0]}_1" / "checkpoints" / "last.ckpt")
    held = content["state_dict"].items()
    learned = [x for k, x in held if k.startswith(("G.", "D.")) and "running" not in k and x.is_floating_point()]
    return float(sum(x.numel() * x.element_size() for x in learned))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
