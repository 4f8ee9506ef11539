"""Values that change over training. The only clock is `seen`: real samples shown to D, over all devices.

A learning-rate factor, a term's or a loss's weight and EMA's half-life may each be a number or a schedule.
"""

import math
from collections.abc import Callable

Schedule = Callable[[int], float]


def at(value: "float | Schedule", seen: int) -> float:
    """The value now: a number stays itself, a schedule is asked."""
    return value(seen) if callable(value) else value


def within(start: float, stop: float | None, seen: int) -> bool:
    """Whether `seen` samples lie in start <= kimg < stop; `stop` None means forever."""
    return start * 1000 <= seen and (stop is None or seen < stop * 1000)


def crossed(before: int, after: int, every: float) -> bool:
    """Whether the clock passed a multiple of `every` kimg between `before` and `after` samples."""
    step = samples(every)
    return after // step > before // step


def samples(kimg: float) -> int:
    """kimg in samples, at least 1."""
    return max(1, round(kimg * 1000))


class Linear:
    """From `begin` to `end` in a straight line between `start` and `stop` kimg; constant before and after.

    hold   share of the time from `start` to `stop` that passes before anything changes
    """

    def __init__(self, begin: float = 1.0, end: float = 0.0, *, start: float = 0.0, stop: float, hold: float = 0.0):
        if stop <= start:
            raise ValueError(f"a schedule must stop after it starts: start={start}, stop={stop} (kimg)")
        if not 0 <= hold < 1:
            raise ValueError(f"hold={hold}: a share of the time, at least 0 and below 1")
        self.begin, self.end, self.start, self.stop = begin, end, start + hold * (stop - start), stop

    def progress(self, seen: int) -> float:
        return min(1.0, max(0.0, (seen / 1000 - self.start) / (self.stop - self.start)))

    def __call__(self, seen: int) -> float:
        return self.begin + (self.end - self.begin) * self.progress(seen)


class Cosine(Linear):
    """From `begin` to `end` along half a cosine (Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5)."""

    def __call__(self, seen: int) -> float:
        return self.end + (self.begin - self.end) * 0.5 * (1 + math.cos(math.pi * self.progress(seen)))
