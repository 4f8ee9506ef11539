"""Draws how a score goes on over training, one colour for each method, one line for each seed:
python benchmarks/few_images.py RUNS docs/few_images.png, RUNS having a folder METHOD/SEED for each run.

Prints a table: of each run the lowest score up to 60 kimg, the highest after it, and the last.
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
            points = list(zip(values, kimg, strict=True))
            low = min(point for point in points if point[1] <= 60)
            high = max(points[points.index(low) :])
            columns = " | ".join(f"{value:.1f} at {when:.0f} kimg" for value, when in (low, high, points[-1]))
            print(f"| {method} | {run.name} | {columns} |")
    axes.set(xlabel="kimg", ylabel=name, yscale="log")
    axes.legend()
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
