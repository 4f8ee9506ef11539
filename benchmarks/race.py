"""Races: subjects run in turns, each in a process of its own, and only ratios within one race are told.

A subject trains with a `Gate` in its loop. The gate lets it play so many rounds when it is its turn, and stops the clock
between two rounds; all others wait meanwhile.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from tqdm import tqdm


def peak_mb() -> float:
    """The most that was resident, in MB."""
    try:  # what getrusage tells begins with the peak of the process that started this one
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Gate:
    """In the subject: `passed(rounds)` after each step. A turn begins and ends between steps."""

    def __init__(self) -> None:
        self.read, self.write = os.fdopen(int(os.environ["GATE_IN"])), os.fdopen(int(os.environ["GATE_OUT"]), "w")
        self.left, self.began, self.rounds = 0, 0.0, 0
        self.base = peak_mb()

    def passed(self, rounds: int = 1) -> None:
        self.left, self.rounds = self.left - rounds, self.rounds + rounds
        if self.left > 0:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = (time.perf_counter() - self.began) / max(self.rounds, 1)
        print(json.dumps({"seconds": seconds, "mb": peak_mb() - self.base}), file=self.write, flush=True)
        told = self.read.readline()
        if not told.strip():
            os._exit(0)
        self.left, self.rounds, self.began = int(told), 0, time.perf_counter()


class GateCallback(L.Callback):
    """The gate in a run of ganlab: `+callbacks.gate={_target_: benchmarks.race.GateCallback}`."""

    def on_train_start(self, trainer: Any, gan: Any) -> None:
        self.gate, self.rounds = Gate(), gan.rounds

    def on_train_batch_end(self, trainer: Any, gan: Any, *_: Any) -> None:
        self.gate.passed(gan.rounds - self.rounds)
        self.rounds = gan.rounds


def race(
    subjects: Mapping[str, Sequence[str]], rounds: int, turns: int = 5, threads: int | None = None, pause: float = 0.0
) -> dict[str, list[dict[str, float]]]:
    """{name: [{seconds per round, mb: peak above what was resident after imports}]}, a value for each turn.

    subjects   {name: arguments of python}
    rounds     in a turn
    pause      seconds before each, in which the processes that load data for another subject come to rest
    """
    started, results = {}, {name: [] for name in subjects}
    try:
        for name, arguments in subjects.items():
            (child_in, to), (back, child_out) = os.pipe(), os.pipe()
            env = os.environ | {"GATE_IN": str(child_in), "GATE_OUT": str(child_out), "PYTHONPATH": os.pathsep.join(sys.path)}
            env |= {"OMP_NUM_THREADS": str(threads)} if threads else {}
            process = subprocess.Popen(
                [sys.executable, *arguments], env=env, pass_fds=(child_in, child_out), stdout=subprocess.DEVNULL,
                stderr=open(f"/tmp/race_{os.getpid()}_{name.replace(' ', '_').replace('/', '_')}.log", "w"),  # noqa: SIM115
            )  # fmt: skip
            os.close(child_in)
            os.close(child_out)
            started[name] = (process, os.fdopen(to, "w"), os.fdopen(back))
            answer(name, started[name][2])  # it has taken its first step
        for turn in tqdm(range(turns + 1), desc=", ".join(subjects), unit="turn"):
            for name, (_, to, back) in started.items():
                time.sleep(pause)
                print(rounds, file=to, flush=True)
                result = answer(name, back)
                if turn:  # the first is for warming up
                    results[name].append(result)
    finally:
        for process, *_ in started.values():
            process.kill()
            process.wait()
    return results


def answer(name: str, back: Any) -> dict[str, float]:
    line = back.readline()
    if not line:
        raise RuntimeError(f"{name} ended early: see /tmp/race_{os.getpid()}_*.log")
    return json.loads(line)


def ratios(results: Mapping[str, list[dict[str, float]]], base: str, name: str) -> tuple[float, float, float]:
    """(least, median, most) speed of `name` as a multiple of the base's, turn by turn."""
    each = sorted(b["seconds"] / s["seconds"] for b, s in zip(results[base], results[name], strict=True))
    return each[0], statistics.median(each), each[-1]
