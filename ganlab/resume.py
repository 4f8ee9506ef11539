"""Going on with a run: `resume=RUN` on the command line brings the run's own overrides and its folder along.

What a run's folder says may come from somebody else. It can choose among ganlab's own parts and set their values; what
could run other code or write elsewhere must be said again by whoever goes on with it.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CODE = re.compile(r"_target_|_partial_|\$\{|^[+~]*hydra\b|^-")
PLACES = re.compile(r"^[+~]*(paths\.output\b|logger\.|callbacks\.\w+\.(folder|path)\b)")
OVERRIDE = re.compile(r"[+~]*[\w/.@-]+(=.*)?", re.DOTALL)


def key_of(override: str) -> str:
    return override.partition("=")[0]


def go_on(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command, with those that the run was begun with before them if `resume=` is among them, and
    with its folder unless hydra.run.dir is given. A checkpoint file goes on in a folder of its own, an earlier one too.

    Raises:
        ValueError: resume=auto without a fixed folder, or the run was begun with what is not taken from a file
    """
    given = [a for a in arguments if not a.startswith("-") and ("=" in a or a.startswith("~"))]
    values = {key_of(a): a.partition("=")[2].strip("'\"") for a in given}
    resume, where = values.get("resume"), values.get("hydra.run.dir")
    if resume in (None, "", "null") or {"-m", "--multirun"} & set(arguments):
        return list(arguments)
    if resume == "auto":
        if where is None:
            raise ValueError(
                "resume=auto goes on with what is in the run's folder, so that must be fixed, as in "
                "hydra.run.dir=outputs/NAME resume=auto"
            )
        if "${" in where:
            return list(arguments)
    place = Path(where if resume == "auto" else resume).expanduser()  # type: ignore[arg-type]
    told = begun_with(place, resume)
    saved, folders = told.get("overrides"), told.get("config_dirs") or []
    if not isinstance(saved, list) or not all(isinstance(o, str) and OVERRIDE.fullmatch(o) for o in saved):
        return list(arguments)
    keys = set(values)
    saved = [o for o in saved if key_of(o) not in ("resume", "finetune", "hydra.run.dir") and key_of(o) not in keys]
    for override in saved:
        if CODE.search(override) or PLACES.search(override):
            raise ValueError(
                f"resume={resume}: the run was begun with {override}, which is not taken from a file, as it may come "
                "from somebody else. If it is right, give it again"
            )
    if folders and not any(re.match(r"--config-dir|-cd", a) or "hydra.searchpath" in a for a in arguments):
        raise ValueError(f"resume={resume}: the run was begun with --config-dir {folders[0]}: give it again")
    folder = [] if where is not None or place.is_file() else [f"hydra.run.dir={quoted(str(place))}"]
    return [*saved, *arguments, *folder]


def begun_with(place: Path, resume: str) -> dict[str, Any]:
    """What a run's run.json says, or a checkpoint that has none beside it; {} where there is neither."""
    try:
        with open((place.parent.parent if place.is_file() else place) / "run.json", encoding="utf-8") as file:
            told = json.load(file)
        return told if isinstance(told, dict) else {}
    except (OSError, ValueError, RecursionError):
        if not place.exists():
            return {}
    from ganlab.checkpoint import find, load

    path = find("auto" if resume == "auto" else str(place), folder=place)
    about: dict[str, Any] = load(path)["ganlab"] if path else {}
    return about


def quoted(value: str) -> str:
    """As Hydra reads it back, whatever is in it."""
    return value if re.fullmatch(r"[\w./-]+", value) else "'" + value.replace("'", "\\'") + "'"
