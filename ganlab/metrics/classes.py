"""Scores by class: of generators that are told a label, and of labelled images."""

from collections.abc import Mapping

import torch

from ganlab.metrics.extractors import convolutional
from ganlab.metrics.fit import accuracy, fit_classifier
from ganlab.metrics.frechet import frechet_distance
from ganlab.metrics.scores import Kept, Score


class IntraFID(Score):
    """Mean over the classes of the Frechet distance within each (Miyato & Koyama 2018, arXiv:1802.05637, section 4)."""

    reads = {"features": "rows", "labels": "rows"}
    keys = ("intra_fid",)

    def __call__(self, real: Kept, fake: Kept) -> dict[str, float]:
        values = []
        for label in real.rows("labels")[:, 0].unique().tolist():
            sides = []
            for side, kept in (("reals", real), ("fakes", fake)):
                x = kept.rows()[kept.rows("labels")[:, 0] == label].double()
                if len(x) < 2:
                    raise ValueError(f"scores.intra_fid: only {len(x)} {side} of class {label}, 2 are needed")
                sides += [x.mean(0), torch.cov(x.T)]
            values.append(frechet_distance(*sides).item())
        return {"intra_fid": sum(values) / len(values)}


class ClassificationAccuracy(Score):
    """Classification accuracy score: a classifier that has seen fakes only is asked about the reals (Ravuri & Vinyals
    2019, arXiv:1905.10887); here it is a small convolutional network.

    epochs   None: what makes about 1,500 steps
    """

    reads = {"images": "rows", "labels": "rows"}
    higher_is_better = True
    keys = ("cas",)

    def __init__(self, epochs: int | None = None, seed: int = 0):
        self.epochs, self.seed = epochs, seed

    def check(self, dims: Mapping[str, int], n_real: int | None, n_fake: int) -> None:
        if n_fake < 128:
            raise ValueError(f"scores.cas: {n_fake} fakes are too few to learn from, 128 are needed")

    def __call__(self, real: Kept, fake: Kept) -> dict[str, float]:
        images, labels = fake.rows("images"), fake.rows("labels")[:, 0]
        classes = int(max(labels.max(), real.rows("labels").max())) + 1
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(self.seed)
            net = convolutional(images.shape[1], 128, classes).to(images.device)
            epochs = self.epochs or max(2, min(40, 1500 * 128 // fake.n))
            fit_classifier(net, images, labels, epochs=epochs, seed=self.seed)
        return {"cas": accuracy(net, real.rows("images"), real.rows("labels")[:, 0])}
