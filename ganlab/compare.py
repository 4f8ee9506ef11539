"""python -m ganlab.compare outputs/*: the table of runs over their seeds, as text, Markdown, CSV or a page."""

import argparse
import base64
import html
import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ganlab.tables import aligned, as_csv, filled, markdown, mean, shown, spread

LEFT_OUT = ("seed", "paths", "callbacks", "logger", "trainer", "speed", "resume", "metrics", "scores", "extractor")


@dataclass
class Run:
    """A finished run."""

    folder: Path
    result: dict[str, Any]
    settings: dict[str, Any]  # flat, without what does not change the training
    seed: int
    choices: dict[str, str]
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def key(self) -> tuple[Any, ...]:
        """What its score may be compared with."""
        return self.result["score"], self.result.get("protocol_id") or str(self.result.get("protocol"))


def read(folder: Path) -> Run:
    """A run's folder.

    Raises:
        ValueError: it did not end, or it has no score
    """
    from ganlab.checks import flat

    result = json.loads((folder / "result.json").read_text())
    if result.get("status") != "done":
        raise ValueError(f"it failed: {result.get('error', '')}")
    if "score" not in result:
        raise ValueError("it has no score")
    if not {"overrides", "best", "final", "kimg", "lower_is_better"} <= result.keys():
        raise ValueError("its result.json was not written by this version")
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    free = {"data.seed"} | (set() if settings["data"]["_target_"].endswith("Folder") else {"data.root"})
    kept = {k: v for k, v in flat(settings).items() if k.split(".")[0] not in LEFT_OUT and k not in free}
    kept["trainer.precision"] = settings["trainer"]["precision"]
    told = json.loads((folder / "run.json").read_text())
    scores = folder / "scores.json"
    history = json.loads(scores.read_text())["history"] if scores.exists() else []
    return Run(folder, result, kept, settings["seed"], told.get("choices", {}), history)


def find(places: Iterable[str]) -> tuple[list[Run], list[str]]:
    """(runs in or below these folders, what was left out and why)"""
    runs, left_out = [], []
    for path in sorted({p for place in places for p in Path(place).rglob("run.json")}):
        try:
            if not (path.parent / "result.json").exists():
                raise ValueError("it did not end")
            runs.append(read(path.parent))
        except (ValueError, OSError, KeyError) as error:
            left_out.append(f"{path.parent}: {error}")
    return runs, left_out


@dataclass
class Group:
    """Runs that differ in their seed alone."""

    name: str
    runs: list[Run]

    def row(self) -> dict[str, Any]:
        first = self.runs[0].result
        values = {
            k: [run.result[k] for run in self.runs if k in run.result] for k in ("best", "final", "kimg", "seconds")
        }
        finite = [v for v in values["best"] if math.isfinite(v)] or [math.nan]
        return {
            "run": self.name, "seeds": len({run.seed for run in self.runs}), "score": first["score"],
            **{f"{k} mean": mean(values[k]) for k in ("best",)}, "best spread": spread(values["best"]),
            "final mean": mean(values["final"]), "final spread": spread(values["final"]),
            "best of all": (min if first["lower_is_better"] else max)(finite), "kimg": mean(values["kimg"]),
            "seconds": mean(values["seconds"]) if values["seconds"] else None,
            "protocol": first.get("protocol_id", ""),
        }  # fmt: skip


def grouped(runs: Sequence[Run]) -> list[list[Group]]:
    """Groups of runs, in lists of those whose scores may be compared, the better first."""
    tables: dict[Any, dict[str, list[Run]]] = {}
    for run in runs:
        alike = json.dumps([run.settings, run.result["kimg"] // 1], sort_keys=True, default=str)
        tables.setdefault(run.key, {}).setdefault(alike, []).append(run)
    found = []
    for _, table in sorted(tables.items()):
        members = [sorted(group, key=lambda run: run.seed) for group in table.values()]
        names = titles([group[0] for group in members])
        groups = [Group(name, group) for name, group in zip(names, members, strict=True)]
        sign = 1 if groups[0].runs[0].result["lower_is_better"] else -1
        found.append(sorted(groups, key=lambda group: worst_last(sign * group.row()["final mean"])))
    return found


def worst_last(value: float) -> tuple[bool, float]:
    """A key to sort by: nan comes last."""
    return math.isnan(value), value


def titles(runs: Sequence[Run]) -> list[str]:
    """Model, data and the overrides by which these runs differ."""
    overrides = [dict(o.lstrip("+~").partition("=")[::2] for o in run.result["overrides"]) for run in runs]
    top = ("hydra", *(key for key in LEFT_OUT if key != "trainer"))
    told = {k for o in overrides for k in o if k not in ("model", "data", "max_kimg") and k.split(".")[0] not in top}
    keys = {k for k in told if len({o.get(k) for o in overrides}) > 1}
    names = []
    for run, own in zip(runs, overrides, strict=True):
        base = " ".join(run.choices[k] for k in ("model", "data") if k in run.choices) or run.folder.parent.name
        names.append(" ".join([base, *(f"{k}={own[k]}" for k in sorted(keys) if k in own)]))
    repeated = {name for name in names if names.count(name) > 1}
    return [f"{name} ({run.folder.name})" if name in repeated else name for name, run in zip(names, runs, strict=True)]


# ---------------------------------------------------------------------------------------------------------------- page


def page(tables: Sequence[Sequence[Group]]) -> str:
    """One HTML file that needs nothing else: tables, curves, grids."""
    parts = []
    for groups in tables:
        first = groups[0].runs[0].result
        parts.append(f"<h2>{html.escape(first['score'])}</h2><p class=small>{html.escape(protocol_of(first))}</p>")
        parts += [table_of([group.row() for group in groups]), curves(groups), '<div class="grids">']
        parts += [figure(group) for group in groups]
        parts.append("</div>")
    if len(tables) > 1:
        parts.insert(0, f"<p><b>{SEVERAL}</b></p>")
    return PAGE.replace("BODY", "\n".join(parts))


def table_of(rows: Sequence[dict[str, Any]]) -> str:
    columns = filled(rows)
    head = "".join(f"<th>{html.escape(c)}</th>" for c in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(shown(row[c]))}</td>" for c in columns) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def curves(groups: Sequence[Group], width: int = 640, height: int = 300) -> str:
    """The score over kimg, a line for each run, a colour for each group; the axis is logarithmic if it can be."""
    score = groups[0].runs[0].result["score"]
    lines = [
        (i, [(e["kimg"], e[score]) for e in run.history if math.isfinite(e.get(score, math.nan))])
        for i, group in enumerate(groups)
        for run in group.runs
    ]
    points = [point for _, line in lines for point in line]
    if len(points) < 2:
        return ""
    logarithmic = min(y for _, y in points) > 0
    scale = math.log10 if logarithmic else float
    low, high = min(scale(y) for _, y in points), max(scale(y) for _, y in points)
    right = max(x for x, _ in points)
    at = lambda x, y: (
        50 + x / (right or 1) * (width - 70), height - 30 - (scale(y) - low) / (high - low or 1) * (height - 50)
    )  # fmt: skip
    drawn = []
    for i, line in lines:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in line))
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{COLORS[i % len(COLORS)]}" stroke-width="1.5"/>')
    for value in (min(y for _, y in points), max(y for _, y in points)):
        drawn.append(f'<text x="45" y="{at(0, value)[1] + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for value in (0, right):
        drawn.append(
            f'<text x="{at(value, points[0][1])[0]:.1f}" y="{height - 12}" text-anchor="middle">{value:.0f}</text>'
        )
    drawn.append(f'<text x="{width / 2}" y="{height - 2}" text-anchor="middle">kimg</text>')
    key = "".join(
        f'<span style="color:{COLORS[i % len(COLORS)]}">&#9632;</span> {html.escape(g.name)} '
        for i, g in enumerate(groups)
    )
    return f'<svg viewBox="0 0 {width} {height}" width="{width}">{"".join(drawn)}</svg><p>{key}</p>'


def figure(group: Group) -> str:
    """The last grid of the group's first run."""
    grids = sorted((group.runs[0].folder / "samples").glob("fakes_*.png"))
    if not grids:
        return ""
    data = base64.b64encode(grids[-1].read_bytes()).decode()
    kimg = int(grids[-1].stem.split("_")[-1])
    caption = f"{html.escape(group.name)}, seed {group.runs[0].seed}, {kimg} kimg"
    return f'<figure><img src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>'


PAGE = """<!doctype html><meta charset="utf-8"><title>ganlab: comparison</title><style>
body{font:15px/1.4 system-ui,sans-serif;margin:2em;max-width:1200px}table{border-collapse:collapse}
td,th{padding:.2em .7em;border-bottom:1px solid #ccc;text-align:left}svg text{font-size:11px}.small{color:#555}
.grids{display:flex;flex-wrap:wrap;gap:1em}figure{margin:0}img{width:360px;image-rendering:pixelated}
</style><h1>Comparison</h1>
BODY
"""
SEVERAL = "Scores of different names or protocols can't be compared with each other: each has its own table."


def protocol_of(result: dict[str, Any]) -> str:
    from ganlab.metrics.protocol import Protocol

    told = result.get("protocol")
    return Protocol.read(told).text() if isinstance(told, dict) else str(told)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ganlab.compare", description="The table of runs over their seeds.")
    parser.add_argument("places", nargs="+", metavar="FOLDER", help="runs, sweeps, or folders that hold some")
    parser.add_argument("--markdown", metavar="FILE", help="write the table as Markdown")
    parser.add_argument("--csv", metavar="FILE", help="write the table as CSV, numbers in full")
    parser.add_argument("--html", metavar="FILE", help="write one page with tables, curves and grids")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    given = parser().parse_args(arguments)
    runs, left_out = find(given.places)
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    if not runs:
        sys.exit(f"error: no finished run with a score in {', '.join(given.places)}")
    from ganlab.files import write_text

    tables = grouped(runs)
    rows = [[group.row() for group in groups] for groups in tables]
    if len(tables) > 1:
        print(f"{SEVERAL}\n")
    protocols = [protocol_of(groups[0].runs[0].result) for groups in tables]
    for table, protocol in zip(rows, protocols, strict=True):
        print(f"{aligned(table)}\n{protocol}\n")
    for group in (group for groups in tables for group in groups):
        seeds = [run.seed for run in group.runs]
        if again := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
            print(f"{group.name}: seed {', '.join(map(str, again))} was run more than once", file=sys.stderr)
    texts = (
        (given.markdown, lambda: "\n\n".join(map("\n\n".join, zip(map(markdown, rows), protocols, strict=True)))),
        (given.csv, lambda: as_csv([row for table in rows for row in table])),
        (given.html, lambda: page(tables)),
    )
    for path, text in texts:
        if path is not None:
            write_text(path, text())
            print(f"written: {path}")


if __name__ == "__main__":
    main()
