"""Terms that tie samples to their labels."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ganlab.phase import Phase
from ganlab.terms import Term


class Classify(Term):
    """Cross entropy of the class that D's auxiliary head sees: -log P(label | x), of the fakes and in D's moves of the
    reals too (Odena et al. 2017, arXiv:1610.09585, eq. 3); of attributes the mean over them. `aux` of D's output must
    be class logits [N, classes].

    real, fake   whether reals, and fakes, count in D's moves; in G's it is the fakes
    """

    def __init__(self, weight: Any = 1.0, every: int = 1, real: bool = True, fake: bool = True, **kwargs: Any):
        super().__init__(weight, every, **kwargs)
        self.real, self.fake = real, fake
        if not real and not fake:
            raise ValueError("terms.classify: real=false and fake=false leave nothing to classify")

    def check(self, gan: Any) -> None:
        if not getattr(gan.task, "classes", None):
            raise ValueError("terms.classify needs labels: choose a model that is told them, as model=acgan")

    def forward(self, phase: Phase) -> Tensor:
        cond, real_cond = phase.batch.cond, phase.batch.told_with_real
        parts = []
        if phase.player == "D" and self.real:
            parts.append(cross_entropy(phase.on_real.aux.float(), real_cond))
        if phase.player == "G" or self.fake:
            parts.append(cross_entropy(phase.on_fake.aux.float(), cond))
        return sum(parts[1:], start=parts[0])


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """[N], of labels [N] or attributes [N, classes]."""
    if label.dim() == 2:
        return F.binary_cross_entropy_with_logits(logits, label.to(logits.dtype), reduction="none").mean(1)
    return F.cross_entropy(logits, label, reduction="none")
