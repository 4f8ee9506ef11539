"""GAIN: a generator fills in the missing cells of a row, a discriminator says which these were.

GAIN: Missing Data Imputation using Generative Adversarial Nets (Yoon et al. 2018), arXiv:1806.02920.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


def perceptron(have: int, width: int, out: int, depth: int) -> nn.Sequential:
    """`depth` linear maps with rectifiers between; weights as the authors begin, normal of variance 2 / inputs."""
    sizes = [have, *[width] * (depth - 1), out]
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
        nn.init.xavier_normal_(layers[-2].weight)  # type: ignore[arg-type]
        nn.init.zeros_(layers[-2].bias)  # type: ignore[arg-type]
    return nn.Sequential(*layers[:-1])


class Generator(nn.Module):
    """(rows [N, C], noise where a cell is missing; which are there [N, C], 0 or 1) -> rows in [0, 1], of which those
    cells count that were missing.

    width   of its hidden layers; None: as many as a row has entries, as in the paper
    depth   layers
    drop    share of the cells that are there which it is not shown either, in training: it then learns to tell cells
            from others whose truth is known. 0 in the paper
    """

    def __init__(self, shape: Sequence[int], width: int | None = None, depth: int = 3, drop: float = 0.0):
        super().__init__()
        (columns,) = shape
        self.drop = drop
        self.net = perceptron(2 * columns, width or columns, columns, depth)

    def forward(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        row, there = inputs
        if self.training and self.drop:
            kept = torch.rand_like(there) >= self.drop
            row, there = row * kept, there * kept
        return self.net(torch.cat([row, there], 1)).sigmoid()


class Discriminator(nn.Module):
    """(completed rows [N, C]; the hint [N, C], 1 for some of the cells that were there) -> a logit for each cell
    [N, C]: was it there?"""

    def __init__(self, shape: Sequence[int], width: int | None = None, depth: int = 3):
        super().__init__()
        (columns,) = shape
        self.net = perceptron(2 * columns, width or columns, columns, depth)

    def forward(self, x: Tensor, hint: Tensor) -> Tensor:
        return self.net(torch.cat([x, hint], 1))
