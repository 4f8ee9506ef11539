"""BiGAN: an encoder learns to undo the generator, and D judges pairs of data and code.

Adversarial Feature Learning (Donahue et al. 2017), arXiv:1605.09782; the perceptrons of its MNIST experiment (appendix
C.1): 1,024 units, batch norm, 50 uniform codes.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def perceptron(have: int, width: int, out: int, norm: bool = True) -> nn.Sequential:
    normed = lambda: [nn.BatchNorm1d(width)] if norm else []
    return nn.Sequential(
        nn.Linear(have, width), nn.LeakyReLU(0.2), nn.Linear(width, width), *normed(), nn.LeakyReLU(0.2),
        nn.Linear(width, out),
    )  # fmt: skip


class Generator(nn.Module):
    """z [N, z_dim] -> samples [N, *shape]; images lie in [-1, 1]. `encode`: samples -> z, in [-1, 1].

    width   hidden units
    """

    def __init__(self, shape: Sequence[int], z_dim: int = 50, width: int = 1024):
        super().__init__()
        self.shape, self.z_dim = tuple(shape), z_dim
        self.decoder = perceptron(z_dim, width, math.prod(shape))
        self.encoder = perceptron(math.prod(shape), width, z_dim)

    def forward(self, z: Tensor) -> Tensor:
        x = self.decoder(z).unflatten(1, self.shape)
        return x.tanh() if len(self.shape) == 3 else x

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(x.flatten(1)).tanh()


class Discriminator(nn.Module):
    """(samples [N, *shape], codes [N, z_dim]) -> logits [N]."""

    def __init__(self, shape: Sequence[int], z_dim: int = 50, width: int = 1024):
        super().__init__()
        self.net = perceptron(math.prod(shape) + z_dim, width, 1)

    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        x, z = pair
        return self.net(torch.cat([x.flatten(1), z], 1)).flatten(0)
