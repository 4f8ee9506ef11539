"""What scores cost: `python -m benchmarks scores` races features and the Frechet distance against other libraries;
`python -m benchmarks.scores together [--n 50000]` times all scores that read features, of n made ones with 2,048
columns against n others.
"""

import argparse
import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import scipy.linalg
import torch
import torch_fidelity.feature_extractor_inceptionv3 as fidelity
from torchmetrics.image import fid as theirs

from benchmarks.race import Gate, race
from ganlab.metrics.diversity import Diversity, InceptionScore, Vendi
from ganlab.metrics.frechet import FID, frechet_distance
from ganlab.metrics.kernels import CMMD, KID
from ganlab.metrics.neighbours import PRDC, Memorization
from ganlab.metrics.networks import Inception
from ganlab.metrics.pairs import PairScore, sweep
from ganlab.metrics.scores import Scores

BATCH, COLUMNS = 32, 2048


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wait() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def weights(folder: str) -> str:
    torch.manual_seed(0)
    with (
        mock.patch.object(fidelity, "load_state_dict_from_url"),
        mock.patch.object(fidelity.FeatureExtractorInceptionV3, "load_state_dict"),
    ):
        net = fidelity.FeatureExtractorInceptionV3("inception", ["2048"])
    path = str(Path(folder) / "inception.pth")
    torch.save(net.state_dict(), path)
    return path


def scores(folder: str, turns: int, peers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """(5): a batch of features, and a distance, by ganlab and by others."""
    path, here = weights(folder), ["-m", "benchmarks.scores"]
    ways = {"torchmetrics": "torchmetrics", "torch-fidelity": "torch-fidelity", "ganlab": "32", "ganlab bf16": "bf16"}
    told = {f"Inception's features of {BATCH} images": race({k: [*here, v, path] for k, v in ways.items()}, 1, turns)}
    values = {name: compute() for name, compute in distances().items()}
    print(*(f"Frechet distance by {name}: {value:.9g}" for name, value in values.items()), sep="\n")
    if max(values.values()) - min(values.values()) > 1e-6 * values["ganlab"]:
        raise ArithmeticError(f"the distances differ: {values}")
    title = f"Frechet distance, {COLUMNS:,} columns, float64: {values['ganlab']:.8g} by all"
    return told | {title: race({name: [*here, "distance", name] for name in values}, 1, turns)}


@torch.no_grad()
def subject(way: str, argument: str) -> None:
    """Runs one batch, or one distance, after the other."""
    gate = Gate()
    compute = distances()[argument] if way == "distance" else features(way, argument)
    while True:
        compute()
        gate.passed()


def features(way: str, path: str) -> Callable[[], Any]:
    x = torch.randint(0, 256, (BATCH, 3, 32, 32), dtype=torch.uint8, device=device())
    if way == "torchmetrics":
        net: Any = theirs.NoTrainInceptionV3("inception-v3-compat", ["2048"], path)
    elif way == "torch-fidelity":
        net = fidelity.FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=path)
    else:
        net = Inception(weights=path, precision="bf16" if way == "bf16" else 32)
        net.prepare()
    net.to(device())
    return lambda: net(x)


def distances() -> dict[str, Callable[[], float]]:
    """{whose: the distance of two Gaussians}, in float64."""
    generator = torch.Generator().manual_seed(0)
    sides = []
    for extent in (1.0, 1.1):
        x = extent * torch.randn(2 * COLUMNS, COLUMNS, generator=generator).double().relu_()
        sides += [x.mean(0).to(device()), x.T.cov().to(device())]
    mean1, covariance1, mean2, covariance2 = (side.cpu().numpy() for side in sides)

    def by_square_root() -> float:
        """As pytorch-fid."""
        root = scipy.linalg.sqrtm(covariance1 @ covariance2).real
        return float(((mean1 - mean2) ** 2).sum() + np.trace(covariance1 + covariance2 - 2 * root))

    return {
        "torchmetrics": lambda: theirs._compute_fid(*sides).item(),
        "scipy": by_square_root,
        "ganlab": lambda: frechet_distance(*sides).item(),
    }


@torch.no_grad()
def together(n: int) -> None:
    """How long all scores take that read features, and how much memory."""
    generator = torch.Generator().manual_seed(0)
    made = {
        "fid": FID(), "sfid": FID("spatial"), "kid": KID(), "kid_rbf": KID(kernel="rbf"), "is": InceptionScore(),
        "vendi": Vendi(), "diversity": Diversity(), "prdc": PRDC(), "memorization": Memorization(), "cmmd": CMMD(),
    }  # fmt: skip
    metric = Scores(made, {"features": 2048, "spatial": 2023, "logits": 1008}).to(device())
    start = wait()
    for side in (True, False):
        for first in range(0, n, 500):
            x = torch.randn(min(500, n - first), 2048, generator=generator).relu_().to(device()) + (0.05 if side else 0)
            metric.update({"features": x, "spatial": x[:, :2023], "logits": x[:, :1008]}, real=side)
    print(f"all scores of {n:,} features against {n:,}, 2,048 columns, on {device()}")
    print(f"  {'sums and rows':<15} {wait() - start:8.1f} s (features made on the way)")
    start = begun = wait()
    real, fake = metric.kept(real=True), metric.kept(real=False)
    pairs = [score for score in made.values() if isinstance(score, PairScore)]
    sweep(pairs, real.rows(), fake.rows())
    print(f"  {'pairs':<15} {wait() - start:8.1f} s (of prdc, memorization, cmmd together)")
    for name, score in made.items():
        start = wait()
        values = score(real, fake)
        print(f"  {name:<15} {wait() - start:8.1f} s   " + ", ".join(f"{k} {v:.5g}" for k, v in values.items()))
    spent = wait() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    on_gpu = f", {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB on the GPU" if torch.cuda.is_available() else ""
    print(f"  {'together':<15} {spent:8.1f} s, peak memory of the process {peak:.2f} GiB{on_gpu}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", help="together; in a race: features' way, or distance")
    parser.add_argument("argument", nargs="?", help="in a race: the file of the weights, or whose distance")
    parser.add_argument("--n", type=int, default=50_000)
    given = parser.parse_args()
    if given.way == "together":
        together(given.n)
    else:
        subject(given.way, given.argument)
