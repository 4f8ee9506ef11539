"""Scores over pairs of samples: each block of pairs is gone through once and shown to all of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement, product

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """One side's samples [n, d], looked at from the reals' mean: squared distances then keep their digits.

    length       [n] squared lengths, as seen from the mean
    along        [n] inner products of that with the mean
    mean_square  |mean|^2
    """

    x: Tensor
    mean: Tensor
    length: Tensor
    along: Tensor
    mean_square: Tensor

    @classmethod
    def of(cls, x: Tensor, mean: Tensor, size: int) -> "Rows":
        lengths, along = [], []
        for i in slices(len(x), size):
            part = x[i].float() - mean
            lengths.append(part.square().sum(1))
            along.append(part @ mean)
        return cls(x, mean, torch.cat(lengths), torch.cat(along), mean.square().sum())

    def part(self, i: slice) -> Tensor:
        """Some of the samples, as seen from the mean; made when asked for, since a copy of all takes memory."""
        return self.x[i].float() - self.mean

    @property
    def raw_length(self) -> Tensor:
        """[n] squared lengths before they were moved."""
        return self.length + 2 * self.along + self.mean_square


@dataclass(frozen=True)
class Block:
    """Pairs of the samples i of one side with the samples j of one side."""

    a: Rows
    b: Rows
    i: slice
    j: slice

    @cached_property
    def dots(self) -> Tensor:
        return self.a.part(self.i) @ self.b.part(self.j).T

    @cached_property
    def distances(self) -> Tensor:
        """Squared Euclidean distances."""
        return (self.a.length[self.i, None] + self.b.length[None, self.j] - 2 * self.dots).clamp_min_(0)

    @cached_property
    def cosines(self) -> Tensor:
        """Of the angles between the samples as they were given."""
        raw = self.dots + self.a.along[self.i, None] + self.b.along[None, self.j] + self.a.mean_square
        return raw / (self.a.raw_length[self.i, None] * self.b.raw_length[None, self.j]).sqrt().clamp_min(1e-12)


class PairScore:
    """Looks at blocks of pairs: first of reals with reals, then of fakes with fakes, then of reals with fakes."""

    looks_within = True  # whether it needs pairs of one side

    def begin(self, real: Tensor, fake: Tensor) -> None:
        """real: [n, d], fake: [m, d]; what was seen before is forgotten."""

    def within(self, side: str, block: Block) -> None:
        """Pairs of one side, "real" or "fake"; of (i, j) and (j, i) only one is shown."""

    def between(self, block: Block) -> None:
        """Reals i, fakes j."""


def sweep(scores: Sequence[PairScore], real: Tensor, fake: Tensor, size: int = 2048) -> None:
    """Shows all blocks to all scores; memory is bounded by `size` squared."""
    for score in scores:
        score.begin(real, fake)
    mean = torch.stack([real[i].float().sum(0) for i in slices(len(real), size)]).sum(0) / len(real)
    sides = {"real": Rows.of(real, mean, size), "fake": Rows.of(fake, mean, size)}
    looking = [score for score in scores if score.looks_within]
    for name, rows in sides.items():
        for i, j in combinations_with_replacement(slices(len(rows.x), size), 2) if looking else ():
            block = Block(rows, rows, i, j)
            for score in looking:
                score.within(name, block)
    for i, j in product(slices(len(real), size), slices(len(fake), size)):
        block = Block(sides["real"], sides["fake"], i, j)
        for score in scores:
            score.between(block)


def slices(n: int, size: int) -> Iterator[slice]:
    return (slice(first, min(n, first + size)) for first in range(0, n, size))


def nearest(known: Tensor, block: Tensor) -> Tensor:
    """The k smallest of each row of [n, k] and [n, m] together, ascending."""
    k = known.shape[1]
    return torch.cat([known, block], 1).topk(k, largest=False).values
