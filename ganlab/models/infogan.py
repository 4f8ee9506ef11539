"""InfoGAN's convolutional networks: D has a second head that reads the codes off an image.

InfoGAN: Interpretable Representation Learning by Information Maximizing Generative Adversarial Nets (Chen et al. 2016),
arXiv:1606.03657, appendix C.1. At 28x28 these are the paper's layers for MNIST; other sizes have fewer or more of them.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from ganlab.nn.pyramid import image_shape, pyramid, widths
from ganlab.phase import DiscriminatorOutput


class Generator(nn.Sequential):
    """z [N, z_dim], noise and codes -> images [N, *shape] in [-1, 1].

    width   channels of the largest map; the fully connected layer has 16 times as many units
    """

    def __init__(self, shape: Sequence[int], z_dim: int = 74, width: int = 64):
        channels, height, breadth = image_shape(shape, "infogan")
        doublings, (h, w) = pyramid(height, breadth, "infogan")
        *larger, have = widths(width, doublings)
        layers: list[nn.Module] = [nn.Linear(z_dim, 16 * width), nn.BatchNorm1d(16 * width), nn.ReLU()]
        layers += [nn.Linear(16 * width, have * h * w), nn.BatchNorm1d(have * h * w), nn.ReLU()]
        layers.append(nn.Unflatten(1, (have, h, w)))
        for out in reversed(larger):
            layers += [nn.ConvTranspose2d(have, out, 4, 2, 1), nn.BatchNorm2d(out), nn.ReLU()]
            have = out
        super().__init__(*layers, nn.ConvTranspose2d(have, channels, 4, 2, 1), nn.Tanh())
        self.z_dim = z_dim


class Discriminator(nn.Module):
    """images [N, *shape] -> logits [N], with what it reads of the codes [N, codes] as aux.

    codes   length of all codes: the numbers of values of the categorical ones, and 1 for each continuous one
    width   channels of the largest map
    """

    def __init__(self, shape: Sequence[int], codes: int = 12, width: int = 64):
        super().__init__()
        channels, height, breadth = image_shape(shape, "infogan")
        doublings, (h, w) = pyramid(height, breadth, "infogan")
        layers: list[nn.Module] = []
        have = channels
        for i, out in enumerate(widths(width, doublings)):
            layers.append(nn.Conv2d(have, out, 4, 2, 1))
            layers += [nn.BatchNorm2d(out)] if i else []
            layers.append(nn.LeakyReLU(0.1))
            have = out
        layers += [nn.Flatten(), nn.Linear(have * h * w, 16 * width), nn.BatchNorm1d(16 * width), nn.LeakyReLU(0.1)]
        self.codes = codes
        self.body = nn.Sequential(*layers)
        self.real = nn.Linear(16 * width, 1)
        self.read = nn.Sequential(
            nn.Linear(16 * width, 2 * width), nn.BatchNorm1d(2 * width), nn.LeakyReLU(0.1), nn.Linear(2 * width, codes)
        )

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        h = self.body(x)
        return DiscriminatorOutput(self.real(h).flatten(0), aux=self.read(h))
