"""Layers with an equalized learning rate, and features of a fixed length.

Progressive Growing of GANs for Improved Quality, Stability, and Variation (Karras et al. 2018), arXiv:1710.10196,
section 4.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganlab.phase import full


class Equalized(nn.Module):
    """Weights are stored as N(0, 1) and scaled by gain / sqrt(fan in) as they are used, so that Adam's steps are the
    same share of each layer's weights (section 4.1).

    gain   sqrt(2) before a (leaky) ReLU, 1 before nothing
    rate   factor on the learning rate of weights and bias: they are stored 1 / rate times as large
    bias   its first value; None: there is none
    """

    equalized = True  # what is done to weights from outside would be scaled too

    def __init__(self, shape: tuple[int, ...], gain: float, rate: float, bias: float | None):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape) / rate)  # [out, have, ...]
        self.bias = None if bias is None else nn.Parameter(torch.full(shape[:1], bias / rate))
        self.scale, self.rate = rate * gain / math.sqrt(math.prod(shape[1:])), rate

    def scaled(self) -> tuple[Tensor, Tensor | None]:
        return self.weight * self.scale, None if self.bias is None else self.bias * self.rate


class EqualizedLinear(Equalized):
    """x [N, have] -> [N, out]."""

    def __init__(self, have: int, out: int, gain: float = 1.0, rate: float = 1.0, bias: float | None = 0.0):
        super().__init__((out, have), gain, rate, bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, *self.scaled())


class EqualizedConv2d(Equalized):
    """x [N, have, H, W] -> [N, out, H', W'].

    kernel, padding, stride   as nn.Conv2d's
    """

    def __init__(
        self, have: int, out: int, kernel: int | tuple[int, int], padding: int | tuple[int, int] = 0, stride: int = 1,
        gain: float = 1.0, rate: float = 1.0, bias: float | None = 0.0,
    ):  # fmt: skip
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        super().__init__((out, have, *sides), gain, rate, bias)
        self.padding, self.stride = padding, stride

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.scaled()
        return F.conv2d(x, weight, bias, self.stride, self.padding)


class PixelNorm(nn.Module):
    """[N, C, ...] -> the same, with a mean square of 1 over the channels at each place (section 4.2)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(full(x).square().mean(1, keepdim=True) + 1e-8).to(x.dtype)
