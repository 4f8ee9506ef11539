"""Layers of style-based networks: weights scaled as they are used, and convolutions whose weights follow a style.

Progressive Growing of GANs (Karras et al. 2018), arXiv:1710.10196, section 4.1. Analyzing and Improving the Image
Quality of StyleGAN (Karras et al. 2020), arXiv:1912.04958, section 2.2.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganlab.nn.filters import Filter


def activated(x: Tensor) -> Tensor:
    """Leaky ReLU that keeps the variance of its input, about."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


class Linear(nn.Module):
    """A linear layer with an equalized learning rate: weights are stored as N(0, 1) and divided by sqrt(fan in) when
    used, so that an optimizer that normalises gradients changes all layers alike (Karras et al. 2018, section 4.1).

    bias   its first value; None: there is none
    lr     factor on this layer's learning rate: parameters are stored divided by it
    """

    def __init__(self, have: int, out: int, bias: float | None = 0.0, lr: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out, have) / lr)
        self.bias = None if bias is None else nn.Parameter(torch.full((out,), bias / lr))
        self.scale, self.lr = lr / math.sqrt(have), lr

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, None if self.bias is None else self.bias * self.lr)


class Conv2d(nn.Module):
    """The same for a convolution that keeps the size, or with `halve` low-passes and halves it."""

    def __init__(self, have: int, out: int, kernel: int, bias: bool = True, halve: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out, have, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out)) if bias else None
        self.scale, self.stride, self.padding = 1 / math.sqrt(have * kernel**2), 1, kernel // 2
        self.filter: nn.Module = nn.Identity()
        if halve:  # the filter pads for itself and for the convolution
            self.filter = Filter(pad=(1 + kernel // 2, 1 + kernel // 2))
            self.stride, self.padding = 2, 0

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(self.filter(x), self.weight * self.scale, self.bias, self.stride, self.padding)


class ModulatedConv2d(nn.Module):
    """A convolution whose input channels are scaled by a style of w, and whose outputs are brought back to unit
    deviation, both on the weights (Karras et al. 2020, eq. 1 and 3). All samples are one grouped convolution.

    demodulate   bring back to unit deviation
    double       double the map: convolve between zeros, then low-pass

    x [N, C, H, W], w [N, w_dim] -> [N, out, H, W]
    """

    def __init__(self, have: int, out: int, kernel: int, w_dim: int, demodulate: bool = True, double: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out, have, kernel, kernel))
        self.style = Linear(w_dim, have, bias=1.0)
        self.scale, self.demodulate = 1 / math.sqrt(have * kernel**2), demodulate
        self.filter = Filter(pad=(1, 1), gain=2.0) if double else None

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        n = len(x)
        weight = self.weight * self.scale * self.style(w)[:, None, :, None, None]  # [N, out, C, k, k], eq. 1
        if self.demodulate:
            weight = weight * (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()  # eq. 3
        x = x.reshape(1, -1, *x.shape[2:])  # [1, N C, H, W]
        if self.filter is None:
            y = F.conv2d(x, weight.flatten(0, 1), padding=weight.shape[-1] // 2, groups=n)
            return y.unflatten(1, (n, -1)).squeeze(0)
        y = F.conv_transpose2d(x, weight.transpose(1, 2).flatten(0, 1), stride=2, groups=n)  # [1, N out, 2H+1, 2W+1]
        return self.filter(y.unflatten(1, (n, -1)).squeeze(0))
