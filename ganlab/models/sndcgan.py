"""The plain convolutional networks of SNGAN.

Spectral Normalization for Generative Adversarial Networks (Miyato et al. 2018), arXiv:1802.05957, table 3; batch norm
after every layer of G but the last. At 32x32 these are the paper's layers; other sizes have fewer or more of them.
"""

from collections.abc import Sequence

from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from ganlab.nn.pyramid import image_shape, pyramid, widths


class Generator(nn.Sequential):
    """z [N, z_dim] -> images [N, *shape] in [-1, 1].

    width   channels of the largest map
    """

    def __init__(self, shape: Sequence[int], z_dim: int = 128, width: int = 64):
        channels, height, breadth = image_shape(shape, "sndcgan")
        doublings, (h, w) = pyramid(height, breadth, "sndcgan")
        have = width * min(2**doublings, 16)
        layers: list[nn.Module] = [nn.Linear(z_dim, have * h * w), nn.Unflatten(1, (have, h, w))]
        for out in reversed(widths(width, doublings)):
            layers += [nn.BatchNorm2d(have), nn.ReLU(), nn.ConvTranspose2d(have, out, 4, 2, 1)]
            have = out
        super().__init__(
            *layers, nn.BatchNorm2d(have), nn.ReLU(), nn.Conv2d(have, channels, 3, padding=1), nn.Tanh()
        )  # fmt: skip
        self.z_dim = z_dim


class Discriminator(nn.Sequential):
    """images [N, *shape] -> logits [N], spectral norm on every layer.

    width   channels of the largest map
    """

    def __init__(self, shape: Sequence[int], width: int = 64):
        channels, height, breadth = image_shape(shape, "sndcgan")
        doublings, (h, w) = pyramid(height, breadth, "sndcgan")
        last = width * min(2**doublings, 16)
        layers: list[nn.Module] = []
        have = channels
        for out in widths(width, doublings):
            layers += [spectral_norm(nn.Conv2d(have, out, 3, padding=1)), nn.LeakyReLU(0.1)]
            layers += [spectral_norm(nn.Conv2d(out, out, 4, 2, 1)), nn.LeakyReLU(0.1)]
            have = out
        layers += [spectral_norm(nn.Conv2d(have, last, 3, padding=1)), nn.LeakyReLU(0.1), nn.Flatten()]
        super().__init__(*layers, spectral_norm(nn.Linear(last * h * w, 1)), nn.Flatten(0))
