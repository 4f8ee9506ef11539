"""How long scores take, and how much memory: python benchmarks/scores.py [--n 50000] [--images 2000] [--part all]

Part "extraction": the same images through the same Inception network (random weights are enough) by ganlab, by
torchmetrics' FrechetInceptionDistance and by torch-fidelity, in turns. Part "scores": all scores that read features, of
n made features with 2,048 columns against n others.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path
from unittest import mock

import torch
import torch_fidelity.feature_extractor_inceptionv3 as fidelity
from torchmetrics.image.fid import FrechetInceptionDistance

from ganlab.metrics.diversity import Diversity, InceptionScore, Vendi
from ganlab.metrics.frechet import FID
from ganlab.metrics.kernels import CMMD, KID
from ganlab.metrics.neighbours import PRDC, Memorization
from ganlab.metrics.networks import Inception
from ganlab.metrics.pairs import PairScore, sweep
from ganlab.metrics.scores import Scores


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


@torch.no_grad()
def extraction(images: int, batch: int) -> float:
    """Images per second of ganlab's extraction."""
    with tempfile.TemporaryDirectory() as folder:
        path = weights(folder)
        ours = Inception(weights=path)
        ours.prepare()
        ours.to(device())
        metric = Scores({"fid": FID()}, {"features": 2048}).to(device())
        theirs = FrechetInceptionDistance(2048, antialias=False, feature_extractor_weights_path=path).to(device())
        plain = fidelity.FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=path)
        plain.to(device())
    ways = {
        "ganlab": lambda x: metric.update(ours(x), real=False),
        "torchmetrics": lambda x: theirs.update(x, real=False),
        "torch-fidelity": plain,
    }
    x = torch.randint(0, 256, (batch, 3, 32, 32), dtype=torch.uint8, device=device())
    seconds = dict.fromkeys(ways, 0.0)
    for way in ways.values():
        way(x)
    for _ in range(-(-images // batch)):
        for name, way in ways.items():
            start = wait()
            way(x)
            seconds[name] += wait() - start
    total = -(-images // batch) * batch
    print(f"extraction of {total} images 32x32, batches of {batch}, on {device()}")
    for name, spent in seconds.items():
        print(f"  {name:<15} {total / spent:8.1f} images/s   {spent / seconds['ganlab']:.2f} times ganlab's time")
    return total / seconds["ganlab"]


@torch.no_grad()
def scores(n: int) -> float:
    """Seconds that all scores take together."""
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
    together = wait() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    on_gpu = f", {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB on the GPU" if torch.cuda.is_available() else ""
    print(f"  {'together':<15} {together:8.1f} s, peak memory of the process {peak:.2f} GiB{on_gpu}")
    return together


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=50_000)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--part", choices=["all", "extraction", "scores"], default="all")
    given = parser.parse_args()
    spent = scores(given.n) if given.part != "extraction" else None
    speed = extraction(given.images, given.batch) if given.part != "scores" else None
    if spent and speed:
        print(f"scores take {spent / (given.n / speed):.3f} of the time that extraction of {given.n:,} images takes")
