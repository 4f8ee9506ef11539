"""Context encoder: an encoder and a decoder, between which all that is known of an image goes through a bottleneck.

Context Encoders: Feature Learning by Inpainting (Pathak et al. 2016), arXiv:1604.07379. At 128x128 the encoder has the
layers of the paper's figure 9a; other sizes have fewer or more of them. The paper's decoder makes the missing middle
alone, this one the whole image, so that anything can be missing.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ganlab.nn.pyramid import pyramid, same_size, widths


class ChannelwiseLinear(nn.Module):
    """[N, channels, h, w] -> the same: each map fully connected with itself alone, so that what is known reaches all of
    it with `channels` * (h w)^2 weights, not their square (section 3.1). No channel hears of another: a convolution
    must follow."""

    def __init__(self, channels: int, height: int, width: int):
        super().__init__()
        pixels = height * width
        self.weight = nn.Parameter(torch.randn(channels, pixels, pixels) * pixels**-0.5)  # as large as it came
        self.bias = nn.Parameter(torch.zeros(channels, pixels))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.einsum("ncp,cpq->ncq", x.flatten(2), self.weight.to(x)) + self.bias.to(x)
        return y.view_as(x)


class Generator(nn.Sequential):
    """Images [N, *inputs] -> images [N, *shape] in [-1, 1], of the same size, and of this size alone.

    inputs       shape of what it starts from; None: the same as `shape`
    width        channels of the largest maps
    bottleneck   "units": a convolution that leaves one pixel, as the paper repairs images; "channelwise": fully
                 connected maps and a 1x1 convolution, as it learns features (section 3.1)
    units        channels of that pixel; None: the paper's 4000 for a width of 64, and in proportion
    """

    def __init__(
        self, shape: Sequence[int], inputs: Sequence[int] | None = None, width: int = 64,
        bottleneck: Literal["units", "channelwise"] = "units", units: int | None = None,
    ):  # fmt: skip
        if bottleneck not in ("units", "channelwise"):
            raise ValueError(f"generator.bottleneck={bottleneck!r}: must be units or channelwise")
        channels, start, size = same_size(shape, inputs, "context_encoder")
        doublings, base = pyramid(size[0], size[1], "context_encoder")
        maps = [width, *widths(width, doublings - 1)]  # channels, from the largest map to the smallest
        layers: list[nn.Module] = []
        have = start
        for i, out in enumerate(maps):
            normed = [nn.BatchNorm2d(out)] if i else []
            layers += [nn.Conv2d(have, out, 4, 2, 1, bias=not normed), *normed, nn.LeakyReLU(0.2)]
            have = out
        if bottleneck == "units":  # no norm of one pixel
            units = units or round(4000 * width / 64)
            layers += [nn.Conv2d(have, units, base), nn.LeakyReLU(0.2)]
            layers += [nn.ConvTranspose2d(units, have, base, bias=False), nn.BatchNorm2d(have), nn.ReLU()]
        else:
            layers += [ChannelwiseLinear(have, *base), nn.Conv2d(have, have, 1, bias=False)]
            layers += [nn.BatchNorm2d(have), nn.ReLU()]
        for out in maps[-2::-1]:
            layers += [nn.ConvTranspose2d(have, out, 4, 2, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
            have = out
        super().__init__(*layers, nn.ConvTranspose2d(have, channels, 4, 2, 1), nn.Tanh())
