"""What a run tells about itself: how it was made, how it went, and where everything is."""

import contextlib
import errno
import json
import logging
import os
import platform
import shlex
import shutil
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import FileLock, Timeout

from ganlab.checkpoint import NotSaved
from ganlab.checks import flat
from ganlab.files import Unavailable, write_text
from ganlab.launch import WorkerFailed, lost_touch
from ganlab.resume import quoted

EXPECTED = (ValueError, Unavailable, WorkerFailed, NotSaved, ModuleNotFoundError)  # errors whose message is enough
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)  # and these: no place to write to
PACKAGES = ("torch", "torchvision", "lightning", "hydra-core", "omegaconf", "torchmetrics", "torch-fidelity", "numpy")


def quiet(settings: Mapping[str, Any]) -> None:
    """Silences what Lightning and PyTorch say in every run, and what would slow a run on the CPU down."""
    for name in ("lightning.pytorch", "lightning.fabric", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning|torch\.(distributed|nn\.parallel|autograd)")
    if not torch.cuda.is_available():
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = (
            "0"  # Lightning sets 1, which costs 0.3 ms in every optimizer step
        )


def story(
    overrides: list[str], choices: Mapping[str, Any] | None = None, config_dirs: list[str] | None = None
) -> dict[str, Any]:
    """Command, overrides, choices of groups, code, versions and host of this run."""
    return {
        "command": os.environ.get("GANLAB_SWEEP") or shlex.join(["python", *sys.orig_argv[1:]]),
        "overrides": overrides,
        "config_dirs": config_dirs or [],
        "choices": {k: v for k, v in (choices or {}).items() if "/" not in k and v is not None},
        "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "git": git(),
        "versions": {"ganlab": _version(), "python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "host": socket.gethostname(),
    }


def _version() -> str:
    import ganlab

    return ganlab.__version__


def git() -> dict[str, Any] | None:
    """Commit of the working directory's repository, or else of ganlab's, and whether anything in it was changed."""

    def ask(folder: Path, *command: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *command], capture_output=True, text=True, check=True, timeout=10
        )
        return done.stdout.strip()

    for folder in (Path.cwd(), Path(__file__).parent):
        try:
            top, commit = ask(folder, "rev-parse", "--show-toplevel"), ask(folder, "rev-parse", "HEAD")
            return {"repository": Path(top).name, "commit": commit, "dirty": bool(ask(folder, "status", "--porcelain"))}
        except (OSError, subprocess.SubprocessError):
            continue
    return None


LOCKS: list[FileLock] = []  # of the runs of this process


class Taken(ValueError):
    """The folder is not this run's: nothing may be written to it."""


def claim(folder: str, resume: str | None, told: dict[str, Any]) -> None:
    """Nothing is ever lost: makes the folder this run's by writing run.json, unless it is another run's.

    Raises:
        Taken: it is, and this one does not go on with it
    """
    path = Path(folder) / "run.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.parent / ".lock")
    with contextlib.suppress(NotImplementedError):  # some network file systems have none
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise Taken(
                f"{folder}: another process is training this run at the moment; wait for it or stop it"
            ) from None
    LOCKS.append(lock)  # until this process ends
    try:
        with open(path, "x") as file:
            json.dump(told, file, indent=1)
    except FileExistsError:
        here, begun = path.parent.resolve(), Path(resume or "/").expanduser().resolve()
        if resume != "auto" and here not in (begun, *begun.parents):
            raise Taken(
                f"{folder} already holds a run: choose another hydra.run.dir, or go on with it: resume={folder}"
            ) from None


def inherit(folder: str, checkpoint: str | None) -> None:
    """Copies the curves of the run that a checkpoint is of into a folder that goes on from it and has none."""
    run = Path(checkpoint).absolute().parent.parent if checkpoint else None
    if run is None or not (run / "run.json").is_file() or run.resolve() == Path(folder).resolve():
        return
    if (run / "metrics.csv").is_file() and not (Path(folder) / "metrics.csv").exists():
        shutil.copy(run / "metrics.csv", folder)
        if (run / "health.jsonl").is_file():
            shutil.copy(run / "health.jsonl", folder)
    if (run / "tensorboard").is_dir() and not (Path(folder) / "tensorboard").exists():
        shutil.copytree(run / "tensorboard", Path(folder) / "tensorboard")


def begin(trainer: Any, settings: Mapping[str, Any], folder: str, told: dict[str, Any]) -> None:
    """Writes config.yaml and run.json into the run's folder."""
    if trainer.is_global_zero:
        device = trainer.strategy.root_device
        name = (
            torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
        )
        where = {
            "device": f"{device.type}: {name}",
            "processes": trainer.world_size,
            "threads": torch.get_num_threads(),
            "group": os.environ.get("TORCHELASTIC_RUN_ID"),
        }
        for logger in trainer.loggers:
            if hasattr(logger, "hparams"):  # TensorBoard's and CSV's file of them
                logger.hparams.update(hyperparameters(settings))
        write_text(Path(folder) / "config.yaml", yaml.safe_dump(dict(settings), sort_keys=False))
        write_text(Path(folder) / "run.json", json.dumps({**told, "seed": settings["seed"], **where}, indent=1))


def end(folder: str, error: Exception) -> None:
    """Ends this process with one line, where that is all there is to say of the error; of others nothing is done."""
    if (code := getattr(error, "exit_code", None)) is not None:  # the watchdog stopped the run
        print(f"error: {error}", file=sys.stderr)
        sys.exit(code)
    if isinstance(error, EXPECTED):
        sys.exit(f"error: {error}")
    if (lost := lost_touch(error)) is not None:
        going_on = "What was saved is whole: the same command, with resume=auto, goes on"
        print(f"error: {lost}. {going_on}", file=sys.stderr, flush=True)
        os._exit(1)  # at once: a group that is broken can't be taken down in order
    if getattr(error, "errno", None) in NO_ROOM:
        sys.exit(f"error: {error}. What was saved is whole: make room, then resume={relative(folder)}")


FAILED: list[str] = []  # folders of runs that failed in this process, for the end of a sweep


def done(folder: str, overrides: list[str]) -> float | None:
    """The best score of a run that a sweep has made before, nan where it has none; None: it is to be made.

    Raises:
        Taken: the folder holds another run
    """
    path = Path(folder) / "result.json"
    result = json.loads(path.read_text()) if path.is_file() else {}
    if result.get("status") != "done":
        return None
    if result["overrides"] != overrides:
        raise Taken(f"{folder} holds a run of another sweep: choose another hydra.sweep.dir")
    print(f"{relative(folder)} was made before")
    return result.get("best", float("nan"))


def failed(folder: str, overrides: list[str], error: Exception) -> None:
    """Remembers that a run of a sweep failed, in its folder if that is its own."""
    FAILED.append(folder)
    if not isinstance(error, Taken):
        text = (str(error).strip() or type(error).__name__).splitlines()[0][:500]
        content = {"status": "failed", "error": text, "overrides": overrides}
        write_text(Path(folder) / "result.json", json.dumps(content, indent=1))


def finish(trainer: Any, gan: Any, settings: Mapping[str, Any], folder: str, overrides: list[str]) -> float:
    """Writes result.json and the hyperparameters with their score, prints the summary, returns the best score."""
    from ganlab.callbacks.curves import LogCurves
    from ganlab.callbacks.evaluate import Evaluate
    from ganlab.callbacks.watchdog import Watchdog

    evaluate = next((c for c in trainer.callbacks if isinstance(c, Evaluate)), None)
    curves = next((c for c in trainer.callbacks if isinstance(c, LogCurves)), None)
    result: dict[str, Any] = {"status": "done", "overrides": overrides, "kimg": gan.seen / 1000}
    if curves is not None and curves.kimg:
        result |= {"seconds": curves.training, "sec_per_kimg": curves.training / curves.kimg}
    watchdog = next((c for c in trainer.callbacks if isinstance(c, Watchdog)), None)
    if watchdog is not None and watchdog.said:
        result["warnings"] = watchdog.said
    if evaluate is not None and evaluate.best is not None and evaluate.protocol is not None:
        name = evaluate.monitored
        result |= {"score": name, "best": evaluate.best[name], "best_kimg": evaluate.best["kimg"]}
        result |= {"final": evaluate.history[-1][name], "protocol": evaluate.protocol.plain()}
        result["protocol_id"] = evaluate.protocol.id(evaluate.scorer.owner(evaluate.monitor))
        result["scores"] = evaluate.history[-1]
        result |= {"lower_is_better": evaluate.lower_is_better, "best_checkpoint": evaluate.best_checkpoint}
    if trainer.is_global_zero:
        write_text(Path(folder) / "result.json", json.dumps(result, indent=1))
        scores = {f"final/{k}": v for k, v in result.get("scores", {}).items()}
        for logger in trainer.loggers:
            if hasattr(logger.experiment, "add_hparams"):  # TensorBoard
                logger.log_hyperparams(hyperparameters(settings), scores)
                logger.save()
            elif hasattr(logger, "log_image"):  # wandb
                logger.log_hyperparams(hyperparameters(settings))
        print("\n" + summary(result, folder, hasattr(gan.task, "draw")))
    return result.get("best", float("nan"))


def hyperparameters(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings by which runs differ, flat: {"optimizer.lr": 0.0002, ...}."""
    left_out = ("callbacks", "logger", "paths", "speed", "resume")
    values = flat({k: v for k, v in settings.items() if k not in left_out})
    plain = lambda v: v if isinstance(v, (int, float, str, bool)) else str(v)[:100]
    return {k: plain(v) for k, v in values.items() if v is not None}


def summary(result: Mapping[str, Any], folder: str, noise: bool = True) -> str:
    """The last words of a run. noise: whether its G starts from that"""
    from ganlab.metrics.protocol import Protocol

    here = Path(relative(folder))
    lines = []
    if "score" in result:
        ends = f"{result['final']:.4g} at the end, best {result['best']:.4g} at {result['best_kimg']:g} kimg"
        lines += [("score", f"{result['score']} {ends}"), ("protocol", Protocol.read(result["protocol"]).text())]
    trained = f"{result['kimg']:g} kimg"
    if "seconds" in result:
        speed = f"{result['sec_per_kimg']:.3g} s per kimg"
        trained += f" in {result['seconds']:.0f} s, {speed} (scores and pictures not counted)"
    lines.append(("trained", trained))
    if "warnings" in result:
        warned = ", ".join(f"{rule} at {kimg:g} kimg" for rule, kimg in result["warnings"].items())
        lines.append(("health", f"{warned}: {here / 'health.jsonl'}"))
    if (here / "samples").is_dir():
        lines.append(("pictures", str(here / "samples")))
    last, best = here / "checkpoints" / "last.ckpt", result.get("best_checkpoint")
    models = [shown for shown in (best and relative(best), str(last) if last.exists() else None) if shown]
    if models:
        lines.append(("model", ", ".join(models)))
        if noise:
            command = ["python", "-m", "ganlab.sample", f"checkpoint={quoted(models[0])}"]
            lines.append(("samples", shlex.join(command)))
    boarded = (here / "tensorboard").is_dir()
    lines.append(("curves", f"tensorboard --logdir {here}" if boarded else str(here / "metrics.csv")))
    return "\n".join(f"{name:<9} {text}" for name, text in lines)


def relative(path: str) -> str:
    """As one would type it here."""
    short = os.path.relpath(path)
    return path if short.startswith("..") else short
