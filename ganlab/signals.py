"""Signals: the first asks a run to save and end, the second ends it at once."""

import contextlib
import multiprocessing
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from types import FrameType
from typing import Any

import torch

from ganlab.ranks import rank

HEEDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")  # Ctrl-C, kill, a lost terminal, SLURM shortly before its limit
KEPT = 1000  # turns by which a process may be behind
CALLS = 0  # of `listen` in this process: the same number in each of a group


class Interrupted(Exception):
    """A signal ended this run.

    code   of the process: 128 + the signal's number, as shells have it
    """

    def __init__(self, number: int, kimg: float | None = None, folder: str | None = None, saved: bool = True):
        super().__init__(number, kimg, folder, saved)
        self.number, self.kimg, self.folder, self.saved = number, kimg, folder, saved

    @property
    def code(self) -> int:
        return 128 + self.number

    def __str__(self) -> str:
        text = f"ended by {signal.Signals(self.number).name}"
        if self.kimg is None or self.folder is None:
            return text
        what = "all is saved" if self.saved else "nothing was saved now, what was saved before stays"
        going_on = shlex.join(["python", "-m", "ganlab", f"resume={os.path.relpath(self.folder)}"])
        return f"{text} at {self.kimg:g} kimg; {what}. To go on:\n  {going_on}"


class Handlers:
    """Signal handlers that are put back."""

    def __init__(self) -> None:
        self.asked: int | None = None  # the signal that came
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "Handlers":
        self.install()
        return self

    def __exit__(self, *_: Any) -> None:
        self.restore()

    def install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # Python's rule: only that one may
        for name in HEEDED:
            number = getattr(signal, name, None)  # Windows lacks some
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
                self.before[number] = signal.signal(number, self.heed)

    def restore(self) -> None:
        while self.before:
            signal.signal(*self.before.popitem())

    def heed(self, number: int, _: FrameType | None) -> None:
        if self.asked is not None:
            os._exit(128 + number)
        self.asked = number


class Passing(Handlers):
    """While this process waits for those that it started: signals are theirs."""

    def heed(self, number: int, _: FrameType | None) -> None:
        children = multiprocessing.active_children()
        for child in children:
            if child.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, number)
        super().heed(number, _)
        if not children:
            raise Interrupted(number)


class Ending(Handlers):
    """While a signal is to end what this process does, through `Interrupted`."""

    def heed(self, number: int, _: FrameType | None) -> None:
        super().heed(number, _)
        raise Interrupted(number)


class Signals(Handlers):
    """What signals ask of a run. All its processes do the same in the same turn: what rank 0 says."""

    def __init__(self) -> None:
        super().__init__()
        self.world = 1

    def listen(self, world: int) -> None:
        """Every process must call it, as often as the others."""
        global CALLS
        CALLS += 1
        self.asked, self.world, self.turn, self.group = None, world, 0, f"ganlab/signals/{CALLS}"
        self.install()

    def heed(self, number: int, _: FrameType | None) -> None:
        super().heed(number, _)
        if rank() == 0:
            again = "Ctrl-C again" if number == signal.SIGINT else "a second signal"
            os.write(2, f"\n{signal.Signals(number).name}: saves, then ends; {again} ends at once\n".encode())

    def agreed(self, wish: str | None = None) -> Any:
        """What all processes do now: the number of a signal, a wish of rank 0's, or None. Every process must call it
        once in each turn.

        wish   of this process, if no signal came; only rank 0's counts
        """
        if self.world == 1:
            return self.asked or wish
        store: Any = torch.distributed.distributed_c10d._get_default_store()
        self.turn += 1
        now, others = f"{self.group}/{self.turn}", f"{self.group}/asked"
        if torch.distributed.get_rank() == 0:
            asked = self.asked or (int(store.get(others)) if store.check([others]) else None)
            store.set(now, str(asked or wish or ""))
            store.delete_key(f"{self.group}/{self.turn - KEPT}")
        elif self.asked is not None:
            store.set(others, str(self.asked))
        word = answered(store.timeout, lambda: store.get(now)).decode()  # waits for rank 0
        return int(word) if word.isdigit() else word or None


def answered(timeout: timedelta, ask: Callable[[], Any]) -> Any:
    """What a store of another machine answers: with the network gone, it may be asked for ever.

    Raises:
        DistStoreError: no answer
    """
    answer: Future[Any] = Future()

    def wait() -> None:
        try:
            answer.set_result(ask())
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=wait, daemon=True).start()
    try:
        return answer.result(timeout.total_seconds() + 1)
    except TimeoutError:
        raise torch.distributed.DistStoreError(f"no answer from rank 0 within {timeout.total_seconds():g} s") from None


def requeue(interrupted: Interrupted, resume: Any) -> str | None:
    """After SLURM's signal: has the job run again, if it will then go on (`resume=auto`). Returns what happened, None
    if SLURM has nothing to do with it."""
    job = os.environ.get("SLURM_JOB_ID")
    if sys.platform == "win32" or interrupted.number != signal.SIGUSR1 or job is None:
        return None
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    if not re.fullmatch(r"[0-9_]+", job):
        return f"SLURM_JOB_ID={job} is no number of a job: not requeued"
    if resume != "auto":
        return "not requeued: the job would begin anew. Start it with hydra.run.dir=outputs/NAME resume=auto"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"scontrol requeue {job} failed: {error}"
    return f"requeued as job {job}" if done.returncode == 0 else f"scontrol requeue {job} failed: {done.stderr.strip()}"
