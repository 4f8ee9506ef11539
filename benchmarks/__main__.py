"""python -m benchmarks [PART ...] [--peers NAME=PATH ...]: speed, as ratios within interleaved runs."""

import argparse
import json
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import inputs, scores, startup, step
from benchmarks.race import table

HEAD = """# Measurements

What `python -m benchmarks` printed, part by part; each table's ratios are of one interleaved run."""
OF_PACE = """ "Of the machine's pace":
GFLOP/s as a part of the most that it reached, in products of matrices or convolutions of the same precision."""
PARTS = step.PARTS | inputs.PARTS | {"scores": scores.scores, "start-up": startup.startup}


def about() -> dict[str, Any]:
    import torch

    capabilities = torch.cpu.get_capabilities()
    found = [name for name in ("avx2", "avx512", "avx512_bf16", "amx_bf16") if capabilities.get(name)]
    known = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in known if line.startswith("model name")), platform.machine())
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    cores = len(os.sched_getaffinity(0))
    command = re.sub("=[^ ]+", "=PATH", " ".join(["python -m benchmarks", *sys.argv[1:]]))
    return {
        "date": time.strftime("%Y-%m-%d"), "command": command,
        "gpu": gpu, "cpu": f"{cpu}, {cores} cores, {' '.join(found)}", "torch": torch.__version__,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", help=", ".join(PARTS))
    parser.add_argument("--peers", nargs="*", default=[], help="NAME=PATH of checkouts: examples, mimicry, studiogan")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument(
        "--output",
        type=Path,
        default=None,
        help="folder of benchmarks.json and benchmarks.md, in which these parts are replaced",
    )
    given = parser.parse_args()
    if unknown := set(given.parts) - PARTS.keys():
        parser.error(f"{', '.join(unknown)}: the parts are {', '.join(PARTS)}")
    facts, peers = about(), dict(peer.split("=", 1) for peer in given.peers)
    page = given.output / "benchmarks.json" if given.output else None
    known: dict[str, Any] = json.loads(page.read_text()) if page is not None and page.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for part in given.parts or PARTS:
            for title, results in PARTS[part](folder, given.turns, peers).items():
                known[title] = {"about": facts, "turns": results}
                print(f"\n{table(title, results, peaks=peaks(known, facts))}\n", flush=True)
            if page is not None:  # after each part: all of them take long
                page.parent.mkdir(parents=True, exist_ok=True)
                page.write_text(json.dumps(known, indent=1))
                page.with_suffix(".md").write_text(written(known))


def peaks(known: dict[str, Any], facts: dict[str, Any]) -> dict[bool, float] | None:
    """The most GFLOP/s that this machine reached, {False: in float32, True: in bfloat16}; None: `pace` was not run."""
    told = known.get(step.PACE)
    if told is None or any(told["about"][key] != facts[key] for key in ("gpu", "cpu", "torch")):
        return None
    most = lambda bf16: max(
        statistics.median(turn["gflop"] / turn["seconds"] for turn in turns)
        for name, turns in told["turns"].items()
        if ("bfloat16" in name) == bf16
    )
    return {False: most(False), True: most(True)}


def written(known: dict[str, Any]) -> str:
    """The page: each table below what it was measured with."""
    parts, before = [HEAD + (OF_PACE if step.PACE in known else "")], None
    for title, told in known.items():
        facts = told["about"]
        if facts != before:
            machine = f"{facts['date']}, {facts['gpu'] or facts['cpu']}, torch {facts['torch']}"
            parts.append(f"{machine}: `{facts['command']}`")
        before = facts
        parts.append(table(title, told["turns"], peaks=peaks(known, facts)))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
