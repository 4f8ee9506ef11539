"""Draws how a score goes on over training, one colour for each method, one line for each seed:
python benchmarks/few_images.py RUNS docs/few_images.png, RUNS having a folder METHOD/SEED for each run.

Prints a table: the best score of each run, when it was, and the last.
"""

import csv
import sys
from pathlib import Path

import matplotlib.pyplot as plt


def curve(run: Path) -> tuple[str, list[float], list[float]]:
    """(name of the score, kimg, values)"""
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    (name,) = [key for key in rows[0] if key.startswith("score/")]
    points = [(float(row["kimg"]), float(row[name])) for row in rows if row[name]]
    return name.removeprefix("score/"), *map(list, zip(*points, strict=True))


def main(runs: Path, picture: Path) -> None:
    methods = sorted({path.parent.parent.name for path in runs.glob("*/*/metrics.csv")})
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for color, method in zip(plt.rcParams["axes.prop_cycle"].by_key()["color"], methods, strict=False):
        for i, run in enumerate(sorted((runs / method).iterdir())):
            name, kimg, values = curve(run)
            axes.plot(kimg, values, color=color, label=method if i == 0 else None)
            best = min(values)
            print(
                f"| {method} | {run.name} | {best:.1f} at {kimg[values.index(best)]:.0f} kimg | {values[-1]:.1f} "
                f"at {kimg[-1]:.0f} kimg |"
            )
    axes.set(xlabel="kimg", ylabel=name)
    axes.set_ylim(0)
    axes.legend()
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
