"""Going on with a run: `resume=RUN` on the command line brings the run's own overrides and its folder along.

What a run's folder says may come from somebody else. It can choose among ganlab's own parts and set their values; what
could run other code or write elsewhere must be said again by whoever goes on with it.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
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
    if resume in (None, "", "null"):
        return list(arguments)
    if {"-m", "--multirun"} & set(arguments):
        if resume == "auto":
            return list(arguments)
        raise ValueError(
            f"resume={resume} goes on with one run; a sweep goes on with its hydra.sweep.dir and resume=auto"
        )
    arguments = [f"resume={quoted(resume)}" if key_of(a) == "resume" else a for a in arguments]
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
    keys = {key_of(a) for a in arguments}
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


def with_rollbacks(attempt: Callable[..., float], settings: Mapping[str, Any], folder: str, story: Any) -> float:
    """attempt(settings, folder, story, None), and where the watchdog says so, once more from the last checkpoint, or
    from the beginning if there is none yet. Every process does the same."""
    from ganlab.callbacks.watchdog import RollBack
    from ganlab.checkpoint import find, load

    back = None
    while True:
        try:
            return attempt(settings, folder, story, back)
        except RollBack as error:
            back = error.with_traceback(None)  # which holds the networks
        path = find(folder) or settings["resume"]
        settings = resumed(settings, path, load(path) if path is not None else {})


def resumed(settings: Mapping[str, Any], path: str | None, content: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that go on from this checkpoint, or None, from the beginning: loggers drop what was logged since.

    content   of the checkpoint, {} if there is none
    """
    first = logged(content) + 1
    loggers = {
        name: {**logger, "purge_step": first} if isinstance(logger, dict) and "purge_step" in logger else logger
        for name, logger in settings["logger"].items()
    }
    return {**settings, "logger": loggers, "resume": path}


def logged(content: Mapping[str, Any]) -> int:
    """The last kimg, rounded, of which a checkpoint's run had logged anything; -1: there is no checkpoint. What is
    logged at the start, the reals, is of 0."""
    acted = [state.get("acted") for state in content.get("callbacks", {}).values() if isinstance(state, Mapping)]
    return round(max((seen for seen in acted if isinstance(seen, int)), default=0 if content else -1000) / 1000)


def check_fit(gan: Any, content: Mapping[str, Any], path: str) -> None:
    """Whether a checkpoint is one of this game.

    Raises:
        ValueError: naming what does not fit
    """
    from torch import Tensor

    state, optimizers, clock = content["state_dict"], content.get("optimizer_states"), content.get("clock")
    mine = gan.state_dict()
    if not isinstance(state, Mapping):
        raise ValueError(f"resume={path} has no weights")
    if wrong := sorted(set(mine) ^ set(state)):
        lacks = "lacks" if wrong[0] in mine else "has, besides what belongs there,"
        raise ValueError(f"resume={path} {lacks} {', '.join(wrong[:3])}{', ...' * (len(wrong) > 3)}")
    shapes = {k: [tuple(s[k].shape) if isinstance(s[k], Tensor) else None for s in (mine, state)] for k in mine}
    if wrong := [f"{k} {there}, not {here}" for k, (here, there) in shapes.items() if here != there]:
        raise ValueError(f"resume={path} has other shapes: {'; '.join(wrong[:3])}{', ...' * (len(wrong) > 3)}")
    if not isinstance(optimizers, list) or len(optimizers) != len(gan.players):
        raise ValueError(f"resume={path} has not the {len(gan.players)} optimizers of this game")
    whole = lambda key: isinstance(clock, Mapping) and isinstance(clock.get(key), int) and clock[key] >= 0
    if not whole("rounds") or not whole("seen") or not isinstance(clock.get("curves"), Mapping):  # type: ignore[union-attr]
        raise ValueError(f"resume={path} has no clock")
