"""How well missing cells are filled in: python -m benchmarks.impute_tables RUN [RUN ...]

Of the table that the runs were trained on (model=gain, data.hide=0.2): root mean squared error of the cells that were
kept from training, numbers scaled to [0, 1]; of scikit-learn's imputers on the same table with the same cells missing,
and of the last checkpoint of each run. Prints a table, with the seconds that each imputer took.
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

from ganlab.columns import spans
from ganlab.settings import made
from ganlab.sharing import load

IMPUTERS: dict[str, Any] = {
    "mean": lambda: SimpleImputer(strategy="mean"),
    "median": lambda: SimpleImputer(strategy="median"),
    "iterative, ridge regression (sklearn)": lambda: IterativeImputer(random_state=0, max_iter=10),
    "5 nearest neighbours (sklearn)": lambda: KNNImputer(n_neighbors=5),
}


@torch.no_grad()
def completed(run: Path, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the run's G_ema makes of the table."""
    sampler = load(run / "checkpoints" / "last.ckpt")
    parts = torch.arange(len(batch["real"])).split(2000)
    made = [sampler.reconstruct({k: v[rows] for k, v in batch.items()}, int(rows[0]))["fake"] for rows in parts]
    return torch.cat(made)


def main() -> None:
    runs = [Path(run) for run in sys.argv[1:]]
    config = yaml.safe_load((runs[0] / "config.yaml").read_text())
    data = made(config["data"])
    samples = data.split("train")
    batch = samples.take(torch.arange(len(samples)))
    numbers = [i for i, _, kind in spans(data.columns()) if kind == "number"]
    if len(numbers) < batch["real"].shape[1]:
        raise SystemExit("scikit-learn's imputers are for numbers, and this table has categories")
    hidden = ~batch["given"] & ~batch["real"].isnan()

    def rmse(x: torch.Tensor) -> float:
        return (x.double() - batch["real"].double())[hidden].square().mean().sqrt().item()

    print(f"{data.title}: {len(samples):,} rows, {100 * data.hide:g} % of the cells missing\n")
    print("| method | RMSE | seconds |\n|---|---|---|", flush=True)
    holes = np.where(batch["given"].numpy(), batch["real"].numpy(), np.nan).astype(np.float64)
    for name, imputer in IMPUTERS.items():
        start = time.process_time()
        x = torch.from_numpy(imputer().fit_transform(holes))
        print(f"| {name} | {rmse(x):.4f} | {time.process_time() - start:.1f} |", flush=True)
    for run in runs:
        settings = yaml.safe_load((run / "config.yaml").read_text())
        told = settings["generator"]
        name = f"GAIN, width {told['width'] or 'as in the paper'}, drop {told['drop']:g}, seed {settings['seed']}"
        print(f"| {name} | {rmse(completed(run, batch)):.4f} | |", flush=True)


if __name__ == "__main__":
    main()
