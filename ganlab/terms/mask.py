"""The sparse mask of VGAN: what can stay still is to come from the background.

Generating Videos with Scene Dynamics (Vondrick et al. 2016), arXiv:1609.02612, section 3.2: weight 0.1.
"""

from typing import Any

from torch import Tensor

from ganlab.phase import Phase
from ganlab.terms import Term


class Mask(Term):
    """The mean of |mask|, which G returns as aux."""

    player = "G"

    def __init__(self, weight: Any = 0.1, **kwargs: Any):
        super().__init__(weight, **kwargs)

    def check(self, gan: Any) -> None:
        if self.player != "G":
            raise ValueError(f"terms.mask.player={self.player}: the mask is G's")

    def forward(self, phase: Phase) -> Tensor:
        """[N].

        Raises:
            ValueError: G gave no mask; G's first move has the term, so it is known at once
        """
        fake, mask = phase.fake, phase.aux
        if not isinstance(mask, Tensor) or mask.shape[2:] != fake.shape[2:]:
            raise ValueError(
                f"terms.mask needs a G that returns its mask [N, 1, T, H, W] as aux, and {type(phase.G).__name__} does "
                "not: use model=vgan, or remove the term (~terms.mask)"
            )
        return mask.abs().flatten(1).mean(1)
