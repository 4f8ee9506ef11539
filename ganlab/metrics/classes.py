"""Scores by class: of generators that are told a label, and of labelled images."""

import math

import torch

from ganlab.metrics.extractors import convolutional
from ganlab.metrics.fit import accuracy, fit_classifier
from ganlab.metrics.frechet import frechet_distance
from ganlab.metrics.scores import Given, Kept, Score
from ganlab.rng import reseed


class IntraFID(Score):
    """Mean over the classes of the Frechet distance within each (Miyato & Koyama 2018, arXiv:1802.05637, section 4),
    and that of the worst class. They are nan where a class has fewer than 2 samples."""

    reads = {"features": "rows", "labels": "rows"}
    keys = ("intra_fid", "intra_fid_worst")

    def check(self, given: Given) -> None:
        given.squarable("features", "scores.intra_fid")
        for side, n in (("reals", given.n_real), ("fakes", given.n_fake)):
            if given.classes and n is not None and n < 10 * given.classes:
                raise ValueError(
                    f"scores.intra_fid: {n} {side} are too few for {given.classes} classes, 10 each are needed"
                )

    def __call__(self, real: Kept, fake: Kept) -> dict[str, float]:
        values = []
        for label in real.rows("labels")[:, 0].unique().tolist():
            members = [kept.rows()[kept.rows("labels")[:, 0] == label].double() for kept in (real, fake)]
            if min(map(len, members)) < 2:
                return dict.fromkeys(self.keys, math.nan)
            sides = [part for x in members for part in (x.mean(0), torch.cov(x.T))]
            values.append(frechet_distance(*sides).item())
        return {"intra_fid": sum(values) / len(values), "intra_fid_worst": max(values)}


class Recognised(Score):
    """The share of fakes that the extractor's own classifier takes for the class that G was asked for, and that of the
    class that it recognises least."""

    reads = {"logits": "rows", "labels": "rows"}
    reals = False
    higher_is_better = True
    keys = ("recognised", "recognised_worst")

    def __call__(self, real: Kept, fake: Kept) -> dict[str, float]:
        labels = fake.rows("labels")[:, 0]
        right = (fake.rows("logits").argmax(1) == labels).double()
        worst = min(right[labels == label].mean().item() for label in labels.unique())
        return dict(zip(self.keys, (right.mean().item(), worst), strict=True))


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

    def check(self, given: Given) -> None:
        if given.n_fake < 128:
            raise ValueError(f"scores.cas: {given.n_fake} fakes are too few to learn from, 128 are needed")

    def __call__(self, real: Kept, fake: Kept) -> dict[str, float]:
        images, labels = fake.rows("images"), fake.rows("labels")[:, 0]
        classes = int(max(labels.max(), real.rows("labels").max())) + 1
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            reseed(self.seed, torch.device("cpu"))
            net = convolutional(images.shape[1], 128, classes).to(images.device)
            epochs = self.epochs or max(2, min(40, 1500 * 128 // fake.n))
            fit_classifier(net, images, labels, epochs=epochs, seed=self.seed)
        return {"cas": accuracy(net, real.rows("images"), real.rows("labels")[:, 0])}
