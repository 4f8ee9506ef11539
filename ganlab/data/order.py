"""Which samples make up a round, mirrored or not, cut where: a pure function of (seed, epoch)."""

from functools import lru_cache

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
            piece = slice(max(start - epoch * self.count, 0), min(stop - epoch * self.count, self.count))
            pieces.append([part[piece] for part in self._epoch(epoch)])
        order, mirrored, corner = (torch.cat(p)[rows] for p in zip(*pieces, strict=True))
        return order, mirrored, corner
