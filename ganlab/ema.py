"""The exponential moving average of G that is scored, shown and shared (Yazici et al. 2019, arXiv:1806.04498)."""

import copy
from typing import Any

import torch
from torch import nn

from ganlab.schedule import Schedule, at


class EMA(nn.Module):
    """G_ema follows G with a half-life counted in samples, so that it means the same at every batch size.

    half_life   kimg in which an old weight loses half of its influence; 0: G_ema is a copy of G
    ramp        the half-life is at most this share of what was seen so far, so that the first random weights are soon
                forgotten (Karras et al. 2020, arXiv:2006.06676, appendix D: 0.05); None: no ramp
    """

    def __init__(self, half_life: float | Schedule = 10.0, ramp: float | None = 0.05):
        super().__init__()
        self.half_life, self.ramp = half_life, ramp
        self.seen = 0  # samples; saved with the module
        self.followed: tuple[Any, ...] = ()  # (G_ema, G, parameters and dicts of buffers): a walk through them is long

    def copy_of(self, G: nn.Module) -> nn.Module:
        return copy.deepcopy(G).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, G_ema: nn.Module, G: nn.Module, samples: int) -> None:
        """Moves G_ema towards G, `samples` real samples after the last update. Buffers are copied."""
        self.seen += samples
        half_life = at(self.half_life, self.seen) * 1000
        if self.ramp is not None:
            half_life = min(half_life, self.seen * self.ramp)
        keep = 0.5 ** (samples / half_life) if half_life > 0 else 0.0
        if self.followed[:2] != (G_ema, G):
            pairs = zip(G_ema.modules(), G.modules(), strict=True)
            buffers = [(a._buffers, b._buffers) for a, b in pairs if b._buffers]
            self.followed = (G_ema, G, list(G_ema.parameters()), list(G.parameters()), buffers)
        torch._foreach_lerp_(self.followed[2], self.followed[3], 1 - keep)
        for averages, own in self.followed[4]:
            for name, buffer in own.items():
                if buffer is not None:
                    averages[name].copy_(buffer)

    def get_extra_state(self) -> Any:
        return {"seen": self.seen}

    def set_extra_state(self, state: Any) -> None:
        self.seen = state["seen"]
