"""Residual blocks with ReLU before each convolution, as SNGAN and BigGAN have them."""

import math
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


def initialised(layer: nn.Module, gain: float = math.sqrt(2), spectral: bool = False) -> nn.Module:
    """Xavier uniform, gain sqrt(2) inside blocks, 1 on shortcuts and at both ends (code of WGAN-GP and SNGAN); bias
    0."""
    assert isinstance(layer, (nn.Conv2d, nn.Linear, nn.Embedding))
    nn.init.xavier_uniform_(layer.weight, gain)
    if getattr(layer, "bias", None) is not None:
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return spectral_norm(layer) if spectral else layer


class Up(nn.Module):
    """A residual block that doubles the map: [N, C, h, w] -> [N, width, 2h, 2w].

    norm    channels -> a layer (x, told), `told` being the label or what else it is told of a sample
    """

    def __init__(self, have: int, width: int, norm: Callable[[int], nn.Module], spectral: bool = False):
        super().__init__()
        self.norm1, self.norm2 = norm(have), norm(width)
        self.conv1 = initialised(nn.Conv2d(have, width, 3, padding=1), spectral=spectral)
        self.conv2 = initialised(nn.Conv2d(width, width, 3, padding=1), spectral=spectral)
        self.shortcut = initialised(nn.Conv2d(have, width, 1), gain=1, spectral=spectral)

    def forward(self, x: Tensor, told: Tensor | None = None) -> Tensor:
        h = self.conv1(double(self.norm1(x, told).relu()))
        h = self.conv2(self.norm2(h, told).relu())
        return h + double(self.shortcut(x))  # a 1x1 convolution and a doubling can be exchanged


class Down(nn.Module):
    """A residual block of D: [N, C, h, w] -> [N, width, h/2, w/2], or without `halve` of the same size.

    first   the image itself comes in: no activation before it
    """

    def __init__(self, have: int, width: int, spectral: bool, halve: bool, first: bool = False):
        super().__init__()
        self.halve, self.first = halve, first
        self.conv1 = initialised(nn.Conv2d(have, width, 3, padding=1), spectral=spectral)
        self.conv2 = initialised(nn.Conv2d(width, width, 3, padding=1), spectral=spectral)
        self.shortcut: nn.Module = nn.Identity()
        if halve or have != width:
            self.shortcut = initialised(nn.Conv2d(have, width, 1), gain=1, spectral=spectral)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(self.conv1(x if self.first else x.relu()).relu())
        if not self.halve:
            return h + self.shortcut(x)
        if self.first:  # cheaper, and the same: averaging and a 1x1 convolution can be exchanged
            return F.avg_pool2d(h, 2) + self.shortcut(F.avg_pool2d(x, 2))
        return F.avg_pool2d(h + self.shortcut(x), 2)


def double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0)
