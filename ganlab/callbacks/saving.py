"""Checkpoints over time, and an end on request."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L

import ganlab
from ganlab.callbacks.clock import Every
from ganlab.checkpoint import FORMAT, NotSaved, finite, names, sync_buffers
from ganlab.files import sync
from ganlab.signals import Interrupted, Signals


class SaveCheckpoint(Every):
    """Writes folder/last.ckpt every `every` kimg, every `minutes` and at the end, and best.ckpt each time that the
    monitored score is the best so far.

    The one before is kept as last-1.ckpt, and so on. Weights that are not finite are not saved: what was there stays.
    Must come after all other callbacks, whose state belongs in it, and before `EndOnSignal`.

    keep   how many of the last ones

    Raises:
        NotSaved: the disk is full or can't be written to
    """

    def __init__(self, every: float, folder: str, minutes: float | None = None, keep: int = 2):
        super().__init__(every)
        if minutes is not None and not minutes > 0:
            raise ValueError(f"callbacks.checkpoint.minutes={minutes!r}: must be above 0, or null for never")
        if not isinstance(keep, int) or keep < 1:
            raise ValueError(f"callbacks.checkpoint.keep={keep!r}: must be a whole number of at least 1")
        self.folder, self.minutes, self.keep = Path(folder), minutes, keep
        self.saved: float | None = None  # kimg of the last one that was written
        self.kept: Any = None  # the scores of best.ckpt
        self.last: int | None = None  # when last.ckpt was written

    def state_dict(self) -> dict[str, Any]:
        return {}  # when it acted last is no time at which anything was logged

    def on_train_start(self, trainer: Any, gan: Any) -> None:
        super().on_train_start(trainer, gan)
        if trainer.is_global_zero and self.folder.is_dir():
            for half in self.folder.glob(".*.tmp"):  # left by a process that was killed while it wrote
                half.unlink()
        self.begun, self.time = gan.seen, time.monotonic()

    def on_train_batch_end(self, trainer: Any, gan: Any, *args: Any) -> None:
        super().on_train_batch_end(trainer, gan, *args)
        self.write_best(trainer, gan)

    def late(self) -> bool:
        return self.minutes is not None and time.monotonic() - self.time > 60 * self.minutes

    def save(self, trainer: Any, gan: Any) -> bool:
        """Whether last.ckpt is of now; every process must call it."""
        if self.acted != gan.seen:
            self._timed(trainer, gan)
        return self.saved == gan.seen / 1000

    def on_train_end(self, trainer: Any, gan: Any) -> None:
        if gan.seen > self.begun:  # the last scores belong in it too
            self._timed(trainer, gan)

    def act(self, trainer: Any, gan: Any) -> None:
        self.write_best(trainer, gan)
        again = self.last == gan.seen
        if self.write(trainer, gan, "next.ckpt") and trainer.is_global_zero:
            if again:
                os.replace(self.folder / "next.ckpt", self.folder / "last.ckpt")
            else:
                self.rotate()
            self.last = gan.seen
        self.time = time.monotonic()

    def write_best(self, trainer: Any, gan: Any) -> None:
        for callback in trainer.callbacks:
            best = getattr(callback, "best", None)
            if best is not None and callback.acted == gan.seen and best is callback.history[-1] is not self.kept:
                before, callback.best_checkpoint = callback.best_checkpoint, str(self.folder / "best.ckpt")
                self.kept = best
                if not self.write(trainer, gan, "best.ckpt"):
                    callback.best_checkpoint = before

    def write(self, trainer: Any, gan: Any, name: str) -> bool:
        """Whether it was written."""
        sync_buffers(gan)
        for logger in trainer.loggers:
            logger.save()  # what the curves show up to here must not be lost either
        if not finite(gan):
            if trainer.is_global_zero:
                there = f"the last good one is of {self.saved:g} kimg" if self.saved else "there is none yet"
                print(f"\nnot saved at {gan.seen / 1000:g} kimg: the weights are not finite; {there}")
            return False
        try:
            trainer.save_checkpoint(self.folder / name)
        except OSError as error:
            last = next((path for path in names(self.folder) if path.exists()), None)
            stays = f"{last} is whole; make room and go on with resume={self.folder.parent}" if last else ""
            raise NotSaved(f"{self.folder / name} can't be written: {error}. {stays}") from None
        self.saved = gan.seen / 1000
        return True

    def rotate(self) -> None:
        """next.ckpt becomes last.ckpt, that becomes last-1.ckpt, and so on. last.ckpt is there at any moment."""
        *older, last = [self.folder / (f"last-{i}.ckpt" if i else "last.ckpt") for i in reversed(range(self.keep))]
        for path, newer in zip(older, [*older[1:], last], strict=True):
            if newer.exists():
                keep_as(newer, path)
        os.replace(self.folder / "next.ckpt", last)
        sync(self.folder)


def keep_as(path: Path, name: Path) -> None:
    """A second name for `path` in place of whatever had it; where there are no hard links, the first name goes."""
    other = name.with_name(f".{name.name}.tmp")
    try:
        other.unlink(missing_ok=True)
        os.link(path, other)
        os.replace(other, name)
    except OSError:
        os.replace(path, name)


class EndOnSignal(L.Callback):
    """Saves and ends the run when a signal asks for it. The last of all callbacks.

    folder   of the run

    Raises:
        Interrupted: after a signal, in every process
    """

    def __init__(self, folder: str):
        self.folder, self.signals = folder, Signals()

    def on_train_start(self, trainer: Any, gan: Any) -> None:
        self.signals.listen(trainer.world_size)

    def on_train_batch_end(self, trainer: Any, gan: Any, *_: Any) -> None:
        saving = next((callback for callback in trainer.callbacks if isinstance(callback, SaveCheckpoint)), None)
        asked = self.signals.agreed("late" if saving is not None and saving.late() else None)
        saved = asked is not None and saving is not None and saving.save(trainer, gan)
        if isinstance(asked, int):
            raise Interrupted(asked, gan.seen / 1000, self.folder, saved)

    def teardown(self, trainer: Any, gan: Any, stage: str) -> None:
        self.signals.restore()


class StoreConfig(L.Callback):
    """Puts what a run was made with into its checkpoints: plain values only."""

    def __init__(self, config: dict[str, Any], overrides: Sequence[str] = ()):
        self.config, self.overrides = config, list(overrides)

    def on_save_checkpoint(self, trainer: Any, gan: Any, checkpoint: dict[str, Any]) -> None:
        about = {"format": FORMAT, "version": ganlab.__version__}
        checkpoint["ganlab"] = {**about, "config": self.config, "overrides": self.overrides}
