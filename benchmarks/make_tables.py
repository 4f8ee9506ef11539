"""What made rows are worth: python -m benchmarks.make_tables made RUN [RUN ...]
                           python -m benchmarks.make_tables rare FOLDER [SEED ...]

made   of runs of model=ctgan on the made table, whose law is known: how far 20,000 rows of each lie from the truth, in
       margins and in pairs of columns; beside as many rows whose columns were drawn apart from one another, and the
       training rows themselves.
rare   scikit-learn's breast cancer, half of it a test part, of the other half so few malignant cases kept that they
       are 5 % of the rows. A CTGAN is trained on these (into FOLDER, unless it is there) and asked for malignant cases
       until both classes are equally frequent; classifiers learn from real rows alone, with class weights, with SMOTE's
       rows and with CTGAN's, and are judged by balanced accuracy on the test part. Needs imbalanced-learn.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from ganlab.columns import decode
from ganlab.data.mixed_table import truth
from ganlab.media.rows import write_csv
from ganlab.metrics.tables import associations
from ganlab.settings import made
from ganlab.sharing import load

ROWS = 20_000
KIMG = 600


def rows_of(run: Path, n: int, label: str | None = None) -> torch.Tensor:
    """[n, columns] values that the run's last checkpoint makes, of one category where one is asked for."""
    sampler, parts = load(run / "checkpoints" / "last.ckpt"), []
    for first in range(0, n, 2000):
        count = min(2000, n - first)
        cond = torch.full((count,), sampler.task.names.index(label)) if label else None
        parts.append(decode(sampler.generate(first, count, cond=cond), sampler.task.medium.columns))
    return torch.cat(parts)


# ------------------------------------------------------------------------------------------------------- the made table


def far(values: torch.Tensor, columns: list[Any]) -> list[float]:
    """From the truth: means, in deviations; deviations, as a share; shares of categories; associations, on average and
    at most."""
    known = truth()
    at = {column["name"]: i for i, column in enumerate(columns)}
    means = [abs(values[:, at[n]].mean().item() - m) / known["deviation"][n] for n, m in known["mean"].items()]
    spreads = [abs(values[:, at[n]].std().item() / d - 1) for n, d in known["deviation"].items()]
    apart = []
    for name, shares in known["shares"].items():
        found = [(values[:, at[name]] == columns[at[name]]["values"].index(v)).double().mean().item() for v in shares]
        apart.append(sum(abs(a - b) for a, b in zip(found, shares.values(), strict=True)) / 2)
    pairs = known["association"]
    found_pairs = associations(values, columns)
    gaps = [abs(v - pairs.get(pair, pairs.get(pair[::-1]))) for pair, v in found_pairs.items()]
    of = lambda x: sum(x) / len(x)
    return [of(means), of(spreads), of(apart), of(gaps), max(gaps)]


def of_made(runs: list[Path]) -> None:
    data = made(yaml.safe_load((runs[0] / "config.yaml").read_text())["data"])
    columns = data.columns()
    real = decode(data.split("train").rows, columns)
    generator = torch.Generator().manual_seed(0)
    apart = [real[torch.randint(len(real), (ROWS,), generator=generator), i] for i in range(real.shape[1])]
    print("| rows | mean | deviation | shares | associations | the worst |\n|---|---|---|---|---|---|")
    sides = {f"the {len(real):,} training rows": real, "columns drawn apart": torch.stack(apart, 1)}
    for name, values in sides.items():
        print(f"| {name} | {' | '.join(f'{v:.3f}' for v in far(values, columns))} |")
    for run in runs:
        seed = yaml.safe_load((run / "config.yaml").read_text())["seed"]
        found = far(rows_of(run, ROWS), columns)
        print(f"| CTGAN, seed {seed} | {' | '.join(f'{v:.3f}' for v in found)} |", flush=True)


# ----------------------------------------------------------------------------------------------------------- rare cases


def split(seed: int) -> tuple[Any, Any, Any, Any, list[str]]:
    """(training rows and classes, test rows and classes, names); class 1 is malignant and 5 % of the training rows."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import train_test_split

    cancer: Any = load_breast_cancer()
    x, y = cancer.data, 1 - cancer.target
    x, test_x, y, test_y = train_test_split(x, y, test_size=0.5, stratify=y, random_state=seed)
    keep = round(0.05 / 0.95 * (y == 0).sum())
    rare = np.flatnonzero(y == 1)[:keep]
    kept = np.sort(np.concatenate([np.flatnonzero(y == 0), rare]))
    return x[kept], y[kept], test_x, test_y, [str(name) for name in cancer.feature_names]


def trained(folder: Path, seed: int, x: Any, y: Any, names: list[str]) -> Path:
    """The run of a CTGAN on these rows."""
    run = folder / f"run_{seed}"
    if not (run / "result.json").exists():
        text = {name: [f"{v:.4g}" for v in x[:, i]] for i, name in enumerate(names)}
        write_csv(folder / f"train_{seed}.csv", text | {"class": ["malignant" if c else "benign" for c in y]})
        keys = ["model=ctgan", "data=table", f"data.root={folder}/train_{seed}.csv", "data.label=class"]
        keys += [f"max_kimg={KIMG}", "metrics.enabled=false", "log_every=20", "trainer=cpu", f"seed={seed}"]
        subprocess.run([sys.executable, "-m", "ganlab", *keys, f"hydra.run.dir={run}"], check=True)
    return run


def methods(run: Path, x: Any, y: Any, names: list[str], seed: int) -> Iterator[tuple[str, Any, Any, bool]]:
    """(name, rows, classes, whether classes are weighted)"""
    from imblearn.over_sampling import SMOTE

    yield "real rows", x, y, False
    yield "real rows, weighted classes", x, y, True
    yield "and SMOTE's", *SMOTE(random_state=seed).fit_resample(x, y), False
    wanted = int((y == 0).sum() - (y == 1).sum())
    columns = load(run / "checkpoints" / "last.ckpt").task.medium.columns
    at = [next(i for i, column in enumerate(columns) if column["name"] == name) for name in names]
    rare = rows_of(run, wanted, "class=malignant").numpy()[:, at]
    yield "and CTGAN's", np.concatenate([x, rare]), np.concatenate([y, np.ones(wanted, int)]), False


def of_rare(folder: Path, seeds: list[int]) -> None:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score, recall_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folder.mkdir(parents=True, exist_ok=True)
    kinds: dict[str, Callable[..., Any]] = {
        "logistic regression": lambda **more: make_pipeline(
            StandardScaler(), LogisticRegression(max_iter=5000, **more)
        ),
        "random forest": lambda **more: RandomForestClassifier(300, random_state=0, **more),
    }
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for seed in seeds:
        x, y, test_x, test_y, names = split(seed)
        run = trained(folder, seed, x, y, names)
        print(f"seed {seed}: {len(y)} training rows, {(y == 1).sum()} malignant; {len(test_y)} test rows", flush=True)
        for method, rows, classes, weighted in methods(run, x, y, names, seed):
            for kind, make in kinds.items():
                said = make(class_weight="balanced" if weighted else None).fit(rows, classes).predict(test_x)
                score = balanced_accuracy_score(test_y, said), recall_score(test_y, said)
                found.setdefault((kind, method), []).append(score)
    print(
        "\n| classifier | learned from | balanced accuracy, by seed | mean | malignant found |\n|---|---|---|---|---|"
    )
    for (kind, method), scores in found.items():
        accuracy, recall = zip(*scores, strict=True)
        each = ", ".join(f"{v:.3f}" for v in accuracy)
        print(f"| {kind} | {method} | {each} | {np.mean(accuracy):.3f} | {np.mean(recall):.3f} |")


def main() -> None:
    part, first, *more = sys.argv[1:]
    if part == "made":
        of_made([Path(run) for run in (first, *more)])
    else:
        of_rare(Path(first), [int(seed) for seed in more] or [1, 2, 3])


if __name__ == "__main__":
    main()
