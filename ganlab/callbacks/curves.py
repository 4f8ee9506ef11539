"""Curves and the progress bar."""

import csv
import io
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from tqdm import tqdm

from ganlab.callbacks.clock import Every
from ganlab.files import write_text


class LogCurves(Every):
    """Sends the step's curves to all loggers; their x axis is kimg.

    An object that names some of its numbers in `drawn` has curves of them, as ADA of its p.
    sec_per_kimg is training alone: what other callbacks take (scores, pictures, checkpoints) is left out.
    """

    def __init__(self, every: float):
        super().__init__(every)
        self.training = self.kimg = 0.0  # seconds, and what was trained in them

    def on_train_start(self, trainer: Any, gan: Any) -> None:
        super().on_train_start(trainer, gan)
        self.trainer = trainer
        self.mark = self._now()

    def state_dict(self) -> dict[str, Any]:
        seconds, kimg = self._since_mark()
        return super().state_dict() | {"training": self.training + seconds, "kimg": self.kimg + kimg}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.training, self.kimg = state["training"], state["kimg"]

    def _now(self) -> tuple[float, float]:
        """(seconds of training, kimg) of this process until now, from any beginning."""
        others = sum(c.seconds for c in self.trainer.callbacks if isinstance(c, Every) and c is not self)
        return time.perf_counter() - others, self.trainer.lightning_module.seen / 1000

    def _since_mark(self) -> tuple[float, float]:
        (then, kimg), (now, kimg_now) = self.mark, self._now()
        return now - then, kimg_now - kimg

    def act(self, trainer: Any, gan: Any) -> None:
        curves = gan.curves.read()  # waits for the device
        seconds, kimg = self._since_mark()
        self.mark = self._now()
        if kimg > 0:
            curves["speed/sec_per_kimg"] = seconds / kimg
            self.training, self.kimg = self.training + seconds, self.kimg + kimg
        for player, optimizer in zip(gan.players, trainer.optimizers, strict=True):
            curves[f"lr/{player}"] = float(optimizer.param_groups[0]["lr"])
        parts = {"loss": gan.loss} | {
            f"{group}/{k}": v for group in ("terms", "augment") for k, v in gan.get_submodule(group).items()
        }
        for name, part in parts.items():
            curves |= {f"{name}/{key}": float(getattr(part, key)) for key in getattr(part, "drawn", ())}
        record(trainer, gan, curves)


def record(trainer: Any, gan: Any, values: dict[str, float], notes: dict[str, str] | None = None) -> None:
    """To all loggers, at the present kimg, and to `trainer.callback_metrics`, where any callback finds the last;
    `recorded` gives those of now.

    notes   text that belongs to the values, for loggers that take it
    """
    trainer.callback_metrics.update({k: torch.tensor(v) for k, v in values.items()})
    trainer.recorded = (gan.seen, recorded(trainer, gan) | values)
    for logger in trainer.loggers:
        text: Any = (notes or {}) if isinstance(logger, CSVFile) else {}
        logger.log_metrics({"kimg": gan.seen / 1000, **values, **text}, step=round(gan.seen / 1000))


def recorded(trainer: Any, gan: Any) -> dict[str, float]:
    """What was recorded at the present kimg, which a run that was stopped and resumed records alike."""
    seen, values = getattr(trainer, "recorded", (None, {}))
    return values if seen == gan.seen else {}


class CSVFile(Logger):
    """All curves in one file, a row for each kimg at which something was logged.

    purge_step   rows of this and later kimg, rounded, are dropped: a resumed run goes on from where its checkpoint was
                 written; None: there are none
    """

    def __init__(self, path: str, purge_step: int | None = None):
        super().__init__()
        self.path, self.columns, self.known = Path(path), ["kimg"], False
        self.row: dict[str, Any] = {}  # the last, and where it begins
        self.at = 0
        self.purge_step = math.inf if purge_step is None else purge_step

    name = version = property(lambda self: "")

    @property
    def experiment(self) -> "CSVFile":
        return self

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        pass  # config.yaml has them

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        rows: list[dict[str, Any]] = []
        same = self.known and metrics["kimg"] == self.row["kimg"]
        self.row = {**self.row, **metrics} if same else dict(metrics)
        new = [key for key in metrics if key not in self.columns]
        if (new or not self.known) and self.path.exists():
            whole, newline, _ = self.path.read_text().rpartition("\n")  # a last row may be cut off
            reader = csv.DictReader(io.StringIO(whole + newline))
            rows = [row for row in reader if self.known or round(float(row["kimg"])) < self.purge_step]
            rows = rows[:-1] if same else rows
            self.columns = list(dict.fromkeys([*(reader.fieldnames or []), *self.columns]))
        new = [key for key in metrics if key not in self.columns]
        self.columns += sorted(new)
        if new or not self.known:  # written anew, with the new columns
            before = self.text(*rows, header=True)
            write_text(self.path, before + self.text(self.row))
            self.at = len(before.encode())
        else:
            with open(self.path, "r+b") as file:
                self.at = self.at if same else file.seek(0, io.SEEK_END)
                file.seek(self.at)
                file.write(self.text(self.row).encode())
                file.truncate()
        self.known = True

    def text(self, *rows: Mapping[str, Any], header: bool = False) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, restval="", lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()


class Progress(L.Callback):
    """A bar that counts kimg: done, seconds each, time left, losses, the last score.

    max_kimg   where it ends
    monitor    how the name of the score to show begins; None: the first
    """

    def __init__(self, max_kimg: float, monitor: str | None = None):
        self.max_kimg, self.monitor, self.bar = max_kimg, monitor, None
        self.drawn = 0.0

    def on_train_start(self, trainer: Any, gan: Any) -> None:
        if trainer.is_global_zero:
            terminal = sys.stderr.isatty()
            self.bar = tqdm(
                total=self.max_kimg, initial=min(gan.seen / 1000, self.max_kimg), desc="training",
                mininterval=0.2 if terminal else 15,
                unit="kimg", bar_format="{desc} {percentage:3.0f}% |{bar:20}| {n:.1f}/{total:g} kimg, {rate_inv_fmt}, "
                "{remaining} left{postfix}",
            )  # fmt: skip

    def on_train_batch_end(self, trainer: Any, gan: Any, *_: Any) -> None:
        if self.bar is not None and time.monotonic() - self.drawn > 0.1:
            self.drawn = time.monotonic()
            latest = trainer.callback_metrics
            scores = [k for k in latest if k.startswith(f"score/{self.monitor or ''}")][:1]
            names = {f"loss/{p}/adversarial": p for p in gan.players} | {k: k.removeprefix("score/") for k in scores}
            self.bar.set_postfix_str(", ".join(f"{v} {latest[k]:.3g}" for k, v in names.items() if k in latest), False)
            self.bar.update(min(gan.seen / 1000, self.max_kimg) - self.bar.n)

    def on_train_end(self, trainer: Any, gan: Any) -> None:
        self.drawn = 0.0
        self.on_train_batch_end(trainer, gan)
        self._close()

    def on_exception(self, trainer: Any, gan: Any, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.refresh()
            self.bar.close()
            self.bar = None
