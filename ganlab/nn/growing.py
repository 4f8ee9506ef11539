"""The blocks of ProGAN, which other networks of its kind share.

Progressive Growing of GANs for Improved Quality, Stability, and Variation (Karras et al. 2018), arXiv:1710.10196,
table 2.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from ganlab.nn.equalized import EqualizedConv2d, EqualizedLinear, PixelNorm
from ganlab.nn.minibatch import MinibatchStd

GAIN = math.sqrt(2)  # He et al. 2015, as the paper has it before leaky ReLUs


def maps(width: int, capacity: int, doublings: int) -> list[int]:
    """Channels from the smallest map to the largest: `capacity` over a square map's side, at most `width`."""
    return [min(width, max(1, capacity // (4 * 2**level))) for level in range(doublings + 1)]


def layer(have: int, out: int, norm: bool = False) -> list[nn.Module]:
    """3x3, activation, and in G pixel norm."""
    conv = EqualizedConv2d(have, out, 3, padding=1, gain=GAIN)
    return [conv, nn.LeakyReLU(0.2), *([PixelNorm()] if norm else [])]


def upwards(z_dim: int, sizes: Sequence[int], base: tuple[int, int]) -> nn.ModuleList:
    """G's blocks: z [N, z_dim] -> [N, sizes[0], *base] -> [N, sizes[1], twice the base] -> ..."""
    first = nn.Sequential(
        PixelNorm(),
        nn.Unflatten(1, (z_dim, 1, 1)),
        EqualizedConv2d(z_dim, sizes[0], base, padding=(base[0] - 1, base[1] - 1), gain=GAIN),
        nn.LeakyReLU(0.2),
        PixelNorm(),
        *layer(sizes[0], sizes[0], norm=True),
    )
    rest = [
        nn.Sequential(nn.Upsample(scale_factor=2.0), *layer(have, out, norm=True), *layer(out, out, norm=True))
        for have, out in pairwise(sizes)
    ]
    return nn.ModuleList([first, *rest])


def verdict(have: int, width: int, base: tuple[int, int]) -> nn.Sequential:
    """D's last block: [N, have, *base] -> [N, 1]."""
    return nn.Sequential(
        MinibatchStd(), *layer(have + 1, width), EqualizedConv2d(width, width, base, gain=GAIN), nn.LeakyReLU(0.2),
        nn.Flatten(), EqualizedLinear(width, 1),
    )  # fmt: skip
