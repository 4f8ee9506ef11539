"""R3GAN: residual networks without normalisation, for the regularized relativistic game.

The GAN is dead; long live the GAN! A Modern GAN Baseline (Huang et al. 2024), arXiv:2501.05441, section 4: for CIFAR-10
768 channels at every resolution, 2 blocks each, z of 64. Fixup initialisation: Zhang et al. 2019, arXiv:1901.09321.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganlab.nn.conditional import LabelEmbedding
from ganlab.nn.pyramid import image_shape, pyramid

GAIN = math.sqrt(2 / (1 + 0.2**2))  # of leaky ReLU


def initialised(layer: nn.Module, gain: float = 1.0) -> nn.Module:
    """Normal with a deviation of gain / sqrt(fan in); bias 0."""
    assert isinstance(layer, (nn.Conv2d, nn.Linear))
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Block(nn.Module):
    """x + 1x1(act(grouped 3x3(act(1x1(x))))), the last convolution starting at 0.

    depth   number of such blocks in the network: Fixup scales by depth^(-1/4)
    """

    def __init__(self, width: int, expansion: int, group: int, depth: int):
        super().__init__()
        inner = width * expansion
        gain = GAIN * depth ** (-1 / 4)
        self.narrow = initialised(nn.Conv2d(width, inner, 1), gain)
        self.wide = initialised(nn.Conv2d(inner, inner, 3, padding=1, groups=max(1, inner // group)), gain)
        self.out = initialised(nn.Conv2d(inner, width, 1, bias=False), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.wide(F.leaky_relu(self.narrow(x), 0.2)), 0.2)
        return x + self.out(h)


class Generator(nn.Module):
    """z [N, z_dim], label [N] where there are classes -> images [N, *shape], about in [-1, 1].

    width       channels at every resolution
    blocks      per resolution
    expansion   of a block's inner channels
    group       channels in one group of the 3x3 convolutions
    classes     number of labels, embedded into as many numbers as z has; None: it is told none
    """

    def __init__(
        self, shape: Sequence[int], z_dim: int = 64, width: int = 768, blocks: int = 2, expansion: int = 2,
        group: int = 16, classes: int | None = None,
    ):  # fmt: skip
        super().__init__()
        channels, height, breadth = image_shape(shape, "r3gan")
        doublings, base = pyramid(height, breadth, "r3gan")
        depth = (doublings + 1) * blocks
        self.z_dim, self.classes = z_dim, classes
        self.label = LabelEmbedding(classes, z_dim) if classes else None
        self.basis = nn.Parameter(torch.randn(width, *base))
        self.scale = initialised(nn.Linear(z_dim * (2 if classes else 1), width, bias=False))
        make = lambda: nn.Sequential(*[Block(width, expansion, group, depth) for _ in range(blocks)])
        self.stages = nn.ModuleList(make() for _ in range(doublings + 1))
        self.out = initialised(nn.Conv2d(width, channels, 1))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        if self.label is not None:
            z = torch.cat([z, self.label(label)], 1)
        h = self.basis * self.scale(z)[..., None, None]  # [N, width, *base]
        for i, stage in enumerate(self.stages):
            h = stage(h if i == 0 else F.interpolate(h, scale_factor=2.0, mode="bilinear"))
        return self.out(h)


class Discriminator(nn.Module):
    """images [N, *shape], label [N] where there are classes -> logits [N]; with classes by projection."""

    def __init__(
        self, shape: Sequence[int], width: int = 768, blocks: int = 2, expansion: int = 2, group: int = 16,
        classes: int | None = None,
    ):  # fmt: skip
        super().__init__()
        channels, height, breadth = image_shape(shape, "r3gan")
        doublings, base = pyramid(height, breadth, "r3gan")
        depth = (doublings + 1) * blocks
        self.classes = classes
        self.inside = initialised(nn.Conv2d(channels, width, 1))
        make = lambda: nn.Sequential(*[Block(width, expansion, group, depth) for _ in range(blocks)])
        self.stages = nn.ModuleList(make() for _ in range(doublings + 1))
        self.basis = initialised(nn.Conv2d(width, width, base, groups=width, bias=False))  # one number per channel
        self.label = LabelEmbedding(classes, width) if classes else None
        self.out = initialised(nn.Linear(width, width if classes else 1, bias=False))

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        h = self.inside(x)
        for i, stage in enumerate(self.stages):
            h = stage(h if i == 0 else F.avg_pool2d(h, 2))
        h = self.out(self.basis(h).flatten(1))
        return h.flatten(0) if self.label is None else (h * self.label(label)).sum(1) / math.sqrt(h.shape[1])
