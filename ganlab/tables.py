"""Tables of results: as text, Markdown and CSV."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def spread(values: Sequence[float]) -> float | None:
    """Standard deviation; None of one value, nan if any is."""
    if len(values) < 2:
        return None
    middle = mean(values)
    return math.sqrt(sum((v - middle) ** 2 for v in values) / (len(values) - 1))


def filled(rows: Sequence[Row]) -> list[str]:
    """Columns in which any row has something."""
    return [c for c in rows[0] if any(row[c] not in ("", None) for row in rows)]


def shown(value: Any) -> str:
    """Numbers to 4 digits."""
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def aligned(rows: Sequence[Row]) -> str:
    """As text in columns; empty columns are left out."""
    columns = filled(rows)
    lines = [columns, *([shown(row[c]) for c in columns] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def markdown(rows: Sequence[Row]) -> str:
    columns = filled(rows)
    lines = [columns, ["---"] * len(columns), *([shown(row[c]).replace("|", "/") for c in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_csv(rows: Sequence[Row]) -> str:
    """All columns, numbers in full."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
