"""Scores over pairs of samples: each block of inner products is computed once and shown to all of them."""

from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement, product

import torch
from torch import Tensor


class PairScore:
    """Looks at blocks of pairs: first of reals with reals, then of fakes with fakes, then of reals with fakes.

    A block is given as `dots` [a, b], the inner products of samples i .. and j .., whose squared lengths are `ni` [a]
    and `nj` [b].
    """

    looks_within = True  # whether it needs pairs of one side

    def begin(self, real: Tensor, fake: Tensor) -> None:
        """real: [n, d], fake: [m, d]; what was seen before is forgotten."""

    def within(self, side: str, i: slice, j: slice, dots: Tensor, ni: Tensor, nj: Tensor) -> None:
        """Pairs of one side, "real" or "fake"; of (i, j) and (j, i) only one is shown."""

    def between(self, i: slice, j: slice, dots: Tensor, ni: Tensor, nj: Tensor) -> None:
        """Reals i, fakes j."""


def sweep(scores: Sequence[PairScore], real: Tensor, fake: Tensor, block: int = 2048) -> None:
    """Shows all blocks to all scores; memory is bounded by `block` squared."""
    real, fake = real.float(), fake.float()
    for score in scores:
        score.begin(real, fake)
    lengths = {"real": real.square().sum(1), "fake": fake.square().sum(1)}
    for side, x in (("real", real), ("fake", fake)):
        looking = [score for score in scores if score.looks_within]
        for i, j in combinations_with_replacement(slices(len(x), block), 2) if looking else ():
            dots = x[i] @ x[j].T
            for score in looking:
                score.within(side, i, j, dots, lengths[side][i], lengths[side][j])
    for i, j in product(slices(len(real), block), slices(len(fake), block)):
        dots = real[i] @ fake[j].T
        for score in scores:
            score.between(i, j, dots, lengths["real"][i], lengths["fake"][j])


def slices(n: int, size: int) -> Iterator[slice]:
    return (slice(first, min(n, first + size)) for first in range(0, n, size))


def squared_distances(dots: Tensor, ni: Tensor, nj: Tensor) -> Tensor:
    return (ni[:, None] + nj[None] - 2 * dots).clamp_min_(0)


def cosines(dots: Tensor, ni: Tensor, nj: Tensor) -> Tensor:
    return dots / (ni[:, None] * nj[None]).sqrt().clamp_min(1e-12)


def nearest(known: Tensor, block: Tensor) -> Tensor:
    """The k smallest of each row of [n, k] and [n, m] together, ascending."""
    k = known.shape[1]
    return torch.cat([known, block], 1).topk(k, largest=False).values
