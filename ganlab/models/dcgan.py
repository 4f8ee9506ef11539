"""DCGAN: strided convolutions and batch norm.

Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks (Radford et al. 2016),
arXiv:1511.06434. At 64x64 these are the paper's layers; other sizes have fewer or more of them.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ganlab.nn.pyramid import image_shape, pyramid, widths
from ganlab.phase import GeneratorOutput


def initialised(module: nn.Module) -> None:
    """Convolutions N(0, 0.02), batch norm N(1, 0.02) and 0 (section 3)."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


class Generator(nn.Sequential):
    """z [N, z_dim] -> images [N, *shape] in [-1, 1].

    width   channels of the largest map
    """

    def __init__(self, shape: Sequence[int], z_dim: int = 100, width: int = 64):
        channels, height, breadth = image_shape(shape, "dcgan")
        doublings, base = pyramid(height, breadth, "dcgan")
        *larger, smallest = widths(width, doublings)
        layers: list[nn.Module] = [
            nn.Unflatten(1, (z_dim, 1, 1)),
            nn.ConvTranspose2d(z_dim, smallest, base, bias=False),  # [N, smallest, *base]
            nn.BatchNorm2d(smallest),
            nn.ReLU(),
        ]
        have = smallest
        for out in reversed(larger):
            layers += [nn.ConvTranspose2d(have, out, 4, 2, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
            have = out
        super().__init__(*layers, nn.ConvTranspose2d(have, channels, 4, 2, 1, bias=False), nn.Tanh())
        self.z_dim = z_dim
        self.apply(initialised)


class Discriminator(nn.Sequential):
    """images [N, *shape] -> logits [N].

    norm   "batch", or "none", as a gradient penalty needs it
    """

    def __init__(self, shape: Sequence[int], width: int = 64, norm: Literal["batch", "none"] = "batch"):
        if norm not in ("batch", "none"):
            raise ValueError(f"discriminator.norm={norm!r}: must be batch or none")
        channels, height, breadth = image_shape(shape, "dcgan")
        doublings, base = pyramid(height, breadth, "dcgan")
        layers: list[nn.Module] = []
        have = channels
        for i, out in enumerate(widths(width, doublings)):
            normed = i > 0 and norm == "batch"
            layers.append(nn.Conv2d(have, out, 4, 2, 1, bias=not normed and norm == "none"))
            layers += [nn.BatchNorm2d(out)] if normed else []
            layers.append(nn.LeakyReLU(0.2))
            have = out
        super().__init__(*layers, nn.Conv2d(have, 1, base, bias=False), nn.Flatten(0))
        self.apply(initialised)


class VAE(nn.Module):
    """Images [N, *shape] -> their reconstructions, with (mean, log variance) of z [N, z_dim] as aux; z -> images:
    a variational autoencoder on these layers, to compare with (Kingma & Welling 2014, arXiv:1312.6114).

    width   channels of the largest map
    """

    def __init__(self, shape: Sequence[int], z_dim: int = 64, width: int = 64):
        super().__init__()
        channels, height, breadth = image_shape(shape, "vae")
        doublings, base = pyramid(height, breadth, "vae")
        layers: list[nn.Module] = []
        have = channels
        for out in widths(width, doublings):
            layers += [nn.Conv2d(have, out, 4, 2, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
            have = out
        self.encoder = nn.Sequential(*layers, nn.Conv2d(have, 2 * z_dim, base), nn.Flatten())
        self.encoder.apply(initialised)
        self.decoder = Generator(shape, z_dim, width)
        self.z_dim = z_dim

    def forward(self, x: Tensor) -> Tensor | GeneratorOutput:
        if x.dim() == 2:
            return self.decoder(x)
        mean, log_variance = self.encoder(x).chunk(2, 1)
        z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        return GeneratorOutput(self.decoder(z), (mean, log_variance))
