"""Races: subjects run in turns, each in a process of its own, and only ratios within one race are told.

A subject has a `Gate` in its loop. The gate lets it play so many rounds when it is its turn, and takes the time between
two rounds; all others wait meanwhile.
"""

import json
import os
import resource
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

Turns = list[dict[str, float]]  # {"seconds": per round, "mb": peak of the process, ...} of each turn


def peak_mb() -> float:
    """The most that was resident in this process, in MB."""
    try:  # what getrusage tells begins with the peak of the process that started this one
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Gate:
    """In the subject: `passed()` after each round. A turn begins and ends between two rounds."""

    def __init__(self) -> None:
        place = Path(os.environ["GATE"])
        self.read, self.write = (place / "go").open(), (place / "done").open("w")
        self.left, self.began, self.rounds = 0, 0.0, 0

    def passed(self, rounds: int = 1) -> None:
        self.left, self.rounds = self.left - rounds, self.rounds + rounds
        if self.left > 0:
            return
        if "torch" in sys.modules and (cuda := sys.modules["torch"].cuda).is_available():
            cuda.synchronize()
        seconds = (time.perf_counter() - self.began) / self.rounds
        print(json.dumps({"seconds": seconds, "mb": peak_mb()}), file=self.write, flush=True)
        told = self.read.readline()
        if not told.strip():
            os._exit(0)
        self.left, self.rounds, self.began = int(told), 0, time.perf_counter()


def race(
    subjects: Mapping[str, Sequence[str]], rounds: int | Mapping[str, int], turns: int = 5, threads: int | None = None,
    pause: float = 0.0, env: Mapping[str, Mapping[str, str]] | None = None, **facts: float,
) -> dict[str, Turns]:  # fmt: skip
    """{name: turns}

    subjects   {name: arguments of python}
    rounds     in a turn, of all or of each
    threads    of each subject; None: as torch has it
    pause      seconds before each turn, in which the processes that load data for another subject come to rest
    env        {name: more environment}
    facts      of one round, the same for all, for the table: images, gflop
    """
    results: dict[str, Turns] = {name: [] for name in subjects}
    started: list[Subject] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for i, (name, arguments) in enumerate(subjects.items()):
                more = {"OMP_NUM_THREADS": str(threads)} if threads else {}
                started.append(Subject(name, arguments, Path(folder) / str(i), more | dict((env or {}).get(name, {}))))
                started[-1].answer()  # it has played its first round
            for turn in tqdm(range(turns + 1), desc=", ".join(subjects), unit="turn"):
                for subject in started:
                    time.sleep(pause)
                    told = subject.play(rounds if isinstance(rounds, int) else rounds[subject.name])
                    if turn:  # the first is for warming up
                        results[subject.name].append(told | facts)
        finally:
            for subject in started:
                subject.end()
    return results


class Subject:
    def __init__(self, name: str, arguments: Sequence[str], place: Path, env: Mapping[str, str]):
        self.name, self.place = name, place
        place.mkdir()
        for pipe in ("go", "done"):
            os.mkfifo(place / pipe)
        path = os.pathsep.join(["", *sys.path]).lstrip(os.pathsep)
        self.log = (place / "log").open("w")
        self.process = subprocess.Popen(
            [sys.executable, *arguments], env=os.environ | {"GATE": str(place), "PYTHONPATH": path} | env,
            stdout=self.log, stderr=self.log, start_new_session=True,
        )  # fmt: skip
        self.go = os.fdopen(os.open(place / "go", os.O_RDWR), "w")  # neither waits for the other side
        self.done = os.fdopen(os.open(place / "done", os.O_RDWR))

    def play(self, rounds: int) -> dict[str, float]:
        print(rounds, file=self.go, flush=True)
        return self.answer()

    def answer(self) -> dict[str, float]:
        while not select.select([self.done], [], [], 1)[0]:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended early:\n{(self.place / 'log').read_text()[-3000:]}")
        return json.loads(self.done.readline())

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, 9)
        self.process.wait()
        for file in (self.go, self.done, self.log):
            file.close()


def ratios(results: Mapping[str, Turns], base: str, name: str) -> tuple[float, float, float]:
    """(least, median, most) speed of `name` as a multiple of the base's, turn by turn."""
    each = sorted(b["seconds"] / s["seconds"] for b, s in zip(results[base], results[name], strict=True))
    return each[0], statistics.median(each), each[-1]


def table(
    title: str, results: Mapping[str, Turns], base: str | None = None, peaks: Mapping[bool, float] | None = None
) -> str:  # fmt: skip
    """As Markdown.

    base    what others are told as multiples of; None: the first
    peaks   GFLOP/s of the machine, {False: in float32, True: in bfloat16}
    """
    base = base or next(iter(results))
    first = results[base][0]
    middle = lambda name, key: statistics.median(turn[key] for turn in results[name])
    heads = ["", "ms", f"speed, {base} = 1 (least to most)"]
    told = {"images": "images/s", "gflop": "GFLOP/s", "mb": "peak memory, MB"}
    heads += [head for key, head in told.items() if key in first]
    if share := peaks if peaks is not None and "gflop" in first else {}:
        heads.append("of the machine's pace")
    lines = [f"### {title}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in results:
        low, median, high = ratios(results, base, name)
        seconds = middle(name, "seconds")
        cells = [name, f"{1000 * seconds:.3g}", f"{median:.2f} ({low:.2f} to {high:.2f})"]
        cells += [f"{middle(name, key) / seconds:,.0f}" for key in ("images", "gflop") if key in first]
        if "mb" in first:
            cells.append(f"{middle(name, 'mb'):,.0f}")
        if share:
            bf16 = "bf16" in name or "bfloat16" in name
            cells.append(f"{100 * middle(name, 'gflop') / seconds / share[bf16]:.0f} %")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def memory_of(code: str) -> float:
    """Peak memory in MB of a process that does nothing else."""
    tell = "import benchmarks.race; print(benchmarks.race.peak_mb())"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{tell}"], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def once(arguments: Sequence[str], **more: Any) -> float:
    """Seconds that a process takes from its start to its end."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=False, **more)
    return time.perf_counter() - began
