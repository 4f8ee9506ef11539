"""Scores from nearest neighbours: how much of each side lies where the other is, and how near fakes are to reals."""

import torch
from torch import Tensor

from ganlab.metrics.pairs import Block, PairScore, nearest
from ganlab.metrics.scores import Given, Kept, Score


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

    def check(self, given: Given) -> None:
        k = max(self.k, self.k_coverage)
        for side, n in (("reals", given.n_real), ("fakes", given.n_fake)):
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

    def within(self, side: str, block: Block) -> None:
        distances, known, i, j = block.distances, self._nearest[side], block.i, block.j
        if i == j:
            distances = distances.clone().fill_diagonal_(torch.inf)  # nobody is one's own neighbour
        else:
            known[j] = nearest(known[j], distances.T)
        known[i] = nearest(known[i], distances)

    def between(self, block: Block) -> None:
        distances, i, j = block.distances, block.i, block.j
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

    def between(self, block: Block) -> None:
        self._most_alike[block.j] = torch.maximum(self._most_alike[block.j], block.cosines.abs().amax(0))

    def __call__(self, real: Kept, fake: Kept) -> dict[str, float]:
        return {"memorization": (1 - self._most_alike.double()).clamp(min=0).mean().item()}
