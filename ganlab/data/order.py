"""Which samples make up a round, mirrored or not, cut where: a pure function of (seed, epoch)."""

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import torch
from torch import Tensor

from ganlab.data.imbalance import Balanced
from ganlab.rng import seed_of


class Order:
    """Which samples, which of them mirrored, and where each is cut, make up round r. Epochs follow one another without
    a gap, so that a round may hold the end of one and the beginning of the next, and a set smaller than a batch works
    too.

    count      samples of the set: an epoch shows each once
    balanced   what an epoch shows instead
    """

    def __init__(self, count: int, batch_size: int, seed: int, flip: bool = False, balanced: Balanced | None = None):
        self.count = len(balanced) if balanced else count
        self.batch_size, self.seed, self.flip, self.balanced = batch_size, seed, flip, balanced
        self._epoch = lru_cache(maxsize=3)(self._shuffled)

    def _shuffled(self, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed_of(self.seed, "order", epoch))
        order = torch.randperm(self.count, generator=generator)
        if self.balanced:
            order = self.balanced.epoch(generator)[order]
        mirrored = torch.rand(self.count, generator=generator) < (0.5 if self.flip else 0.0)
        return order, mirrored, torch.rand(self.count, 2, generator=generator)

    def round(self, number: int, rows: slice = slice(None)) -> tuple[Tensor, Tensor, Tensor]:
        """(indices, whether mirrored, [n, 2] in [0, 1): where between top and bottom, left and right a window is cut)
        of these rows of the whole run's batch."""
        start, pieces = number * self.batch_size, []
        stop = start + self.batch_size
        for epoch in range(start // self.count, (stop - 1) // self.count + 1):
            pieces += self._pieces(
                epoch, max(start - epoch * self.count, 0), min(stop - epoch * self.count, self.count)
            )
        order, mirrored, corner = (torch.cat(p)[rows] for p in zip(*pieces, strict=True))
        return order, mirrored, corner

    def _pieces(self, epoch: int, start: int, stop: int) -> list[list[Tensor]]:
        """What an epoch shows from `start` to `stop`, in pieces."""
        return [[part[start:stop] for part in self._epoch(epoch)]]


class InGroups(Order):
    """The same of samples that lie in shards: an epoch goes through groups of shards, other groups each time, and
    within a group samples are shuffled. So a disk reads few shards at a time, and of an epoch's order only a part is
    in memory.

    counts   samples of each shard
    near     shards of a group
    """

    def __init__(self, counts: Sequence[int], near: int, batch_size: int, seed: int, flip: bool = False):
        super().__init__(sum(counts), batch_size, seed, flip)
        self.counts, self.near = list(counts), near
        self.first = [0, *accumulate(counts)]  # samples before each shard
        self._groups = lru_cache(maxsize=3)(self._grouped)
        self._group = lru_cache(maxsize=3)(self._shuffled_group)

    def _grouped(self, epoch: int) -> tuple[list[list[int]], list[int]]:
        """(the shards of each group, samples before each, and all)"""
        generator = torch.Generator().manual_seed(seed_of(self.seed, "shards", epoch))
        shards = torch.randperm(len(self.counts), generator=generator)
        groups, ends = [part.tolist() for part in shards.split(self.near)], [0]
        for group in groups:
            ends.append(ends[-1] + sum(self.counts[shard] for shard in group))
        return groups, ends

    def _shuffled_group(self, epoch: int, group: int) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed_of(self.seed, "group", epoch, group))
        shards = self._groups(epoch)[0][group]
        rows = torch.cat([torch.arange(self.first[s], self.first[s + 1]) for s in shards])
        order = rows[torch.randperm(len(rows), generator=generator)]
        mirrored = torch.rand(len(rows), generator=generator) < (0.5 if self.flip else 0.0)
        return order, mirrored, torch.rand(len(rows), 2, generator=generator)

    def _pieces(self, epoch: int, start: int, stop: int) -> list[list[Tensor]]:
        pieces, ends = [], self._groups(epoch)[1]
        for group in range(bisect_right(ends, start) - 1, len(ends) - 1):
            if ends[group] >= stop:
                break
            piece = slice(max(start - ends[group], 0), stop - ends[group])
            pieces.append([part[piece] for part in self._group(epoch, group)])
        return pieces
