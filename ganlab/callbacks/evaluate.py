"""Scores over training, on G_ema."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from ganlab.callbacks.clock import Every
from ganlab.callbacks.curves import record
from ganlab.checkpoint import save, sync_buffers
from ganlab.files import atomic, cache_folder
from ganlab.metrics.extractors import Extractor


class Evaluate(Every):
    """Scores G_ema every `every` kimg and at the end, and keeps the best checkpoint.

    Samples 0 .. n - 1 are made from (seed, i) and shared out over the processes: the score does not depend on their
    number. Statistics of the reals are computed once and kept.

    extractor   what scores see (`ganlab.metrics.extractors`)
    scores      {name: dim -> Metric}; a score appears as name_extractor
    n           fakes
    monitor     name of the score that decides which checkpoint is best
    folder      for best.ckpt and scores.json
    """

    def __init__(
        self,
        every: float,
        extractor: Extractor,
        scores: Mapping[str, Callable[..., Metric]],
        folder: str,
        n: int = 10_000,
        batch_size: int = 256,
        monitor: str = "fid",
        seed: int = 0,
    ):
        super().__init__(every)
        if n < 2:
            raise ValueError(f"metrics.n={n}: at least 2 fakes are needed")
        kinds: dict[str, Any] = {name: getattr(make, "func", make) for name, make in scores.items()}
        owners = {key: kind for name, kind in kinds.items() for key in kind.keys or (name,)}
        if monitor not in owners:
            raise ValueError(f"metrics.monitor={monitor}: must be one of the scores, here {', '.join(owners)}")
        self.keys, self.lower_is_better = list(owners), not owners[monitor].higher_is_better
        self.extractor, self.scores, self.folder = extractor, dict(scores), Path(folder)
        self.n, self.batch_size, self.monitor, self.seed = n, batch_size, monitor, seed
        self.history: list[dict[str, float]] = []  # {"kimg": ..., name: ...}
        self.best_checkpoint: str | None = None

    # ------------------------------------------------------------------------------------------------------- Lightning

    def setup(self, trainer: Any, gan: Any, stage: str) -> None:
        if trainer.local_rank == 0:  # downloads and trains what is not in the cache yet
            self.extractor.prepare(trainer.datamodule)
        trainer.strategy.barrier()
        self.extractor.prepare(trainer.datamodule)

    def act(self, trainer: Any, gan: Any) -> None:
        scores = self.evaluate(trainer, gan)
        record(trainer, gan, {f"score/{k}": v for k, v in scores.items()})
        self.history.append({"kimg": gan.seen / 1000, **scores})
        if self.best is self.history[-1]:
            self.best_checkpoint = str(self.folder / "best.ckpt")
            save(trainer, self.best_checkpoint)
        if trainer.is_global_zero:
            content = {"protocol": self.protocol(trainer), "history": self.history}
            with atomic(self.folder.parent / "scores.json") as file:
                file.write(json.dumps(content, indent=1).encode())

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history, "best_checkpoint": self.best_checkpoint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.history, self.best_checkpoint = state["history"], state["best_checkpoint"]

    # ---------------------------------------------------------------------------------------------------------- scores

    @property
    def monitored(self) -> str:
        """The full name of the score that decides."""
        return f"{self.monitor}_{self.extractor.name}"

    @property
    def best(self) -> dict[str, float] | None:
        """The best entry of the history, the earliest of equals; None where there is no finite score."""
        sign = 1 if self.lower_is_better else -1
        scored = [entry for entry in self.history if math.isfinite(entry.get(self.monitored, math.nan))]
        return min(scored, key=lambda entry: sign * entry[self.monitored]) if scored else None

    @torch.no_grad()
    def evaluate(self, trainer: Any, gan: Any) -> dict[str, float]:
        """All scores of G_ema now. Every process must call it."""
        sync_buffers(gan)
        device = gan.device
        extractor = self.extractor.to(device)
        home = torch.device("cpu") if device.type == "mps" else device  # scores sum in float64, which mps lacks
        metrics = {name: make(dim=extractor.dim).to(home) for name, make in self.scores.items()}
        for metric in metrics.values():
            if metric.needs_reals:
                self.show_reals(trainer, extractor, metric)
        broken = torch.zeros((), device=device)  # samples that are not finite: they have no score
        for first, count in shares(self.n, self.batch_size, trainer.global_rank, trainer.world_size):
            fakes = gan.generate(first, count, self.seed)
            broken += (~fakes.isfinite()).sum()
            features = extractor(as_shown(fakes)).to(home)
            for metric in metrics.values():
                metric.update(features, real=False)
        if trainer.strategy.reduce(broken, reduce_op="sum") > 0:
            return {f"{key}_{extractor.name}": math.nan for key in self.keys}
        values: dict[str, float] = {}
        for name, metric in metrics.items():
            result = metric.compute()
            results = result if isinstance(result, dict) else {name: result}
            values |= {f"{k}_{extractor.name}": float(v) for k, v in results.items()}
        return values

    def show_reals(self, trainer: Any, extractor: Extractor, metric: Any) -> None:
        """Tells the metric of the reals: from the cache, or from one pass over them by all processes."""
        data, samples = trainer.datamodule, trainer.datamodule.split("train")
        kind = f"{type(metric).__module__}.{type(metric).__qualname__}"
        key = repr((kind, data.fingerprint("train"), data.facts()["shape"], extractor.describe()))
        path = cache_folder("statistics") / f"{hashlib.blake2b(key.encode(), digest_size=12).hexdigest()}.npz"
        arrays = trainer.strategy.broadcast(read_arrays(path) if trainer.is_global_zero else None)
        if arrays is None:
            for first, count in shares(len(samples), self.batch_size, trainer.global_rank, trainer.world_size):
                x = samples.take(torch.arange(first, first + count))["real"].to(trainer.strategy.root_device)
                metric.update(extractor(x).to(metric.device), real=True)
            with metric.sync_context(should_sync=trainer.world_size > 1):
                arrays = metric.reference_arrays()
            if trainer.is_global_zero:
                with atomic(path) as file:
                    np.savez(file, **{k: v.cpu().numpy() for k, v in arrays.items()})
        metric.load_reference(**arrays)

    def protocol(self, trainer: Any) -> str:
        """How the scores were made, in one line."""
        reals = (
            f"{len(trainer.datamodule.split('train')):,} training samples ({trainer.datamodule.fingerprint('train')})"
        )
        return f"{self.n:,} samples of G_ema, seed {self.seed}, against {reals}; {self.extractor.describe()}"


def shares(n: int, size: int, rank: int, world: int) -> list[tuple[int, int]]:
    """(first, count) of the pieces of 0 .. n - 1 that are this process's; each index belongs to one process."""
    pieces = [(first, min(size, n - first)) for first in range(0, n, size)]
    return pieces[rank::world]


def read_arrays(path: Path) -> dict[str, Tensor] | None:
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as stored:
        return {k: torch.from_numpy(stored[k]) for k in stored.files}


def as_shown(x: Tensor) -> Tensor:
    """Images in [-1, 1] as the uint8 that a viewer would see: rounded; other samples as they are."""
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8) if x.dim() == 4 else x
