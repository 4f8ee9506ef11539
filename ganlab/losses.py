"""Adversarial losses: each is a pair, `discriminator(phase)` and `generator(phase)`.

Logits may be a tensor of any shape or a list of them (sub-discriminators); the loss is the mean over all.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ganlab.phase import Phase
from ganlab.schedule import Schedule, at, within


class Loss(nn.Module):
    """What all pairs share; a pair adds `discriminator(phase)` and `generator(phase)`, each a scalar to minimise.

    weight        {"D": ..., "G": ...}: factor on each player's adversarial loss, 1 where not given
    start, stop   kimg between which the adversarial loss is played; outside, only terms move the players
    boundary      logit above which D takes a sample for real; None: the loss has no such logit
    """

    boundary: float | None = 0.0

    grad_inputs: frozenset[str] = frozenset()  # a loss that needs input gradients names "fake" or "real", as terms do

    def __init__(
        self,
        weight: Mapping[str, float | Schedule] | None = None,
        start: float = 0.0,
        stop: float | None = None,
    ):
        super().__init__()
        self.weight = {"D": 1.0, "G": 1.0, **(weight or {})}
        if set(self.weight) != {"D", "G"} or None in self.weight.values():
            raise ValueError(f"loss.weight={dict(self.weight)}: must be one number or schedule each for D and G")
        self.start, self.stop = start, stop

    def due(self, player: str, number: int, seen: int) -> bool:
        return within(self.start, self.stop, seen)

    def factor(self, player: str, seen: int) -> float:
        return at(self.weight[player], seen)

    def check(self, gan: Any) -> None:
        if gan.D is None:
            raise ValueError("an adversarial loss needs a discriminator: give one, or remove the loss (~loss)")

    def forward(self, phase: Phase) -> Tensor:
        """The moving player's half of the pair."""
        return getattr(self, {"D": "discriminator", "G": "generator"}[phase.player])(phase)


def each(f: Callable[..., Tensor], *logits: Tensor | list[Tensor]) -> Tensor:
    """The mean of f over all logits of one or several sub-discriminators."""
    return torch.stack([f(*group).mean() for group in zip(*map(tree_leaves, logits), strict=True)]).mean()


def pair(real: Callable[[Tensor], Tensor], fake: Callable[[Tensor], Tensor], phase: Phase) -> Tensor:
    """Mean over the reals plus mean over the fakes."""
    return each(real, phase.on_real.logits) + each(fake, phase.on_fake.logits)


class Minimax(Loss):
    """min_G max_D  E log s(D(x)) + E log(1 - s(D(G(z))))  (Goodfellow et al. 2014, arXiv:1406.2661, eq. 1)."""

    def discriminator(self, phase: Phase) -> Tensor:
        return pair(lambda x: F.softplus(-x), F.softplus, phase)

    def generator(self, phase: Phase) -> Tensor:
        return each(lambda y: -F.softplus(y), phase.on_fake.logits)


class NonSaturating(Minimax):
    """G maximises log s(D(G(z))) instead: the same fixed point, larger gradients early (same paper, section 3)."""

    def generator(self, phase: Phase) -> Tensor:
        return each(lambda y: F.softplus(-y), phase.on_fake.logits)


class Bidirectional(NonSaturating):
    """The same where G has a part in the reals too, an encoder's codes: it wants its fakes taken for real and its reals
    for fakes (Donahue et al. 2017, arXiv:1605.09782, section 3.4)."""

    def generator(self, phase: Phase) -> Tensor:
        return super().generator(phase) + each(F.softplus, phase.on_real.logits)


class LeastSquares(Loss):
    """1/2 (D(x) - b)^2 + 1/2 (D(G(z)) - a)^2 against 1/2 (D(G(z)) - c)^2  (Mao et al. 2017, arXiv:1611.04076)."""

    def __init__(self, a: float = 0.0, b: float = 1.0, c: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        self.a, self.b, self.c = a, b, c
        self.boundary = (a + b) / 2

    def discriminator(self, phase: Phase) -> Tensor:
        return pair(lambda x: 0.5 * (x - self.b).square(), lambda y: 0.5 * (y - self.a).square(), phase)

    def generator(self, phase: Phase) -> Tensor:
        return each(lambda y: 0.5 * (y - self.c).square(), phase.on_fake.logits)


class Wasserstein(Loss):
    """D is a critic without a sigmoid, to be kept Lipschitz by a term (Arjovsky et al. 2017, arXiv:1701.07875)."""

    boundary: float | None = None

    def discriminator(self, phase: Phase) -> Tensor:
        return pair(lambda x: -x, lambda y: y, phase)

    def generator(self, phase: Phase) -> Tensor:
        return each(lambda y: -y, phase.on_fake.logits)


class ClippedWasserstein(Wasserstein):
    """The same critic, kept Lipschitz by clipping its weights after each of its moves (same paper, algorithm 1).

    clip   largest absolute value of a weight
    """

    def __init__(self, clip: float = 0.01, **kwargs: Any):
        super().__init__(**kwargs)
        if clip <= 0:
            raise ValueError(f"loss.clip={clip}: must be above 0")
        self.clip = clip

    def after_move(self, phase: Phase) -> None:
        if phase.player == "D" and phase.D is not None:
            for weight in phase.D.parameters():
                weight.clamp_(-self.clip, self.clip)


class Hinge(Wasserstein):
    """Lim & Ye 2017, arXiv:1705.02894; Miyato et al. 2018, arXiv:1802.05957, eq. 16 and 17."""

    boundary = 0.0

    def discriminator(self, phase: Phase) -> Tensor:
        return pair(lambda x: F.relu(1 - x), lambda y: F.relu(1 + y), phase)


class Relativistic(Loss):
    """Each real against one fake: softplus of the difference of their logits (Jolicoeur-Martineau 2019,
    arXiv:1807.00734; with R1 and R2 in Huang et al. 2024, arXiv:2501.05441, eq. 2)."""

    boundary: float | None = None

    def discriminator(self, phase: Phase) -> Tensor:
        return each(lambda x, y: F.softplus(y - x), phase.on_real.logits, phase.on_fake.logits)

    def generator(self, phase: Phase) -> Tensor:
        return each(lambda x, y: F.softplus(x - y), phase.on_real.logits, phase.on_fake.logits)


class Equilibrium(Loss):
    """L(x) - k L(G(z)) against L(G(z)), where -L is the logit: for a D that is an autoencoder, whose error is L. k
    moves so that L(G(z)) stays at gamma L(x) (Berthelot et al. 2017, arXiv:1703.10717, section 3.4).

    gamma      share of the reals' error that the fakes' error is held at, in (0, 1]; smaller: better and less varied
    lambda_k   step of k, per move of D; k starts at 0
    """

    boundary = None
    k: Tensor

    def __init__(self, gamma: float = 0.5, lambda_k: float = 0.001, **kwargs: Any):
        super().__init__(**kwargs)
        if not 0 < gamma <= 1:
            raise ValueError(f"loss.gamma={gamma}: must be above 0 and at most 1")
        if lambda_k <= 0:
            raise ValueError(f"loss.lambda_k={lambda_k}: must be above 0")
        self.gamma, self.lambda_k = gamma, lambda_k
        self.register_buffer("k", torch.zeros(()))

    def discriminator(self, phase: Phase) -> Tensor:
        return pair(lambda x: -x, lambda y: self.k * y, phase)

    def generator(self, phase: Phase) -> Tensor:
        return each(lambda y: -y, phase.on_fake.logits)

    def after_move(self, phase: Phase) -> None:
        if phase.player == "D":
            real, fake = (-phase.mean(each(lambda t: t, side.logits)) for side in (phase.on_real, phase.on_fake))
            self.k.add_(self.lambda_k * (self.gamma * real - fake)).clamp_(0, 1)
