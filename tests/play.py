"""What the tests play with: networks with known gradients and a short way to run a game."""

import math
from functools import partial
from itertools import pairwise

import lightning as L
import torch
from torch import nn

from ganlab.gan import GAN
from ganlab.losses import NonSaturating
from ganlab.phase import Batch, Phase
from ganlab.rng import BatchRNG


class LinearD(nn.Module):
    """D(x) = a.x: its gradient is a, everywhere."""

    def __init__(self, a):
        super().__init__()
        self.a = nn.Parameter(torch.as_tensor(a, dtype=torch.float64))

    def forward(self, x, cond=None):
        return x.flatten(1).to(self.a.dtype) @ self.a.flatten()


class QuadraticD(LinearD):
    """D(x) = 1/2 sum_i a_i x_i^2: its gradient is a * x."""

    def forward(self, x, cond=None):
        return (x.flatten(1).square() / 2) @ self.a.flatten()


class Copy(nn.Module):
    """G(z) = z + bias: fakes are known."""

    def __init__(self, dim=3):
        super().__init__()
        self.z_dim = dim
        self.bias = nn.Parameter(torch.zeros(dim, dtype=torch.float64))

    def forward(self, z, cond=None):
        return z + self.bias


def mlp(*widths):
    layers = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1])


class G(nn.Sequential):
    z_dim = 4

    def __init__(self, dim=2):
        super().__init__(*mlp(self.z_dim, 16, dim))


def phase(player="D", *, real, fake, D, G=None, cond=None, grad_inputs=("real", "fake"), seed=0, **kwargs):
    """A phase in which `fake` is what G makes."""
    n = kwargs.pop("n", None) or len(real)
    return Phase(
        player, Batch(fake, real, cond), G or (lambda x, cond=None: x), D, lambda G, b: (G(b.inputs), b.real),
        (), BatchRNG(seed, n, slice(0, n)), grad_inputs=frozenset(grad_inputs), **kwargs,
    )  # fmt: skip


def batches(rounds, n=8, dim=2, seed=0, dtype=None):
    generator = torch.Generator().manual_seed(seed)
    return [{"real": torch.randn(n, dim, generator=generator, dtype=dtype)} for _ in range(rounds)]


def game(generator=None, discriminator=None, *, dim=2, seed=0, **kwargs):
    """A small GAN on vectors; keyword arguments as GAN's."""
    torch.manual_seed(seed)
    generator = generator if generator is not None else G(dim)
    discriminator = discriminator if discriminator is not None else mlp(dim, 16, 1)
    kwargs.setdefault("loss", NonSaturating())
    kwargs.setdefault("together", False)  # what D is shown can be looked at; the other way is test_speed's
    kwargs.setdefault("optimizer", partial(torch.optim.Adam, lr=1e-3, betas=(0.5, 0.999)))
    return GAN(generator, discriminator, seed=seed, **kwargs)


def trainer(**kwargs):
    quiet = {"logger": False} | {f"enable_{k}": False for k in ("checkpointing", "progress_bar", "model_summary")}
    return L.Trainer(**{"accelerator": "cpu", "devices": 1, "max_epochs": 1} | quiet | kwargs)


def play(gan, rounds, **kwargs):
    """Plays the given batches (or this many made ones) and returns the GAN."""
    data = batches(rounds) if isinstance(rounds, int) else rounds
    trainer(**kwargs).fit(gan, torch.utils.data.DataLoader(data, batch_size=None))
    return gan


def softplus(x):
    return math.log1p(math.exp(-abs(x))) + max(x, 0)
