"""Signals: the first asks a run to save and end, the second ends it at once."""

import os
import re
import shlex
import signal
import subprocess
import sys
from types import FrameType
from typing import Any

import torch

HEEDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")  # Ctrl-C, kill, a lost terminal, SLURM shortly before its limit
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
        what = "all is saved" if self.saved else "the weights now are not finite, what was saved before stays"
        going_on = shlex.join(["python", "-m", "ganlab", f"resume={os.path.relpath(self.folder)}"])
        return f"{text} at {self.kimg:g} kimg; {what}. To go on:\n  {going_on}"


class Signals:
    """What signals ask of a run. Several processes agree on when to do it: each round is played by all or none.

    Rank 0 decides at a turn what all do at the next one; as no process can finish a turn's rounds before rank 0 has
    begun them, all of them find its word there.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self.before: dict[int, Any] = {}
        self.world = 1

    def listen(self, world: int) -> None:
        """Every process must call it, on its main thread, as often as the others."""
        global CALLS
        CALLS += 1
        self.asked, self.world, self.turn, self.group = None, world, 0, f"ganlab/signals/{CALLS}"
        for name in HEEDED:
            number = getattr(signal, name, None)  # Windows lacks some
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
                self.before[number] = signal.signal(number, self.heed)

    def heed(self, number: int, _: FrameType | None) -> None:
        if self.asked is not None:
            os._exit(128 + number)
        self.asked = number
        if os.environ.get("RANK", "0") == "0":
            again = "Ctrl-C again" if number == signal.SIGINT else "a second signal"
            os.write(2, f"\n{signal.Signals(number).name}: saves, then ends; {again} ends at once\n".encode())

    def restore(self) -> None:
        while self.before:
            signal.signal(*self.before.popitem())

    def agreed(self, wish: str | None = None) -> Any:
        """What all processes do now: the number of a signal, a wish of rank 0's, or None. Every process must call it
        once in each turn.

        wish   of this process, if no signal came; only rank 0's counts
        """
        if self.world == 1:
            return self.asked or wish
        store: Any = torch.distributed.distributed_c10d._get_default_store()
        rank, self.turn = torch.distributed.get_rank(), self.turn + 1
        if rank != 0 and self.asked is not None:
            store.set(f"{self.group}/asked", str(self.asked))
        now = f"{self.group}/{self.turn}"
        word = store.get(now).decode() if store.check([now]) else None
        if rank == 0 and word is None:
            if self.asked is None and store.check([f"{self.group}/asked"]):
                self.asked = int(store.get(f"{self.group}/asked"))
            if (decided := self.asked or wish) is not None:
                store.set(f"{self.group}/{self.turn + 1}", str(decided))
        return int(word) if word is not None and word.isdigit() else word


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
