"""Pictures: what G_ema makes, over time."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganlab.callbacks.clock import Every
from ganlab.checkpoint import sync_buffers
from ganlab.metrics.fit import as_batch
from ganlab.metrics.scorer import chosen_of
from ganlab.pictures import beside, interpolated, save_sheet


class SaveSamples(Every):
    """Saves grids as PNG files and sends them to the loggers that show pictures.

    reals           once, at the start
    fakes           G_ema on the same noise each time; with labels, one row for each of the first `rows` classes
    interpolation   between pairs of that noise, along great circles
    outputs         where G starts from images: what the task shows of them side by side (`Translate.columns`), as
                    input, output, target; of the test split, or where there is none of the training split

    Beside a grid of samples that are no pictures, the first `columns` of them lie in a folder, each a file of its kind.

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
            if hasattr(gan.task, "draw"):  # otherwise each grid shows what is to be made
                x = as_batch(samples.take(torch.arange(n)), torch.device("cpu"))["real"]
                self.publish(trainer, gan, "reals", gan.task.show(x))
                self.keep(trainer, gan, "reals", x)

    def act(self, trainer: Any, gan: Any) -> None:
        sync_buffers(gan)
        if trainer.is_global_zero:
            (self.fakes if hasattr(gan.task, "draw") else self.outputs)(trainer, gan)

    def fakes(self, trainer: Any, gan: Any) -> None:
        classes = getattr(gan.task, "classes", None)
        cond = torch.arange(self.rows, device=gan.device).repeat_interleave(self.columns) % classes if classes else None
        n = self.rows * self.columns
        fakes = gan.generate(0, n, self.seed, cond)
        points = fakes.dim() == 2 and gan.task.medium is None
        self.keep(trainer, gan, "fakes", fakes)
        self.publish(trainer, gan, "fakes", gan.task.show(gan.generate(0, 10_000, self.seed) if points else fakes))
        if not points:
            self.publish(
                trainer, gan, "interpolation", gan.task.show(interpolated(gan, self.rows, self.columns, self.seed))
            )

    @torch.no_grad()
    def outputs(self, trainer: Any, gan: Any) -> None:
        samples = trainer.datamodule.split(trainer.datamodule.unseen())
        across = max(1, self.columns // 3)
        chosen = chosen_of(len(samples), self.rows * across)
        made = gan.reconstruct(as_batch(samples.take(chosen), gan.device), seed=self.seed)
        columns = gan.task.columns(gan, made)
        self.publish(trainer, gan, "outputs", beside(*columns), len(columns) * across)

    def keep(self, trainer: Any, gan: Any, name: str, x: Tensor) -> None:
        """What is no picture, as files and in TensorBoard."""
        if gan.task.medium is None:
            return
        kimg, x = round(gan.seen / 1000), x[: self.columns].cpu()
        gan.task.medium.write(x, self.folder / (name if name == "reals" else f"{name}_{kimg:06d}"))
        for logger in trainer.loggers:
            if hasattr(logger.experiment, "add_text"):  # TensorBoard
                gan.task.medium.log(logger.experiment, name, x, kimg)

    def publish(self, trainer: Any, gan: Any, name: str, pictures: Tensor, columns: int | None = None) -> None:
        kimg = round(gan.seen / 1000)
        path = self.folder / (f"{name}.png" if name == "reals" else f"{name}_{kimg:06d}.png")
        grid = save_sheet(pictures, path, columns or self.columns)
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):  # wandb
                logger.log_image(name, [grid], step=kimg)
            elif hasattr(logger.experiment, "add_image"):  # TensorBoard
                logger.experiment.add_image(name, grid, kimg)
