"""Layers of style-based networks: convolutions whose weights follow a style.

Analyzing and Improving the Image Quality of StyleGAN (Karras et al. 2020), arXiv:1912.04958, section 2.2.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganlab.nn.equalized import EqualizedConv2d, EqualizedLinear
from ganlab.nn.filters import Filter


def activated(x: Tensor) -> Tensor:
    """Leaky ReLU that keeps the variance of its input, about."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


class Halved(EqualizedConv2d):
    """A convolution after a low-pass filter, that halves the map."""

    def __init__(self, have: int, out: int, kernel: int, bias: float | None = 0.0):
        super().__init__(have, out, kernel, stride=2, bias=bias)
        self.filter = Filter(pad=(1 + kernel // 2, 1 + kernel // 2))  # it pads for itself and for the convolution

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.filter(x))


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
        self.style = EqualizedLinear(w_dim, have, bias=1.0)
        self.scale, self.demodulate = 1 / math.sqrt(have * kernel**2), demodulate
        self.filter = Filter(pad=(1, 1), gain=2.0) if double else None

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style, weight = self.style(w), self.weight * self.scale
        if torch.compiler.is_exporting():
            return self.on_maps(x, style, weight)
        n, weight = len(x), weight * style[:, None, :, None, None]  # [N, out, C, k, k], eq. 1
        if self.demodulate:
            weight = weight * (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()  # eq. 3
        # contiguous: gradients of a 1x1 kernel are wrong on CPUs for a single sample in channels_last (torch 2.15)
        x = x.contiguous().view(1, -1, *x.shape[2:])  # [1, N C, H, W]
        if self.filter is None:
            y = F.conv2d(x, weight.flatten(0, 1), padding=weight.shape[-1] // 2, groups=n)
            return y.unflatten(1, (n, -1)).squeeze(0)
        y = F.conv_transpose2d(x, weight.transpose(1, 2).flatten(0, 1), stride=2, groups=n)  # [1, N out, 2H+1, 2W+1]
        return self.filter(y.unflatten(1, (n, -1)).squeeze(0))

    def on_maps(self, x: Tensor, style: Tensor, weight: Tensor) -> Tensor:
        """The same with the style on the maps, for formats whose number of groups can't be that of the samples."""
        x = x * style[..., None, None]
        if self.filter is None:
            y = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
        else:
            y = self.filter(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
        if self.demodulate:
            y = y * (style.square() @ weight.square().sum((2, 3)).mT + 1e-8).rsqrt()[..., None, None]
        return y
