"""A pool of past fakes, which D is shown among the new ones.

Learning from Simulated and Unsupervised Images through Adversarial Training (Shrivastava et al. 2017),
arXiv:1612.07828, section 2.3; as CycleGAN has it (Zhu et al. 2017, arXiv:1703.10593, section 4).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from ganlab.losses import Loss
from ganlab.phase import Data, Phase
from ganlab.schedule import Schedule


class Pooled(Loss):
    """Any loss, whose D is shown each fake with probability 1/2, and else one of the pool, drawn at random, whose place
    the fake then takes. The first fakes fill the pool, and are shown as they are. G learns from its new fakes.

    One move of D with n fakes, over all processes and micro-batches, sees the pool as it was before the move, and
    changes it once, afterwards: with one fake at a time, this is the procedure of the paper. Where several fakes take
    the same place, the last one, in the order of samples, stays there. So the pool is the same in every process, and
    the same for any split of the batch.

    loss       what is played
    capacity   fakes in the pool, on each side
    shapes     of a fake; of each side, where D is shown several things at once
    """

    filled: Tensor  # places taken so far

    def __init__(
        self, loss: Loss, shapes: Sequence[Sequence[int]], capacity: int = 50,
        weight: Mapping[str, float | Schedule] | None = None, start: float = 0.0, stop: float | None = None,
    ):  # fmt: skip
        super().__init__(weight, start, stop)
        if capacity < 1:
            raise ValueError(f"loss.capacity={capacity}: must be at least 1 (fakes)")
        self.loss: Any = loss
        self.boundary, self.grad_inputs, self.pairs = loss.boundary, loss.grad_inputs, loss.pairs
        self.capacity, self.shapes = capacity, [tuple(shape) for shape in shapes]
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        for i, shape in enumerate(self.shapes):
            self.register_buffer(f"past_{i}", torch.zeros(capacity, *shape))
        self.places: list[Tensor] = []  # of this move's micro-batches

    def check(self, gan: Any) -> None:
        super().check(gan)
        self.loss.check(gan)

    @property
    def past(self) -> list[Tensor]:
        """Of each side, [capacity, *shape]."""
        return [getattr(self, f"past_{i}") for i in range(len(self.shapes))]

    def discriminator(self, phase: Phase) -> Tensor:
        phase.fake = self.shown(phase)  # before anybody asks for D's opinion
        return self.loss.discriminator(phase)

    def generator(self, phase: Phase) -> Tensor:
        return self.loss.generator(phase)

    def shown(self, phase: Phase) -> Data:
        """The fakes, some of them replaced by past ones.

        Raises:
            ValueError: they have other shapes than the pool; D's first move says so
        """
        fakes, kind = tree_flatten(phase.fake)
        if [tuple(x.shape[1:]) for x in fakes] != self.shapes:
            raise ValueError(f"loss.shapes={self.shapes}, and the fakes have {[tuple(x.shape[1:]) for x in fakes]}")
        u = phase.rng.uniform(2, len(fakes))  # [n, 2, sides]
        swapped = (u[:, 0] < 0.5) & (self.filled == self.capacity)
        places = torch.where(swapped, (u[:, 1] * self.capacity).long(), self.capacity)  # [n, sides]; the last is none
        self.places.append(places)
        shown = []
        for x, past, place in zip(fakes, self.past, places.unbind(1), strict=True):
            known = (place < self.capacity).view(-1, *[1] * (x.dim() - 1))
            mixed = torch.where(known, past[place.clamp(max=self.capacity - 1)].to(x.dtype), x.detach())
            shown.append(mixed.requires_grad_(x.requires_grad))
        return tree_unflatten(shown, kind)

    def after_move(self, phase: Phase) -> None:
        if hasattr(self.loss, "after_move"):
            self.loss.after_move(phase)
        if phase.player != "D":
            return
        places = of_all(torch.cat(self.places))  # [n, sides]
        self.places.clear()
        order = torch.arange(len(places), device=places.device)
        filling = (self.filled + order).clamp(max=self.capacity)
        places = torch.where(self.filled < self.capacity, filling[:, None], places)
        for x, past, place in zip(tree_leaves(phase.played[0].fake), self.past, places.unbind(1), strict=True):
            last = order.new_full((self.capacity + 1,), -1).scatter_reduce_(0, place, order, "amax")[: self.capacity]
            taken = (last >= 0).view(-1, *[1] * (x.dim() - 1))
            past.copy_(torch.where(taken, of_all(x)[last.clamp(min=0)].to(past.dtype), past))
        self.filled.copy_((self.filled + len(places)).clamp(max=self.capacity))


def of_all(x: Tensor) -> Tensor:
    """x [n, ...] of all processes, in the order of samples."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return x
    parts = [torch.empty_like(x) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, x.contiguous())
    return torch.cat(parts)
