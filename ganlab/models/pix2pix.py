"""pix2pix: from one image to another, by a U-Net and a discriminator of patches.

Image-to-Image Translation with Conditional Adversarial Networks (Isola et al. 2017), arXiv:1611.07004. At 256x256 these
are the layers of appendix 6.1; other sizes have fewer of them.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ganlab.nn.patchgan import Norm, PatchGAN, initialised, norm_layer
from ganlab.nn.pyramid import pyramid, same_size


class Generator(nn.Module):
    """Images [N, *inputs] -> images [N, *shape] in [-1, 1], of the same height and width: a U-Net, whose maps on the
    way up are joined by those on the way down. Any height and width will do that `multiple` divides.

    inputs    shape of what it starts from; None: the same as `shape`
    width     channels of the largest map; the others have at most 8 times as many
    depth     how often the map is halved; None: as often as the size allows, at most 8 times
    dropout   in the first three layers on the way up, in training: the paper's noise, which is left out afterwards
    tanh      False: numbers of any size come out, as logits are
    """

    def __init__(
        self, shape: Sequence[int], inputs: Sequence[int] | None = None, width: int = 64, depth: int | None = None,
        norm: Norm = "instance", dropout: float = 0.5, tanh: bool = True,
    ):  # fmt: skip
        super().__init__()
        channels, start, size = same_size(shape, inputs, "pix2pix")
        pyramid(size[0], size[1], "pix2pix")  # refuses sizes that can't be halved often enough
        most = min(8, *((side & -side).bit_length() - 1 for side in size))
        if depth is not None and not 1 <= depth <= most:
            raise ValueError(f"generator.depth={depth}: {size[0]}x{size[1]} can be halved {most} times at most")
        depth = depth or most
        self.multiple = 2**depth
        widths = [width * min(2**i, 8) for i in range(depth)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        have = start
        for i, out in enumerate(widths):  # the first has no norm, nor has the last, whose map may be a single pixel
            normed = norm_layer(norm, out) if 0 < i < depth - 1 else []
            before = [nn.LeakyReLU(0.2)] if i else []
            self.down.append(nn.Sequential(*before, nn.Conv2d(have, out, 4, 2, 1, bias=not normed), *normed))
            have = out
        for i, out in enumerate([*widths[-2::-1], channels]):
            normed = norm_layer(norm, out) if i < depth - 1 else []
            dropped = [nn.Dropout(dropout)] if i < min(3, depth - 2) else []
            layer = nn.ConvTranspose2d(have, out, 4, 2, 1, bias=not normed)
            self.up.append(nn.Sequential(nn.ReLU(), layer, *normed, *dropped))
            have = 2 * out  # with the map of the way down
        self.tanh, self.last = tanh, nn.Tanh() if tanh else nn.Identity()
        self.apply(initialised)

    def forward(self, x: Tensor) -> Tensor:
        maps: list[Any] = []
        for layer in self.down:
            x = layer(x)
            maps.append(x)
        x = self.up[0](maps.pop())
        for layer in self.up[1:]:
            x = layer(torch.cat([x, maps.pop()], 1))
        return self.last(x)


class Discriminator(PatchGAN):
    """The paper's, of patches of 70x70 where `layers` is 3."""
