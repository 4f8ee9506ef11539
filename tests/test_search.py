"""Searches: what may be searched, that trials are shared and never lost, and that a search finds what there is."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import optuna
import pytest
from PIL import Image

from ganlab import findings, search
from ganlab.space import Choice, Interval, split

ROOT = Path(__file__).parent.parent
RUN = [
    "model=mlp", "data=toy", "experiment=tiny", "data.batch_size=50", "data.count=500", "metrics.enabled=true",
    "metrics.every=1", "metrics.n=200", "scores=[fid]", "callbacks.samples=null", "logger=csv", "max_kimg=3",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def start(*arguments, cwd):
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "ganlab.search", *arguments]
    return subprocess.Popen(
        command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def searched(*arguments, cwd, code=0):
    worker = start(*arguments, cwd=cwd)
    text = worker.communicate(timeout=300)[0]
    assert worker.returncode == code, text
    return text


def study_of(folder):
    about = json.loads((folder / "search.json").read_text())
    return optuna.load_study(study_name=about["study"], storage=f"sqlite:///{folder}/study.db")


# -------------------------------------------------------------------------------------------------------------- spaces


def test_a_space_is_written_as_sweeps_are():
    given = [
        "model=mlp", "+terms=[r1]", "a.b=interval(0,1)", "c=int(interval(1,8))", "d=tag(log,interval(1e-5,1e-3))",
        "e=choice(true,'a b',[0.5,0.9])", "f=null,3", "seed=3",
    ]  # fmt: skip
    fixed, space, written = split(given)
    assert fixed == ["model=mlp", "+terms=[r1]", "seed=3"]
    assert {key: one.values for key, one in space.items()} == {
        "a.b": [0.0, 1.0], "c": [1, 8], "d": [1e-5, 1e-3], "e": ["True", "a\\ b", "[0.5,0.9]"], "f": ["null", "3"],
    }  # fmt: skip
    assert written["d"] == "tag(log,interval(1e-5,1e-3))"
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    point = {key: one.suggested(trial, key) for key, one in space.items()}
    assert isinstance(point["c"], int)
    assert isinstance(point["a.b"], float)
    assert trial.distributions["d"].log
    assert not trial.distributions["a.b"].log
    assert point["e"] in space["e"].values


def test_what_is_said_later_replaces_a_keys_values():
    fixed, space, _ = split(["a=interval(0,1)", "b=1,2", "a=0.5", "b=2,3"])
    assert fixed == ["a=0.5"]
    assert {key: one.values for key, one in space.items()} == {"b": ["2", "3"]}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("a=range(1,5)", r"use interval\(low,high\)"),
        ("a=glob(*)", "use interval"),
        ("a=interval(3,1)", "needs a lower and a higher end"),
        ("a=tag(log,interval(0,1))", "log needs a lower end above 0"),
        ("a=interval(", "no viable alternative"),
        ("a=interval(x,y)", "mismatch type"),
    ],
)
def test_a_space_that_is_none_is_refused(given, told):
    with pytest.raises(ValueError, match=told) as error:
        split([given])
    assert str(error.value).startswith(f"{given}: ")


def test_a_command_line_is_of_the_search_and_of_its_runs():
    arguments = ["--config-dir", "my_conf", "search=lr", "trials=3", "model=mlp", "+terms=[r1]", "space={}", "seed=2"]
    own, runs = search.divided(arguments)
    assert own == ["--config-dir", "my_conf", "search=lr", "trials=3", "space={}"]
    assert runs == ["model=mlp", "+terms=[r1]", "seed=2"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "nothing is searched"),
        (["optimizer.lr=range(1,5)"], "use interval"),
        (["search=lr", "trials=0"], "trials=0: must be"),
        (["search=lr", "seeds=[]"], "name one at least"),
        (["search=lr", "metrics.enabled=false"], "needs one score"),
        (["metrics.n=100,200"], "the space has several: .*fid100.*fid200"),
        (["optimizer.lr=interval(-1,1)"], "optimizer.lr=-1.0: must be"),
        (["loss=choice(hinge,nothing)"], "nothing"),
        (["search=lr_r1"], r"\+terms=\[r1\]"),
        (["search=lr", "storage=postgresql+nothing://x/y"], "storage: "),
    ],
)
def test_what_can_not_be_searched_is_said_before_anything_is_trained(arguments, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(search, "GIVEN", [])
    monkeypatch.setattr(sys, "argv", ["ganlab.search", *RUN, *arguments])
    with pytest.raises(SystemExit) as error:
        search.main()
    assert not list(tmp_path.rglob("run.json"))
    import re

    assert re.search(told, str(error.value)), error.value
