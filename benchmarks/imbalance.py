"""Scores by class of generators that were trained on an imbalanced set: python benchmarks/imbalance.py RUNS

RUNS has a folder METHOD/SEED for each run, all on data=digits.

For each class 500 samples of G_ema against all of the set's images of it, through the set's own classifier: the Frechet
distance, and the share that is recognised as that class. Prints a table: means over the seeds.
"""

import sys
from pathlib import Path

import torch

from ganlab.checkpoint import Sampler
from ganlab.data.sets import Digits
from ganlab.metrics.extractors import Classifier
from ganlab.metrics.frechet import FID
from ganlab.metrics.scores import Scores


@torch.no_grad()
def by_class(checkpoint: Path, extractor: Classifier, reals: dict[str, torch.Tensor]) -> list[tuple[float, float]]:
    sampler, found = Sampler.load(checkpoint), []
    for label in range(10):
        seen = extractor(sampler.generate(500 * label, 500, cond=torch.full((500,), label)))
        metric = Scores({"fid": FID()}, {"features": seen["features"].shape[1]})
        metric.update({"features": extractor(reals["real"][reals["label"] == label])["features"]}, real=True)
        metric.update({"features": seen["features"]}, real=False)
        recognised = (seen["logits"].argmax(1) == label).float().mean().item()
        found.append((metric.compute()["fid"], recognised))
    return found


def main(runs: Path) -> None:
    data, extractor = Digits(size=16), Classifier()
    extractor.prepare(data)
    reals = data.split("train").take(torch.arange(len(data.split("train"))))
    print(f"through {extractor.describe()}\n")
    print(f"| method | | {' | '.join(map(str, range(10)))} | mean |\n|{'---|' * 13}")
    for method in sorted(path for path in runs.iterdir() if path.is_dir()):
        scores = torch.tensor(
            [by_class(path, extractor, reals) for path in sorted(method.glob("*/checkpoints/last.ckpt"))]
        )
        distance, recognised = scores.mean(0).unbind(1)
        print(f"| {method.name} | distance | {' | '.join(f'{v:.0f}' for v in distance)} | {distance.mean():.1f} |")
        print(
            f"| | recognised, % | {' | '.join(f'{100 * v:.0f}' for v in recognised)} | {100 * recognised.mean():.1f} |"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
