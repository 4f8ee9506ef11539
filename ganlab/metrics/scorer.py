"""One pass over the fakes, and one over the reals if it was not made before: every score from the same features."""

import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from ganlab.files import atomic, cache_folder
from ganlab.metrics.extractors import Extractor
from ganlab.metrics.protocol import Protocol
from ganlab.metrics.scores import Kept, Score, Scores, short
from ganlab.rng import IndexedRNG

Look = Callable[[int, int], dict[str, Tensor]]  # (first, count) -> {"real": images, "label": labels where there are}


class Scorer:
    """Scores any images through one extractor, by all processes of the group together. The values are the same however
    many there are.

    extractor    what scores see (`ganlab.metrics.extractors`)
    scores       {name: Score}
    n            fakes
    n_real       reals, the first of their split; None: all
    batch_size   images looked at at once, by each process
    seed         of the fakes: sample i is made from (seed, i)
    """

    def __init__(
        self,
        extractor: Extractor,
        scores: Mapping[str, Score],
        n: int = 50_000,
        n_real: int | None = None,
        batch_size: int = 256,
        seed: int = 0,
    ):
        for key, value in (("n", n), ("n_real", n if n_real is None else n_real), ("batch_size", batch_size)):
            least = 1 if key == "batch_size" else 2
            if not isinstance(value, int) or value < least:
                raise ValueError(f"metrics.{key}={value!r}: must be a whole number of at least {least}")
        if not scores:
            raise ValueError("scores is empty: name a score, or set metrics.enabled=false")
        keys = [key for score in scores.values() for key in score.keys]
        if doubled := sorted({key for key in keys if keys.count(key) > 1}):
            raise ValueError(f"scores: {', '.join(doubled)} would be given by two of them: remove one")
        self.extractor, self.scores, self.n, self.n_real = extractor, dict(scores), n, n_real
        self.batch_size, self.seed = batch_size, seed
        self.needs_reals = any(score.reals for score in scores.values())
        self.reads = {output for score in scores.values() for output in score.reads}
        self.probing = [score for score in self.scores.values() if hasattr(score, "probe")]

    # ------------------------------------------------------------------------------------------------------------ names

    def name(self, key: str) -> str:
        """fid -> fid_inception; with fewer fakes than the literature's 50,000: fid10k_inception."""
        standard = next(score.standard for score in self.scores.values() if key in score.keys)
        return f"{key}{'' if self.n == standard else short(self.n)}_{self.extractor.name}"

    @property
    def names(self) -> dict[str, str]:
        """{key: full name}"""
        return {key: self.name(key) for score in self.scores.values() for key in score.keys}

    def owner(self, key: str) -> str:
        """Name of the score that gives this number."""
        return next(name for name, score in self.scores.items() if key in score.keys)

    # ------------------------------------------------------------------------------------------------------------ sides

    def empty(self, shape: list[int], device: torch.device, labels: bool) -> tuple[Scores, dict[str, Tensor]]:
        """A metric that has seen nothing, and outputs of no samples."""
        nothing = self.see(torch.zeros(2, *shape, dtype=torch.uint8 if len(shape) == 3 else torch.float32), device)
        nothing |= {"labels": torch.zeros(2, 1, dtype=torch.int64)} if labels else {}
        nothing |= {"path": torch.zeros(2, 1, dtype=torch.float64)} if self.probing else {}
        home = torch.device("cpu") if device.type == "mps" else device  # scores sum in float64, which mps lacks
        dims = {k: math.prod(v.shape[1:]) for k, v in nothing.items()}
        for score in self.scores.values():
            if set(score.reads) <= set(dims):
                score.check(dims, None, self.n)
        metric = Scores(self.scores, dims, sync_on_compute=False).to(home)
        return metric, {k: v[:0] for k, v in nothing.items()}

    def check(self, shape: list[int], labels: bool, n_real: int | None, device: torch.device) -> None:
        """Raises ValueError where a score can't be computed from such samples."""
        self.extractor.to(device).eval()
        n = min(n_real or 0, self.n_real or n_real or 0) or None
        for score in self.scores.values():
            score.check(dict.fromkeys(score.reads, 1), n if score.reals else None, self.n)
        with torch.no_grad():
            self.empty(shape, device, labels)

    def see(self, images: Tensor, device: torch.device) -> dict[str, Tensor]:
        """Outputs of the extractor, and the images themselves."""
        images = as_shown(images).to(device)
        return named(self.extractor(images)) | ({"images": images} if "images" in self.reads else {})

    def collect(self, metric: Scores, nothing: dict[str, Tensor], look: Look, n: int, real: bool, device: Any) -> None:
        """Shows a side to the metric: this process's share of it."""
        metric.update(nothing, real, torch.zeros(0, dtype=torch.int64))
        pieces = shares(n, self.batch_size, *place())
        what = "reals" if real else "samples"
        bar = tqdm(
            pieces,
            desc=f"looking at {what}",
            unit="batch",
            leave=False,
            disable=True if place()[0] or n < 5000 else None,
        )
        for first, count in bar:
            shown = look(first, count)
            outputs = self.see(shown["real"], device)
            outputs |= {"labels": shown["label"].view(-1, 1)} if "labels" in nothing else {}
            outputs |= {k: v for k, v in shown.items() if k == "path"}
            metric.update(outputs, real, torch.arange(first, first + count))

    def reals(self, data: Any, split: str, device: torch.device) -> Kept:
        """What the scores read of the reals: from the cache, or from one pass over them by all processes."""
        samples = data.split(split)
        n = min(len(samples), self.n_real or len(samples))
        for score in self.scores.values():
            score.check(dict.fromkeys(score.reads, 1), n, self.n)
        about = self.extractor.describe()
        needed = sorted({(o, k) for score in self.scores.values() if score.reals for o, k in score.reads.items()})
        key = repr((data.fingerprint(split), split, n, data.facts()["shape"], about, needed))
        path = cache_folder("statistics") / f"{hashlib.blake2b(key.encode(), digest_size=12).hexdigest()}.npz"
        if not shared(path.exists()):
            first = samples.take(torch.arange(2))
            metric, nothing = self.empty(list(first["real"].shape[1:]), device, "label" in first)
            look = lambda start, count: samples.take(torch.arange(start, start + count))
            real_scores = Scores({k: s for k, s in self.scores.items() if s.reals}, metric.dims, sync_on_compute=False)
            real_scores.to(metric.device)
            self.collect(real_scores, nothing, look, n, True, device)
            with real_scores.sync_context(should_sync=place()[1] > 1):
                if place()[0] == 0:
                    save_arrays(path, real_scores.kept(real=True))
            del real_scores
        return as_kept(read_arrays(path)) if place()[0] == 0 else Kept(n)  # rank 0 computes for all

    # ----------------------------------------------------------------------------------------------------------- values

    @torch.no_grad()
    def score(
        self, look: Look, shape: list[int], reference: Kept | None, device: torch.device, labels: bool = False
    ) -> dict[str, float]:
        """{full name: value} of `n` images. Every process must call it.

        look     (first, count) -> {"real": [count, *shape], ...}, uint8 or float in [-1, 1]
        labels   whether it gives labels

        Raises:
            ValueError: a score can't be computed from what there is
        """
        extractor = self.extractor.to(device)
        extractor.eval()
        for score in self.scores.values():
            score.check(dict.fromkeys(score.reads, 1), reference.n if reference is not None else None, self.n)
        metric, nothing = self.empty(shape, device, labels)
        if reference is not None and place()[0] == 0:
            metric.load_reference(reference)
        broken = torch.zeros(())  # samples that are not finite: they have no score

        def looked(first: int, count: int) -> dict[str, Tensor]:
            shown = look(first, count)
            broken.add_((~shown["real"].isfinite()).sum().cpu())
            return shown

        self.collect(metric, nothing, looked, self.n, False, device)
        if total(broken) > 0:
            return dict.fromkeys(self.names.values(), math.nan)
        with metric.sync_context(should_sync=place()[1] > 1):
            values = shared(metric.values() if place()[0] == 0 else None)
        return {self.name(key): value for key, value in values.items()}

    def looking_at(self, generator: Any) -> Look:
        """Samples of a generator (a GAN or a Sampler), with their labels and what a score asks G itself."""
        see = lambda images: named(self.extractor(images))["features"]

        def look(first: int, count: int) -> dict[str, Tensor]:
            rng = IndexedRNG(self.seed, range(first, first + count), generator.device, generator.dtype)
            inputs, cond = generator.task.draw(rng)
            shown = {"real": generator(inputs, cond)} | ({} if cond is None else {"label": cond})
            for score in self.probing:
                shown["path"] = score.probe(generator, see, first, count, self.seed)
            return shown

        return look

    def protocol(self, fakes: str, reals: str | None, n_real: int | None, **more: Any) -> Protocol:
        settings = {name: score.settings() for name, score in self.scores.items()}
        return Protocol(
            reals if self.needs_reals else None, n_real if self.needs_reals else None, fakes, self.n,
            self.extractor.describe(), settings, seed=self.seed, **more,
        )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ processes


def place() -> tuple[int, int]:
    """(rank, number of processes)"""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def shared(value: Any) -> Any:
    """Rank 0's value, in every process."""
    if place()[1] == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, 0)
    return box[0]


def total(x: Tensor) -> float:
    """The sum over all processes."""
    values: list[Any] = [None] * place()[1]
    if len(values) == 1:
        return x.item()
    dist.all_gather_object(values, x.item())
    return sum(values)


def shares(n: int, size: int, rank: int, world: int) -> list[tuple[int, int]]:
    """(first, count) of the pieces of 0 .. n - 1 that are this process's; each index belongs to one process."""
    pieces = [(first, min(size, n - first)) for first in range(0, n, size)]
    return pieces[rank::world]


# ----------------------------------------------------------------------------------------------------------- statistics


def named(outputs: Any) -> dict[str, Tensor]:
    """What an extractor gave, by name."""
    return outputs if isinstance(outputs, dict) else {"features": outputs}


def save_arrays(path: str | Path, kept: Kept) -> None:
    """Writes them as .npz: features' mean and covariance as `mu` and `sigma`, as others publish them."""
    with atomic(path) as file:
        arrays = {k.removeprefix("features_") if k in PUBLISHED else k: v.cpu().numpy() for k, v in kept.arrays.items()}
        np.savez(file, n=np.array(kept.n), **arrays)  # type: ignore[arg-type]


PUBLISHED = ("features_mu", "features_sigma")


def read_arrays(path: str | Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as stored:
        return {k: stored[k] for k in stored.files}


def as_kept(arrays: Mapping[str, Any]) -> Kept:
    """What `save_arrays`, or pytorch-fid and its like, wrote."""
    named = {f"features_{k}" if k in ("mu", "sigma") else k: torch.from_numpy(v) for k, v in arrays.items() if k != "n"}
    double = {k: v if k.endswith("_rows") else v.double() for k, v in named.items()}
    return Kept(int(arrays["n"]) if "n" in arrays else 0, double)


def as_shown(x: Tensor) -> Tensor:
    """Images in [-1, 1] as the uint8 that a viewer would see: rounded; other samples as they are."""
    if x.dim() != 4 or x.dtype == torch.uint8:
        return x
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
