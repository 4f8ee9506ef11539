"""Rows of tables: from incomplete to complete ones, and from noise to rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ganlab.columns import categories, spans
from ganlab.media import Medium
from ganlab.phase import Batch, Data, GeneratorOutput, output_of
from ganlab.rng import SampleRNG
from ganlab.tasks.noise import Generate
from ganlab.tasks.task import Task, takes_labels


class Impute(Task):
    """From rows with missing cells to complete ones: {"real", "given"}, nan where a cell is missing (Yoon et al. 2018,
    arXiv:1806.02920). G starts from (row, which cells it is given [N, D], 0 or 1); D judges each cell of the completed
    row, and is told which cells were given, of some of these.

    columns   descriptions of the columns (`ganlab.columns`), encoded as "minmax"
    noise     of a missing cell, uniform from 0 to this
    hint      share of the given cells that D is told of; of a category all entries together
    """

    def __init__(
        self, columns: Sequence[Mapping[str, Any]], noise: float = 0.01, hint: float = 0.9, medium: Medium | None = None
    ):
        super().__init__()
        self.noise, self.hint, self.medium = noise, hint, medium
        self.cells = [n for n, (_, span, _) in enumerate(spans(columns)) for _ in range(span.stop - span.start)]
        self.encoded = any("modes" in column for column in columns)

    def facts(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """Raises ValueError where the data are no table, or encoded otherwise."""
        if not self.cells or self.encoded:
            fix = "set data.encoding=minmax" if self.cells else "use data=table"
            raise ValueError(f"task=impute fills in cells of tables with numbers in [0, 1], which these are not: {fix}")
        return {}

    def check(self, gan: Any) -> None:
        D = getattr(gan, "D", None)
        if D is not None and not takes_labels(D):
            raise ValueError(f"task=impute gives D a hint, and {type(D).__name__} takes none: use model=gain")

    def prepare(self, batch: dict[str, Any], rng: SampleRNG) -> Batch:
        real = batch["real"]
        given = batch.get("given", ~real.isnan())
        noise = self.noise * rng.uniform(real.shape[1]).to(real)
        told = rng.uniform(max(self.cells) + 1)[:, self.cells] < self.hint
        there = given.to(real)
        return Batch((torch.where(given, real, noise), there), real, there * told)

    def play(self, G: nn.Module, batch: Batch) -> tuple[Data, Data]:
        """The completed rows, with all that G made as aux, and the true ones, completed where nobody knows."""
        row, there = batch.inputs
        made = output_of(G, batch.inputs, None).fake.to(row)
        completed = there * row + (1 - there) * made
        real = torch.where(batch.real.isnan(), completed.detach(), batch.real)
        return GeneratorOutput(completed, made), real

    def columns(self, G: Any, made: Mapping[str, Data]) -> list[Tensor]:
        """Heat maps of what G was given, of the completed rows, and of the true ones."""
        row, there = made["inputs"]
        holes = torch.where(there > 0, row, torch.nan)
        return [self.show(x) for x in (holes, made["fake"], made["real"])]


class Synthesize(Generate):
    """From noise, and a category that is asked for, to rows of a table (Xu et al. 2019, arXiv:1907.00503): {"real"},
    whose choices are one-hot. G starts from (noise, Gumbel noise [N, D] for its choices). Both players are told the
    condition: a vector of all categories of all columns, in which one of one column is 1.

    Of a real it is one of its own. Where rows were drawn by a category (`by_category`), it is drawn as that category
    was, given the row: then rows and conditions have the paper's joint law.

    columns   descriptions of the columns (`ganlab.columns`)
    """

    def __init__(
        self, columns: Sequence[Mapping[str, Any]], z_dim: int | None = None, by_category: bool = True,
        medium: Medium | None = None,
    ):  # fmt: skip
        super().__init__(z_dim, medium=medium)
        self.spans, self.by_category = spans(columns), by_category
        self.length = self.spans[-1][1].stop if self.spans else 0
        self.asked = [span for _, span in categories(columns)]  # entries of a row that are a condition's
        counts = [torch.tensor(columns[i]["counts"], dtype=torch.float64) for i, _ in categories(columns)]
        self.classes = sum(map(len, counts)) or None
        self.several = self.classes is not None  # a condition is a vector
        self.names = [f"{columns[i]['name']}={value}" for i, _ in categories(columns) for value in columns[i]["values"]]
        self.shares = [c / c.sum() / len(counts) for c in counts]  # how often each is asked for, without data
        self.chances = [c.log1p() / c.log1p().sum() / c for c in counts]  # of a row, by its category

    def facts(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """What networks must know: what a row is made of, and how many categories a condition has.

        Raises:
            ValueError: the data are no table, or encoded otherwise
        """
        if not self.spans or any(kind == "number" and self.alone(i) for i, _, kind in self.spans):
            fix = "set data.encoding=modes" if self.spans else "use data=table"
            raise ValueError(
                f"task=synthesize makes rows of tables whose numbers have modes, which these are not: {fix}"
            )
        parts = [[kind, span.stop - span.start] for _, span, kind in self.spans]
        return {"conditions": self.classes, "parts": parts}

    def alone(self, column: int) -> bool:
        """Whether a number has no modes."""
        return sum(i == column for i, _, _ in self.spans) == 1

    def noise(self, rng: SampleRNG) -> Any:
        u = rng.uniform(self.length).clamp(min=1e-9)
        return super().noise(rng), -(-u.log()).clamp(min=1e-9).log()

    def prepare(self, batch: dict[str, Any], rng: SampleRNG) -> Batch:
        real = batch["real"]
        return Batch(self.noise(rng), real, self.condition(real, rng) if self.classes else None)

    def condition(self, real: Tensor, rng: SampleRNG) -> Tensor:
        """[N, classes]: one category of each row."""
        own = [real[:, span] for span in self.asked]
        weights = torch.stack([x @ c.to(x) for x, c in zip(own, self.chances, strict=True)], 1)  # [N, columns]
        weights = weights if self.by_category else torch.ones_like(weights)
        edges = (weights / weights.sum(1, keepdim=True)).cumsum(1)[:, :-1]
        column = (rng.uniform().to(real)[:, None] >= edges).sum(1)  # [N]
        return torch.cat([x * (column == k)[:, None] for k, x in enumerate(own)], 1)

    def draw(self, rng: SampleRNG, cond: Tensor | None = None) -> tuple[Any, Tensor | None]:
        """cond: conditions [N, classes], or numbers of categories [N]; None to draw a column evenly, and of that a
        category as often as it occurs."""
        z = self.noise(rng)
        if self.classes is None:
            return z, None
        cond = rng.choice(torch.cat(self.shares)) if cond is None else cond
        if cond.dim() == 1:
            cond = torch.eye(self.classes, device=cond.device, dtype=z[0].dtype)[cond]
        return z, cond
