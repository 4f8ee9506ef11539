"""After a sweep: a table of its runs, best first, and an exit code that tells of failed ones."""

import json
import math
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from ganlab.tables import aligned, as_csv


class SweepTable(Callback):
    """Prints how far the sweep is. At its end prints the table, writes it to sweep.csv in the sweep's folder, and ends
    with exit code 1 if a run failed."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        about = Path(config.hydra.sweep.dir), total(config.hydra.overrides.task)
        threading.Thread(target=watch, args=about, daemon=True).start()

    def on_job_end(self, config: DictConfig, job_return: Any, **kwargs: Any) -> None:
        from ganlab.report import FAILED

        if FAILED:  # this may be another process than that in which the sweep ends
            with open(Path(config.hydra.sweep.dir) / "failed", "a") as file:
                file.writelines(f"{path}\n" for path in FAILED)
            FAILED.clear()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from ganlab.files import write_text

        folder = Path(config.hydra.sweep.dir)
        rows = table(folder)
        if rows:
            write_text(folder / "sweep.csv", as_csv(rows))
            if len({(row["score"], row["protocol_id"]) for row in rows if row["status"] == "done"}) > 1:
                print("\nScores of different names or protocols, which can't be compared with each other:")
            print(f"\n{aligned(rows)}\n\ntable   {folder / 'sweep.csv'}\ncurves  tensorboard --logdir {folder}")
        failed = {row["run"] for row in rows if row["status"] != "done"}
        if (told := folder / "failed").exists():
            failed |= {os.path.relpath(path, folder) for path in told.read_text().splitlines()}
            told.unlink()
        if failed or not rows:
            sys.exit(f"error: {len(failed)} of {len(rows)} runs failed: {', '.join(sorted(failed))}")


def watch(folder: Path, runs: int) -> None:
    """Prints how many runs have ended, whoever makes them, until all have."""
    before = 0
    while before < runs:
        ended = len(list(folder.rglob("result.json"))) if folder.exists() else 0
        if ended != before:
            print(f"sweep: {ended} of {runs} runs have ended", flush=True)
        before = ended
        time.sleep(1)


def total(overrides: Sequence[str]) -> int:
    """How many runs a sweep has."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return math.prod(len(list(o.sweep_string_iterator())) for o in parsed if o.is_sweep_override())


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
        columns = ("status", "score", "best", "best_kimg", "final", "kimg", "sec_per_kimg", "protocol_id", "error")
        rows.append(row | {key: ended.get(key, "") for key in columns})
    return rows


def order(ended: dict[str, Any]) -> tuple[Any, ...]:
    """Failed last; runs of one score and protocol together, the better first."""
    best = ended.get("best", float("inf"))
    which = (ended.get("score", ""), ended.get("protocol_id", ""))
    return ended["status"] == "failed", which, best if ended.get("lower_is_better", True) else -best
