"""A task: what the data serves becomes what the game is played with."""

import inspect
from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from ganlab.media import Medium
from ganlab.phase import Batch, Data, output_of
from ganlab.rng import SampleRNG


class Task(nn.Module, ABC):
    """Knows the keys of a data batch. A task with state (a pool of past fakes) keeps it in buffers.

    medium   how samples are kept; None: as the pictures that they are
    """

    medium: Medium | None = None

    @abstractmethod
    def prepare(self, batch: dict[str, Any], rng: SampleRNG) -> Batch:
        """Makes the game's batch; touches no network."""

    def play(self, G: nn.Module, batch: Batch) -> tuple[Data, Data]:
        """(fake, real) as D will see them; `fake` may be a GeneratorOutput."""
        return output_of(G, batch.inputs, batch.cond), batch.real

    def show(self, x: Data) -> Tensor:
        """x as pictures [N, C, H, W] in [-1, 1]."""
        return x if self.medium is None else self.medium.picture(x)


def takes_labels(net: nn.Module) -> bool:
    kinds = [p.kind for p in inspect.signature(net.forward).parameters.values()]
    return inspect.Parameter.VAR_POSITIONAL in kinds or len(kinds) > 1
