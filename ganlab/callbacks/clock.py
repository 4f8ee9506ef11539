"""The clock counts real samples shown to D, over all devices: what acts on it, and the budget that ends a run."""

import time
from abc import ABC, abstractmethod
from typing import Any

import lightning as L

from ganlab.schedule import crossed, samples


class Every(L.Callback, ABC):
    """Acts each time that the clock passes a multiple of `every` kimg, and once more at the end of training."""

    def __init__(self, every: float):
        if every is None or every <= 0:
            raise ValueError(f"{type(self).__name__}: every={every!r} must be above 0 (kimg)")
        self.every = every
        self.seen = 0  # at the last look
        self.acted: int | None = None  # when it acted last
        self.seconds = 0.0  # spent in `act`, all in all

    @abstractmethod
    def act(self, trainer: Any, gan: Any) -> None:
        """Is called in every process."""

    def state_dict(self) -> dict[str, Any]:
        return {"acted": self.acted}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.acted = state.get("acted")

    def on_train_start(self, trainer: Any, gan: Any) -> None:
        self.seen = gan.seen

    def on_train_batch_end(self, trainer: Any, gan: Any, *_: Any) -> None:
        before, self.seen = self.seen, gan.seen
        if crossed(before, self.seen, self.every):
            self._timed(trainer, gan)

    def on_train_end(self, trainer: Any, gan: Any) -> None:
        if self.acted != gan.seen:
            self._timed(trainer, gan)

    def _timed(self, trainer: Any, gan: Any) -> None:
        start = time.perf_counter()
        self.acted = gan.seen
        self.act(trainer, gan)
        self.seconds += time.perf_counter() - start


class Budget(L.Callback):
    """Ends training after `max_kimg`."""

    def __init__(self, max_kimg: float):
        if max_kimg is None or max_kimg <= 0:
            raise ValueError(f"max_kimg={max_kimg!r}: must be above 0")
        self.max_kimg = self.every = max_kimg

    def on_train_start(self, trainer: Any, gan: Any) -> None:
        self.on_train_batch_end(trainer, gan)

    def on_train_batch_end(self, trainer: Any, gan: Any, *_: Any) -> None:
        trainer.should_stop = trainer.should_stop or gan.seen >= samples(self.max_kimg)
