"""Terms that tie samples to the codes they were made from."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ganlab.phase import Phase
from ganlab.terms import Term


class Information(Term):
    """-log Q(c | G(z, c)) in nats, up to a constant: minus the bound on the information that a fake holds of its codes
    (Chen et al. 2016, arXiv:1606.03657, eq. 5). Cross entropy of categorical codes, and half the squared error of
    continuous ones: Q is a Gaussian of variance 1 around what D's head says.

    Stands once for each player, for both want it small. `aux` of D's output must be Q's parameters [N, D.codes], in the
    order of the codes in G's input: logits of the categories, means of the continuous ones.

    continuous_weight   factor on the continuous codes alone
    """

    def __init__(self, weight: Any = 1.0, every: int = 1, continuous_weight: float = 1.0, **kwargs: Any):
        super().__init__(weight, every, **kwargs)
        self.continuous_weight = continuous_weight

    def check(self, gan: Any) -> None:
        wanted = getattr(gan.task, "codes", 0)
        if not wanted:
            raise ValueError("terms.information needs codes to start from: use task=codes, as model=infogan does")
        if getattr(gan.D, "codes", None) != wanted:
            raise ValueError(
                f"terms.information: D's head tells {getattr(gan.D, 'codes', 0)} numbers, and the task's codes are "
                f"{wanted}: set discriminator.codes={wanted}, in a discriminator that has it, as model=infogan's"
            )
        self.categories, self.continuous = gan.task.categories, gan.task.continuous

    def forward(self, phase: Phase) -> Tensor:
        sizes = [*self.categories, self.continuous]
        told = phase.on_fake.aux.split(sizes, 1)
        true = phase.batch.inputs[:, -sum(sizes) :].float().split(sizes, 1)
        categorical = zip(told[:-1], true[:-1], strict=True)
        squares = (told[-1] - true[-1]).square().sum(1) / 2
        return self.continuous_weight * squares + sum(F.cross_entropy(q, c, reduction="none") for q, c in categorical)
