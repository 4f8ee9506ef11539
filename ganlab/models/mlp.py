"""Multilayer perceptrons: the first GAN, and the first conditional one.

Generative Adversarial Networks (Goodfellow et al. 2014), arXiv:1406.2661: a generator of rectifiers, a maxout
discriminator with dropout. Conditional Generative Adversarial Nets (Mirza & Osindero 2014), arXiv:1411.1784: both
players are told the label, each through a layer of its own.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ganlab.nn.conditional import as_vector
from ganlab.nn.minibatch import MinibatchStd


class Generator(nn.Module):
    """z [N, z_dim] (and labels [N]) -> samples [N, *shape]; images lie in [-1, 1], points anywhere.

    width, depth   hidden units, hidden layers
    classes        number of labels; None: not conditional
    """

    def __init__(
        self, shape: Sequence[int], z_dim: int = 100, width: int = 1200, depth: int = 2, classes: int | None = None
    ):
        super().__init__()
        self.z_dim, self.shape, self.classes = z_dim, tuple(shape), classes
        # Mirza & Osindero, section 4.1: 200 units for z and 1,000 for the label when width is 1,200
        of_z = width if classes is None else width // 6
        self.from_z = nn.Linear(z_dim, of_z)
        self.from_label = None if classes is None else nn.Linear(classes, width - of_z)
        self.hidden = nn.ModuleList([nn.Linear(width, width) for _ in range(depth - 1)])
        self.out = nn.Linear(width, math.prod(shape))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        h = self.from_z(z).relu()
        if self.from_label is not None:
            assert label is not None, "this network must be told the label"
            h = torch.cat([h, self.from_label(as_vector(label, self.classes or 0, like=h)).relu()], 1)
        for layer in self.hidden:
            h = layer(h).relu()
        x = self.out(h).unflatten(1, self.shape)
        return x.tanh() if len(self.shape) == 3 else x


class Maxout(nn.Module):
    """[N, in] -> [N, out]: the largest of several linear maps (Goodfellow et al. 2013, arXiv:1302.4389)."""

    def __init__(self, have: int, out: int, pieces: int):
        super().__init__()
        self.linear, self.pieces = nn.Linear(have, out * pieces), pieces

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).unflatten(1, (-1, self.pieces)).amax(2)


class Discriminator(nn.Module):
    """samples [N, *shape] (and labels [N]) -> logits [N].

    width, depth   hidden units, hidden layers
    pieces         of each maxout unit; 1: leaky rectifiers instead
    dropout        probability on hidden units
    minibatch_std  samples in a group whose spread D is told before its last layer; None: it is not
    """

    def __init__(
        self, shape: Sequence[int], width: int = 240, depth: int = 2, pieces: int = 5, dropout: float = 0.5,
        classes: int | None = None, minibatch_std: int | None = None,
    ):  # fmt: skip
        super().__init__()
        self.classes = classes
        self.minibatch = MinibatchStd(minibatch_std) if minibatch_std else None

        def layer(have: int, out: int) -> nn.Module:
            if pieces == 1:
                return nn.Sequential(nn.Linear(have, out), nn.LeakyReLU(0.2))
            return Maxout(have, out, pieces)

        of_label = 0 if classes is None else max(1, width * 50 // 240)  # Mirza & Osindero: 240 for x, 50 for the label
        self.from_x = layer(math.prod(shape), width)
        self.from_label = None if classes is None else layer(classes, of_label)
        self.hidden = nn.ModuleList([layer(width + (of_label if i == 0 else 0), width) for i in range(depth - 1)])
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width + (of_label if depth == 1 else 0) + (1 if minibatch_std else 0), 1)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        h = self.from_x(x.flatten(1))
        if self.from_label is not None:
            assert label is not None, "this network must be told the label"
            h = torch.cat([h, self.from_label(as_vector(label, self.classes or 0, like=h))], 1)
        for layer in self.hidden:
            h = layer(self.dropout(h))
        h = self.dropout(h)
        return self.out(h if self.minibatch is None else self.minibatch(h)).flatten(0)
