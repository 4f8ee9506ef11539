"""Scores from nearest neighbours: how much of each side lies where the other is, and how near fakes are to reals."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ganlab.metrics.pairs import PairScore, cosines, nearest, squared_distances
from ganlab.metrics.scores import Kept, Score


class PRDC(PairScore, Score):
    """Improved precision and recall (Kynkaanniemi et al. 2019, arXiv:1904.06991, eq. 1 and 2), density and coverage
    (Naeem et al. 2020, arXiv:2002.09797, eq. 4 and 5).

    k            neighbours that a ball reaches to, for precision and recall
    k_coverage   the same for density and coverage
    """

    higher_is_better = True
    keys = ("precision", "recall", "density", "coverage")

    def __init__(self, k: int = 3, k_coverage: int = 5):
        if k < 1 or k_coverage < 1:
            raise ValueError(f"scores.prdc: k={k} and k_coverage={k_coverage} must be at least 1")
        self.k, self.k_coverage = k, k_coverage

    def check(self, dims: Mapping[str, int], n_real: int | None, n_fake: int) -> None:
        k = max(self.k, self.k_coverage)
        for side, n in (("reals", n_real), ("fakes", n_fake)):
            if n is not None and n <= k:
                raise ValueError(f"scores.prdc looks at {k} neighbours, and there are only {n} {side}")

    def begin(self, real: Tensor, fake: Tensor) -> None:
        k = max(self.k, self.k_coverage)
        self._nearest = {
            side: torch.full((len(x), k), torch.inf, device=x.device) for side, x in (("real", real), ("fake", fake))
        }
        none_of = lambda x: torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self._precise, self._recalled, self._covered = none_of(fake), none_of(real), none_of(real)
        self._inside = torch.zeros((), dtype=torch.float64, device=real.device)

    def within(self, side: str, i: slice, j: slice, dots: Tensor, ni: Tensor, nj: Tensor) -> None:
        distances, known = squared_distances(dots, ni, nj), self._nearest[side]
        if i == j:
            distances.fill_diagonal_(torch.inf)  # nobody is one's own neighbour
        else:
            known[j] = nearest(known[j], distances.T)
        known[i] = nearest(known[i], distances)

    def between(self, i: slice, j: slice, dots: Tensor, ni: Tensor, nj: Tensor) -> None:
        distances = squared_distances(dots, ni, nj)
        reach = lambda side, k, rows: self._nearest[side][rows, k - 1]
        self._precise[j] |= (distances <= reach("real", self.k, i)[:, None]).any(0)
        self._recalled[i] |= (distances <= reach("fake", self.k, j)[None]).any(1)
        inside = distances < reach("real", self.k_coverage, i)[:, None]
        self._covered[i] |= inside.any(1)
        self._inside += inside.sum()

    def __call__(self, real: Kept, fake: Kept) -> dict[str, float]:
        return {
            "precision": self._precise.double().mean().item(),
            "recall": self._recalled.double().mean().item(),
            "density": self._inside.item() / (self.k_coverage * fake.n),
            "coverage": self._covered.double().mean().item(),
        }


class Memorization(PairScore, Score):
    """Mean cosine distance from each fake to the nearest real: near 0 if G repeats what it was shown (Bai et al. 2021,
    arXiv:2106.03062, section 3.2: the distance in MiFID, without its threshold)."""

    higher_is_better = True
    looks_within = False
    keys = ("memorization",)

    def begin(self, real: Tensor, fake: Tensor) -> None:
        self._most_alike = torch.full((len(fake),), -torch.inf, device=fake.device)

    def between(self, i: slice, j: slice, dots: Tensor, ni: Tensor, nj: Tensor) -> None:
        alike = cosines(dots, ni, nj).abs().amax(0)
        self._most_alike[j] = torch.maximum(self._most_alike[j], alike)

    def __call__(self, real: Kept, fake: Kept) -> dict[str, float]:
        return {"memorization": (1 - self._most_alike.double()).clamp(min=0).mean().item()}
