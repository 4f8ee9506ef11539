"""Classes that are not equally frequent: made so, and made up for."""

import torch
from torch import Tensor

from ganlab.rng import seed_of


def profile(classes: int, ratio: float) -> list[float]:
    """How often each class occurs, as shares of 1: falling exponentially from class to class, the last being `ratio`
    times as frequent as the first (Cui et al. 2019, arXiv:1901.05555, section 5.1)."""
    shares = [ratio ** (c / max(1, classes - 1)) for c in range(classes)]
    return [share / sum(shares) for share in shares]


def imbalanced(label: Tensor, ratio: float) -> Tensor:
    """Rows of a set with labels [N] that have this profile, as many as there can be, at least one of each class; the
    same in every run."""
    have = torch.bincount(label).tolist()
    shares = profile(len(have), ratio)
    total = min(n / share for n, share in zip(have, shares, strict=True) if n)
    order = torch.randperm(len(label), generator=torch.Generator().manual_seed(seed_of("imbalance")))
    kept = [order[label[order] == c][: max(1, round(total * share))] for c, share in enumerate(shares)]
    return torch.cat(kept).sort().values


class Balanced:
    """Rows of a set with labels [N] such that each class is drawn as often as the most frequent one: each epoch goes
    through the samples of a class again and again, every time in a new order."""

    def __init__(self, label: Tensor):
        self.rows = [(label == c).nonzero().flatten() for c in label.unique()]
        self.most = max(len(rows) for rows in self.rows)

    def __len__(self) -> int:
        return len(self.rows) * self.most

    def epoch(self, generator: torch.Generator) -> Tensor:
        """Rows of one epoch, class after class."""
        return torch.cat([self.passes(rows, generator) for rows in self.rows])

    def passes(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        orders = torch.rand(-(-self.most // len(rows)), len(rows), generator=generator).argsort(1)
        return rows[orders.flatten()[: self.most]]
