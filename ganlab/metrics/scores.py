"""Scores: what they read of the features, and the one pass that serves them all."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from ganlab.metrics.pairs import PairScore, sweep

Keep = str  # "moments": mean and covariance; "sums": mean and mean square; "rows": every sample's own


@dataclass
class Kept:
    """What is known of one side's samples, reals or fakes.

    n        how many
    arrays   OUTPUT_mu [d], OUTPUT_sigma [d, d] and OUTPUT_square [] in float64, OUTPUT_rows [n, d]
    """

    n: int = 0
    arrays: dict[str, Tensor] = field(default_factory=dict)

    def moments(self, output: str = "features") -> tuple[Tensor, Tensor]:
        return self.arrays[f"{output}_mu"], self.arrays[f"{output}_sigma"]

    def rows(self, output: str = "features") -> Tensor:
        return self.arrays[f"{output}_rows"]


@dataclass(frozen=True)
class Given:
    """What a score is going to be computed from, as far as it is known before any image is looked at.

    dims      {output: number of columns}; empty: not known yet
    n_real    None: not known, or no reals
    classes   number of labels; None: none
    """

    dims: Mapping[str, int]
    n_real: int | None
    n_fake: int
    classes: int | None = None

    def squarable(self, output: str, name: str, most: int = 8192) -> None:
        """Raises ValueError where a covariance would not fit into memory."""
        if self.dims.get(output, 0) > most:
            raise ValueError(
                f"{name}: a covariance of {self.dims[output]:,} columns takes too much memory ({most:,} at most): "
                "choose another extractor, or leave the score out"
            )


class Score(ABC):
    """One number or more about fakes, mostly against reals.

    reads       {output of the extractor: what is to be kept of it}; besides those, there are "images" (uint8) and
                "labels"
    reals       whether it needs them
    keys        names of its numbers
    standard    number of fakes that the literature uses: a score of as many needs no number in its name
    """

    reads: Mapping[str, Keep] = {"features": "rows"}
    reals = True
    higher_is_better = False
    keys: tuple[str, ...]
    standard = 50_000

    @abstractmethod
    def __call__(self, real: Kept, fake: Kept) -> dict[str, float]:
        """{key: value}"""

    def check(self, given: Given) -> None:  # noqa: B027
        """Refuses, by a ValueError, what it can't be computed from."""

    def settings(self) -> dict[str, Any]:
        """What belongs in the protocol."""
        return {k: v for k, v in vars(self).items() if not k.startswith("_") and k not in ("keys", "reads")}


Reads = set[tuple[str, Keep]]  # of outputs: what is to be kept


def reads(scores: Mapping[str, Score], reals: bool = False) -> Reads:
    """What these scores read; reals: only those that need reals."""
    return {pair for score in scores.values() if score.reals or not reals for pair in score.reads.items()}


class Scores(Metric):
    """All scores of one pass: the sums and rows that they read, each kept once. Exact however the samples are split
    over updates and processes: sums are float64, rows are put in the order of their index.

    scores   {name: Score}
    dims     {output: number of columns}
    wanted   what to keep; None: what the scores read
    """

    full_state_update = False
    is_differentiable = False

    def __init__(
        self, scores: Mapping[str, Score], dims: Mapping[str, int], wanted: Reads | None = None, **kwargs: Any
    ):  # fmt: skip
        super().__init__(compute_with_cache=False, **kwargs)
        self.scores, self.dims = dict(scores), dict(dims)
        self.wanted = reads(scores) if wanted is None else wanted
        for name, score in scores.items():
            if missing := sorted(set(score.reads) - set(dims)):
                has = f"the score {name} reads {', '.join(missing)}, and there is only {', '.join(dims)}"
                raise ValueError(f"{has}: choose another extractor or other keys of it (extractor.*), or leave it out")
        for side in ("real", "fake"):
            self.add_state(f"{side}_count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
            if any(keep == "rows" for _, keep in self.wanted):
                self.add_state(f"{side}_index", [], dist_reduce_fx="cat")
            for output, keep in sorted(self.wanted):
                if keep == "rows":
                    self.add_state(f"{side}_{output}_rows", [], dist_reduce_fx="cat")
                    continue
                shape = [dims[output]]
                zeros = {"sum": shape, "outer": shape * 2} if keep == "moments" else {"sum": shape, "square": []}
                for kind, size in zeros.items():
                    if not hasattr(self, f"{side}_{output}_{kind}"):
                        state = torch.zeros(size, dtype=torch.float64)
                        self.add_state(f"{side}_{output}_{kind}", state, dist_reduce_fx="sum")
        self.reference: Kept | None = None
        self.set_dtype(torch.float64)

    def update(self, outputs: Mapping[str, Tensor], real: bool, index: Tensor | None = None) -> None:
        """outputs: {name: [n, d]}; index: [n] numbers of these samples within their side; None: they follow on."""
        side = "real" if real else "fake"
        count = getattr(self, f"{side}_count")
        n = len(next(iter(outputs.values())))
        if hasattr(self, f"{side}_index"):
            here = torch.arange(int(count), int(count) + n) if index is None else index
            getattr(self, f"{side}_index").append(here.to(count.device))
        for output, keep in self.wanted:
            if keep == "rows":
                getattr(self, f"{side}_{output}_rows").append(outputs[output].to(count.device))
                continue
            x = outputs[output].to(count.device).double()
            if keep == "moments":
                getattr(self, f"{side}_{output}_outer").addmm_(x.T, x)
            else:
                getattr(self, f"{side}_{output}_square").add_(x.square().sum())
            if keep == "moments" or (output, "moments") not in self.wanted:
                getattr(self, f"{side}_{output}_sum").add_(x.sum(0))
        count.add_(n)

    def kept(self, real: bool) -> Kept:
        """What was seen here of one side; of all processes inside `sync_context`.

        Raises:
            ValueError: fewer than two samples, or features that are not finite
        """
        side = "real" if real else "fake"
        n = int(getattr(self, f"{side}_count"))
        if n < 2:
            raise ValueError(f"scores need at least 2 {side} samples, not {n}")
        arrays: dict[str, Tensor] = {}
        if hasattr(self, f"{side}_index"):
            order = joined(getattr(self, f"{side}_index")).argsort()
            in_order = bool((order.diff() == 1).all())
        for output, keep in sorted(self.wanted):
            if keep == "rows":
                rows = joined(getattr(self, f"{side}_{output}_rows"))
                arrays[f"{output}_rows"] = rows if in_order else rows[order]
                total = rows.sum() if rows.is_floating_point() else torch.zeros(())
            else:
                mean = getattr(self, f"{side}_{output}_sum") / n
                arrays[f"{output}_mu"] = total = mean
                if keep == "moments":
                    outer = getattr(self, f"{side}_{output}_outer")
                    arrays[f"{output}_sigma"] = (outer - n * torch.outer(mean, mean)) / (n - 1)
                else:
                    arrays[f"{output}_square"] = getattr(self, f"{side}_{output}_square") / n
            if not total.isfinite().all():
                raise ValueError(f"the {side} samples have {output} that are not finite: there is no score of them")
        return Kept(n, arrays)

    def load_reference(self, reference: Kept) -> None:
        """Takes what is known of the reals, in place of what `update(real=True)` would collect.

        Raises:
            ValueError: it is of another size than this extractor's outputs, no mean and covariance, or lacks something
        """
        for output, keep in reads(self.scores, reals=True):
            for name in (f"{output}_{name}" for name in ARRAYS[keep]):
                if name not in reference.arrays:
                    needing = [k for k, score in self.scores.items() if output in score.reads and score.reals]
                    raise ValueError(
                        f"the reference has no {name}, which {', '.join(needing)} need: published statistics serve "
                        "for FID alone; give the reals themselves, or choose scores=[fid]"
                    )
                self._check(name, reference.arrays[name], self.dims[output])
        self.reference = Kept(reference.n, {k: v.to(self.device) for k, v in reference.arrays.items()})

    def _check(self, name: str, value: Tensor, columns: int) -> None:
        kind = name.rsplit("_", 1)[1]
        dims = {"mu": 1, "sigma": 2, "square": 0}.get(kind, value.dim())
        have = value.shape[0] if kind in ("mu", "sigma") and value.dim() else math.prod(value.shape[1:])
        if value.dim() != dims or (kind == "sigma" and value.shape[0] != value.shape[1]):
            raise ValueError(f"the reference's {name} has the shape {list(value.shape)}: it is no {NAMES[kind]}")
        if kind != "square" and have != columns:
            raise ValueError(
                f"the reference's {name} has {have} columns and the extractor's {name.rsplit('_', 1)[0]} {columns}: "
                "it was made through another extractor"
            )
        wrong = value.is_floating_point() and not value.isfinite().all()
        if kind == "sigma" and not wrong:
            size = value.abs().max()
            wrong = bool((value - value.T).abs().max() > 1e-3 * size or value.diagonal().min() < -1e-6 * size)
        if wrong:
            raise ValueError(f"the reference's {name} is not finite, or no {NAMES[kind]}")

    def compute(self) -> dict[str, float]:
        """{key: value} of all scores."""
        return self.values()

    def values(self) -> dict[str, float]:
        """The same of what is here: inside `sync_context` one process can do it for all."""
        needs_reals = any(score.reals for score in self.scores.values())
        real = self.reference or (self.kept(real=True) if needs_reals else Kept())
        fake = self.kept(real=False)
        pairwise = [score for score in self.scores.values() if isinstance(score, PairScore)]
        if pairwise:
            sweep(pairwise, real.rows(), fake.rows())
        values: dict[str, float] = {}
        for score in self.scores.values():
            values |= score(real, fake)
        return values


ARRAYS = {"moments": ("mu", "sigma"), "sums": ("mu", "square"), "rows": ("rows",)}
NAMES = {"mu": "mean", "sigma": "covariance", "square": "mean square", "rows": "list of samples"}


def joined(parts: list[Tensor] | Tensor) -> Tensor:
    """One tensor of a list state, which holds only that from then on: the pieces are not kept twice."""
    if isinstance(parts, Tensor):
        return parts
    if len(parts) > 1:
        parts[:] = [torch.cat(parts)]
    return parts[0]


def short(n: int) -> str:
    """10000 -> "10k", 1234 -> "1234": the number of samples in the name of a score."""
    return f"{n // 1000}k" if n % 1000 == 0 else str(n)
