"""Scores over training, on G_ema."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ganlab.callbacks.clock import Every
from ganlab.callbacks.curves import record
from ganlab.checkpoint import sync_buffers
from ganlab.files import write_text
from ganlab.metrics.extractors import Extractor
from ganlab.metrics.protocol import Protocol
from ganlab.metrics.scorer import Scorer
from ganlab.metrics.scores import Kept, Score


class Evaluate(Every):
    """Scores G_ema every `every` kimg and at the end: samples made from noise against the training split; what it makes
    of images on the test split, or where there is none on the training split.

    monitor   the number that decides which checkpoint is best; None: the first
    folder    of the run, for scores.json

    The others are Scorer's.
    """

    def __init__(
        self,
        every: float,
        extractor: Extractor,
        scores: Mapping[str, Score],
        folder: str,
        n: int = 10_000,
        n_real: int | None = None,
        batch_size: int = 256,
        monitor: str | None = None,
        seed: int = 0,
    ):
        super().__init__(every)
        self.scorer = Scorer(extractor, scores, n, n_real, batch_size, seed)
        keys = list(self.scorer.names)
        self.monitor = monitor or keys[0]
        if self.monitor not in keys:
            raise ValueError(f"metrics.monitor={monitor}: must be one of the scores, here {', '.join(keys)}")
        self.lower_is_better = not self.scorer.scores[self.scorer.owner(self.monitor)].higher_is_better
        self.folder = Path(folder)
        self.history: list[dict[str, float]] = []  # {"kimg": ..., name: ...}
        self.protocol: Protocol | None = None  # of the last entry
        self.best_checkpoint: str | None = None  # `SaveCheckpoint` wrote it
        self.split = "train"
        self._reals: Kept | None = None

    # ------------------------------------------------------------------------------------------------------- Lightning

    def setup(self, trainer: Any, gan: Any, stage: str) -> None:
        if trainer.local_rank == 0:  # downloads and trains what is not in the cache yet
            self.scorer.extractor.prepare(trainer.datamodule)
        trainer.strategy.barrier()
        self.scorer.extractor.prepare(trainer.datamodule)
        data, device = trainer.datamodule, trainer.strategy.root_device
        facts, labels = data.facts(), told_one_label(gan.task)
        self.split = data.reference
        classes = None if facts.get("several") else facts["classes"]
        if not hasattr(gan.task, "draw"):
            self.split = data.unseen()
            self.scorer.n = min(self.scorer.n, len(data.split(self.split)))
        self.scorer.looking_at(gan, data.split(self.split))  # refuses scores that do not go with the task
        self.scorer.check(facts["shape"], device, len(data.split(self.split)), labels, classes)
        if self.scorer.needs_reals:
            self._reals = self.scorer.reals(data, self.split, device)

    def act(self, trainer: Any, gan: Any) -> None:
        scores, self.protocol = self.evaluate(trainer, gan)
        ids = [f"{score} {self.protocol.id(score)}" for score in self.scorer.scores]
        record(trainer, gan, {f"score/{k}": v for k, v in scores.items()}, {"protocol": ", ".join(ids)})
        self.history.append({"kimg": gan.seen / 1000, **scores})
        if trainer.is_global_zero:
            content = {"protocol": self.protocol.plain(), "names": self.scorer.names, "history": self.history}
            write_text(self.folder / "scores.json", json.dumps(content, indent=1))
            for logger in trainer.loggers if len(self.history) == 1 else ():
                if hasattr(logger.experiment, "add_text"):  # TensorBoard
                    logger.experiment.add_text("protocol", self.protocol.text())

    def state_dict(self) -> dict[str, Any]:
        protocol = self.protocol.plain() if self.protocol else None
        more = {"history": self.history, "protocol": protocol, "best_checkpoint": self.best_checkpoint}
        return super().state_dict() | more

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.history, self.best_checkpoint = state["history"], state["best_checkpoint"]
        self.protocol = Protocol.read(state["protocol"]) if state["protocol"] else None

    # ---------------------------------------------------------------------------------------------------------- scores

    @property
    def monitored(self) -> str:
        """The full name of the score that decides."""
        return self.scorer.name(self.monitor)

    @property
    def best(self) -> dict[str, float] | None:
        """The best entry of the history, the earliest of equals; None where there is no finite score."""
        sign = 1 if self.lower_is_better else -1
        scored = [entry for entry in self.history if math.isfinite(entry.get(self.monitored, math.nan))]
        return min(scored, key=lambda entry: sign * entry[self.monitored]) if scored else None

    def evaluate(self, trainer: Any, gan: Any) -> tuple[dict[str, float], Protocol]:
        """All scores of G_ema now, and how they were made. Every process must call it."""
        sync_buffers(gan)
        data, scorer = trainer.datamodule, self.scorer
        shape, labels = data.facts()["shape"], told_one_label(gan.task)
        look = scorer.looking_at(gan, data.split(self.split))
        values = scorer.score(look, shape, self._reals, gan.device, labels)
        n_real = self._reals.n if self._reals else None
        told = (f"{data.title} {self.split}", data.fingerprint(self.split), n_real)
        return values, scorer.protocol("G_ema", *told, kimg=gan.seen / 1000)


def told_one_label(task: Any) -> bool:
    """Whether samples have a class, which scores by class need."""
    return getattr(task, "classes", None) is not None and not getattr(task, "several", False)
