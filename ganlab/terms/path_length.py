"""The path length term of StyleGAN2: steps of equal length in style space change the image equally much.

Analyzing and Improving the Image Quality of StyleGAN (Karras et al. 2020), arXiv:1912.04958, section 3.2.
"""

from typing import Any

import torch
from torch import Tensor

from ganlab.gradient import pullback
from ganlab.phase import Phase
from ganlab.terms import Term


class PathLength(Term):
    """(|J^T y| - a)^2, a being the running average of |J^T y| (eq. 4), J the Jacobian of the image with respect to its
    styles, and y standard normal noise divided by the square root of the number of pixels. The norm is of the root mean
    square over layers.

    decay   of the average, per move of G that has the term
    """

    player = "G"
    differentiates = frozenset({"G"})
    average: Tensor

    def __init__(self, weight: Any = 2.0, every: int = 4, decay: float = 0.99, **kwargs: Any):
        super().__init__(weight, every, **kwargs)
        if not 0 <= decay < 1:
            raise ValueError(f"terms.path_length.decay={decay}: must be at least 0 and below 1")
        self.decay = decay
        self.register_buffer("average", torch.zeros(()))
        self.lengths: list[Tensor] = []  # of this move's micro-batches

    def check(self, gan: Any) -> None:
        if self.player != "G":
            raise ValueError(f"terms.path_length.player={self.player}: it is about G's Jacobian and belongs to G")

    def forward(self, phase: Phase) -> Tensor:
        """[N].

        Raises:
            ValueError: G gave no styles; G's first move has the term, so it is known at once
        """
        fake, ws = phase.fake, phase.aux
        if not isinstance(ws, Tensor) or ws.dim() != 3 or not ws.requires_grad:
            raise ValueError(
                f"terms.path_length needs a G that returns its styles ws [N, layers, w_dim] as aux, and "
                f"{type(phase.G).__name__} does not: use model=stylegan2, or remove the term (~terms.path_length)"
            )
        noise = phase.rng.normal(*fake.shape[1:]).to(fake.dtype) / fake[0, 0].numel() ** 0.5
        squared = pullback(fake, ws, noise).square().sum(2).mean(1)  # [N]
        length = squared.clamp_min(1e-24).sqrt()  # the clamp keeps the gradient of sqrt finite at 0
        self.lengths.append(length.detach())
        return (length - self.average).square()

    def after_move(self, phase: Phase) -> None:
        self.average.lerp_(phase.mean(torch.cat(self.lengths)).to(self.average), 1 - self.decay)
        self.lengths.clear()
