"""Columns of a table: what is in them, and how their cells become numbers for networks, and text again.

Three forms of a table: text, as a file has it {name: [N]}; values, float64 [N, columns], a number or the index of a
category, nan where a cell is missing; and what networks see, float32 [N, D]. A column is described by plain values, so
that it can be stored with a run:

name, kind      "number", "category", or "constant", of which networks see nothing
low, high       of a number, and `decimals` after its point, None where it is written with exponents
values, counts  of a category: its texts, None standing for missing cells, and how often each occurs
value           of a constant

Numbers become one entry in [0, 1], or, where there are `modes` [[mean, deviation, weight]], an offset in [-1, 1] from
one of these and a one-hot choice of it, with one choice more for missing cells where `missing` is true (Xu et al. 2019,
arXiv:1907.00503, section 4.2). Categories become one-hot vectors.
"""

import math
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ganlab.rng import seed_of

Column = Mapping[str, Any]
Text = Mapping[str, Sequence[str]]
EMPTY = frozenset(("", "na", "n/a", "nan", "null", "<na>", "#n/a", "?"))  # in small letters: a missing cell
MOST_VALUES = 500  # of a category
MOST_ROWS = 10_000  # that modes are fitted to
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def is_missing(text: str) -> bool:
    return text.strip().lower() in EMPTY


# ------------------------------------------------------------------------------------------------------- what there is


def describe(text: Text, categories: Sequence[str] = (), encoding: Literal["minmax", "modes"] = "modes") -> list[Any]:
    """Descriptions of all columns.

    categories   columns of numbers that are categories nevertheless

    Raises:
        ValueError: a column has numbers and other texts, or too many categories
    """
    return [described(name, cells, name in categories, encoding) for name, cells in text.items()]


def described(name: str, cells: Sequence[str], category: bool, encoding: str) -> dict[str, Any]:
    there = [cell.strip() for cell in cells if not is_missing(cell)]
    different = Counter(there)
    if len(different) < 2:  # with missing cells, too: there is nothing to learn but where they are
        return {"name": name, "kind": "constant", "value": there[0] if there else ""}
    others = [value for value in different if not NUMBER.fullmatch(value)]
    if others and len(others) < len(different) and not category:
        count, line = sum(different[value] for value in others), 2 + [c.strip() for c in cells].index(others[0])
        raise ValueError(
            f"data: column {name} has numbers, and {count:,} cells that are none, as {others[0][:40]!r} in row {line}: "
            f"correct these or leave them empty, or say that it has categories: data.categories=[{name}]"
        )
    gaps = len(cells) - len(there)
    if others or category:
        values: list[str | None] = [*sorted(different)]
        if len(values) > MOST_VALUES:
            raise ValueError(
                f"data: column {name} has {len(values):,} different texts, more than {MOST_VALUES}: names and numbers "
                f"of things can't be learned, leave it out: data.drop=[{name}]"
            )
        counts = [different[value] for value in values if value]
        if gaps and encoding == "modes":
            values, counts = [*values, None], [*counts, gaps]
        return {"name": name, "kind": "category", "values": values, "counts": counts}
    numbers = np.array([float(value) for value in there])
    if not np.isfinite(numbers).all():
        raise ValueError(f"data: column {name} has numbers beyond all bounds: correct them")
    if numbers.min() == numbers.max():  # written in several ways
        return {"name": name, "kind": "constant", "value": there[0]}
    written = ["e" in value.lower() for value in different]
    decimals = None if any(written) else min(15, max(len(value.partition(".")[2]) for value in different))
    column = {"name": name, "kind": "number", "low": float(numbers.min()), "high": float(numbers.max())}
    column |= {"decimals": decimals}
    return column | ({"modes": modes_of(numbers.tobytes()), "missing": gaps > 0} if encoding == "modes" else {})


@lru_cache(maxsize=1000)  # a run asks several times
def modes_of(content: bytes, most: int = 10, least: float = 0.005) -> list[list[float]]:
    """[mean, deviation, weight] of a variational mixture of at most so many Gaussians, fitted to float64 numbers; those
    of less weight than `least` are left out."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import BayesianGaussianMixture

    numbers = np.frombuffer(content)
    if len(numbers) > MOST_ROWS:
        numbers = numbers[np.random.default_rng(0).permutation(len(numbers))[:MOST_ROWS]]
    middle, spread = numbers.mean(), numbers.std() or 1.0
    mixture = BayesianGaussianMixture(
        n_components=min(most, len(np.unique(numbers))), weight_concentration_prior=1e-3, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(((numbers - middle) / spread)[:, None])
    means, deviations = mixture.means_[:, 0], np.sqrt(mixture.covariances_[:, 0, 0])
    kept = mixture.weights_ > least
    weights = mixture.weights_[kept] / mixture.weights_[kept].sum()
    found = np.stack([means[kept] * spread + middle, deviations[kept] * spread, weights], 1)
    return [[float(f"{v:.6g}") for v in mode] for mode in found[found[:, 0].argsort()]]


def widths(column: Column) -> list[int]:
    """How many entries networks see: [1] of a number in [0, 1], [1, choices] of one with modes, [values]."""
    if column["kind"] == "constant":
        return []
    if column["kind"] == "category":
        return [len(column["values"])]
    return [1, len(column["modes"]) + column["missing"]] if "modes" in column else [1]


def spans(columns: Sequence[Column]) -> list[tuple[int, slice, str]]:
    """(number of its column, entries, "number" or "choice") of all groups of entries; a choice is one-hot."""
    found, first = [], 0
    for i, column in enumerate(columns):
        for j, width in enumerate(widths(column)):
            number = column["kind"] == "number" and j == 0
            found.append((i, slice(first, first + width), "number" if number else "choice"))
            first += width
    return found


def total(columns: Sequence[Column]) -> int:
    """D, the length of a row as networks see it."""
    return sum(sum(widths(column)) for column in columns)


def categories(columns: Sequence[Column]) -> list[tuple[int, slice]]:
    """(number of its column, entries) of all categories."""
    return [(i, span) for i, span, _ in spans(columns) if columns[i]["kind"] == "category"]


# ----------------------------------------------------------------------------------------------------- text and values


def values_of(text: Text, columns: Sequence[Column]) -> Tensor:
    """Values of text; nan also where a number is none, and a category is not known.

    Raises:
        ValueError: a column is not there
    """
    if lacking := [column["name"] for column in columns if column["name"] not in text]:
        raise ValueError(f"the table has no column {', '.join(lacking)[:200]}, which the run's table has")
    values = torch.full((len(next(iter(text.values()), ())), len(columns)), math.nan, dtype=torch.float64)
    for i, column in enumerate(columns):
        if column["kind"] == "number":
            read = {c: float(c) if NUMBER.fullmatch(c.strip()) else math.nan for c in set(text[column["name"]])}
        else:
            known = {value: k for k, value in enumerate(column.get("values", ()))}
            gap = known.get(None, math.nan)
            read = {c: gap if is_missing(c) else known.get(c.strip(), math.nan) for c in set(text[column["name"]])}
        values[:, i] = torch.tensor([read[c] for c in text[column["name"]]], dtype=torch.float64)
    return values


def text_of(values: Tensor, columns: Sequence[Column]) -> dict[str, list[str]]:
    """Text of values, numbers with as many decimals as the table has; empty where a cell is missing."""
    return {c["name"]: [written(v, c) for v in values[:, i].tolist()] for i, c in enumerate(columns)}


def written(value: float, column: Column) -> str:
    if column["kind"] == "constant":
        return column["value"]
    if math.isnan(value):
        return ""
    if column["kind"] == "category":
        return column["values"][int(value)] or ""
    if column["decimals"] is None:
        return f"{value:.6g}"
    return f"{value + 0.0:.{column['decimals']}f}"  # no -0


# ------------------------------------------------------------------------------------------------- values and networks


def encode(values: Tensor, columns: Sequence[Column]) -> Tensor:
    """[N, columns] -> [N, D]. nan where a cell is missing and its column knows no choice for that. Of a number with
    modes the mode is drawn by how well each explains it, always alike."""
    parts = [encoded(values[:, i], column) for i, column in enumerate(columns) if widths(column)]
    return torch.cat(parts, 1).float() if parts else values.new_zeros(len(values), 0).float()


def encoded(value: Tensor, column: Column) -> Tensor:
    gaps = value.isnan()
    if column["kind"] == "category":
        return one_hot(value.nan_to_num().long(), len(column["values"])).masked_fill(gaps[:, None], math.nan)
    if "modes" not in column:
        return ((value - column["low"]) / (column["high"] - column["low"]))[:, None]
    mean, deviation, weight = torch.tensor(column["modes"], dtype=torch.float64).T
    off = (value.nan_to_num()[:, None] - mean) / deviation  # [N, modes]
    chance = (weight.log() - deviation.log() - off.square() / 2).softmax(1).cumsum(1)
    u = torch.rand(len(value), 1, generator=torch.Generator().manual_seed(seed_of("mode", column["name"])))
    chosen = (u.double() * chance[:, -1:] > chance).sum(1).clamp(max=len(mean) - 1)
    offset = (off.gather(1, chosen[:, None]) / 4).clamp(-0.99, 0.99)
    if column["missing"]:
        chosen = torch.where(gaps, len(mean), chosen)
        return torch.cat([offset.masked_fill(gaps[:, None], 0), one_hot(chosen, len(mean) + 1)], 1)
    return torch.cat([offset, one_hot(chosen, len(mean))], 1).masked_fill(gaps[:, None], math.nan)


def one_hot(index: Tensor, count: int) -> Tensor:
    return torch.nn.functional.one_hot(index, count).double()


def decode(x: Tensor, columns: Sequence[Column]) -> Tensor:
    """[N, D] -> [N, columns]: numbers between the smallest and the largest of the table, rounded as they are written;
    of choices the largest entry."""
    x = x.detach().cpu().double()
    values = torch.full((len(x), len(columns)), math.nan, dtype=torch.float64)
    for i, span, kind in spans(columns):
        column, part = columns[i], x[:, span]
        if kind == "number":
            values[:, i] = part[:, 0]
        elif column["kind"] == "category":
            values[:, i] = torch.where(part.isnan().any(1), math.nan, part.argmax(1).double())
        else:
            mean, deviation, _ = torch.tensor([*column["modes"], [math.nan] * 3], dtype=torch.float64).T
            chosen = part.argmax(1)
            values[:, i] = (4 * values[:, i] * deviation[chosen] + mean[chosen]).where(~part.isnan().any(1), math.nan)
    for i, column in enumerate(columns):
        if column["kind"] == "number":
            low, high = column["low"], column["high"]
            values[:, i] = values[:, i] if "modes" in column else values[:, i] * (high - low) + low
            values[:, i] = values[:, i].clamp(low, high)
            if column["decimals"] is not None:
                values[:, i] = values[:, i].round(decimals=column["decimals"])
    return values
