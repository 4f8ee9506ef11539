"""Terms that compare what G made with what it was to make."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ganlab.phase import Phase
from ganlab.terms import Term


class L1(Term):
    """Mean |G(x) - y| over all numbers of a sample, which blurs less than squares do (Isola et al. 2017,
    arXiv:1611.07004, eq. 3; the weight is lambda, 100 there)."""

    player = "G"

    def __init__(self, weight: Any = 100.0, every: int = 1, **kwargs: Any):
        super().__init__(weight, every, **kwargs)

    def forward(self, phase: Phase) -> Tensor:
        return (phase.fake - phase.real).abs().flatten(1).mean(1)


class L2(L1):
    """Mean (G(x) - y)^2 over all numbers of a sample."""

    def forward(self, phase: Phase) -> Tensor:
        return (phase.fake - phase.real).square().flatten(1).mean(1)


class CrossEntropy(Term):
    """-log P(class of a pixel), the mean over all pixels that count, of logits that are G's aux (task=segment)."""

    player = "G"
    VOID = 255

    def forward(self, phase: Phase) -> Tensor:
        counted = (phase.batch.real != self.VOID).sum().clamp(min=1)
        return F.cross_entropy(phase.aux, phase.batch.real, ignore_index=self.VOID, reduction="sum") / counted
