"""Searches: what may be searched, that trials are shared and never lost, and that a search finds what there is."""

import csv
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import optuna
import pytest
from PIL import Image

from ganlab import findings, search
from ganlab.space import split

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
        (["search=lr_r1"], r"terms.r1.weight.* \+terms=\[NAME\]"),
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
    assert re.search(told, str(error.value)), error.value


# --------------------------------------------------------------------------------------------------------------- locks


def test_every_trial_is_taken_once_by_one_of_many_workers(tmp_path):
    """Twenty trials, four workers that end some, and leave some behind as a killed one does: these are taken up."""
    storage = f"sqlite:///{tmp_path}/study.db"
    study, ended, begun, at_work, chance = optuna.create_study(storage=storage), [], [], set(), random.Random(0)
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def work():
        mine = optuna.load_study(study_name=study.study_name, storage=storage)
        while True:
            trials = search.taken(mine, tmp_path, 20)
            for trial in trials:
                assert trial.number not in at_work
                at_work.add(trial.number)
                begun.append(trial.number)
                time.sleep(chance.uniform(0, 0.02))
                at_work.remove(trial.number)
                if chance.random() < 0.3:
                    break  # killed: the lock falls, the trial stays as it is
                mine.tell(trial, chance.random())
                ended.append(trial.number)
            else:
                return
            trials.close()

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert sorted(ended) == list(range(20))
    assert len(begun) > 20
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 20


def test_a_worker_waits_for_the_last_trial_of_another_and_takes_it_up(tmp_path):
    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/study.db")
    other = search.taken(study, tmp_path, 1)
    assert next(other).number == 0
    mine, taken = search.taken(study, tmp_path, 1), []
    worker = threading.Thread(target=lambda: taken.append(next(mine).number))
    worker.start()
    worker.join(4 * search.POLL)
    assert not taken
    other.close()
    worker.join(10)
    assert taken == [0]


# --------------------------------------------------------------------------------------------------------------- trials


class Evaluate:
    """What a search asks of the callback."""

    monitored, every = "fid", 2.0


def made(place, history, best=None):
    """What a run leaves behind."""
    place.mkdir(parents=True, exist_ok=True)
    content = {"history": [{"kimg": 2.0 * i, "fid": value} for i, value in enumerate(history, 1)]}
    (place / "scores.json").write_text(json.dumps(content))
    result = {"best": min(history) if best is None else best, "protocol_id": "p"}
    (place / "result.json").write_text(json.dumps(result))


def test_a_points_value_is_the_mean_over_seeds_and_its_curve_that_of_the_first(tmp_path):
    study = optuna.create_study()
    trial = study.ask()
    made(tmp_path / "0000" / "seed_5", [30.0, 10.0, 12.0])
    made(tmp_path / "0000" / "seed_6", [50.0, 20.0])
    assert search.valued(trial, {}, [], [5, 6], tmp_path, Evaluate) == 15.0
    assert study.trials[0].intermediate_values == {2: 30.0, 4: 10.0, 6: 12.0}


def test_a_trial_taken_up_reports_only_what_is_new(tmp_path):
    study = optuna.create_study()
    trial = study.ask()
    trial.report(30.0, 2)
    made(tmp_path / "0000", [99.0, 10.0])
    assert search.valued(trial, {}, [], [0], tmp_path, Evaluate) == 10.0
    assert study.trials[0].intermediate_values == {2: 30.0, 4: 10.0}


def test_values_that_can_not_be_compared_are_no_values(tmp_path):
    study = optuna.create_study()
    made(tmp_path / "0000", [1.0])
    search.valued(study.ask(), {}, [], [0], tmp_path, Evaluate)
    made(tmp_path / "0001", [1.0], best=float("nan"))
    with pytest.raises(search.RunFailed, match="no finite score"):
        search.valued(study.ask(), {}, [], [0], tmp_path, Evaluate)
    made(tmp_path / "0002", [1.0])
    study.set_user_attr("protocol", "another")
    with pytest.raises(search.RunFailed, match="another protocol"):
        search.valued(study.ask(), {}, [], [0], tmp_path, Evaluate)


def test_a_folder_is_of_one_search(tmp_path):
    about = {"runs": ["model=mlp"], "space": {"a": "1,2"}, "seeds": [0], "score": "fid"}
    study = search.opened(tmp_path, None, about, True)
    assert search.opened(tmp_path, None, about, True).study_name == study.study_name
    assert study.direction.name == "MINIMIZE"
    with pytest.raises(ValueError, match="has another search, choose another: seeds was \\[0\\] and is \\[1\\] now"):
        search.opened(tmp_path, None, about | {"seeds": [1]}, True)
    (tmp_path / "0000").mkdir()
    with pytest.raises(ValueError, match="has nothing of the trials in"):
        search.opened(tmp_path, f"sqlite:///{tmp_path}/other.db", about, True)


# ------------------------------------------------------------------------------------------------------------- findings


def test_the_table_puts_the_best_first_and_the_key_that_matters_is_found(tmp_path, capsys):
    """The value is that of one key alone: fANOVA gives it nearly all of the variance."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), direction="maximize")
    for i in range(20):
        trial = study.ask()
        matters, _ = trial.suggest_float("matters", 0, 1), trial.suggest_float("idle", 0, 1)
        trial.report(matters, 1)
        if i % 5 == 4:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED if i > 4 else optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, matters)
    findings.told(study, tmp_path, "accuracy", ["model=mlp"])
    text = capsys.readouterr().out
    with open(tmp_path / "search.csv") as file:
        rows = list(csv.DictReader(file))
    values = [float(row["accuracy"]) for row in rows if row["accuracy"]]
    assert values == sorted(values, reverse=True)
    assert [row["state"] for row in rows] == ["done"] * 16 + ["stopped"] * 3 + ["failed"]
    assert float(re.search(r"matters +matters (\d+)%", text).group(1)) > 90
    assert f"matters={study.best_params['matters']}" in text
    assert Image.open(tmp_path / "search.png").size == (1500, 400)


# ------------------------------------------------------------------------------------------------------------- searches


def test_a_search(tmp_path):
    """Three points, of which the second is hopeless from the start: it is stopped, the others have all that runs have;
    the same command once more does nothing again."""
    arguments = [*RUN, "optimizer.lr=1e-3,1e-9", "trials=3", "startup=1", "seed_of_search=1", "output=found"]
    text = searched(*arguments, cwd=tmp_path)
    found = tmp_path / "found"
    study = study_of(found)
    assert [trial.number for trial in study.trials] == [0, 1, 2]
    for trial in study.trials:
        run = json.loads((found / f"{trial.number:04d}" / "run.json").read_text())
        assert f"optimizer.lr={trial.params['optimizer.lr']}" in run["overrides"]
        if trial.state.name == "COMPLETE":
            result = json.loads((found / f"{trial.number:04d}" / "result.json").read_text())
            assert result["best"] == trial.value
            assert result["kimg"] == 3
    assert "the best     python -m ganlab model=mlp" in text or "the best" in text
    before = {path: path.stat().st_mtime_ns for path in found.rglob("*") if path.parent.name.isdigit()}
    searched(*arguments, cwd=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in found.rglob("*") if path.parent.name.isdigit()} == before
