"""Terms on a player's weights."""

from typing import Any

import torch
from torch import Tensor

from ganlab.phase import Phase
from ganlab.terms import Term


class History(Term):
    """Historical averaging: |w - mean of all past w|^2, over all weights w of the player (Salimans et al. 2016,
    arXiv:1606.03498, section 3.3)."""

    moves: Tensor

    def __init__(self, weight: Any = 0.01, every: int = 1, **kwargs: Any):
        super().__init__(weight, every, **kwargs)
        self.register_buffer("moves", torch.zeros((), dtype=torch.long))

    def check(self, gan: Any) -> None:
        for i, w in enumerate(getattr(gan, self.player).parameters()):
            self.register_buffer(f"mean{i}", w.detach().clone())

    def weights(self, phase: Phase) -> list[tuple[Tensor, Tensor]]:
        net: Any = getattr(phase, self.player)
        return [(w, getattr(self, f"mean{i}")) for i, w in enumerate(net.parameters())]

    def forward(self, phase: Phase) -> Tensor:
        return torch.stack([(w - mean).square().sum() for w, mean in self.weights(phase)]).sum()

    def after_move(self, phase: Phase) -> None:
        if phase.player == self.player:
            self.moves += 1
            for w, mean in self.weights(phase):
                mean += (w - mean) / self.moves
