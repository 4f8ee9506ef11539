"""Terms of games on tables."""

from typing import Any

import torch
from torch import Tensor

from ganlab.phase import Phase
from ganlab.terms import Term


class Given(Term):
    """Mean (x - G(x))^2 over the cells of a row that G is given, which it has to repeat (Yoon et al. 2018,
    arXiv:1806.02920, eq. 10; the weight is alpha, 100 in the authors' code). Of task=impute."""

    player = "G"

    def __init__(self, weight: Any = 100.0, every: int = 1, **kwargs: Any):
        super().__init__(weight, every, **kwargs)

    def check(self, gan: Any) -> None:
        if not hasattr(gan.task, "hint"):
            raise ValueError("terms.given compares the cells that G is given: it goes with task=impute, as model=gain")

    def forward(self, phase: Phase) -> Tensor:
        row, there = phase.batch.inputs
        return (there * (row - phase.aux).square()).sum(1) / there.sum(1).clamp(min=1)


class Asked(Term):
    """-log P(the category that was asked for), of the logits that are G's aux (Xu et al. 2019, arXiv:1907.00503,
    section 4.3). Of task=synthesize."""

    player = "G"

    def check(self, gan: Any) -> None:
        if not getattr(gan.task, "asked", None):
            raise ValueError(
                "terms.asked is for tables with categories, of which one is asked for: task=synthesize as in "
                "model=ctgan, with a category among the columns (data.categories); or leave it out: ~terms.asked"
            )
        self.spans = gan.task.asked

    def forward(self, phase: Phase) -> Tensor:
        said = torch.cat([phase.aux[:, span].log_softmax(1) for span in self.spans], 1)  # [N, classes]
        return -(phase.batch.cond * said).sum(1)
