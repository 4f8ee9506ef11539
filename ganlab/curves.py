"""What the step measures, kept on the device as running means until somebody reads it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ganlab.phase import Phase


class Curves:
    """Means since the last reading. Losses are taken in every round; what costs more (D's opinions, gradient norms)
    only in rounds that are `measuring`: the ones a reading follows."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.weights: dict[str, float] = {}
        self.measuring = False

    def add(self, name: str, value: Tensor, weight: float = 1.0) -> None:
        value = value.detach().float() if weight == 1 else value.detach().float() * weight
        self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.weights[name] = self.weights.get(name, 0.0) + weight

    def watch(self, phase: Phase, losses: Mapping[str, Tensor], weight: float) -> None:
        """Notes one micro-batch (`weight`: its share of the batch): each loss and, in D's phase, what D thinks."""
        for name, loss in losses.items():
            self.add(f"loss/{phase.player}/{name}", loss, weight)
        if self.measuring and phase.player == "D":
            for which, sign in (("real", 1), ("fake", -1)):
                if f"on_{which}" in vars(phase):
                    opinion = getattr(phase, f"on_{which}")
                    logits = torch.cat([t.detach().flatten() for t in tree_leaves(opinion.logits)])
                    self.add(f"D/logit_{which}", logits.mean(), weight)
                    self.add(f"D/accuracy_{which}", (sign * logits > 0).float().mean(), weight)

    def read(self) -> dict[str, float]:
        """{name: mean} over all processes, and starts anew. Every process must call it."""
        if not self.sums:
            return {}
        means = torch.stack([self.sums[k].cpu() / self.weights[k] for k in self.sums])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            device = next(iter(self.sums.values())).device
            means = means.to(device)
            torch.distributed.all_reduce(means)
            means /= torch.distributed.get_world_size()
        values = dict(zip(self.sums, means.tolist(), strict=True))
        self.sums, self.weights = {}, {}
        return values

    def state(self) -> dict[str, Any]:
        return {"sums": dict(self.sums), "weights": dict(self.weights)}

    def restore(self, state: dict[str, Any]) -> None:
        self.sums, self.weights = dict(state["sums"]), dict(state["weights"])
