"""BEGAN: D is an autoencoder, and what it rebuilds well passes for real.

BEGAN: Boundary Equilibrium Generative Adversarial Networks (Berthelot et al. 2017), arXiv:1703.10717, figure 1: pairs
of 3x3 convolutions with exponential linear units down to a map of 8x8, whose channels grow by `width` with each
halving; a code of 64 numbers; G is built like D's decoder. At 32x32 these are the paper's layers; other sizes have
fewer or more of them, and a smallest map of up to 15x15.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from ganlab.nn.pyramid import image_shape, pyramid


def sizes(shape: Sequence[int]) -> tuple[int, int, tuple[int, int]]:
    """(channels of the image, doublings, size of the smallest map): one doubling less than the other pyramids."""
    channels, height, breadth = image_shape(shape, "began")
    doublings, (h, w) = pyramid(height, breadth, "began")
    return channels, doublings - 1, (2 * h, 2 * w)


def pair(have: int, out: int) -> list[nn.Module]:
    """Two 3x3 convolutions with their units."""
    return [nn.Conv2d(have, have, 3, padding=1), nn.ELU(), nn.Conv2d(have, out, 3, padding=1), nn.ELU()]


class Generator(nn.Sequential):
    """z [N, z_dim] -> images [N, *shape], about in [-1, 1]; also D's decoder, z being the code.

    width   channels of every map
    """

    def __init__(self, shape: Sequence[int], z_dim: int = 64, width: int = 128):
        channels, doublings, (h, w) = sizes(shape)
        layers: list[nn.Module] = [nn.Linear(z_dim, width * h * w), nn.Unflatten(1, (width, h, w)), *pair(width, width)]
        for _ in range(doublings):
            layers += [nn.Upsample(scale_factor=2.0, mode="nearest"), *pair(width, width)]
        super().__init__(*layers, nn.Conv2d(width, channels, 3, padding=1))
        self.z_dim = z_dim


class Discriminator(nn.Module):
    """images [N, *shape] -> logits [N]: minus the mean absolute error of each image's reconstruction, so at most 0.

    code_dim   length of the code between encoder and decoder
    width      channels of the largest map
    """

    is_autoencoder = True

    def __init__(self, shape: Sequence[int], code_dim: int = 64, width: int = 128):
        super().__init__()
        channels, doublings, (h, w) = sizes(shape)
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.ELU(), *pair(width, width)]
        for i in range(1, doublings + 1):
            halve = nn.Conv2d(i * width, (i + 1) * width, 3, stride=2, padding=1)
            layers += [halve, nn.ELU(), *pair((i + 1) * width, (i + 1) * width)]
        layers += [nn.Flatten(), nn.Linear((doublings + 1) * width * h * w, code_dim)]
        self.encoder = nn.Sequential(*layers)
        self.decoder = Generator(shape, code_dim, width)

    def forward(self, x: Tensor) -> Tensor:
        return -(x - self.decoder(self.encoder(x))).abs().flatten(1).mean(1)
