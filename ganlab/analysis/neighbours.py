"""Nearest training images: does a generator repeat what it was shown?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ganlab.metrics.pairs import Block, PairScore, sweep


class Nearest(PairScore):
    """The k reals nearest to each fake, and to each real its own nearest other one.

    told   called after each block of pairs
    """

    def __init__(self, k: int, told: Callable[[], Any] = lambda: None):
        self.k, self.told = k, told

    def begin(self, real: Tensor, fake: Tensor) -> None:
        none = lambda n, k: (
            torch.full((n, k), torch.inf, device=real.device),
            torch.zeros(n, k, dtype=torch.int64, device=real.device),
        )
        self.of_fake, self.of_real = none(len(fake), self.k), none(len(real), 1)

    def within(self, side: str, block: Block) -> None:
        self.told()
        if side != "real":
            return
        distances = block.distances
        if block.i == block.j:
            distances = distances.clone().fill_diagonal_(torch.inf)  # nobody is one's own neighbour
        else:
            self._show(self.of_real, block.j, distances.T, block.i)
        self._show(self.of_real, block.i, distances, block.j)

    def between(self, block: Block) -> None:
        self.told()
        self._show(self.of_fake, block.j, block.distances.T, block.i)

    @staticmethod
    def _show(known: tuple[Tensor, Tensor], rows: slice, distances: Tensor, columns: slice) -> None:
        values, numbers = known
        here = torch.arange(columns.start, columns.stop, device=distances.device).expand(len(distances), -1)
        k = values.shape[1]
        values[rows], order = torch.cat([values[rows], distances], 1).topk(k, largest=False)
        numbers[rows] = torch.cat([numbers[rows], here], 1).gather(1, order)


@dataclass(frozen=True)
class Neighbours:
    """Of n samples and m training images.

    distance   [n, k] Euclidean distances to the nearest training images, ascending
    index      [n, k] which ones
    own        [n] distance from the nearest training image to its own nearest other one
    copies     share of samples that are nearer to a training image than its own nearest other one is: those that are
               not authentic (Alaa et al. 2022, arXiv:2102.08921, section 4.3)
    expected   the same share of training images among themselves, each left out once: what samples of the same law
               would have
    """

    distance: Tensor
    index: Tensor
    own: Tensor
    copies: float
    expected: float


def neighbours(real: Tensor, fake: Tensor, k: int, size: int = 2048) -> Neighbours:
    """real: [m, d], fake: [n, d], float or uint8.

    Raises:
        ValueError: fewer than k + 1 reals
    """
    if not 1 <= k < len(real):
        raise ValueError(f"k={k}: must be at least 1 and below the number of training images, {len(real)}")
    r, f = (-(-len(x) // size) for x in (real, fake))
    blocks = r * (r + 1) // 2 + f * (f + 1) // 2 + r * f
    with tqdm(total=blocks, desc="distances", unit="block", leave=False, disable=None) as bar:
        nearest = Nearest(k, bar.update)
        sweep([nearest], real, fake, size)
    (distance, index), (own, other) = nearest.of_fake, nearest.of_real
    own, other = own[:, 0].sqrt(), other[:, 0]
    distance = distance.sqrt()
    copies = (distance[:, 0] < own[index[:, 0]]).float().mean().item()
    # left out, a real x is nearer to its neighbour y than y's other neighbours are exactly if x is y's nearest
    expected = (other[other] == torch.arange(len(real), device=real.device)).float().mean().item()
    return Neighbours(distance.cpu(), index.cpu(), own[index[:, 0]].cpu(), copies, expected)
