"""Made sounds of a few classes whose spectra are known: no files, nothing to download."""

import math
from typing import Any

import torch
from torch import Tensor

from ganlab.data.imbalance import profile
from ganlab.data.rounds import DataModule, InMemory
from ganlab.rng import seed_of

NAMES = ("harmonics", "sine", "rising", "falling")


class Tones(DataModule):
    """Sounds of one of four classes each, of random pitch, phase and loudness, that fade in and out:

    harmonics   f, 2f, 3f and 4f with amplitudes 1, 1/2, 1/3, 1/4
    sine        4f alone
    rising      from f to 4f, evenly in time
    falling     from 4f to f

    with f from rate / 32 to rate / 24, so that the highest of all is rate / 6. Phases are uniform, the peak is uniform
    in 0.5 to 0.9.

    rate     samples per second
    length   samples of each
    clips    number of sounds; a fifth as many are held out
    """

    def __init__(
        self, rate: int = 4000, length: int = 1024, clips: int = 4000, batch_size: int = 64, rounds: int = 8,
        seed: int = 0, count: int | None = None, imbalance: float | None = None, balanced: bool = False,
    ):  # fmt: skip
        super().__init__(batch_size, rounds, seed, count=count, imbalance=imbalance, balanced=balanced)
        self.rate, self.length, self.clips = rate, length, clips

    def facts(self) -> dict[str, Any]:
        frequencies = None if self.imbalance is None or self.balanced else profile(len(NAMES), self.imbalance)
        labels = {"classes": len(NAMES), "class_names": list(NAMES), "frequencies": frequencies, "several": False}
        return {"shape": [1, self.length], "rate": self.rate, **labels}

    def load(self, split: str) -> InMemory:
        generator = torch.Generator().manual_seed(seed_of("tones", split))  # the same set in every run
        n = self.clips if split == "train" else max(2, self.clips // 5)
        label = torch.arange(n) % len(NAMES)
        f, phase, peak = torch.rand(3, n, 1, generator=generator, dtype=torch.float64)
        x = tones(label, (1 / 32 + f * (1 / 24 - 1 / 32)), phase, self.length)
        x = x * (0.5 + 0.4 * peak) / x.abs().amax(1, keepdim=True)
        return InMemory((x * 32767).round().to(torch.int16)[:, None], label)


def tones(label: Tensor, f: Tensor, phase: Tensor, length: int) -> Tensor:
    """[N, length]; label [N], f [N, 1] in cycles per sample, phase [N, 1] in cycles."""
    t = torch.arange(length, dtype=torch.float64)
    sine = lambda cycles, phase: (2 * math.pi * (cycles + phase)).sin()
    swept = lambda a, b: a * t + (b - a) * t.square() / (2 * length)  # of which the frequency goes from a to b
    kinds = (
        lambda f, p: sum((sine(k * f * t, p) / k for k in range(2, 5)), start=sine(f * t, p)),
        lambda f, p: sine(4 * f * t, p),
        lambda f, p: sine(swept(f, 4 * f), p),
        lambda f, p: sine(swept(4 * f, f), p),
    )
    x = torch.empty(len(label), length, dtype=torch.float64)
    for number, kind in enumerate(kinds):
        rows = label == number
        x[rows] = kind(f[rows], phase[rows])
    return x * torch.sin(math.pi * (t + 0.5) / length)
