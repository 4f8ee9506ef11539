"""VGAN: a still background, a moving foreground, and a mask that says where each is seen.

Generating Videos with Scene Dynamics (Vondrick et al. 2016), arXiv:1609.02612. 32 frames of 64x64 are the paper's
layers; other sizes have fewer or more of them.
"""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from ganlab.nn.clips import clip_pyramid, clip_shape, initialised
from ganlab.nn.pyramid import widths
from ganlab.phase import GeneratorOutput


class Generator(nn.Module):
    """z [N, z_dim] -> clips [N, *shape] in [-1, 1], with the mask [N, 1, T, H, W] as aux: mask * foreground +
    (1 - mask) * background (section 3.1, eq. 2).

    width   channels of the largest map
    """

    def __init__(self, shape: Sequence[int], z_dim: int = 100, width: int = 64):
        super().__init__()
        channels, *size = clip_shape(shape, "vgan")
        doublings, in_time, base = clip_pyramid(size[0], size[1], size[2], "vgan")
        self.z_dim = z_dim
        *larger, smallest = widths(width, doublings)

        def start(convolution: Any, norm: Any, map_: tuple[int, ...]) -> list[nn.Module]:
            first = convolution(z_dim, smallest, map_, bias=False)
            return [nn.Unflatten(1, (z_dim, *[1] * len(map_))), first, norm(smallest), nn.ReLU()]

        moving = start(nn.ConvTranspose3d, nn.BatchNorm3d, base)
        still = start(nn.ConvTranspose2d, nn.BatchNorm2d, base[1:])
        have = smallest
        for i, out in enumerate(reversed(larger)):
            doubled = nn.ConvTranspose3d(have, out, **halving(i < in_time), bias=False)
            moving += [doubled, nn.BatchNorm3d(out), nn.ReLU()]
            still += [nn.ConvTranspose2d(have, out, 4, 2, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
            have = out
        last = halving(doublings - 1 < in_time)
        self.moving, self.still = nn.Sequential(*moving), nn.Sequential(*still)
        self.foreground = nn.Sequential(nn.ConvTranspose3d(have, channels, **last), nn.Tanh())
        self.mask = nn.Sequential(nn.ConvTranspose3d(have, 1, **last), nn.Sigmoid())
        self.background = nn.Sequential(nn.ConvTranspose2d(have, channels, 4, 2, 1), nn.Tanh())
        self.apply(initialised)

    def forward(self, z: Tensor) -> GeneratorOutput:
        h = self.moving(z)
        mask, background = self.mask(h), self.background(self.still(z))[:, :, None]  # [N, C, 1, H, W]
        return GeneratorOutput(mask * self.foreground(h) + (1 - mask) * background, mask)


class Discriminator(nn.Sequential):
    """clips [N, *shape] -> logits [N].

    norm   "batch", or "none", as a gradient penalty needs it
    """

    def __init__(self, shape: Sequence[int], width: int = 64, norm: Literal["batch", "none"] = "batch"):
        if norm not in ("batch", "none"):
            raise ValueError(f"discriminator.norm={norm!r}: must be batch or none")
        channels, *size = clip_shape(shape, "vgan")
        doublings, in_time, base = clip_pyramid(size[0], size[1], size[2], "vgan")
        layers: list[nn.Module] = []
        have = channels
        for i, out in enumerate(widths(width, doublings)):
            normed = i > 0 and norm == "batch"
            layers.append(nn.Conv3d(have, out, **halving(i >= doublings - in_time), bias=not normed))
            layers += [nn.BatchNorm3d(out)] if normed else []
            layers.append(nn.LeakyReLU(0.2))
            have = out
        super().__init__(*layers, nn.Conv3d(have, 1, base, bias=False), nn.Flatten(0))
        self.apply(initialised)


def halving(time: bool) -> dict[str, Any]:
    """Of a convolution that halves, or doubles, height and width, and perhaps the time."""
    return {"kernel_size": (4 if time else 3, 4, 4), "stride": (2 if time else 1, 2, 2), "padding": 1}
