"""Curves of healthy runs and of runs that fail on purpose: draws docs/curves.png and prints where each ended.

python -m benchmarks.curves RUNS [docs/curves.png]: makes the runs that are not in the folder RUNS yet, on digits, about
six minutes on 2 CPU cores. Needs matplotlib.
"""

import csv
import json
import subprocess
import sys
from pathlib import Path

RUNS = {
    "healthy": ["max_kimg=100"],
    "critic (WGAN-GP)": ["model=wgan_gp", "max_kimg=100", "generator.width=16", "discriminator.width=16"],
    "few images": ["max_kimg=100", "data.count=200", "terms=[]"],
    "learning rate x 100": ["max_kimg=100", "optimizer.lr=0.02"],
    "D frozen": ["max_kimg=100", "stop.D=20"],
    "G frozen": ["max_kimg=100", "stop.G=20", "terms=[]"],
}
WATCHDOG = ["callbacks.watchdog.rules.steps.action=warn", "callbacks.watchdog.rules.nan.action=warn"]
ROWS = {
    "loss": {"loss/D/adversarial": "D", "loss/G/adversarial": "G"},
    "D's logits": {"D/logit_real": "reals", "D/logit_fake": "fakes"},
    "gradient norm": {"gradient_norm/D": "D", "gradient_norm/G": "G"},
    "FID, classifier": {"score/fid10k_classifier": "G_ema"},
}


def made(folder: Path, overrides: list[str]) -> list[dict[str, str]]:
    """Rows of the run's metrics.csv."""
    if not (folder / "result.json").exists():
        command = [sys.executable, "-m", "ganlab", *overrides, *WATCHDOG, "metrics.every=10", f"hydra.run.dir={folder}"]
        print(" ".join(command[1:]), flush=True)
        subprocess.run([*command, "resume=auto"], check=True, stdout=subprocess.DEVNULL)
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def main(root: Path, figure: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawing, axes = pyplot.subplots(
        len(ROWS), len(RUNS), figsize=(3 * len(RUNS), 2.1 * len(ROWS)), sharex=True, layout="constrained"
    )
    for column, (name, overrides) in enumerate(RUNS.items()):
        folder = root / name.replace(" ", "_").replace("(", "").replace(")", "")
        rows = made(folder, overrides)
        for row, (what, curves) in enumerate(ROWS.items()):
            at = axes[row][column]
            for key, label in curves.items():
                points = [(float(r["kimg"]), float(r[key])) for r in rows if r.get(key)]
                at.plot(*zip(*points, strict=True), label=label, lw=1.2)
            if what in ("gradient norm", "FID, classifier"):
                at.set_yscale("log")
            if row == 0:
                at.set_title(name)
            if column == 0:
                at.set_ylabel(what)
                at.legend(fontsize=7)
        axes[-1][column].set_xlabel("kimg")
        result = json.loads((folder / "result.json").read_text())
        last = {label: rows[-1].get(key) for curves in ROWS.values() for key, label in curves.items()}
        print(f"{name}: {result['status']}, best {result.get('best')}, final {result.get('final')}, {last}")
    drawing.savefig(figure, dpi=80)


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "docs/curves.png"))
