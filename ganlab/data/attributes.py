"""A table of attributes: which of them each image has."""

import csv
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from ganlab.files import Unavailable

MOST = 1 << 30  # bytes of a table


def read_table(path: Path, chosen: Sequence[str] | None) -> tuple[list[str], dict[str, list[float]]]:
    """(names of the chosen attributes, {file name: 1 or 0 for each of them}) of a CSV file, or of one in CelebA's own
    format: a count, then names, separated by blanks.

    Raises:
        Unavailable: it is no such table, or it lacks a column
    """
    try:
        if path.stat().st_size > MOST:
            raise Unavailable(f"data.attributes={path}: more than {MOST >> 30} GiB are no table of attributes")
        with open(path, encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            rows: Iterator[list[str]]
            if first.strip().isdigit():
                names, rows = file.readline().split(), (line.split() for line in file)
            else:
                names = next(csv.reader([first]), [""])[1:]
                rows = csv.reader(file, strict=True)
            return _chosen(path, names, (row for row in rows if row), chosen)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Unavailable(f"data.attributes={path} can't be read as a table: {error}") from None


def _chosen(
    path: Path, names: list[str], rows: Iterator[list[str]], chosen: Sequence[str] | None
) -> tuple[list[str], dict[str, list[float]]]:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise Unavailable(f"data.attributes={path}: more than one column is called {', '.join(twice)[:80]}")
    wanted = list(chosen or names)
    if missing := [name for name in wanted if name not in names]:
        there = ", ".join(islice(names, 50)) or "none"
        raise Unavailable(f"data.attribute_names: {path} has no {', '.join(missing)[:80]}; there are {there}")
    at, known = [names.index(name) for name in wanted], {}
    for row in rows:
        if len(row) != len(names) + 1 or not set(row[1:]) <= {"0", "1", "-1"}:
            raise Unavailable(
                f"data.attributes={path}: a file's name and {len(names)} times 1, 0 or -1, with commas, were "
                f"expected, and there is {','.join(row)[:80]!r}"
            )
        known[row[0]] = [float(row[1 + i] == "1") for i in at]
    return wanted, known
