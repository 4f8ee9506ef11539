"""CycleGAN: two generators, each the way back of the other, learned without pairs.

Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks (Zhu et al. 2017), arXiv:1703.10593;
the layers are those of appendix 7.2.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from ganlab.nn.patchgan import Norm, PatchGAN, initialised, norm_layer
from ganlab.nn.pyramid import pyramid, same_size

Pair = tuple[Tensor, Tensor]


class Block(nn.Module):
    """Two convolutions, added to what they started from."""

    def __init__(self, channels: int, norm: Norm):
        super().__init__()
        layer = lambda: [nn.ReflectionPad2d(1), *convolution(channels, channels, 3, norm)]
        self.layers = nn.Sequential(*layer(), nn.ReLU(), *layer())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def convolution(have: int, out: int, size: int, norm: Norm, stride: int = 1, padding: int = 0) -> list[nn.Module]:
    normed = norm_layer(norm, out)
    return [nn.Conv2d(have, out, size, stride, padding, bias=not normed), *normed]


class ResNet(nn.Module):
    """Images [N, start, h, w] -> images [N, channels, h, w] in [-1, 1], of any size that 2^halvings divides: the map is
    halved, goes through residual blocks, and is doubled again (Johnson et al. 2016, arXiv:1603.08155)."""

    def __init__(self, start: int, channels: int, width: int, halvings: int, blocks: int, norm: Norm):
        super().__init__()
        self.channels = channels
        widths = [width * 2**i for i in range(halvings + 1)]
        parts: list[nn.Module] = [nn.ReflectionPad2d(3), *convolution(start, width, 7, norm), nn.ReLU()]
        for have, out in pairwise(widths):
            parts += [*convolution(have, out, 3, norm, stride=2, padding=1), nn.ReLU()]
        parts += [Block(widths[-1], norm) for _ in range(blocks)]
        for have, out in pairwise(widths[::-1]):
            normed = norm_layer(norm, out)
            parts += [nn.ConvTranspose2d(have, out, 3, 2, 1, output_padding=1, bias=not normed), *normed, nn.ReLU()]
        self.layers = nn.Sequential(*parts, nn.ReflectionPad2d(3), nn.Conv2d(width, channels, 7), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Generator(nn.Module):
    """(inputs [N, *inputs], reals [N, *shape]) -> (fakes like the reals, fakes like the inputs), each by a network of
    its own: `there` and `back`. Inputs alone -> fakes like the reals.

    inputs   shape of what it starts from; None: the same as `shape`
    width    channels of the largest map
    blocks   residual blocks; None: 9 from 256 pixels on, else 6
    """

    def __init__(
        self, shape: Sequence[int], inputs: Sequence[int] | None = None, width: int = 64, blocks: int | None = None,
        norm: Norm = "instance",
    ):  # fmt: skip
        super().__init__()
        channels, start, size = same_size(shape, inputs, "cyclegan")
        halvings = min(2, pyramid(size[0], size[1], "cyclegan")[0])
        self.multiple = 2**halvings  # of any size that will do
        blocks = blocks or (9 if min(size) >= 256 else 6)
        self.there = ResNet(start, channels, width, halvings, blocks, norm)
        self.back = ResNet(channels, start, width, halvings, blocks, norm)
        self.apply(initialised)

    def forward(self, x: Pair | Tensor) -> Pair | Tensor:
        if isinstance(x, Tensor):
            return self.there(x)
        return self.there(x[0]), self.back(x[1])


class Discriminator(nn.Module):
    """(images like the reals, images like the inputs) -> logits of both, each from a network of its own.

    inputs   shape of the inputs; None: the same as `shape`

    The others are PatchGAN's, patches being of 70x70 where `layers` is 3.
    """

    def __init__(
        self, shape: Sequence[int], inputs: Sequence[int] | None = None, width: int = 64, layers: int | None = None,
        norm: Norm = "instance",
    ):  # fmt: skip
        super().__init__()
        self.of_real = PatchGAN(shape, None, width, layers, norm)
        self.of_inputs = PatchGAN(inputs or shape, None, width, layers, norm)

    def forward(self, x: Pair) -> Pair:
        return self.of_real(x[0]), self.of_inputs(x[1])
