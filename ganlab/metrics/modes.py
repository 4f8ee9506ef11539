"""For mixtures of Gaussians with known centres: how many modes a generator found, and how many samples are good."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class Modes(Metric):
    """A sample is good within `radius` deviations of the nearest centre; a mode is found if it holds at least `share`
    of the good samples (after Srivastava et al. 2017, arXiv:1705.07761, section 4.1, there without a share).

    centers     [k][2]
    deviation   standard deviation of each mode
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    needs_reals = False
    keys = ("quality", "modes", "good")
    good: Tensor  # [k] good samples of each mode
    count: Tensor

    def __init__(
        self, dim: int, centers: Sequence[Sequence[float]], deviation: float, radius: float = 3.0, share: float = 0.01,
        **kwargs: Any,
    ):  # fmt: skip
        super().__init__(**kwargs)
        self.centers = torch.tensor(centers)
        self.within, self.share = radius * deviation, share
        self.add_state("good", torch.zeros(len(centers), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, features: Tensor, real: bool) -> None:
        """features: [n, 2]."""
        if not real:
            distance, nearest = torch.cdist(features.double(), self.centers.to(features.device).double()).min(1)
            self.good.add_(torch.bincount(nearest[distance <= self.within], minlength=len(self.centers)))
            self.count.add_(len(features))

    def compute(self) -> dict[str, Tensor]:
        """modes: number found; good: share of good samples; quality: good * modes / all modes."""
        found = (self.good >= self.share * self.good.sum()).logical_and(self.good > 0).sum().double()
        good = self.good.sum().double() / self.count
        return {"quality": good * found / len(self.centers), "modes": found, "good": good}
