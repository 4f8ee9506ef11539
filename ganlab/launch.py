"""Processes: one fresh group for each run that needs one, so that runs of a sweep never share any.

Workers get plain values and a function, never Hydra. Under torchrun or SLURM, which start processes themselves, nothing
is started here.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from ganlab import ranks
from ganlab.signals import Interrupted, Passing

WORDS = ("gloo/", "Gloo", "pair closure", "NCCL")  # of errors of the network


class WorkerFailed(RuntimeError):
    """A process of the group ended with an error; the message is that of the first."""


def lost_touch(error: BaseException) -> str | None:
    """What to tell of an error of the network between processes; None: it is no such error."""
    text = str(error).strip().partition("\n")[0]
    of_network = isinstance(error, torch.distributed.DistError) or any(word in text for word in WORDS)
    if not ranks.started_by_others() or not of_network:
        return None
    if "EADDRINUSE" in text or "already in use" in text:
        return f"another program has the port at which the processes meet ({text[-100:]}): choose another --master-port"
    if "connectFullMesh" in text:
        told = "GLOO_SOCKET_IFNAME (of GPUs, NCCL_SOCKET_IFNAME) says by which network, named as in `ip addr`"
        return f"the processes can't reach each other ({text[-100:]}): {told}"
    return f"another process is gone, or did not answer within trainer.timeout minutes ({text[-100:]})"


def gpus(trainer: Mapping[str, Any]) -> int:
    """How many GPUs a run may use; does not initialise CUDA."""
    return torch.cuda.device_count() if trainer["accelerator"] in ("auto", "gpu", "cuda") else 0


def places(devices: Any = 1) -> int:
    """How many runs go at once on this machine: as many as have GPUs of their own; without any, one on each pair of
    cores.

    devices   of a run
    """
    each = devices if isinstance(devices, int) and devices > 0 else 1
    return max(1, torch.cuda.device_count() // each if torch.cuda.device_count() else cores() // 2)


HELD: list[FileLock] = []  # of this process's GPUs, until it ends


def own_gpus(trainer: Mapping[str, Any], folder: Path | None = None) -> None:
    """Gives this process as many of the machine's GPUs as a run needs, the first that no other process of ganlab holds:
    it sees no others from then on. It must come before anything uses CUDA.

    folder   of the locks, the same for all; None: the system's for temporary files

    Raises:
        ValueError: too few are free, or trainer.devices is no number
    """
    count, wanted = gpus(trainer), trainer["devices"]
    if HELD or not count:
        return
    if not isinstance(wanted, int) or wanted < 1:
        raise ValueError(f"trainer.devices={wanted}: runs side by side need a number, of the GPUs of each")
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    names = (visible or [str(i) for i in range(count)])[:count]
    mine: dict[str, FileLock] = {}
    for name in names:
        path = (folder or Path(tempfile.gettempdir())) / f"ganlab-gpu-{name}.lock"
        lock = FileLock(path, mode=0o666)  # other users lock it, too
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=0)
            mine[name] = lock
        if len(mine) == wanted:
            HELD.extend(mine.values())
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
            return
    for lock in mine.values():
        lock.release()
    raise ValueError(
        f"{len(mine)} of {count} GPUs are not taken by other runs, and trainer.devices={wanted}: start fewer at once"
    )


def processes(trainer: Mapping[str, Any]) -> int:
    """How many processes on this machine `trainer.devices` asks for.

    Raises:
        ValueError: it is no number, list or "auto"
    """
    devices = trainer["devices"]
    if devices in ("auto", -1):
        return max(1, gpus(trainer))
    if isinstance(devices, list):
        return len(devices)
    if isinstance(devices, int) and devices > 0:
        return devices
    raise ValueError(f"trainer.devices={devices!r}: must be a number of at least 1, a list of GPUs, or auto")


def run(function: Callable[..., Any], *arguments: Any, processes: int) -> Any:
    """function(*arguments) in `processes` fresh processes that form one group; returns what rank 0 returned.

    Raises:
        WorkerFailed: with the error of the process that failed first; the others are stopped
        Interrupted: by a signal, to this process or one of the group
        Exception: one that all processes raise alike, as `ganlab.callbacks.watchdog.Unhealthy`, is raised here as it is
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, run_id=uuid.uuid4().hex, rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", local_addr="127.0.0.1", max_restarts=0, start_method="spawn", monitor_interval=0.1,
        signals_to_handle="SIGQUIT",  # at the others it would give up on the processes, which are saving
    )  # fmt: skip
    logging.getLogger("torch.distributed").setLevel(logging.ERROR)  # it tells of each process that it stops
    if multiprocessing.get_start_method(allow_none=True) == "loky":  # joblib's own, which a fresh process does not know
        multiprocessing.set_start_method("spawn", force=True)
    passing = Passing()
    try:
        with passing:
            result = elastic_launch(config, _work)(function, arguments, processes)[0]
    except ChildFailedError as error:
        if passing.asked is not None:  # before they listened
            raise Interrupted(passing.asked) from None
        rank, failure = error.get_first_failure()
        told: Any = failure.message
        reason = told["message"] if isinstance(told, dict) else told
        raise WorkerFailed(f"process {rank} of {processes} failed: {reason}") from None
    if isinstance(result, Exception):
        raise result
    return result


def _work(function: Callable[..., Any], arguments: tuple[Any, ...], processes: int) -> Any:
    if sys.platform in ("linux", "darwin"):  # one machine: nobody else need reach the group
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    torch.set_num_threads(max(1, cores() // processes))
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C reaches the parent alone, which passes it on
    if hasattr(signal, "SIGUSR2"):  # submitit's, which SLURM may send to all: what it means comes from the parent, too
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        return function(*arguments)
    except Interrupted as interrupted:  # no failure: the parent ends as it was asked to
        return interrupted
    except Exception as error:
        if getattr(error, "everywhere", False):  # no process failed: all of them ended by the same decision
            return error
        raise


def cores() -> int:
    """How many this process may use: what the system allows it, or OMP_NUM_THREADS if that is fewer."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    told = os.environ.get("OMP_NUM_THREADS", "")
    return min(there, int(told)) if told.isdigit() and int(told) else there
