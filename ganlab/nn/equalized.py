"""Layers of growing networks: weights that learn at the same speed everywhere, and features of a fixed length.

Progressive Growing of GANs for Improved Quality, Stability, and Variation (Karras et al. 2018), arXiv:1710.10196,
section 4.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganlab.phase import full


class EqualizedLinear(nn.Linear):
    """x [N, have] -> [N, out]. Weights are drawn from N(0, 1) and scaled by gain / sqrt(have) in use, so that Adam's
    steps are the same share of each layer's weights (section 4.1). Bias 0.

    gain   sqrt(2) before a (leaky) ReLU, 1 before nothing
    rate   factor on the learning rate of weights and bias: they are stored 1 / rate times as large
    """

    def __init__(self, have: int, out: int, gain: float = 1.0, rate: float = 1.0):
        super().__init__(have, out)
        self.scale, self.rate = rate * gain / math.sqrt(have), rate
        nn.init.normal_(self.weight, 0.0, 1 / rate)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class EqualizedConv2d(nn.Conv2d):
    """The same for convolutions: x [N, have, H, W] -> [N, out, H', W'], scaled by gain / sqrt(fan in).

    kernel, padding   as nn.Conv2d's
    """

    def __init__(
        self, have: int, out: int, kernel: int | tuple[int, int], padding: int | tuple[int, int] = 0,
        gain: float = 1.0, rate: float = 1.0,
    ):  # fmt: skip
        super().__init__(have, out, kernel, padding=padding)
        self.scale, self.rate = rate * gain / math.sqrt(self.weight[0].numel()), rate
        nn.init.normal_(self.weight, 0.0, 1 / rate)
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        return F.conv2d(x, self.weight * self.scale, self.bias * self.rate, padding=self.padding)


class PixelNorm(nn.Module):
    """[N, C, ...] -> the same, with a mean square of 1 over the channels at each place (section 4.2)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(full(x).square().mean(1, keepdim=True) + 1e-8).to(x.dtype)
