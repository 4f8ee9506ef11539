"""The shipped configs as files: where they are, which keys they have, which options there are to choose from."""

import itertools
import os
import re
import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from ganlab.ranks import rank, started_by_others

_installed = Path(__file__).parent / "_conf"
CONF = str(_installed if _installed.is_dir() else Path(__file__).parent.parent / "conf")


def cache(part: str) -> str:
    from ganlab.files import cache_path

    return str(cache_path(part))


def places(devices: Any) -> int:
    from ganlab import launch

    return launch.places(devices)


# our settings of launchers bear the names that their packages give them
warnings.filterwarnings("ignore", r"\s*'hydra/launcher/")
LAUNCHERS = {"joblib": "hydra_joblib_launcher", "submitit_local": "hydra_submitit_launcher"}
LAUNCHERS["submitit_slurm"] = LAUNCHERS["submitit_local"]


def check_start(arguments: Sequence[str]) -> None:
    """Refuses a launcher without a sweep, or whose package is not installed; a sweep in several processes, and a run in
    several that does not say where. A sweep leaves its command to its runs.

    Raises:
        ValueError: what to do
    """
    sweeping = bool({"-m", "--multirun"} & set(arguments))
    if sweeping and started_by_others():
        raise ValueError("a sweep starts the processes of its runs itself: start it without torchrun or srun")
    if started_by_others() and not any(argument.startswith("hydra.run.dir=") for argument in arguments):
        raise ValueError("several processes were started: name the folder that they share: hydra.run.dir=outputs/NAME")
    for argument in arguments:
        name = argument.removeprefix("hydra/launcher=")
        if name != argument and name in LAUNCHERS:
            if find_spec("hydra_plugins") is None or find_spec(f"hydra_plugins.{LAUNCHERS[name]}") is None:
                raise ValueError(f'{argument} needs a package: pip install "ganlab[{name.partition("_")[0]}]"')
            if not sweeping:
                raise ValueError(f"{argument} is for sweeps: add -m")
    if sweeping:
        os.environ["GANLAB_SWEEP"] = shlex.join(["python", *sys.orig_argv[1:]])


def free_folder(path: str) -> str:
    """`path`, or path-2, path-3, ...: the first that is not there yet. It is made, so that nobody else takes it."""
    if rank():  # one of several processes that were started from outside
        return path
    for i in itertools.count(1):
        free = Path(path if i == 1 else f"{path}-{i}")
        try:
            free.mkdir(parents=True)
            return str(free)
        except FileExistsError:
            continue
    raise AssertionError


def known_keys(cfg: Mapping[str, Any]) -> dict[str, set[str]]:
    """{"": all top-level keys, group: its keys where it is no object}. A key is known if ganlab ships it, or if
    something in `cfg`, unresolved, refers to it."""
    top = _read(Path(CONF) / "train.yaml")
    known = {"": set(top) - {"defaults", "hydra"}, "optimizer": {"G", "D"}}
    for group in ("metrics", "trainer", "paths"):
        known[group] = set().union(*(_read(path) for path in (Path(CONF) / group).glob("*.yaml"))) - {"defaults"}
    known |= {key: set(top[key]) for key in ("speed", "start", "stop", "adam", "networks")}
    for group, keys in known.items():
        keys |= set(re.findall(rf"\$\{{{group}\.(\w+)", repr(cfg)) if group else ())
    return known


def _read(path: Path) -> dict[str, Any]:
    with open(path, encoding="utf-8") as file:
        return yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}


def groups() -> dict[str, dict[str, Path]]:
    """{group: {option: file}}, of ganlab and of the user's own folders (--config-dir)."""
    folders = [Path(CONF)] + [Path(b) for a, b in pairwise(sys.argv) if a in ("--config-dir", "-cd")]
    folders += [Path(a.partition("=")[2]) for a in sys.argv if a.startswith("--config-dir=")]
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(
        path for folder in folders for path in folder.glob("*/*.yaml") if folder / "search" != path.parent
    ):
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
