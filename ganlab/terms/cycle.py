"""Terms of a G that goes both ways: what keeps it to its input, where no pair says what to make of it.

Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks (Zhu et al. 2017), arXiv:1703.10593.
"""

from typing import Any

import torch
from torch import Tensor

from ganlab.phase import Data, Phase, full, output_of
from ganlab.terms import Term


class BothWays(Term):
    """The mean |x - y| of a sample, on both sides, added up."""

    player = "G"

    def check(self, gan: Any) -> None:
        if self.player != "G" or not hasattr(gan.G, "back"):
            raise ValueError(
                f"a term of {type(self).__name__.lower()} consistency with player={self.player} and "
                f"{type(gan.G).__name__}: it is G's, and needs a G that goes both ways: use model=cyclegan, or leave "
                "it out"
            )

    def apart(self, phase: Phase, start: Data) -> Tensor:
        """[N]: how far what G makes of `start` is from the reals."""
        made = full(output_of(phase.G, start, None).fake)
        sides = [(x - y).abs().flatten(1).mean(1) for x, y in zip(made, phase.real, strict=True)]
        return torch.stack(sides).sum(0)


class Cycle(BothWays):
    """|F(G(x)) - x| + |G(F(y)) - y|, G being the way there and F the way back (eq. 2; the weight is lambda of eq. 3).
    The fakes are those that are there already."""

    def __init__(self, weight: Any = 10.0, every: int = 1, **kwargs: Any):
        super().__init__(weight, every, **kwargs)

    def forward(self, phase: Phase) -> Tensor:
        return self.apart(phase, phase.fake[::-1])


class Identity(BothWays):
    """|G(y) - y| + |F(x) - x|: what is on the other side already stays as it is (section 5.2, "Photo generation from
    paintings"; the weight is half of lambda)."""

    def __init__(self, weight: Any = 5.0, every: int = 1, **kwargs: Any):
        super().__init__(weight, every, **kwargs)

    def check(self, gan: Any) -> None:
        super().check(gan)
        channels = [getattr(getattr(gan.G, side), "channels", None) for side in ("there", "back")]
        if channels[0] != channels[1]:
            raise ValueError(
                f"terms.identity hands each way of G what it is to make, and the two sides have {channels[1]} and "
                f"{channels[0]} channels: leave it out (~terms.identity), or set data.channels and data.source_channels"
            )

    def forward(self, phase: Phase) -> Tensor:
        return self.apart(phase, phase.real)
