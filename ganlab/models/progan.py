"""ProGAN: both players start at 4x4 and grow, level by level, while they train.

Progressive Growing of GANs for Improved Quality, Stability, and Variation (Karras et al. 2018), arXiv:1710.10196,
section 2 and table 2. At 1024x1024 these are the paper's layers; other sizes have fewer of them.

Images have their full size at every level: what is small is spread over it, and D averages it down again. Gradients
are scaled on both ways so that a gradient penalty and G receive those of the small image, as in the paper.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganlab.nn.equalized import EqualizedConv2d
from ganlab.nn.growing import GAIN, layer, maps, upwards, verdict
from ganlab.nn.pyramid import image_shape, pyramid


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """x, whose gradient will be multiplied."""
    return x.detach() + factor * (x - x.detach())


def shrink(x: Tensor, times: int) -> Tensor:
    """[N, C, H, W] -> [N, C, H / times, W / times]. The gradient to x has the length of that to the result."""
    return scale_gradient(F.avg_pool2d(x, times), times) if times > 1 else x


def spread(x: Tensor, times: int) -> Tensor:
    """[N, C, H, W] -> [N, C, H * times, W * times], which undoes `shrink` for values and gradients."""
    return scale_gradient(F.interpolate(x, scale_factor=float(times)), 1 / times) if times > 1 else x


class Growing(nn.Module):
    """A network of several levels that is as far grown as the clock says.

    last         number of the level with the full size; level 0 has the smallest map
    stage_kimg   how long a level is trained alone
    fade_kimg    how long before that it is faded in; 0 and 0: all levels are there from the start
    """

    def __init__(self, last: int, stage_kimg: float, fade_kimg: float):
        super().__init__()
        for key, value in (("stage_kimg", stage_kimg), ("fade_kimg", fade_kimg)):
            if value < 0:
                raise ValueError(f"generator.{key}, discriminator.{key}={value}: must be at least 0")
        self.last, self.stage_kimg, self.fade_kimg = last, stage_kimg, fade_kimg
        self.seen = 0

    def set_clock(self, seen: int) -> None:
        """seen: samples"""
        self.seen = seen

    def steady(self) -> tuple[int, float]:
        return self.stage()

    def stage(self) -> tuple[int, float]:
        """(level, alpha): the newest level, and its share in the picture, 0 to 1."""
        period = self.fade_kimg + self.stage_kimg
        level, passed = divmod(self.seen / 1000 + self.fade_kimg, period) if period else (self.last + 1, 0.0)
        if level > self.last:
            return self.last, 1.0
        return int(level), min(1.0, passed / self.fade_kimg) if self.fade_kimg else 1.0

    def faded(self, x: Tensor) -> Tensor:
        """Images [N, C, H, W] with as much detail as the level has: averaged down to it, during a fade mixed with the
        level before, and spread over their full size again."""
        level, alpha = self.stage()
        x = F.avg_pool2d(x, 2 ** (self.last - level))
        if alpha < 1:
            x = torch.lerp(F.interpolate(F.avg_pool2d(x, 2), scale_factor=2.0), x, alpha)
        return spread(x, 2 ** (self.last - level))

    def get_extra_state(self) -> Tensor:  # a buffer would have to be fetched from the device at every forward
        return torch.tensor(self.seen)

    def set_extra_state(self, state: Tensor) -> None:
        self.seen = int(state)


class Generator(Growing):
    """z [N, z_dim] -> images [N, *shape], about in [-1, 1].

    width      channels of a map, at most
    capacity   at most this over a square map's side: 16384 gives 512 channels up to 32x32, then half at each doubling
    stage_kimg, fade_kimg   see `Growing`
    """

    def __init__(
        self, shape: Sequence[int], z_dim: int = 512, width: int = 512, capacity: int = 16384,
        stage_kimg: float = 600.0, fade_kimg: float = 600.0,
    ):  # fmt: skip
        channels, height, breadth = image_shape(shape, "progan")
        doublings, base = pyramid(height, breadth, "progan")
        super().__init__(doublings, stage_kimg, fade_kimg)
        self.z_dim = z_dim
        sizes = maps(width, capacity, doublings)
        self.blocks = upwards(z_dim, sizes, base)
        self.to_image = nn.ModuleList(EqualizedConv2d(size, channels, 1) for size in sizes)

    def forward(self, z: Tensor) -> Tensor:
        level, alpha = self.stage()
        before, h = z, z
        for block in self.blocks[: level + 1]:
            before, h = h, block(h)
        x = self.to_image[level](h)
        if alpha < 1:
            x = torch.lerp(F.interpolate(self.to_image[level - 1](before), scale_factor=2.0), x, alpha)
        return spread(x, 2 ** (self.last - level))


class Discriminator(Growing):
    """images [N, *shape] -> logits [N]. Arguments as `Generator`'s."""

    def __init__(
        self, shape: Sequence[int], width: int = 512, capacity: int = 16384,
        stage_kimg: float = 600.0, fade_kimg: float = 600.0,
    ):  # fmt: skip
        channels, height, breadth = image_shape(shape, "progan")
        doublings, base = pyramid(height, breadth, "progan")
        super().__init__(doublings, stage_kimg, fade_kimg)
        sizes = maps(width, capacity, doublings)
        rest = [nn.Sequential(*layer(have, have), *layer(have, out), nn.AvgPool2d(2)) for out, have in pairwise(sizes)]
        self.blocks = nn.ModuleList([verdict(sizes[0], sizes[0], base), *rest])
        self.from_image = nn.ModuleList(
            nn.Sequential(EqualizedConv2d(channels, size, 1, gain=GAIN), nn.LeakyReLU(0.2)) for size in sizes
        )

    def forward(self, x: Tensor) -> Tensor:
        level, alpha = self.stage()
        x = shrink(x, 2 ** (self.last - level))
        h = self.blocks[level](self.from_image[level](x))
        if alpha < 1:
            h = torch.lerp(self.from_image[level - 1](F.avg_pool2d(x, 2)), h, alpha)
        for i in reversed(range(level)):
            h = self.blocks[i](h)
        return h.flatten(0)
