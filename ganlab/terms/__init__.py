"""Terms: whatever else is added to one player's objective."""

from abc import ABC, abstractmethod
from typing import Literal

from torch import Tensor, nn

from ganlab.phase import Phase
from ganlab.schedule import Schedule, at, within


class Term(nn.Module, ABC):
    """`every * weight * mean(term(phase))` is added to the player's loss on every `every`-th of its moves.

    weight        factor; may be a schedule
    every         lazy regularization: evaluate on every n-th of the player's own moves, with n-fold weight
                  (Karras et al. 2020, arXiv:1912.04958, appendix B)
    start, stop   kimg between which the term is in force
    player        "D" or "G"
    """

    player: Literal["D", "G"] = "D"
    grad_inputs: frozenset[str] = frozenset()  # of "fake" and "real": what it takes the gradient of D's opinion to
    differentiates: frozenset[str] = frozenset()  # of "G" and "D": in whose gradient it has a gradient of its own

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        every: int = 1,
        start: float = 0.0,
        stop: float | None = None,
        player: Literal["D", "G"] | None = None,
    ):
        super().__init__()
        if every < 1:
            raise ValueError(f"terms.*.every={every}: must be at least 1 (moves of the player)")
        self.weight, self.every, self.start, self.stop = weight, every, start, stop
        self.player = player or self.player
        if self.player not in ("D", "G"):
            raise ValueError(f"terms.*.player={player!r}: must be D or G")

    def due(self, player: str, number: int, seen: int) -> bool:
        """Whether `player`'s `number`-th move (from 0), after `seen` samples, includes this term."""
        return player == self.player and number % self.every == 0 and within(self.start, self.stop, seen)

    def factor(self, player: str, seen: int) -> float:
        return at(self.weight, seen) * self.every

    @abstractmethod
    def forward(self, phase: Phase) -> Tensor:
        """[N] or a scalar."""
