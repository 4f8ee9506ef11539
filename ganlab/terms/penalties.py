"""Penalties on the gradient of D with respect to what it is shown."""

from abc import abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from ganlab.gradient import input_gradient, squared_norm
from ganlab.phase import Data, Phase
from ganlab.terms import Term


class Penalty(Term):
    """A term on D's input gradient.

    precision   None: in the run's precision, sharing D's forward with the loss where it can;
                32: all of it, D's forward included, is made again in float32
    """

    differentiates = frozenset({"D"})

    def __init__(self, weight: Any = 1.0, every: int = 1, precision: Literal[32] | None = None, **kwargs: Any):
        super().__init__(weight, every, **kwargs)
        if precision not in (None, 32):
            raise ValueError(f"terms.*.precision={precision!r}: must be null (the run's) or 32")
        self.precision = precision

    def check(self, gan: Any) -> None:
        if self.player != "D":
            raise ValueError(f"{type(self).__name__} is a penalty on D's gradient and belongs to D, not {self.player}")

    @abstractmethod
    def penalty(self, phase: Phase) -> Tensor:
        """[N]"""

    def forward(self, phase: Phase) -> Tensor:
        if self.precision is None:
            return self.penalty(phase)
        exact = phase.again()
        exact.played = phase.played
        with torch.autocast(tree_leaves(phase.real)[0].device.type, enabled=False):
            return self.penalty(exact)


class R1(Penalty):
    """1/2 E_real |grad D(x)|^2, to be weighted with gamma (Mescheder et al. 2018, arXiv:1801.04406, eq. 9).

    The gradient is taken with respect to the image itself, through any augmentation. Batch norm in D judges samples
    together: then it is the gradient of the batch's summed logits with respect to each image.
    """

    grad_inputs = frozenset({"real"})

    def penalty(self, phase: Phase) -> Tensor:
        return squared_norm(input_gradient(phase.on_real, phase.real)) / 2


class R2(Penalty):
    """1/2 E_fake |grad D(G(z))|^2 (same paper, eq. 10)."""

    grad_inputs = frozenset({"fake"})

    def penalty(self, phase: Phase) -> Tensor:
        return squared_norm(input_gradient(phase.on_fake, phase.fake)) / 2


class GradientPenalty(Penalty):
    """(|grad D(x^)| - target)^2 at random points x^ between a real and a fake, one alpha per sample
    (Gulrajani et al. 2017, arXiv:1704.00028, eq. 3; the weight is lambda, 10 there).

    one_sided   only norms above the target are penalised (same paper, section 4, "two-sided penalty")
    each        where D is shown several tensors: the mean of the penalties on each; otherwise one norm runs over all
    """

    def __init__(
        self, weight: Any = 10.0, every: int = 1, target: float = 1.0, one_sided: bool = False, each: bool = False,
        **kwargs: Any,
    ):  # fmt: skip
        super().__init__(weight, every, **kwargs)
        self.target, self.one_sided, self.each = target, one_sided, each

    def check(self, gan: Any) -> None:
        super().check(gan)
        if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in gan.D.modules()):
            raise ValueError(
                "a gradient penalty needs a D without batch norm, which mixes the samples whose gradients it bounds "
                "(Gulrajani et al. 2017, section 4): remove the term (~terms.gp), use terms=[r1], "
                "or take a D without batch norm (model=wgan_gp, model=sngan, discriminator.norm=none in dcgan)"
            )

    def points(self, phase: Phase) -> Data:
        alpha = phase.rng.uniform()  # [N]

        def between(x: Tensor, y: Tensor) -> Tensor:
            return torch.lerp(y, x, alpha.to(x.dtype).view(-1, *[1] * (x.dim() - 1)))

        return tree_map(between, phase.real, phase.fake)

    def told(self, phase: Phase) -> Data:
        """The labels of these points."""
        return phase.batch.cond

    def penalty(self, phase: Phase) -> Tensor:
        x = tree_map(lambda t: t.detach().requires_grad_(), self.points(phase))
        gradients = input_gradient(phase.judge(x, self.told(phase)), x)
        squared = torch.stack([squared_norm(part) for part in ([[g] for g in gradients] if self.each else [gradients])])
        excess = squared.clamp_min(1e-24).sqrt() - self.target  # the clamp keeps the gradient of sqrt finite at 0
        return (excess.relu() if self.one_sided else excess).square().mean(0)


class DRAGAN(GradientPenalty):
    """The same penalty around the reals: x^ = x + noise (Kodali et al. 2017, arXiv:1705.07215, eq. 4).

    noise   standard deviation of the noise, in units of the sample's own
    """

    def __init__(self, weight: Any = 10.0, every: int = 1, noise: float = 0.5, **kwargs: Any):
        super().__init__(weight, every, **kwargs)
        self.noise = noise

    def check(self, gan: Any) -> None:  # the paper uses it with batch norm
        Penalty.check(self, gan)

    def told(self, phase: Phase) -> Data:
        return phase.batch.told_with_real

    def points(self, phase: Phase) -> Data:
        def around(x: Tensor) -> Tensor:
            std = x.flatten(1).std(dim=1).view(-1, *[1] * (x.dim() - 1))
            return x + self.noise * std * phase.rng.normal(*x.shape[1:]).to(x.dtype)

        return tree_map(around, phase.real)
