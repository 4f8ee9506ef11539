"""Checkpoints over time."""

from pathlib import Path
from typing import Any

import lightning as L

import ganlab
from ganlab.callbacks.clock import Every
from ganlab.checkpoint import FORMAT, save


class SaveCheckpoint(Every):
    """Writes folder/last.ckpt. Must come after the callbacks whose state belongs in it."""

    def __init__(self, every: float, folder: str):
        super().__init__(every)
        self.folder = Path(folder)

    def act(self, trainer: Any, gan: Any) -> None:
        save(trainer, self.folder / "last.ckpt")


class StoreConfig(L.Callback):
    """Puts what a run was made with into its checkpoints: plain values only."""

    def __init__(self, config: dict[str, Any]):
        self.config = config

    def on_save_checkpoint(self, trainer: Any, gan: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["ganlab"] = {"format": FORMAT, "version": ganlab.__version__, "config": self.config}
