"""What a round says of itself to whoever records it, so that it can be replayed (`ganlab.capture`).

A recording repeats what was recorded with the numbers of that time, and only tensors change. So what else changes from
round to round goes through one of these, which do their work at once where nothing is recorded:

generator  a generator, seeded anew in each round
amid       work at this place of the round
after      work with what the round computed, after it
varying    a number that may follow the clock
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

Work = Callable[..., Any]
_recording: "Recording | None" = None


def generator(device: torch.device | str, seed: Callable[[], int]) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed()) if _recording is None else _recording.generator(device, seed)


def amid(work: Work) -> None:
    work() if _recording is None else _recording.amid(work)


def after(work: Work, *tensors: Tensor) -> None:
    work(*tensors) if _recording is None else _recording.ends.append((work, tensors))


def varying(f: Callable[[int], float], gan: Any, dtype: torch.dtype) -> float | Tensor:
    """f(seen); a tensor, where a recording is to hold it and it follows the clock."""
    return f(gan.seen) if _recording is None else _recording.number(f, gan, dtype)


def clock(seen: int) -> int:
    """`seen` for those who can't use `varying`: a round in which anybody looks at it is not recorded."""
    return seen if _recording is None else _recording.clock(seen)


class Clock(int):
    """Samples seen; remembers that it was looked at."""

    read = False


def _looked_at(name: str) -> Callable[..., Any]:
    def method(self: Clock, *others: Any) -> Any:
        self.read = True
        return getattr(int, name)(self, *others)

    return method


_KEPT = {"__new__", "__getattribute__", "__getnewargs__", "__doc__", "__sizeof__"}
for _name in {name for name in vars(int) if name.startswith("__")} - _KEPT:
    setattr(Clock, _name, _looked_at(_name))


class Recording(ABC):
    """One round.

    why   it can't be replayed; None: it can
    """

    def __init__(self) -> None:
        self.starts: list[Work] = []
        self.ends: list[tuple[Work, tuple[Tensor, ...]]] = []
        self.constants: list[tuple[Callable[[int], float], float]] = []
        self.generators: list[torch.Generator] = []
        self.clocks: list[Clock] = []
        self.why: str | None = None

    def record(self, gan: Any, batch: Any, earlier: "Recording | None") -> None:
        """earlier: of the same kind, with which it has in common where replays look for the batch"""
        global _recording
        self.device = gan.device
        self.batch: Any = tree_map(torch.empty_like, batch) if earlier is None else earlier.batch
        self.take(batch)
        _recording = self
        try:
            with self.running(gan):
                gan.moves(self.batch)
        finally:
            _recording = None
        if any(clock.read for clock in self.clocks):
            self.fail("something in a round looks at the clock, and is neither a weight nor a learning rate")

    def holds(self, seen: int) -> bool:
        """Whether the numbers that it holds are still those of the game."""
        return all(f(seen) == value for f, value in self.constants)

    def replay(self, batch: Any) -> None:
        self.take(batch)
        for work in self.starts:
            work()
        for (work, _), values in zip(self.ends, self.run(), strict=True):
            work(*values)

    def take(self, batch: Any) -> None:
        for kept, now in zip(tree_leaves(self.batch), tree_leaves(batch), strict=True):
            kept.copy_(now)

    def generator(self, device: torch.device | str, seed: Callable[[], int]) -> torch.Generator:
        with self.paused():
            made = torch.Generator(device).manual_seed(seed())
            self.generators.append(made)
        self.starts.append(lambda: made.manual_seed(seed()))
        return made

    def number(self, f: Callable[[int], float], gan: Any, dtype: torch.dtype) -> float | Tensor:
        value = f(watched := Clock(gan.seen))
        if not watched.read:
            self.constants.append((f, value))
            return value
        with self.paused():
            kept = torch.full((), value, dtype=dtype, device=gan.device)
        self.starts.append(lambda: kept.fill_(f(gan.seen)))
        return kept

    def clock(self, seen: int) -> int:
        self.clocks.append(Clock(seen))
        return self.clocks[-1]

    def fail(self, why: str) -> None:
        self.why = self.why or why

    def running(self, gan: Any) -> AbstractContextManager[Any]:
        """Around what is recorded."""
        raise NotImplementedError

    def paused(self) -> AbstractContextManager[Any]:
        """Meanwhile nothing is recorded."""
        raise NotImplementedError

    def amid(self, work: Work) -> None:
        raise NotImplementedError

    @abstractmethod
    def run(self) -> Sequence[Sequence[Tensor]]:
        """Replays; returns what each work at the end asked for."""
