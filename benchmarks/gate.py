"""The gate in a run of ganlab: `+callbacks.gate={_target_: benchmarks.gate.GateCallback}`."""

from typing import Any

import lightning as L

from benchmarks.race import Gate


class GateCallback(L.Callback):
    """In one of several processes; the others wait for it as they always do."""

    def on_train_start(self, trainer: Any, gan: Any) -> None:
        self.gate, self.rounds = Gate() if trainer.is_global_zero else None, gan.rounds

    def on_train_batch_end(self, trainer: Any, gan: Any, *_: Any) -> None:
        if self.gate is not None:
            self.gate.passed(gan.rounds - self.rounds)
        self.rounds = gan.rounds
