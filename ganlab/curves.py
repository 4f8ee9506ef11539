"""What the step measures, kept on the device as running means until somebody reads it."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ganlab.phase import Phase
from ganlab.recording import after


class Curves:
    """Means since the last reading. Losses are taken in every move. What costs more (what D thinks, gradient norms) is
    taken in each player's first move after a reading: `pending` holds the players whose turn that is."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.weights: dict[str, float] = {}
        self.pending = {"D", "G"}

    def add(self, name: str, value: Tensor, weight: float = 1.0) -> None:
        value = value.detach().float() if weight == 1 else value.detach().float() * weight
        after(partial(self.count, name, weight), value)

    def count(self, name: str, weight: float, value: Tensor) -> None:
        self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
        self.weights[name] = self.weights.get(name, 0.0) + weight

    def watch(self, phase: Phase, losses: Mapping[str, Tensor], weight: float, boundary: float | None) -> None:
        """Notes one micro-batch (`weight`: its share of the batch): each loss and, in D's phase, what D thinks.

        boundary   logit above which D takes a sample for real; None, where the loss has none: halfway between its mean
                   on the reals and its mean on the fakes
        """
        for name, loss in losses.items():
            self.add(f"loss/{phase.player}/{name}", loss, weight)
        if phase.player == "D" and "D" in self.pending and {"on_real", "on_fake"} <= vars(phase).keys():
            outputs = {"real": phase.on_real, "fake": phase.on_fake}
            logits = {k: torch.cat([t.detach().flatten() for t in tree_leaves(o.logits)]) for k, o in outputs.items()}
            means = {k: v.mean() for k, v in logits.items()}
            edge = (means["real"] + means["fake"]) / 2 if boundary is None else boundary
            for which, sign in (("real", 1), ("fake", -1)):
                self.add(f"D/logit_{which}", means[which], weight)
                self.add(f"D/accuracy_{which}", (sign * (logits[which] - edge) > 0).float().mean(), weight)

    def taken(self, player: str) -> None:
        """What costs more was taken in this player's move."""
        self.pending.discard(player)

    def read(self) -> dict[str, float]:
        """{name: mean} over all processes, and starts anew. Every process must call it."""
        if not self.sums:
            return {}
        means = torch.stack([self.sums[k] / self.weights[k] for k in self.sums])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(means)
            means /= torch.distributed.get_world_size()
        values = dict(zip(self.sums, means.tolist(), strict=True))
        self.sums, self.weights, self.pending = {}, {}, {"D", "G"}
        return values

    def state(self) -> dict[str, Any]:
        """The sums of each process, [processes]. Every process must call it."""
        sums = torch.stack(list(self.sums.values()))[None] if self.sums else torch.zeros(1, 0)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            everyone = [torch.empty_like(sums) for _ in range(torch.distributed.get_world_size())]
            torch.distributed.all_gather(everyone, sums)
            sums = torch.cat(everyone)
        each = {name: sums[:, i] for i, name in enumerate(self.sums)}
        return {"sums": each, "weights": dict(self.weights), "pending": sorted(self.pending)}

    def restore(self, state: dict[str, Any]) -> None:
        """Each process takes its own sums; if their number is another now, the mean of all."""
        rank, world = 0, 1
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        own = lambda each: each[rank].clone() if each.dim() and len(each) == world else each.mean()
        self.sums = {name: own(each) for name, each in state["sums"].items()}
        self.weights, self.pending = dict(state["weights"]), set(state["pending"])
