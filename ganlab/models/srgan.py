"""SRGAN and SRResNet: larger images than are given, by residual blocks and a rearrangement of channels into pixels.

Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network (Ledig et al. 2017),
arXiv:1609.04802, figure 4.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from ganlab.nn.patchgan import Norm, norm_layer
from ganlab.nn.pyramid import image_shape, pyramid
from ganlab.nn.upscaling import begin_at_enlargement, enlarged, scale_of, steps_of


class Block(nn.Module):
    """x + norm(conv(PReLU(norm(conv(x)))))."""

    def __init__(self, width: int, norm: Norm):
        super().__init__()
        self.layers = nn.Sequential(*conv(width, width, norm), nn.PReLU(), *conv(width, width, norm))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Generator(nn.Module):
    """SRResNet: images [N, *inputs] -> images [N, *shape]; images of any other size come out as many times as large.

    inputs     shape of what it starts from, which tells the scale; None: the same as `shape`
    width      channels
    blocks     residual blocks
    norm       batch, instance, none
    residual   what it makes is added to the bicubic enlargement, from which it begins
    """

    def __init__(
        self, shape: Sequence[int], inputs: Sequence[int] | None = None, width: int = 64, blocks: int = 16,
        norm: Norm = "batch", residual: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.scale, self.residual = scale_of(shape, inputs, "srresnet"), residual
        self.multiple = 1  # of any size that will do
        channels, start = shape[0], (inputs or shape)[0]
        self.first = nn.Sequential(nn.Conv2d(start, width, 9, padding=4), nn.PReLU())
        self.body = nn.Sequential(*(Block(width, norm) for _ in range(blocks)), *conv(width, width, norm))
        self.up = nn.Sequential()
        for step in steps_of(self.scale):
            self.up.extend([*conv(width, width * step**2), nn.PixelShuffle(step), nn.PReLU()])
        self.last = nn.Conv2d(width, channels, 9, padding=4)
        if residual:
            begin_at_enlargement(self.last, start)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        y = self.last(self.up(h + self.body(h)))
        return y + enlarged(x, self.scale) if self.residual else y


class Discriminator(nn.Module):
    """Images [N, *shape] -> logits [N]: at 96x96 the paper's, four halvings and 1,024 numbers of all of the last map;
    at 128x128, with five, ESRGAN's kind.

    width   channels of the largest map; the others have at most 8 times as many
    """

    def __init__(self, shape: Sequence[int], width: int = 64, norm: Norm = "batch"):
        super().__init__()
        channels, *size = image_shape(shape, "srgan")
        halvings, (h, w) = pyramid(size[0], size[1], "srgan")
        layers: list[nn.Module] = [*conv(channels, width), nn.LeakyReLU(0.2)]
        have = width
        for i in range(halvings):
            out = width * min(2**i, 8)
            layers += [*conv(have, out, norm), nn.LeakyReLU(0.2)] if i else []
            layers += [*conv(out, out, norm, stride=2), nn.LeakyReLU(0.2)]
            have = out
        ends = [nn.Linear(have * h * w, 16 * width), nn.LeakyReLU(0.2), nn.Linear(16 * width, 1)]
        self.layers = nn.Sequential(*layers, nn.Flatten(), *ends)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).squeeze(1)


def conv(have: int, out: int, norm: Norm = "none", stride: int = 1) -> list[nn.Module]:
    normed = norm_layer(norm, out)
    return [nn.Conv2d(have, out, 3, stride, 1, bias=not normed), *normed]
