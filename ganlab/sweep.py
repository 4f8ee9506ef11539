"""After a sweep: a table of its runs, best first, and an exit code that tells of failed ones."""

import csv
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class SweepTable(Callback):
    """Prints the table and writes it to sweep.csv in the sweep's folder. Ends with exit code 1 if a run failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from ganlab.files import write_text
        from ganlab.report import FAILED

        folder = Path(config.hydra.sweep.dir)
        rows = table(folder)
        if rows:
            text = io.StringIO()
            writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            write_text(folder / "sweep.csv", text.getvalue())
            print(f"\n{aligned(rows)}\n\ntable   {folder / 'sweep.csv'}\ncurves  tensorboard --logdir {folder}")
        failed = {row["run"] for row in rows if row["status"] != "done"}
        failed |= {os.path.relpath(path, folder) for path in FAILED}
        if failed or not rows:
            sys.exit(f"error: {len(failed)} of {len(rows)} runs failed: {', '.join(sorted(failed))}")


def table(folder: Path) -> list[dict[str, Any]]:
    """One row per run of a sweep, the best score first, failed ones last. Columns: what differs in their overrides, and
    how they ended."""
    runs = []
    for path in sorted(folder.rglob("run.json")) + sorted(folder.rglob("result.json")):
        if path.name == "result.json" or not (path.parent / "result.json").exists():
            ended = json.loads(path.read_text())
            ended = ended if "status" in ended else {**ended, "status": "failed", "error": "it did not end"}
            overrides = dict(item.lstrip("+~").partition("=")[::2] for item in ended["overrides"])
            runs.append((str(path.parent.relative_to(folder)), overrides, ended))
    runs.sort(key=lambda run: (len(run[0]), run[0]))
    keys = {key: None for _, overrides, _ in runs for key in overrides}  # in order of appearance
    differing = [key for key in keys if len({overrides.get(key) for _, overrides, _ in runs}) > 1]
    rows: list[dict[str, Any]] = []
    for name, overrides, ended in sorted(runs, key=lambda run: order(run[2])):
        row: dict[str, Any] = {"run": name, **{key: overrides.get(key, "") for key in differing}}
        columns = ("status", "score", "best", "best_kimg", "final", "kimg", "sec_per_kimg", "error")
        rows.append(row | {key: ended.get(key, "") for key in columns})
    return rows


def order(ended: dict[str, Any]) -> tuple[Any, ...]:
    """Failed last; runs of one score together, the better first."""
    best = ended.get("best", float("inf"))
    return ended["status"] == "failed", ended.get("score", ""), best if ended.get("lower_is_better", True) else -best


def aligned(rows: list[dict[str, Any]]) -> str:
    """Rows as text in columns; numbers to 4 digits, empty columns left out."""
    columns = [c for c in rows[0] if any(row[c] != "" for row in rows)]
    shown = [[f"{row[c]:.4g}" if isinstance(row[c], float) else str(row[c]) for c in columns] for row in rows]
    widths = [max(len(line[i]) for line in [columns, *shown]) for i in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in [columns, *shown]
    )
