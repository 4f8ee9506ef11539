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
from torch.utils._pytree import tree_leaves
from tqdm import tqdm

from ganlab.files import arrays_in, atomic, cache_folder
from ganlab.metrics.extractors import Extractor
from ganlab.metrics.fidelity import Compared
from ganlab.metrics.fit import as_batch, as_shown
from ganlab.metrics.protocol import Protocol
from ganlab.metrics.scores import ARRAYS, Given, Kept, Reads, Score, Scores, reads, short
from ganlab.rng import IndexedRNG

Look = Callable[[int, int], dict[str, Tensor]]  # (first, count) -> {"real": images, "label": labels where there are}


class Scorer:
    """Scores any images through one extractor, by all processes of the group together. The values are the same however
    many there are.

    extractor    what scores see (`ganlab.metrics.extractors`)
    scores       {name: Score}
    n            fakes
    n_real       reals, a choice of their split that is always the same; None: all
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
        self.comparing = {name: score for name, score in self.scores.items() if isinstance(score, Compared)}

    # ------------------------------------------------------------------------------------------------------------ names

    def name(self, key: str) -> str:
        """fid -> fid_inception; with fewer fakes than the literature's 50,000: fid10k_inception. What compares outputs
        with targets keeps its name, but for lpips -> lpips_vgg."""
        if any(key in score.keys for score in self.comparing.values()):
            return self.extractor.name if key == "lpips" else key
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

    def check(
        self, shape: list[int], device: torch.device, n_real: int | None, labels: bool, classes: Any = None
    ) -> None:
        """Raises ValueError where a score can't be computed from such samples."""
        self.extractor.to(device).eval()
        if "lpips" in self.comparing and not self.extractor.name.startswith("lpips"):
            raise ValueError(f"scores.lpips looks through extractor=lpips, and this is {self.extractor.name}: set it")
        if "images" in self.reads and len(shape) != 3:
            raise ValueError(f"scores.cas learns from images, and these samples have the shape {shape}: leave it out")
        n_real = min(n_real, self.n_real or n_real) if n_real else None
        for score in self.scores.values():
            score.check(Given({}, n_real if score.reals else None, self.n, classes))
        dims = {k: math.prod(v.shape[1:]) for k, v in self.nothing(shape, device, labels).items()}
        Scores(self.scores, dims, wanted=set())  # refuses what reads an output that is not there
        for score in self.scores.values():
            score.check(Given(dims, n_real if score.reals else None, self.n, classes))
        for output, keep in reads(self.scores):
            size = max(self.n, n_real or 0) * dims[output] * (1 if output == "images" else 4) / 2**30
            if keep == "rows" and size > MOST:
                owners = ", ".join(name for name, score in self.scores.items() if score.reads.get(output) == "rows")
                raise ValueError(
                    f"{owners} would keep {size:.0f} GiB of {output}, more than {MOST}: choose another "
                    "extractor, fewer samples (n, n_real), or leave them out"
                )

    @torch.no_grad()
    def nothing(self, shape: list[int], device: torch.device, labels: bool) -> dict[str, Tensor]:
        """Outputs of no samples."""
        x = torch.zeros(2, *shape, dtype=torch.uint8 if len(shape) == 3 else torch.float32)
        outputs = self.see(x, device)
        outputs |= {"labels": torch.zeros(2, 1, dtype=torch.int64)} if labels else {}
        outputs |= {"path": torch.zeros(2, 1, dtype=torch.float64)} if self.probing else {}
        if self.comparing:
            outputs |= self.compared(x.float(), x.float(), device)
        return {k: v[:0] for k, v in outputs.items()}

    def metric(self, nothing: dict[str, Tensor], device: torch.device, wanted: Reads | None = None) -> Scores:
        """A metric that has seen nothing."""
        home = torch.device("cpu") if device.type == "mps" else device  # scores sum in float64, which mps lacks
        dims = {k: math.prod(v.shape[1:]) for k, v in nothing.items()}
        scores = self.scores if wanted is None else {}
        return Scores(scores, dims, wanted, sync_on_compute=False).to(home)

    def see(self, images: Tensor, device: torch.device) -> dict[str, Tensor]:
        """Outputs of the extractor, and the images themselves."""
        images = as_shown(images).to(device)
        return named(self.extractor(images)) | ({"images": images} if "images" in self.reads else {})

    def compared(self, fake: Tensor, target: Tensor, device: torch.device) -> dict[str, Tensor]:
        """A row for each output beside its target, of each score that asks for one."""
        see = lambda images: named(self.extractor(images))["features"]
        fake, target = fake.to(device), target.to(device)
        return {o: score.compare(fake, target, see) for score in self.comparing.values() for o in score.reads}

    def collect(self, metric: Scores, nothing: dict[str, Tensor], look: Look, n: int, real: bool, device: Any) -> None:
        """Shows a side to the metric: this process's share of it."""
        metric.update(nothing, real, torch.zeros(0, dtype=torch.int64))
        widest = max(math.prod(v.shape[1:]) for v in nothing.values())
        pieces = shares(n, max(1, min(self.batch_size, 2**26 // widest)), *place())
        silent = True if place()[0] or n < 5000 else None
        side = "reals" if real else "samples"
        for first, count in tqdm(pieces, desc=f"looking at {side}", unit="batch", leave=False, disable=silent):
            shown = look(first, count)
            outputs = self.see(shown["real"], device)
            outputs |= {"labels": shown["label"].view(-1, 1)} if "labels" in nothing else {}
            outputs |= {"path": shown["path"]} if "path" in shown else {}
            outputs |= self.compared(shown["real"], shown["target"], device) if "target" in shown else {}
            metric.update(outputs, real, torch.arange(first, first + count))

    @torch.no_grad()
    def reals(self, data: Any, split: str, device: torch.device) -> Kept:
        """What the scores read of the reals: what was kept of an earlier look, and one pass for the rest by all
        processes."""
        samples, about = data.split(split), self.extractor.describe()
        chosen = chosen_of(len(samples), self.n_real)
        n, shape = len(chosen), list(data.facts()["shape"])
        self.extractor.to(device).eval()
        needed = reads(self.scores, reals=True)
        seen = {(o, k): path_of(data.fingerprint(split), n, shape, about, o, k) for o, k in needed - GIVEN}
        missing = shared({pair for pair, path in seen.items() if not path.exists()})
        if missing:
            nothing = self.nothing(shape, device, labels=False)
            metric = self.metric(nothing, device, missing)
            look = lambda first, count: samples.take(chosen[first : first + count])
            self.collect(metric, nothing, look, n, True, device)
            with metric.sync_context(should_sync=place()[1] > 1):
                agreed(lambda: save_all(metric.kept(real=True), {pair: seen[pair] for pair in missing}, about))
        if place()[0] > 0:
            return Kept(n)  # rank 0 computes for all
        arrays: dict[str, Tensor] = {}
        for path in seen.values():
            arrays |= load_statistics(path).arrays
        for output, _ in needed & GIVEN:  # of the data itself
            x = samples.take(chosen)
            if output == "labels" and "label" not in x:
                raise ValueError("the reals have no labels, which a score by class needs: leave it out")
            arrays[f"{output}_rows"] = x["real"] if output == "images" else x["label"].view(-1, 1)
        return Kept(n, arrays)

    # ----------------------------------------------------------------------------------------------------------- values

    @torch.no_grad()
    def score(
        self, look: Look, shape: list[int], reference: Kept | None, device: torch.device, labels: bool = False
    ) -> dict[str, float]:
        """{full name: value} of `n` images; nan if any of them is not finite. Every process must call it.

        look     (first, count) -> {"real": [count, *shape], ...}, uint8 or float in [-1, 1]
        labels   whether it gives labels

        Raises:
            ValueError: a score can't be computed from what there is
        """
        self.extractor.to(device).eval()
        nothing = self.nothing(shape, device, labels)
        metric = self.metric(nothing, device)
        if reference is not None:
            agreed(lambda: metric.load_reference(reference))
        broken = torch.zeros(())

        def looked(first: int, count: int) -> dict[str, Tensor]:
            shown = look(first, count)
            broken.add_((~shown["real"].isfinite()).sum().cpu())
            return shown

        self.collect(metric, nothing, looked, self.n, False, device)
        if total(broken) > 0:
            return dict.fromkeys(self.names.values(), math.nan)
        with metric.sync_context(should_sync=place()[1] > 1):
            values = agreed(metric.values)
        return {self.name(key): value for key, value in values.items()}

    def looking_at(self, generator: Any, samples: Any = None) -> Look:
        """Samples of a generator (a GAN or a Sampler), with their labels and what a score asks G itself.

        samples   of the data, for tasks whose G starts from these: what G makes of them, beside what it was to make

        Raises:
            ValueError: a score asks for what this task has not
        """
        noise = hasattr(generator.task, "draw")
        if wrong := [*self.comparing.values()] if noise else self.probing:
            why = "has targets" if noise else "starts from noise"
            raise ValueError(f"scores.{wrong[0].keys[0]} is for a G that {why}, and this one does not: leave it out")
        if not noise:
            if self.comparing and not getattr(samples, "partners", True):
                name = next(iter(self.comparing))
                raise ValueError(f"scores.{name} compares with targets, and these images have none: use scores=[fid]")
            return self.translating(generator, samples)
        see = lambda images: named(self.extractor(images))["features"]

        def look(first: int, count: int) -> dict[str, Tensor]:
            rng = IndexedRNG(self.seed, range(first, first + count), generator.device, generator.dtype)
            inputs, cond = generator.task.draw(rng)
            shown = {"real": generator(inputs, cond)} | ({} if cond is None or cond.dim() == 2 else {"label": cond})
            for score in self.probing:
                shown["path"] = score.probe(generator, see, first, count, self.seed)
            return shown

        return look

    def translating(self, generator: Any, samples: Any) -> Look:
        def look(first: int, count: int) -> dict[str, Tensor]:
            rows = chosen_of(len(samples), self.n)[first : first + count]
            batch = as_batch(samples.take(rows), generator.device)
            made = generator.reconstruct(batch, first, self.seed)
            return {"real": tree_leaves(made["fake"])[0], "target": tree_leaves(made["real"])[0]}

        return look

    def protocol(
        self, fakes: str, reals: str | None = None, fingerprint: str | None = None, n_real: int | None = None,
        **more: Any,
    ) -> Protocol:  # fmt: skip
        """How the scores are made. reals: the data, also where no score compares with them."""
        against = lambda name, score: score.reals or name in self.comparing
        settings = {name: {"reals": against(name, score), **score.settings()} for name, score in self.scores.items()}
        n_real = n_real if self.needs_reals else None
        about = self.extractor.describe()
        return Protocol(reals, fingerprint, n_real, fakes, self.n, about, settings, seed=self.seed, **more)


GIVEN: Reads = {("images", "rows"), ("labels", "rows")}  # come with the data
MOST = 16  # GiB that are kept of one output


def chosen_of(count: int, n: int | None) -> Tensor:
    """[n] of `count` samples: all, or a random choice that is always the same."""
    if n is None or n >= count:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:n].sort().values


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


def agreed(compute: Callable[[], Any]) -> Any:
    """What rank 0 computes, in every process; its ValueError, too.

    Raises:
        ValueError: rank 0's
    """
    outcome: tuple[Any, str | None] = (None, None)
    if place()[0] == 0:
        try:
            outcome = (compute(), None)
        except (ValueError, torch.linalg.LinAlgError) as error:
            outcome = (None, str(error))
    value, reason = shared(outcome)
    if reason is not None:
        raise ValueError(reason)
    return value


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


def path_of(*key: Any) -> Path:
    """Where what was seen of the reals is kept."""
    return cache_folder("statistics") / f"{hashlib.blake2b(repr(key).encode(), digest_size=12).hexdigest()}.npz"


def save_all(kept: Kept, paths: Mapping[tuple[str, str], Path], about: str) -> None:
    for (output, keep), path in paths.items():
        names = [f"{output}_{name}" for name in ARRAYS[keep]]
        save_statistics(path, Kept(kept.n, {name: kept.arrays[name] for name in names}), about)


def save_statistics(path: str | Path, kept: Kept, about: str) -> None:
    """Writes them as .npz: features' mean and covariance as `mu` and `sigma`, as others publish them."""
    arrays: dict[str, Any] = {PUBLISHED.get(k, k): v.cpu().numpy() for k, v in kept.arrays.items()}
    with atomic(path) as file:
        np.savez(file, **(arrays | {"n": np.array(kept.n), "extractor": np.array(about)}))


PUBLISHED = {"features_mu": "mu", "features_sigma": "sigma"}


def load_statistics(path: str | Path, about: str | None = None) -> Kept:
    """What `save_statistics`, or pytorch-fid and its like, wrote.

    about   the extractor that they must have been made through, where the file says which

    Raises:
        ValueError: another one, or it holds something else
        Unavailable: it can't be read
    """
    arrays = arrays_in(Path(path))
    told = str(arrays.pop("extractor", ""))
    if about and told and told != about:
        raise ValueError(f"{path} was made through another extractor: {told[:200]}\n  here it is: {about}")
    if about and not told and about.split(",")[0].endswith("-bf16"):
        raise ValueError(f"{path} does not say that it was made in bf16: set extractor.precision=32")
    count = arrays.pop("n", np.array(0))
    if count.size != 1 or count.dtype.kind not in "iu" or count.min() < 0:
        raise ValueError(f"{path}: n is {count.dtype} {list(count.shape)}, and must be one whole number")
    for name, value in arrays.items():
        if value.dtype.kind not in "iuf" or not np.isfinite(value).all():
            raise ValueError(f"{path}: {name} ({value.dtype} {list(value.shape)}) is not made of finite numbers")
    back = {v: k for k, v in PUBLISHED.items()}
    named = {back.get(k, k): torch.from_numpy(v) for k, v in arrays.items()}
    return Kept(int(count.item()), {k: v if k.endswith("_rows") else v.double() for k, v in named.items()})


def named(outputs: Any) -> dict[str, Tensor]:
    """What an extractor gave, by name."""
    return outputs if isinstance(outputs, dict) else {"features": outputs}
