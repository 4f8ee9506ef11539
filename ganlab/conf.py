"""The shipped configs as files: where they are, which keys they have, which options there are to choose from."""

import sys
from pathlib import Path
from typing import Any

import yaml

_installed = Path(__file__).parent / "_conf"
CONF = str(_installed if _installed.is_dir() else Path(__file__).parent.parent / "conf")


def known_keys() -> dict[str, set[str]]:
    """{"": all top-level keys, group: the keys of its options where these are no objects}."""
    top = _read(Path(CONF) / "train.yaml")
    known = {"": set(top) - {"defaults", "hydra"}}
    for group in ("optimizer", "metrics", "trainer", "paths"):
        known[group] = set().union(*(_read(path) for path in (Path(CONF) / group).glob("*.yaml"))) - {"defaults"}
    return known | {key: set(top[key]) for key in ("speed", "start", "stop")}


def _read(path: Path) -> dict[str, Any]:
    with open(path, encoding="utf-8") as file:
        return yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}


def options() -> str:
    """All groups and their options, one line each, with what the first comment of each file says; the user's own
    folders (--config-dir) included."""
    folders = [Path(CONF)] + [
        Path(b) for a, b in zip(sys.argv, sys.argv[1:], strict=False) if a in ("--config-dir", "-cd")
    ]
    folders += [Path(a.partition("=")[2]) for a in sys.argv if a.startswith("--config-dir=")]
    text = ""
    groups = sorted({p.name for folder in folders for p in folder.glob("*") if p.is_dir() and p.name != "hydra"})
    for group in sorted(groups, key=lambda g: (g not in ("model", "data", "experiment"), g)):
        text += f"{group}\n"
        for path in sorted(p for folder in folders for p in (folder / group).glob("*.yaml")):
            text += f"  {path.stem:<16} {_first_comment(path)}\n"
    return text.replace("$", "$$")


def _first_comment(path: Path) -> str:
    with open(path, encoding="utf-8") as file:
        comments = (line[1:].strip() for line in file if line.startswith("#"))
        return next((c for c in comments if not c.startswith("@")), "")
