"""python -m benchmarks [PART ...] [--peers examples=PATH mimicry=PATH]: speed, as ratios within interleaved runs."""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import inputs, scores, startup, step
from benchmarks.race import table

PARTS = step.PARTS | inputs.PARTS | {"scores": scores.scores, "start-up": startup.startup}


def about() -> dict[str, Any]:
    import torch

    capabilities = torch.cpu.get_capabilities()
    found = [name for name in ("avx2", "avx512", "avx512_bf16", "amx_bf16") if capabilities.get(name)]
    known = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in known if line.startswith("model name")), platform.machine())
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    cores = len(os.sched_getaffinity(0))
    return {
        "date": time.strftime("%Y-%m-%d"), "command": f"python -m benchmarks {' '.join(sys.argv[1:])}".strip(),
        "gpu": gpu, "cpu": f"{cpu}, {cores} cores, {' '.join(found)}", "torch": torch.__version__,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", help=", ".join(PARTS))
    parser.add_argument("--peers", nargs="*", default=[], help="NAME=PATH of checkouts: examples, mimicry")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--output", type=Path, default=None, help="folder for benchmarks.json and benchmarks.md")
    given = parser.parse_args()
    if unknown := set(given.parts) - PARTS.keys():
        parser.error(f"{', '.join(unknown)}: the parts are {', '.join(PARTS)}")
    told: dict[str, Any] = {}
    facts, peers = about(), dict(peer.split("=", 1) for peer in given.peers)
    lines = [f"{facts['date']}, {facts['gpu'] or facts['cpu']}, torch {facts['torch']}: `{facts['command']}`"]
    with tempfile.TemporaryDirectory() as folder:
        for part in given.parts or PARTS:
            for title, results in PARTS[part](folder, given.turns, peers).items():
                told[title] = results
                lines.append(table(title, results))
                print(f"\n{lines[-1]}\n", flush=True)
            if given.output:  # after each part: all of them take long
                given.output.mkdir(parents=True, exist_ok=True)
                (given.output / "benchmarks.json").write_text(json.dumps({"about": facts, "races": told}, indent=1))
                (given.output / "benchmarks.md").write_text("\n\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
