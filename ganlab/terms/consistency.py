"""Terms that keep D from leaning on what does not matter, or on what it said long ago."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ganlab.phase import Data, DiscriminatorOutput, Phase
from ganlab.rng import SampleRNG
from ganlab.terms import Term


def rows(output: DiscriminatorOutput) -> list[Tensor]:
    """Logits of each sub-discriminator as [N, any]."""
    return [logits.reshape(len(logits), -1) for logits in tree_leaves(output.logits)]


def apart(a: DiscriminatorOutput, b: DiscriminatorOutput) -> Tensor:
    """[N] squared difference of the logits, averaged over several discriminators."""
    return torch.stack([(x - y).square().mean(1) for x, y in zip(rows(a), rows(b), strict=True)]).mean(0)


class Consistency(Term):
    """|D(x) - D(T(x))|^2 for a random change T that keeps the meaning (Zhang et al. 2020, arXiv:1910.12027, eq. 2);
    with fakes too, balanced consistency (Zhao et al. 2021, arXiv:2002.04724, algorithm 1).

    augment   T: (x, rng) -> x
    fake      the same of the fakes
    """

    def __init__(
        self, augment: Callable[[Data, SampleRNG], Data], weight: Any = 10.0, every: int = 1, fake: bool = False,
        **kwargs: Any,
    ):  # fmt: skip
        super().__init__(weight, every, **kwargs)
        self.augment, self.fake = augment, fake

    def set_clock(self, seen: int) -> None:
        getattr(self.augment, "set_clock", lambda seen: None)(seen)

    def steady(self) -> Any:
        return getattr(self.augment, "steady", lambda: None)()

    def forward(self, phase: Phase) -> Tensor:
        cond = phase.batch.cond
        value = apart(phase.on_real, phase.judge(self.augment(phase.real, phase.rng), phase.batch.told_with_real))
        if self.fake:
            value = value + apart(phase.on_fake, phase.judge(self.augment(phase.fake, phase.rng), cond))
        return value


class LatentConsistency(Term):
    """zCR (Zhao et al. 2021, arXiv:2002.04724, algorithm 2): a small step of z must not change D's opinion, as D's
    term: |D(G(z)) - D(G(z + d))|^2; and must change the image, as G's: -|G(z) - G(z + d)|^2, averaged over pixels.

    noise   standard deviation of d
    """

    def __init__(self, weight: Any = 5.0, every: int = 1, noise: float = 0.07, **kwargs: Any):
        super().__init__(weight, every, **kwargs)
        self.noise = noise

    def forward(self, phase: Phase) -> Tensor:
        z = phase.batch.inputs
        near = phase.again(inputs=z + self.noise * phase.rng.normal(*z.shape[1:]).to(z.dtype))
        if self.player == "D":
            return apart(phase.on_fake, near.on_fake)
        return -(phase.fake - near.fake).square().flatten(1).mean(1)


class LeCam(Term):
    """|D(x) - a_F|^2 + |D(G(z)) - a_R|^2, a_R and a_F being moving averages of D's logits on reals and fakes (Tseng et
    al. 2021, arXiv:2104.03310, eq. 4).

    decay   of the averages, per move of D
    """

    on_real: Tensor
    on_fake: Tensor
    moves: Tensor

    def __init__(self, weight: Any = 0.3, every: int = 1, decay: float = 0.99, **kwargs: Any):
        super().__init__(weight, every, **kwargs)
        if not 0 <= decay < 1:
            raise ValueError(f"terms.lecam.decay={decay}: must be at least 0 and below 1")
        self.decay = decay
        for name in ("on_real", "on_fake", "moves"):
            self.register_buffer(name, torch.zeros(()))

    def forward(self, phase: Phase) -> Tensor:
        pairs = zip(rows(phase.on_real), rows(phase.on_fake), strict=True)
        losses = [(x - self.on_fake).square().mean(1) + (y - self.on_real).square().mean(1) for x, y in pairs]
        return torch.stack(losses).mean(0) * (self.moves > 0)  # there is no past yet in the first move

    def after_move(self, phase: Phase) -> None:
        if phase.player == "D":
            step = torch.where(self.moves > 0, 1 - self.decay, 1.0)  # the first value is taken as it is
            self.moves += 1
            for average, side in ((self.on_real, phase.on_real), (self.on_fake, phase.on_fake)):
                logits = torch.cat([part.flatten() for part in rows(side)])
                average.lerp_(phase.mean(logits).to(average), step)


class Drift(Term):
    """D(x)^2 on the reals: keeps a critic's opinion, of which only differences count, from drifting away from 0 (Karras
    et al. 2018, arXiv:1710.10196, appendix A.1)."""

    def __init__(self, weight: Any = 0.001, every: int = 1, **kwargs: Any):
        super().__init__(weight, every, **kwargs)

    def forward(self, phase: Phase) -> Tensor:
        return torch.stack([logits.square().mean(1) for logits in rows(phase.on_real)]).mean(0)
