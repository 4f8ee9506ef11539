"""Kill a run anywhere, as often as you like: it ends bit for bit as if nothing had happened, and nothing is damaged."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ganlab.checkpoint import load, names

ROOT = Path(__file__).parent.parent
RUN = [
    "model=sngan", "experiment=tiny", "data=digits", "augment=[ada]", "+terms=[r1]", "lr_schedule=linear",
    "metrics.enabled=true", "metrics.every=2", "metrics.n=300", "scores=[fid]", "extractor=pixels",
    "callbacks.checkpoint.every=0.3", "callbacks.samples.every=3",
]  # fmt: skip


class Killer:
    """Starts a run in `folder` again and again, kills it, and looks at what is left."""

    def __init__(self, folder, arguments, seed=0):
        self.folder, self.random = Path(folder), random.Random(seed)
        self.command = [sys.executable, "-m", "ganlab", *arguments, f"hydra.run.dir={folder}", "resume=auto"]
        self.done = {"training": 0, "evaluation": 0, "writing": 0}

    def start(self):
        env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        log = open(f"{self.folder}.log", "a")  # noqa: SIM115
        return subprocess.Popen(self.command, env=env, stdout=log, stderr=log)

    def rows(self):
        path = self.folder / "metrics.csv"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def caught(self, run, moment, limit=120):
        """Waits for the moment; False if the run ended before."""
        began, tensorboard = time.monotonic(), self.folder / "tensorboard"
        files = len(list(tensorboard.glob("*"))) if tensorboard.exists() else 0
        while not tensorboard.exists() or len(list(tensorboard.glob("*"))) == files:  # it has not begun to play
            if run.poll() is not None:
                return False
            assert time.monotonic() - began < limit, Path(f"{self.folder}.log").read_text()[-2000:]
            time.sleep(0.01)
        rows, until = self.rows(), time.monotonic() + self.random.uniform(0, 3)
        while run.poll() is None:
            if moment == "writing" and list((self.folder / "checkpoints").glob(".*.tmp")):
                return True
            if moment == "evaluation" and self.rows() > rows and self.rows() % 2:  # a row of curves, and scores follow
                return True
            if moment == "training" and time.monotonic() > until:
                return True
            time.sleep(0.0005)
        return False

    def kill(self, number):
        """One start and one signal; False if the run had ended before."""
        moment = ("training", "writing", "training", "evaluation")[sum(self.done.values()) % 4]
        run = self.start()
        caught = self.caught(run, moment)
        if caught:
            run.send_signal(number)
            self.done[moment] += 1
        code = run.wait(90)
        assert code in (0, -number, 128 + number), Path(f"{self.folder}.log").read_text()[-2000:]
        for path in names(self.folder / "checkpoints"):
            if path.exists():
                load(path)  # whole: its digest is checked
        return caught

    def finish(self):
        run = self.start()
        assert run.wait(600) == 0, Path(f"{self.folder}.log").read_text()[-2000:]


def undisturbed(folder, arguments):
    killer = Killer(folder, arguments)
    killer.finish()
    return killer.folder


def parts(folder):
    """All that a run leaves which must not depend on when it was stopped."""
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    for state in last["callbacks"].values():
        state.pop("training", None)  # seconds
        state.pop("best_checkpoint", None)  # a path
    timed = lambda key: key.startswith(("speed/", "final/")) or key == "hp_metric"
    with open(folder / "metrics.csv", newline="") as file:
        rows = [{k: v for k, v in row.items() if not timed(k)} for row in csv.DictReader(file)]
    board = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    board.Reload()
    curves = {t: [(e.step, e.value) for e in board.Scalars(t)] for t in board.Tags()["scalars"] if not timed(t)}
    pictures = {tag: [(e.step, e.encoded_image_string) for e in board.Images(tag)] for tag in board.Tags()["images"]}
    kept = {key: last[key] for key in ("state_dict", "optimizer_states", "clock", "callbacks")}
    files = {path.name: path.read_bytes() for path in (folder / "samples").glob("*.png")}
    return kept | {"rows": rows, "board": repr(curves), "pictures": pictures, "files": files} | {
        "scores": json.loads((folder / "scores.json").read_text())["history"]
    }  # fmt: skip


def differences(a, b, path=""):
    if isinstance(a, torch.Tensor):
        return [] if torch.equal(a, b) else [path]
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return [f"{path}: {a.keys() ^ b.keys()}"]
        return [d for k in a for d in differences(a[k], b[k], f"{path}.{k}")]
    if isinstance(a, (list, tuple)):
        if len(a) != len(b):
            return [f"{path}: {len(a)} and {len(b)}"]
        return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{path}.{i}")]
    return [] if a == b else [path]


def survives(tmp_path, arguments, kills, number, whole=None):
    whole = whole or undisturbed(tmp_path / "whole", arguments)
    killer = Killer(tmp_path / "killed", arguments)
    while sum(killer.done.values()) < kills and killer.kill(number):
        pass
    killer.finish()
    print(killer.done)
    assert sum(killer.done.values()) == kills, "the run is too short for so many"
    assert differences(parts(whole), parts(killer.folder)) == []


SHORT = [*RUN, "max_kimg=9"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return undisturbed(tmp_path_factory.mktemp("undisturbed") / "run", SHORT)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda n: n.name)
def test_a_killed_run_ends_as_if_nothing_had_happened(tmp_path, whole, number):
    survives(tmp_path, SHORT, 2, number, whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda n: n.name)
def test_fifty_kills(tmp_path, number):
    survives(tmp_path, [*RUN, "max_kimg=200"], 50, number)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda n: n.name)
def test_kills_of_a_run_of_two_processes(tmp_path, number):
    survives(tmp_path, [*RUN, "max_kimg=60", "trainer.devices=2", "trainer.accelerator=cpu"], 12, number)


@pytest.mark.slow
def test_when_one_of_two_processes_is_killed_the_other_leaves(tmp_path):
    """Within a minute, with an error; and the run goes on from what it had saved."""
    killer = Killer(tmp_path / "run", [*RUN, "max_kimg=9", "trainer.devices=2", "trainer.accelerator=cpu"])
    run = killer.start()
    assert killer.caught(run, "training")
    workers = subprocess.run(["pgrep", "-P", str(run.pid)], capture_output=True, text=True, check=True).stdout.split()
    victim = [pid for pid in map(int, workers) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()][-1]
    os.kill(victim, signal.SIGKILL)
    began = time.monotonic()
    assert run.wait(60) == 1
    assert time.monotonic() - began < 60
    assert "failed: Signal 9" in Path(f"{killer.folder}.log").read_text()
    killer.finish()
