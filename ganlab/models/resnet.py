"""Residual networks for 32x32 and its like.

Improved Training of Wasserstein GANs (Gulrajani et al. 2017), arXiv:1704.00028, appendix: 128 channels, no
normalisation in the critic, mean pooling. Spectral Normalization for Generative Adversarial Networks (Miyato et al.
2018), arXiv:1802.05957, table 4: 256 channels in G, spectral norm in D, sum pooling. At 32x32 these are the papers'
layers; other sizes have fewer or more of them.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ganlab.nn.pyramid import image_shape, pyramid


def initialised(layer: nn.Module, gain: float = math.sqrt(2), spectral: bool = False) -> nn.Module:
    """Xavier uniform, gain sqrt(2) inside blocks, 1 on shortcuts and at both ends (both papers' code); bias 0."""
    assert isinstance(layer, (nn.Conv2d, nn.Linear))
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return spectral_norm(layer) if spectral else layer


class Up(nn.Module):
    """A residual block that doubles the map, with batch norm: [N, C, h, w] -> [N, width, 2h, 2w]."""

    def __init__(self, have: int, width: int):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(have), nn.BatchNorm2d(width)
        self.conv1 = initialised(nn.Conv2d(have, width, 3, padding=1))
        self.conv2 = initialised(nn.Conv2d(width, width, 3, padding=1))
        self.shortcut = initialised(nn.Conv2d(have, width, 1), gain=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(double(self.norm1(x).relu()))
        h = self.conv2(self.norm2(h).relu())
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


class Generator(nn.Module):
    """z [N, z_dim] -> images [N, *shape] in [-1, 1].

    width   channels of every map
    """

    def __init__(self, shape: Sequence[int], z_dim: int = 128, width: int = 256):
        super().__init__()
        channels, height, breadth = image_shape(shape, "a resnet")
        doublings, self.base = pyramid(height, breadth, "a resnet")
        self.z_dim, self.width = z_dim, width
        self.linear = initialised(nn.Linear(z_dim, width * math.prod(self.base)), gain=1)
        self.blocks = nn.Sequential(*[Up(width, width) for _ in range(doublings)])
        self.norm = nn.BatchNorm2d(width)
        self.out = initialised(nn.Conv2d(width, channels, 3, padding=1), gain=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.linear(z).unflatten(1, (self.width, *self.base))
        return self.out(self.norm(self.blocks(h)).relu()).tanh()


class Discriminator(nn.Module):
    """images [N, *shape] -> logits [N]: halved until the smaller side is 8 to 15, then two blocks that keep the size.

    spectral   spectral norm on every layer
    pool       "sum" (Miyato et al.) or "mean" (Gulrajani et al.) over the last map
    """

    def __init__(
        self, shape: Sequence[int], width: int = 128, spectral: bool = True, pool: Literal["sum", "mean"] = "sum",
    ):  # fmt: skip
        super().__init__()
        channels, height, breadth = image_shape(shape, "a resnet")
        halvings = max(1, pyramid(height, breadth, "a resnet")[0] - 1)
        have, blocks = channels, []
        for i in range(halvings + 2):
            blocks.append(Down(have, width, spectral, halve=i < halvings, first=i == 0))
            have = width
        self.blocks, self.pool = nn.Sequential(*blocks), pool
        self.out = initialised(nn.Linear(width, 1), gain=1, spectral=spectral)

    def forward(self, x: Tensor) -> Tensor:
        h = self.blocks(x).relu()
        return self.out(h.sum((2, 3)) if self.pool == "sum" else h.mean((2, 3))).flatten(0)


def double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0)
