"""CTGAN: rows of tables, of which a category can be asked for.

Modeling Tabular data using Conditional GAN (Xu et al. 2019), arXiv:1907.00503. Several rows are judged together, as in
PacGAN (Lin et al. 2018), arXiv:1712.04086.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ganlab.phase import GeneratorOutput, full


class Residual(nn.Module):
    """[N, have] -> [N, width + have]: a layer, beside what came in."""

    def __init__(self, have: int, width: int):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(have, width), nn.BatchNorm1d(width), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.layer(x), x], 1)


class Generator(nn.Module):
    """(z [N, z_dim], Gumbel noise [N, D]) (and conditions [N, conditions]) -> rows [N, D]: numbers in [-1, 1], choices
    by Gumbel-softmax, which are nearly one-hot (section 4.4). aux is all before that: [N, D], logits of the choices.

    parts         what a row is made of, in order: ["number", 1], or ["choice", how many there are]
    conditions    length of a condition; None: there is none
    width, depth  of its hidden layers
    temperature   of the choices: the lower, the nearer to one-hot
    """

    def __init__(
        self, shape: Sequence[int], parts: Sequence[Sequence[str | int]], z_dim: int = 128, width: int = 256,
        depth: int = 2, conditions: int | None = None, temperature: float = 0.2,
    ):  # fmt: skip
        super().__init__()
        self.z_dim, self.classes, self.temperature = z_dim, conditions, temperature
        self.kinds, self.sizes = [kind for kind, _ in parts], [size for _, size in parts]
        have = z_dim + (conditions or 0)
        self.hidden = nn.Sequential(*[Residual(have + i * width, width) for i in range(depth)])
        self.out = nn.Linear(have + depth * width, shape[0])

    def forward(self, inputs: tuple[Tensor, Tensor], cond: Tensor | None = None) -> GeneratorOutput:
        z, gumbel = inputs
        h = full(self.out(self.hidden(z if cond is None else torch.cat([z, cond], 1))))
        noisy = ((h + gumbel) / self.temperature).split(self.sizes, 1)
        numbers = h.tanh().split(self.sizes, 1)
        parts = [x if kind == "number" else y.softmax(1) for kind, x, y in zip(self.kinds, numbers, noisy, strict=True)]
        return GeneratorOutput(torch.cat(parts, 1), h)


class Discriminator(nn.Module):
    """rows [N, D] (and conditions [N, conditions]) -> logits [N / pack, rounded up]: neighbours in the batch are judged
    together. What lacks of the last few is taken from the batch's beginning.

    width, depth  of its hidden layers
    pack          rows that are judged together
    dropout       after each hidden layer
    """

    def __init__(
        self, shape: Sequence[int], width: int = 256, depth: int = 2, pack: int = 10, dropout: float = 0.5,
        conditions: int | None = None,
    ):  # fmt: skip
        super().__init__()
        self.pack, self.classes = pack, conditions
        have = pack * (shape[0] + (conditions or 0))
        layers: list[nn.Module] = []
        for i in range(depth):
            layers += [nn.Linear(width if i else have, width), nn.LeakyReLU(0.2), nn.Dropout(dropout)]
        self.net = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        x = x if cond is None else torch.cat([x, cond.to(x)], 1)
        packs = -(-len(x) // self.pack)
        if packs * self.pack != len(x):
            x = x[torch.arange(packs * self.pack, device=x.device) % len(x)]
        return self.net(x.reshape(packs, -1)).flatten(0)
