"""Rows of a table, as CSV files."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganlab.columns import decode, text_of, total
from ganlab.files import atomic
from ganlab.media import Medium

MOST = 60  # rows of a picture


class Rows(Medium):
    """Rows in one file, rows.csv, with the names, categories and decimals of the table that was learned from.

    columns   descriptions of the columns (`ganlab.columns`)
    """

    def __init__(self, columns: Sequence[Mapping[str, Any]]):
        self.columns = list(columns)
        self.length = total(self.columns)

    def text(self, x: Tensor) -> dict[str, list[str]]:
        """{column: [n] cells} of rows [n, D] as networks make them."""
        return text_of(decode(x, self.columns), self.columns)

    def write(self, x: Tensor, folder: Path, first: int = 0, prefix: str = "") -> list[Path]:
        path = folder / f"{prefix}rows.csv"
        write_csv(path, self.text(x))
        return [path]

    def picture(self, x: Tensor) -> Tensor:
        """[1, 3, H, W]: a cell for each of the first rows and columns, blue where a number is small or a category the
        first, yellow where it is large or the last, black where it is missing."""
        values = decode(x[:MOST], self.columns)
        shares = torch.stack([share(values[:, i], column) for i, column in enumerate(self.columns)], 1)
        t = shares.nan_to_num().float()
        colors = torch.stack([2 * t - 1, 1.7 * t - 0.8, 0.3 - 1.1 * t]).where(~shares.isnan(), -1)  # [3, n, columns]
        high = max(1, 480 // max(shares.shape))
        wide = min(4 * high, max(high, 480 // len(self.columns)))
        return colors.repeat_interleave(high, 1).repeat_interleave(wide, 2)[None].to(x.device)

    def log(self, writer: Any, name: str, x: Tensor, step: int) -> None:
        text = self.text(x)
        lines = [list(text), ["---"] * len(text), *zip(*text.values(), strict=True)]
        escaped = [[cell.replace("|", "/") for cell in line] for line in lines]
        writer.add_text(name, "\n".join(f"| {' | '.join(line)} |" for line in escaped), step)


def share(value: Tensor, column: Mapping[str, Any]) -> Tensor:
    """Where a column's values lie between the first and the last, in [0, 1]."""
    if column["kind"] == "number":
        return (value - column["low"]) / (column["high"] - column["low"])
    return value / max(1, len(column.get("values", ())) - 1)


def write_csv(path: str | Path, text: Mapping[str, Sequence[str]], separator: str = ",") -> None:
    lines = io.StringIO()
    writer = csv.writer(lines, delimiter=separator, lineterminator="\n")
    writer.writerow(text)
    writer.writerows(zip(*text.values(), strict=True))
    with atomic(path) as file:
        file.write(lines.getvalue().encode())
