"""One round of a game, against other loops and at other sizes; and the pace of the machine."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks.loops import gflop
from benchmarks.race import Turns, memory_of, race

LOOPS = ["-m", "benchmarks.loops"]
PEERS = ("mimicry", "studiogan")  # with an SNGAN of the same layers
Told = dict[str, dict[str, Turns]]  # {title: {subject: turns}}
DCGAN64 = ("model=dcgan", "data=digits", "data.size=64", "data.channels=3", "terms=[]", "share_fake=true", "ema=none")
SNGAN32 = ("model=sngan", "data=digits", "data.size=32", "data.channels=3", "terms=[]", "n_critic=1", "ema=none")
TINY = ("model=mlp", "data=toy", "generator.width=8", "discriminator.width=8", "data.batch_size=16", "ema=none")
IMPORT = """
import contextlib, importlib
for name in {}:
    with contextlib.suppress(Exception):
        importlib.import_module(name)
"""
BF16 = "trainer.precision=bf16-mixed"


def ganlab(folder: str, *overrides: str) -> list[str]:
    """A run as a user starts it, all on but scores: curves, bar, TensorBoard, pictures, watchdog, checkpoints."""
    return [
        "-m", "ganlab", "metrics.enabled=false", f"hydra.run.dir={tempfile.mkdtemp(dir=folder)}/run", "max_kimg=1e9",
        "lr_schedule=constant", "+callbacks.gate={_target_: benchmarks.gate.GateCallback}", *overrides,
    ]  # fmt: skip


def dcgan(folder: str, turns: int, peers: dict[str, str]) -> Told:
    """Against a bare loop, Lightning as documented, and pytorch/examples' own loop."""
    told = {}
    for size in sizes(64):
        run = partial(ganlab, folder, *DCGAN64, f"data.batch_size={size}")
        subjects = {
            "Lightning as documented": [*LOOPS, "documented", f"--size={size}"],
            "bare loop": [*LOOPS, "bare", "--plain", f"--size={size}"],
            "ganlab": run(),
            "bare loop, bf16": [*LOOPS, "bare", "--plain", "--bf16", f"--size={size}"],
            "ganlab, bf16": run(BF16),
        } | on_gpu(run)  # fmt: skip
        if "examples" in peers:
            subjects = {
                "pytorch/examples": [*LOOPS, "examples", "--path", peers["examples"], f"--size={size}"]
            } | subjects
        raced = race(subjects, rounds(), turns, images=size, gflop=gflop("dcgan64", size))
        told[f"DCGAN 64x64, batch {size}"] = raced
    return told


def sngan(folder: str, turns: int, peers: dict[str, str]) -> Told:
    """Against a bare loop, mimicry's own and StudioGAN's."""
    told = {}
    for size in sizes(16):
        run = partial(ganlab, folder, *SNGAN32, f"data.batch_size={size}")
        own = {name: [*LOOPS, name, "--path", peers[name], f"--size={size}"] for name in PEERS if name in peers}
        subjects = own | {
            "bare loop": [*LOOPS, "bare", "--plain", "--nets=sngan32", f"--size={size}"],
            "ganlab": run(),
            "ganlab, bf16": run(BF16),
            "ganlab, bf16, together=true": run(BF16, "together=true"),
        } | on_gpu(run)  # fmt: skip
        raced = race(subjects, rounds(), turns, images=size, gflop=gflop("sngan32", size))
        told[f"SNGAN 32x32, batch {size}"] = raced
    return told


def sizes(on_a_cpu: int) -> tuple[int, ...]:
    return (64, 256) if torch.cuda.is_available() else (on_a_cpu,)


def rounds() -> int:
    return 512 if torch.cuda.is_available() else 8


def on_gpu(run: Callable[..., list[str]]) -> dict[str, list[str]]:
    """What pays there alone."""
    if not torch.cuda.is_available():
        return {}
    graph, compiled = "speed.graph=true", "speed.compile=true"
    more = {"graph": (graph,), "bf16, graph": (BF16, graph), "bf16, compile": (BF16, compiled)}
    return {f"ganlab, {name}": run(*overrides) for name, overrides in more.items()}


PACE = "The machine: products of 4096 x 4096 matrices, convolutions 3x3 of 64 images 32x32 with 256 channels"


def pace(folder: str, turns: int, peers: dict[str, str]) -> Told:
    """The machine's own."""
    told = {}
    for loop, gflop_of_round in (("matmul", 2 * 4.096**3), ("convolution", 2 * 9 * 256**2 * 64 * 32**2 / 1e9)):
        subjects = {f"{loop}, float32": [*LOOPS, loop], f"{loop}, bfloat16": [*LOOPS, loop, "--bf16"]}
        told |= race(subjects, 4, turns, gflop=gflop_of_round)
    return {PACE: told}


def cost(folder: str, turns: int, peers: dict[str, str]) -> Told:
    """What ganlab and Lightning cost by themselves: nets of next to no cost."""
    subjects = {
        "bare loop": [*LOOPS, "bare", "--nets=tiny", "--size=16"],
        "ganlab": ganlab(folder, *TINY),
        "ganlab, speed.rounds=64": ganlab(folder, *TINY, "speed.rounds=64"),
        "ganlab, speed.graph=true": ganlab(folder, *TINY, "speed.graph=true"),
        "ganlab, speed.graph=true speed.rounds=64": ganlab(folder, *TINY, "speed.graph=true", "speed.rounds=64"),
        "Lightning as documented": [*LOOPS, "documented", "--nets=tiny", "--size=16"],
    }
    return {"Nets of next to no cost: what the loop takes": race(subjects, 1024, turns, threads=1)}


def memory(folder: str, turns: int, peers: dict[str, str]) -> Told:
    """Peak memory above what is resident after imports, the same data on both sides."""
    tell = "import sys, atexit; atexit.register(lambda: print('modules', *sys.modules)); "
    tell += "from ganlab.train import main; main()"
    run = [
        "-c",
        tell,
        *TINY,
        "max_kimg=1",
        "metrics.enabled=false",
        f"hydra.run.dir={tempfile.mkdtemp(dir=folder)}/run",
    ]
    done = subprocess.run([sys.executable, *run], capture_output=True, text=True, check=True)
    modules = done.stdout.rsplit("modules ", 1)[1].split()
    imports = {"bare loop": "import benchmarks.loops", "ganlab": IMPORT.format([m for m in modules if m != "__main__"])}
    base = {name: memory_of(code) for name, code in imports.items()}
    subjects = {
        "bare loop": [*LOOPS, "bare", "--plain"],
        "ganlab": ganlab(folder, *DCGAN64, "data.batch_size=64"),
    }
    told = race(subjects, 8, min(turns, 3), images=64)
    for name, measured in told.items():
        for turn in measured:
            turn["mb"] -= base[name]
    return {"DCGAN 64x64, batch 64: memory above imports": told}


def growth(folder: str, turns: int, peers: dict[str, str]) -> Told:
    """Images/s of ganlab alone as one thing grows."""
    base = {"data.batch_size": 64, "data.size": 32, "generator.width": 32, "trainer.devices": 1}

    def raced(key: str, values: list[int]) -> dict[str, Turns]:
        subjects, results = {}, {}
        for value in values:
            changes = base | {key: value} | ({"discriminator.width": value} if key == "generator.width" else {})
            changes = {"discriminator.width": 32} | changes
            overrides = [f"{k}={v}" for k, v in changes.items()]
            subjects[f"{key}={value}"] = ganlab(folder, *DCGAN64, *overrides, "trainer.accelerator=auto")
        results = race(subjects, 8, turns)
        for value, measured in zip(values, results.values(), strict=True):
            for turn in measured:
                turn["images"] = value if key == "data.batch_size" else 64
        return results

    grows = {"data.batch_size": [16, 64, 256], "generator.width": [16, 32, 64], "data.size": [32, 64, 128]}
    told: Told = {f"Growth of {key}": raced(key, values) for key, values in grows.items()}
    cores = len(os.sched_getaffinity(0))
    one = {"OMP_NUM_THREADS": str(max(cores // 2, 1))}
    two = {f"{n} process(es)": ganlab(folder, *DCGAN64, "data.size=32", f"trainer.devices={n}") for n in (1, 2)}
    told["One process, and two with half of the cores each"] = race(
        two, 8, turns, env={"2 process(es)": one}, images=64
    )
    return told


PARTS: dict[str, Any] = {"dcgan": dcgan, "sngan": sngan, "pace": pace, "cost": cost, "memory": memory, "growth": growth}
