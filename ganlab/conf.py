"""The shipped configs as files: where they are, which keys they have, which options there are to choose from."""

import sys
from itertools import pairwise
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


def groups() -> dict[str, dict[str, Path]]:
    """{group: {option: file}}, of ganlab and of the user's own folders (--config-dir)."""
    folders = [Path(CONF)] + [Path(b) for a, b in pairwise(sys.argv) if a in ("--config-dir", "-cd")]
    folders += [Path(a.partition("=")[2]) for a in sys.argv if a.startswith("--config-dir=")]
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(path for folder in folders for path in folder.glob("*/*.yaml")):
        found.setdefault(path.parent.name, {})[path.stem] = path
    return found


def options() -> str:
    """All groups and their options, one line each, with what the first comment of each file says."""
    text = ""
    for group, files in sorted(
        groups().items(), key=lambda item: (item[0] not in ("model", "data", "experiment"), item)
    ):
        text += f"{group}\n" + "".join(f"  {name:<16} {_first_comment(path)}\n" for name, path in sorted(files.items()))
    return text.replace("$", "$$")


def _first_comment(path: Path) -> str:
    with open(path, encoding="utf-8") as file:
        comments = (line[1:].strip() for line in file if line.startswith("#"))
        return next((c for c in comments if not c.startswith("@")), "")
