"""ESRGAN's generator: residual blocks within residual blocks, each densely connected, without batch norm.

ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks (Wang et al. 2018), arXiv:1809.00219, section 3.1. D
is that of `ganlab.models.srgan`.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganlab.nn.upscaling import begin_at_enlargement, enlarged, scale_of, steps_of

BETA = 0.2  # what a block adds is scaled by this


class Dense(nn.Module):
    """x + beta times the last of five convolutions, each of which sees all maps before it."""

    def __init__(self, width: int, growth: int):
        super().__init__()
        outs = [growth] * 4 + [width]
        layers = [nn.Conv2d(width + i * growth, n, 3, padding=1) for i, n in enumerate(outs)]
        for layer in layers:  # small, so that a deep network begins near the identity
            nn.init.kaiming_normal_(layer.weight)
            layer.weight.data.mul_(0.1)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        *inner, last = self.layers
        maps = [x]
        for layer in inner:
            maps.append(F.leaky_relu(layer(torch.cat(maps, 1)), 0.2))
        return x + BETA * last(torch.cat(maps, 1))


class RRDB(nn.Module):
    """x + beta times three dense blocks, figure 4."""

    def __init__(self, width: int, growth: int):
        super().__init__()
        self.blocks = nn.Sequential(*(Dense(width, growth) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        return x + BETA * self.blocks(x)


class Generator(nn.Module):
    """RRDBNet: images [N, *inputs] -> images [N, *shape]; images of any other size come out as many times as large.

    inputs     shape of what it starts from, which tells the scale; None: the same as `shape`
    width      channels
    blocks     residual-in-residual blocks
    growth     channels that each convolution in a dense block adds; None: half of `width`
    residual   what it makes is added to the bicubic enlargement, from which it begins
    """

    def __init__(
        self, shape: Sequence[int], inputs: Sequence[int] | None = None, width: int = 64, blocks: int = 23,
        growth: int | None = None, residual: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.scale, self.residual = scale_of(shape, inputs, "esrgan"), residual
        self.multiple = 1  # of any size that will do
        channels, start = shape[0], (inputs or shape)[0]
        conv = lambda have, out: nn.Conv2d(have, out, 3, padding=1)
        self.first = conv(start, width)
        rrdbs = [RRDB(width, growth or max(1, width // 2)) for _ in range(blocks)]
        self.body = nn.Sequential(*rrdbs, conv(width, width))
        self.up = nn.Sequential()
        for step in steps_of(self.scale):
            self.up.extend([nn.Upsample(scale_factor=step), conv(width, width), nn.LeakyReLU(0.2)])
        self.last = nn.Sequential(conv(width, width), nn.LeakyReLU(0.2), end := conv(width, channels))
        if residual:
            begin_at_enlargement(end, start)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        y = self.last(self.up(h + self.body(h)))
        return y + enlarged(x, self.scale) if self.residual else y
