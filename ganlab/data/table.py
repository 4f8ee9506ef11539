"""Tables: rows of numbers and categories from a CSV file, some of whose cells may be missing."""

import csv
import hashlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ganlab.columns import Column, categories, describe, encode, is_missing, total, values_of
from ganlab.data.imbalance import Balanced
from ganlab.data.rounds import DataModule, Samples
from ganlab.files import Unavailable
from ganlab.rng import seed_of

MOST = 1 << 30  # bytes of a file
Text = dict[str, list[str]]


def read_csv(path: str | Path, key: str = "data.root", charset: str = "utf-8", separator: str = ",") -> Text:
    """{name: [N] cells as they are written} of a file whose first line names the columns.

    key   who asks

    Raises:
        Unavailable: it can't be read, is empty, has lines of different lengths, or two columns of one name
        ValueError: there is no such charset or separator
    """
    file = Path(path).expanduser()
    if len(separator) != 1:
        raise ValueError(f"data.separator={separator!r}: must be one character, as ';'")
    try:
        if file.stat().st_size > MOST:
            raise Unavailable(f"{key}={path}: it has more than {MOST >> 30} GiB, too many for the memory")
        with open(file, encoding="utf-8-sig" if charset == "utf-8" else charset, newline="") as opened:
            reader = csv.reader(opened, delimiter=separator, strict=True)
            names = next(reader, [])
            rows = [(reader.line_num, row) for row in reader if row]
    except LookupError:
        raise ValueError(f"data.charset={charset}: there is no such one; utf-8, latin-1, cp1252 are usual") from None
    except UnicodeDecodeError as error:
        line = file.read_bytes()[: error.start].count(b"\n") + 1 if error.start < MOST else 0
        where = f"{charset} ({error.object[error.start]:#x}, about line {line})"
        raise Unavailable(f"{key}={path} is not {where}: save it as UTF-8, or set data.charset=latin-1") from None
    except (OSError, csv.Error, ValueError) as error:
        raise Unavailable(f"{key}={path} can't be read as a table: {error}") from None
    if not rows:
        raise Unavailable(f"{key}={path}: there are no rows below its first line, which names the columns")
    if len(names) == 1 and (other := next((s for s in ";\t|" if s in names[0]), None)):
        raise Unavailable(f"{key}={path}: its one column is called {names[0][:60]!r}: set data.separator={other!r}")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise Unavailable(f"{key}={path}: more than one column is called {', '.join(map(repr, twice))[:200]}: rename")
    if ragged := [(line, len(row)) for line, row in rows if len(row) != len(names)]:
        (line, count), others = ragged[0], len(ragged) - 1
        also = f", and {others:,} others have not {len(names)} either" if others else ""
        raise Unavailable(f"{key}={path}: line {line} has {count} cells, and there are {len(names)} columns{also}")
    return {name: list(cells) for name, cells in zip(names, zip(*(row for _, row in rows), strict=True), strict=True)}


class Rows:
    """Rows of a table, in memory.

    real    float [N, D], nan in cells that are missing
    given   bool [N, D], cells that training may look at
    """

    in_memory = True

    def __init__(self, real: Tensor, given: Tensor, label: Tensor | None = None):
        self.rows, self.given, self.label = real, given, label

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: Tensor) -> dict[str, Tensor]:
        taken = {"real": self.rows[indices], "given": self.given[indices]}
        return taken | ({} if self.label is None else {"label": self.label[indices]})

    def subset(self, rows: Tensor) -> "Rows":
        return Rows(self.rows[rows], self.given[rows], None if self.label is None else self.label[rows])

    def fingerprint(self) -> str:
        content = hashlib.blake2b(repr(tuple(self.rows.shape)).encode(), digest_size=8)
        for value in (self.rows, self.given, self.label):
            content.update(b"" if value is None else value.numpy().data)
        return content.hexdigest()


class Weighted(Balanced):
    """Rows drawn with these chances [N], as many in an epoch as there are."""

    def __init__(self, weights: Tensor):
        self.edges = weights.double().cumsum(0)

    def __len__(self) -> int:
        return len(self.edges)

    def epoch(self, generator: torch.Generator) -> Tensor:
        u = torch.rand(len(self), generator=generator, dtype=torch.float64) * self.edges[-1]
        return torch.searchsorted(self.edges, u, right=True).clamp(max=len(self) - 1)


class Tabular(DataModule):
    """What tables share, wherever they are from; a subclass gives `text`.

    encoding     of what networks see (`ganlab.columns`): "minmax" or "modes"
    label        the column that is the class; None: there is none
    categories   columns of numbers that are categories nevertheless
    hide         share of the known cells that training is not given, always the same ones: to score by
    by_category  rows are drawn by a category: of a column drawn evenly, one drawn by the logarithm of its count
                 (`ganlab.tasks.tables`)
    """

    def __init__(
        self, encoding: Literal["minmax", "modes"] = "modes", label: str | None = None, categories: Sequence[str] = (),
        hide: float = 0.0, by_category: bool = False, batch_size: int = 128, rounds: int = 8, seed: int = 0,
        **kwargs: Any,
    ):  # fmt: skip
        super().__init__(batch_size, rounds, seed, **kwargs)
        if by_category and self.balanced:
            raise ValueError("data.by_category=true and data.balanced=true are two ways to draw rows: choose one")
        self.encoding, self.label, self.hide, self.by_category = encoding, label, hide, by_category
        self.categories = list(categories)
        self._columns: list[Any] = []

    @abstractmethod
    def text(self) -> Text:
        """The whole table."""

    def columns(self) -> list[Any]:
        """Descriptions of the columns, the label's included.

        Raises:
            ValueError: see `ganlab.columns.describe`; a column is not there; the label has one class only
        """
        if not self._columns:
            text = self.text()
            for key, names in (("label", [self.label] if self.label else []), ("categories", self.categories)):
                if lacking := [name for name in names if name not in text]:
                    there = ", ".join(text)[:300]
                    raise ValueError(f"data.{key}: there is no column {', '.join(lacking)}; there are {there}")
            chosen = [*self.categories, *([self.label] if self.label else [])]
            columns = describe(text, chosen, self.encoding)
            of_label = next((column for column in columns if column["name"] == self.label), None)
            if of_label is not None and of_label["kind"] == "constant":
                only = of_label["value"]
                raise ValueError(f"data.label={self.label}: all rows have one class, {only!r}: set data.label=null")
            if self.label and any(map(is_missing, text[self.label])):
                raise ValueError(f"data.label={self.label}: rows without a class: leave them out, or data.label=null")
            if not total(columns):
                raise ValueError("data: every column is constant or empty: there is nothing to learn")
            self._columns = columns
        return self._columns

    def facts(self) -> dict[str, Any]:
        """What networks, tasks and media must know: the length of a row as networks see it, and the columns."""
        columns = self.columns()
        label = next((column for column in columns if column["name"] == self.label), None)
        classes: dict[str, Any] = {"classes": None, "class_names": None, "frequencies": None, "several": False}
        if label is not None:
            shares = [count / sum(label["counts"]) for count in label["counts"]]
            classes |= {"classes": len(shares), "class_names": label["values"], "frequencies": shares}
        return {"shape": [total(columns)], "columns": columns, **classes}

    def load(self, split: str) -> Samples:
        if split != "train":
            raise Unavailable(f"{self.title} has no test part")
        columns = self.columns()
        values = values_of(self.text(), columns)
        for line in repairs(columns):
            tell(f"{self.title}: {line}")
        real = encode(values, columns)
        generator = torch.Generator().manual_seed(seed_of("hide"))
        kept = torch.rand(values.shape, generator=generator) >= self.hide
        spread = [len(part) for part in self.ranges()]
        given = torch.repeat_interleave(kept, torch.tensor(spread), 1) & ~real.isnan()
        index = [column["name"] for column in columns].index(self.label) if self.label else None
        return Rows(real.to(torch.get_default_dtype()), given, None if index is None else values[:, index].long())

    def ranges(self) -> list[range]:
        """Entries of a row that belong to each column."""
        ends = [total(self.columns()[:i]) for i in range(len(self.columns()) + 1)]
        return [range(a, b) for a, b in pairwise(ends)]

    def drawn_by(self, samples: Samples) -> Balanced | None:
        if not self.by_category:
            return super().drawn_by(samples)
        real = samples.take(torch.arange(len(samples)))["real"]
        parts = [real[:, span] @ chances(real[:, span].sum(0)) for _, span in categories(self.columns())]
        return Weighted(torch.stack(parts).sum(0)) if parts else None


def chances(counts: Tensor) -> Tensor:
    """Of a column's categories, the chance of each of its rows, where a category is drawn by the logarithm of its count
    (Xu et al. 2019, arXiv:1907.00503, section 4.3), then a row."""
    return counts.log1p() / counts.log1p().sum() / counts.clamp(min=1)


def repairs(columns: Sequence[Column]) -> list[str]:
    """What is left out of a table, and counted."""
    alike = {column["name"]: column["value"] for column in columns if column["kind"] == "constant"}
    told = {"empty, and stay": [name for name, value in alike.items() if not value]}
    told["constant, and stay"] = [name for name, value in alike.items() if value]
    return [f"{len(names)} column(s) are {what} so: {', '.join(names)[:300]}" for what, names in told.items() if names]


@cache
def tell(line: str) -> None:
    """Once in a process."""
    print(line)


class Table(Tabular):
    """A CSV file.

    root        the file
    drop        columns that are left out
    charset     how its text is encoded
    separator   between two cells
    """

    def __init__(
        self, root: str | None = None, drop: Sequence[str] = (), charset: str = "utf-8", separator: str = ",",
        **kwargs: Any,
    ):  # fmt: skip
        super().__init__(**kwargs)
        if root is None:
            raise ValueError("data.root is not set: say which file, as data.root=table.csv")
        self.root, self.drop, self.charset, self.separator = Path(root), list(drop), charset, separator
        self._text: Text = {}

    @property
    def title(self) -> str:
        return self.root.name

    def text(self) -> Text:
        if not self._text:
            text = read_csv(self.root, "data.root", self.charset, self.separator)
            if lacking := [name for name in self.drop if name not in text]:
                raise ValueError(
                    f"data.drop: there is no column {', '.join(lacking)}; there are {', '.join(text)[:300]}"
                )
            if odd := [v for name, cells in text.items() for v in (name, *cells) if "${" in v]:
                raise Unavailable(
                    f"data.root={self.root}: {odd[0][:60]!r} would be read as a reference to a key: rename"
                )
            self._text = {name: cells for name, cells in text.items() if name not in self.drop}
        return self._text
