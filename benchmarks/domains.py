"""How much of the gap adaptation closes: python -m benchmarks.domains RUNS

RUNS has folders dann-SEED, source-SEED (learned from the source alone) and target-SEED (from the target's own labels).
Prints a table: accuracy on the target's test part at the end, G_ema; and the curves over kimg.
"""

import json
import sys
from pathlib import Path


def history(folder: Path) -> list[tuple[float, float]]:
    return [(e["kimg"], e["accuracy"]) for e in json.loads((folder / "scores.json").read_text())["history"]]


def main(runs: Path) -> None:
    seeds = sorted(path.name.rpartition("-")[2] for path in runs.glob("dann-*"))
    print("| seed | source alone | adapted | target's labels | share of the gap that is closed | seconds |")
    print("|---|---|---|---|---|---|")
    for seed in seeds:
        low, mid, high = (history(runs / f"{kind}-{seed}")[-1][1] for kind in ("source", "dann", "target"))
        times = [
            json.loads((runs / f"{k}-{seed}" / "result.json").read_text())["seconds"]
            for k in ("source", "dann", "target")
        ]
        cells = [f"{100 * v:.1f} %" for v in (low, mid, high, (mid - low) / (high - low))]
        print(f"| {seed} | {' | '.join(cells)} | {', '.join(f'{t:.0f}' for t in times)} |")
    print()
    for path in sorted(runs.glob("*-*")):
        print(f"{path.name:<12}", " ".join(f"{kimg:.0f}:{100 * v:.1f}" for kimg, v in history(path)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
