"""MSG-GAN: G makes an image at every scale, D sees them all at once, and gradients reach every scale directly.

MSG-GAN: Multi-Scale Gradients for Generative Adversarial Networks (Karnewar & Wang 2020), arXiv:1903.06048: MSG-ProGAN,
whose D concatenates each image with its features as it is (phi_simple), with a minibatch deviation in every block. At
1024x1024 these are the paper's layers; other sizes have fewer of them.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ganlab.nn.equalized import EqualizedConv2d
from ganlab.nn.growing import GAIN, layer, maps, upwards, verdict
from ganlab.nn.minibatch import MinibatchStd
from ganlab.nn.pyramid import image_shape, pyramid
from ganlab.phase import GeneratorOutput


class Generator(nn.Module):
    """z [N, z_dim] -> images [N, *shape], about in [-1, 1], with the smaller ones as aux: a tuple from half the size
    down to the smallest map's.

    width      channels of a map, at most
    capacity   at most this over a square map's side: 16384 gives 512 channels up to 32x32, then half at each doubling
    """

    def __init__(self, shape: Sequence[int], z_dim: int = 512, width: int = 512, capacity: int = 16384):
        super().__init__()
        channels, height, breadth = image_shape(shape, "msggan")
        doublings, base = pyramid(height, breadth, "msggan")
        sizes = maps(width, capacity, doublings)
        self.z_dim, self.scales = z_dim, len(sizes)
        self.blocks = upwards(z_dim, sizes, base)
        self.to_image = nn.ModuleList(EqualizedConv2d(size, channels, 1) for size in sizes)

    def forward(self, z: Tensor) -> GeneratorOutput:
        h = z
        images: tuple[Tensor, ...] = ()
        for block, to_image in zip(self.blocks, self.to_image, strict=True):
            h = block(h)
            images = (to_image(h), *images)
        return GeneratorOutput(images[0], images[1:])


class Discriminator(nn.Module):
    """(images [N, *shape], those of half the size, ..., those of the smallest map's) -> logits [N].

    width, capacity   as `Generator`'s
    """

    def __init__(self, shape: Sequence[int], width: int = 512, capacity: int = 16384):
        super().__init__()
        channels, height, breadth = image_shape(shape, "msggan")
        doublings, base = pyramid(height, breadth, "msggan")
        smallest, *larger = sizes = maps(width, capacity, doublings)
        self.from_image = nn.Sequential(EqualizedConv2d(channels, sizes[-1], 1, gain=GAIN), nn.LeakyReLU(0.2))
        self.blocks = nn.ModuleList([verdict(smallest + channels, smallest, base)])
        for i, (out, have) in enumerate(pairwise(sizes), 1):
            shown = channels if i < len(larger) else 0  # the largest image comes through from_image
            first, second = layer(have + shown + 1, have), layer(have, out)
            self.blocks.insert(0, nn.Sequential(MinibatchStd(), *first, *second, nn.AvgPool2d(2)))

    def forward(self, images: Sequence[Tensor]) -> Tensor:
        h = self.from_image(images[0])
        for i, (block, x) in enumerate(zip(self.blocks, images, strict=True)):
            h = block(torch.cat([x, h], 1) if i else h)
        return h.flatten(0)
