"""python -m benchmarks step [--peers examples=PATH mimicry=PATH]: speed, told as ratios within one interleaved run."""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.race import race, ratios
from benchmarks.scores import scores
from benchmarks.startup import startup

LOOPS = ["-m", "benchmarks.loops"]
PARTS = {"scores": scores, "start-up": startup}


def ganlab(folder: str, *overrides: str) -> list[str]:
    """A run as a user starts it, everything on but scores."""
    return [
        "-m", "ganlab", "metrics.enabled=false", f"hydra.run.dir={tempfile.mkdtemp(dir=folder)}/run", "max_kimg=1e9",
        "lr_schedule=constant", "+callbacks.gate={_target_: benchmarks.race.GateCallback}", *overrides,
    ]  # fmt: skip


DCGAN64 = ("model=dcgan", "data=digits", "data.size=64", "data.channels=3", "terms=[]", "share_fake=true", "ema=none")
SNGAN32 = ("model=sngan", "data=digits", "data.size=32", "data.channels=3", "terms=[]", "n_critic=1", "ema=none")


def step(folder: str, peers: dict[str, str], turns: int) -> dict[str, Any]:
    """(1), (2), (3): one round against a bare loop, Lightning as documented, and the peers' own loops."""
    told = {}
    dcgan = {
        "bare loop": [*LOOPS, "bare"],
        "Lightning as documented": [*LOOPS, "documented"],
        "ganlab": ganlab(folder, *DCGAN64, "data.batch_size=64"),
        "ganlab bf16": ganlab(folder, *DCGAN64, "data.batch_size=64", "trainer.precision=bf16-mixed"),
    }
    if "examples" in peers:
        dcgan = {"pytorch/examples": [*LOOPS, "examples", "--path", peers["examples"]]} | dcgan
    told["DCGAN 64x64, batch 64"] = race(dcgan, 8, turns)
    sngan = {
        "bare loop": [*LOOPS, "bare", "--nets=sngan32", "--size=16"],
        "ganlab": ganlab(folder, *SNGAN32, "data.batch_size=16"),
        "ganlab bf16": ganlab(folder, *SNGAN32, "data.batch_size=16", "trainer.precision=bf16-mixed"),
    }
    if "mimicry" in peers:
        sngan = {"mimicry": [*LOOPS, "mimicry", "--path", peers["mimicry"], "--size=16"]} | sngan
    told["SNGAN 32x32, batch 16"] = race(sngan, 8, turns)
    return told


def cost(folder: str, turns: int) -> dict[str, Any]:
    """What ganlab and Lightning cost by themselves: nets of next to no cost."""
    tiny = ("model=mlp", "data=toy", "generator.width=8", "discriminator.width=8", "data.batch_size=16", "ema=none")
    subjects = {
        "bare loop": [*LOOPS, "bare", "--nets=tiny", "--size=16", "--frozen"],
        "Lightning as documented": [*LOOPS, "documented", "--nets=tiny", "--size=16"],
        "ganlab": ganlab(folder, *tiny),
        "ganlab, 64 rounds a step": ganlab(folder, *tiny, "speed.rounds=64"),
    }
    return {"nets of next to no cost": race(subjects, 2048, turns)}


def table(title: str, results: dict[str, list[dict[str, float]]]) -> str:
    base = next(iter(results))
    lines = [f"### {title}", "", f"| | ms per round | speed, {base} = 1 | MB above imports |", "|---|---|---|---|"]
    for name, turns in results.items():
        low, middle, high = ratios(results, base, name)
        ms = 1000 * statistics.median(turn["seconds"] for turn in turns)
        mb = max(turn["mb"] for turn in turns)
        lines.append(f"| {name} | {ms:.3g} | {middle:.2f} ({low:.2f} to {high:.2f}) | {mb:,.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", default=["step", "cost"], help="step, cost, scores, start-up")
    parser.add_argument("--peers", nargs="*", default=[], help="NAME=PATH of checkouts: examples, mimicry")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--output", type=Path, default=None, help="folder for performance.json and performance.md")
    given = parser.parse_args()
    told: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for part in given.parts:
            if part == "step":
                told |= step(folder, dict(peer.split("=", 1) for peer in given.peers), given.turns)
            elif part == "cost":
                told |= cost(folder, given.turns)
            elif part in PARTS:
                told |= PARTS[part](folder, given.turns, {})
            else:
                sys.exit(f"error: {part}: there are the parts step, cost, {', '.join(PARTS)}")
    text = "\n\n".join(table(title, results) for title, results in told.items())
    print(f"\n{text}")
    if given.output:
        about = {"date": time.strftime("%Y-%m-%d"), "machine": platform.processor(), "cores": len(os.sched_getaffinity(0))}
        (given.output / "performance.json").write_text(json.dumps({"about": about, "races": told}, indent=1))
        (given.output / "performance.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
