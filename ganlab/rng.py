"""Random numbers as a pure function of where they are used: a run can be split over devices and resumed anywhere.

Two kinds. What belongs to a sample (noise, labels of fakes, the alpha of a penalty, augmentation parameters) comes from
a `SampleRNG`. What networks draw by themselves (dropout) comes from torch's default generators, see `reseed`.
"""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ganlab.recording import generator


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed from numbers and names; different parts give unrelated seeds."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little") >> 1


def reseed(seed: int, device: torch.device) -> None:
    """Seeds the default generators that networks on `device` draw from."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


class SampleRNG(ABC):
    """Random numbers for n samples, one row each: [n, *shape]."""

    @abstractmethod
    def _draw(self, kind: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor: ...

    def normal(self, *shape: int) -> Tensor:
        """Standard normal."""
        return self._draw(torch.randn, shape)

    def uniform(self, *shape: int) -> Tensor:
        """Uniform in [0, 1)."""
        return self._draw(torch.rand, shape)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Uniform in 0 .. high - 1, int64."""
        return (self.uniform(*shape) * high).long()

    def choice(self, probabilities: Tensor | Sequence[float]) -> Tensor:
        """[n] indices drawn with the given probabilities (they are normalised), int64."""
        u = self.uniform()
        edges = torch.as_tensor(probabilities, dtype=torch.float64).cumsum(0)
        edges = (edges / edges[-1])[:-1].to(u.device, u.dtype)
        return torch.bucketize(u, edges, right=True)


class BatchRNG(SampleRNG):
    """Draws for the whole run's batch of `total` samples and keeps `rows`: this process's, or this micro-batch's.

    The numbers of a sample therefore do not depend on how the batch is split.
    """

    def __init__(
        self, seed: int | Callable[[], int], total: int, rows: slice, device: torch.device | str = "cpu"
    ):  # fmt: skip
        self.seed = seed if callable(seed) else lambda: seed
        self.total, self.rows, self.device = total, rows, device
        self.generator: torch.Generator | None = None  # until somebody draws

    def _draw(self, kind: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        if self.generator is None:
            self.generator = generator(self.device, self.seed)
        return kind(self.total, *shape, generator=self.generator, device=self.device)[self.rows]


class IndexedRNG(SampleRNG):
    """Sample i draws from its own (seed, i), on the CPU: evaluation is the same on any number and kind of devices."""

    def __init__(
        self, seed: int, indices: Sequence[int], device: torch.device | str = "cpu", dtype: Any = torch.float32
    ):
        self.device, self.dtype = device, dtype
        self.generators = [torch.Generator().manual_seed(seed_of(seed, "sample", i)) for i in indices]

    def _draw(self, kind: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        return torch.stack([kind(shape, generator=g) for g in self.generators]).to(self.device, self.dtype)


class TruncatedRNG(SampleRNG):
    """What another one draws, its normal numbers moved into [-threshold, threshold]: they follow the normal law cut off
    there. Each is an increasing function of the ordinary one (the inverse CDF at its probability), so that a sample
    keeps its character.

    used   whether any normal number was asked for
    """

    def __init__(self, rng: SampleRNG, threshold: float):
        self.rng, self.threshold, self.used = rng, threshold, False

    def _draw(self, kind: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        x = self.rng._draw(kind, shape)
        if kind is not torch.randn:
            return x
        self.used, scale = True, math.sqrt(0.5)
        inside = torch.erf(x.cpu().double() * scale) * math.erf(self.threshold * scale)  # CDF, from -1 to 1
        return (torch.erfinv(inside) / scale).clamp(-self.threshold, self.threshold).to(x)
