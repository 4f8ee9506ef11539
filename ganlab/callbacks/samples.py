"""Pictures: what G_ema makes, over time."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganlab.callbacks.clock import Every
from ganlab.checkpoint import sync_buffers
from ganlab.pictures import interpolated, save_sheet


class SaveSamples(Every):
    """Saves grids as PNG files and sends them to the loggers that show pictures.

    reals           once, at the start
    fakes           G_ema on the same noise each time; with labels, one row for each of the first `rows` classes
    interpolation   between pairs of that noise, along great circles

    folder    where the files go
    rows, columns   of a grid
    """

    def __init__(self, every: float, folder: str, rows: int = 10, columns: int = 10, seed: int = 0):
        super().__init__(every)
        self.folder, self.rows, self.columns, self.seed = Path(folder), rows, columns, seed

    def on_train_start(self, trainer: Any, gan: Any) -> None:
        super().on_train_start(trainer, gan)
        samples = getattr(trainer.datamodule, "split", lambda name: None)("train")
        if samples is not None and gan.seen == 0 and trainer.is_global_zero:
            n = min(
                len(samples), 10_000 if samples.take(torch.arange(1))["real"].dim() == 2 else self.rows * self.columns
            )
            x = samples.take(torch.arange(n))["real"]
            self.publish(trainer, gan, "reals", gan.task.show(x / 127.5 - 1 if x.dtype == torch.uint8 else x))

    def act(self, trainer: Any, gan: Any) -> None:
        sync_buffers(gan)
        if not hasattr(gan.task, "draw") or not trainer.is_global_zero:
            return
        classes = getattr(gan.task, "classes", None)
        cond = torch.arange(self.rows, device=gan.device).repeat_interleave(self.columns) % classes if classes else None
        n = self.rows * self.columns
        fakes = gan.generate(0, n, self.seed, cond)
        points = fakes.dim() == 2
        self.publish(trainer, gan, "fakes", gan.task.show(gan.generate(0, 10_000, self.seed) if points else fakes))
        if not points:
            self.publish(
                trainer, gan, "interpolation", gan.task.show(interpolated(gan, self.rows, self.columns, self.seed))
            )

    def publish(self, trainer: Any, gan: Any, name: str, pictures: Tensor) -> None:
        kimg = round(gan.seen / 1000)
        path = self.folder / (f"{name}.png" if name == "reals" else f"{name}_{kimg:06d}.png")
        grid = save_sheet(pictures, path, self.columns)
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):  # wandb
                logger.log_image(name, [grid], step=kimg)
            elif hasattr(logger.experiment, "add_image"):  # TensorBoard
                logger.experiment.add_image(name, grid, kimg)
