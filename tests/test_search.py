"""Searches: what may be searched, that trials are shared and never lost, and that a search finds what there is."""

import csv
import json
import math
import os
import random
import re
import signal
import statistics
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
    arguments = ["search=lr", "--config-dir", "my_conf", "trials=3", "model=mlp", "+terms=[r1]", "space={}", "seed=2"]
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
        (["search=lr", "seed=9"], r"seed is what the search sets in each run: give seeds="),
        (["optimizer.lr=0.1,0.2", "seed=choice(1,2)"], "seed is what the search sets"),
        (["search=lr", "resume=auto"], "resume is what the search sets in each run: the same command goes on"),
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
    assert search.valued(trial, {}, [], [5, 6], tmp_path, Evaluate, 6) == 15.0
    assert study.trials[0].intermediate_values == {2: 30.0, 4: 10.0, 6: 12.0}


def test_a_trial_taken_up_reports_only_what_is_new(tmp_path):
    study = optuna.create_study()
    trial = study.ask()
    trial.report(30.0, 2)
    made(tmp_path / "0000", [99.0, 10.0])
    assert search.valued(trial, {}, [], [0], tmp_path, Evaluate, 6) == 10.0
    assert study.trials[0].intermediate_values == {2: 30.0, 4: 10.0}


@pytest.mark.parametrize(("max_kimg", "stops"), [(6, True), (4, False)])
def test_a_trial_is_not_stopped_at_its_last_score(tmp_path, monkeypatch, max_kimg, stops):
    trial, asked = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(upper=0)).ask(), []
    made(tmp_path / "0000", [3.0, 2.0])  # after 2 and 4 kimg

    def trained(overrides, place, behind):
        asked.append(behind())
        return json.loads((place / "result.json").read_text())

    monkeypatch.setattr(search, "trained", trained)
    search.valued(trial, {}, [], [0], tmp_path, Evaluate, max_kimg)
    assert asked == [stops]


def test_values_that_can_not_be_compared_are_no_values(tmp_path):
    study = optuna.create_study()
    made(tmp_path / "0000", [1.0])
    search.valued(study.ask(), {}, [], [0], tmp_path, Evaluate, 6)
    made(tmp_path / "0001", [1.0], best=float("nan"))
    with pytest.raises(search.RunFailed, match="no finite score"):
        search.valued(study.ask(), {}, [], [0], tmp_path, Evaluate, 6)
    made(tmp_path / "0002", [1.0])
    study.set_user_attr("protocol", "another")
    with pytest.raises(search.RunFailed, match="another protocol"):
        search.valued(study.ask(), {}, [], [0], tmp_path, Evaluate, 6)


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
            trial.set_user_attr(*("failed", "so it is") if i == 4 else ("other", None))
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
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

PLAYED = """#!{python}
import json, math, os, pathlib, sys, time  # what a run leaves behind, without training: best at a rate of 0.1
given = dict(a.lstrip("+~").split("=", 1) for a in sys.argv if "=" in a)
place, rate = pathlib.Path(given["hydra.run.dir"]), float(given["optimizer.lr"])
score = abs(math.log10(rate) + 1)
if rate > 0.4:
    sys.exit("error: too large")
for i in range(1, 4):
    history = [{{"kimg": float(k), "fid200_pixels": score - k}} for k in range(1, i + 1)]
    (place / "new").write_text(json.dumps({{"history": history}}))
    os.replace(place / "new", place / "scores.json")
    time.sleep(0.1)
with open(place / "starts", "a") as file:
    file.write("once ")
(place / "command").write_text(" ".join(sys.argv))
(place / "result.json").write_text(json.dumps({{"best": score - 3, "protocol_id": "p"}}))
"""


@pytest.fixture
def played(tmp_path, monkeypatch):
    """Runs are played by a script; returns search(trials=..., ...) in a folder."""
    script = tmp_path / "python"
    script.write_text(PLAYED.format(python=sys.executable))
    script.chmod(0o755)
    monkeypatch.setattr(search, "POLL", 0.02)
    monkeypatch.chdir(tmp_path)

    def play(*arguments):
        with monkeypatch.context() as patch:
            patch.setattr(search, "GIVEN", [])
            patch.setattr(sys, "argv", ["ganlab.search", *RUN, "output=found", *arguments])
            patch.setattr(search.sys, "executable", str(script))
            search.main()
        return study_of(tmp_path / "found")

    return play


def test_trials_end_as_done_stopped_or_failed_and_a_search_goes_on_where_it_ended(played, tmp_path, capsys):
    arguments = ["optimizer.lr=tag(log,interval(1e-3,1))", "startup=3", "seed_of_search=2"]
    first = [(t.number, t.params, t.state.name) for t in played(*arguments, "trials=5").trials]
    study = played(*arguments, "trials=12")
    assert [(t.number, t.params, t.state.name) for t in study.trials][:5] == first
    assert [trial.number for trial in study.trials] == list(range(12))
    found = tmp_path / "found"
    for trial in study.trials:
        rate, state, place = trial.params["optimizer.lr"], trial.state.name, found / f"{trial.number:04d}"
        score = abs(math.log10(rate) + 1)
        assert ("failed" in trial.user_attrs) == (rate > 0.4)
        if state == "COMPLETE":
            assert trial.value == pytest.approx(score - 3)
            assert trial.intermediate_values == pytest.approx({k: score - k for k in (1, 2, 3)})
            assert (place / "starts").read_text() == "once "
        elif rate <= 0.4:
            assert state == "PRUNED"
            earlier = [t for t in study.trials[: trial.number] if t.state.name == "COMPLETE"]
            middle = statistics.median(t.intermediate_values[trial.last_step] for t in earlier)
            assert score - trial.last_step > middle
            assert not (place / "result.json").exists()
    assert {findings.state(trial) for trial in study.trials} == {"done", "stopped", "failed"}
    told = capsys.readouterr().out
    assert "behind the median of the others" in told
    assert "failed: error: too large" in told
    assert f"optimizer.lr={study.best_params['optimizer.lr']}" in told.splitlines()[-1]
    played(*arguments, "trials=12")
    assert {path.read_text() for path in found.glob("*/starts")} == {"once "}


def test_spaces_and_parts_of_ones_own_are_found_by_the_search_and_by_its_runs(played, tmp_path, capsys):
    for group, text in {"search": "space: {optimizer.lr: '0.1,0.2'}", "experiment": "max_kimg: 2"}.items():
        (tmp_path / "mine" / group).mkdir(parents=True)
        (tmp_path / "mine" / group / "own.yaml").write_text(f"# @package _global_\n{text}\n")
    study = played("--config-dir", "mine", "search=own", "experiment=own", "trials=1", "seeds=[3]")
    assert study.trials[0].params["optimizer.lr"] in ("0.1", "0.2")
    command = (tmp_path / "found" / "0000" / "command").read_text()
    assert f"-m ganlab --config-dir {tmp_path / 'mine'} model=mlp" in command
    assert "experiment=own optimizer.lr=0." in command
    best = capsys.readouterr().out.splitlines()[-1]
    assert re.search(rf"-m ganlab --config-dir {tmp_path / 'mine'} model=mlp .* seed=3 optimizer.lr=0\.", best)


def test_a_search_whose_first_runs_all_fail_ends(played):
    with pytest.raises(SystemExit, match="the first three trials failed"):
        played("optimizer.lr=interval(0.6,1)", "trials=4")


def test_the_first_failures_end_a_search_whichever_ends_first(played, tmp_path, monkeypatch):
    """With several workers the third trial may end before the second: then it is the fourth that ends the search."""
    ask, free, seen = search.taken, search.free, []

    def others(path):  # the second is another worker's, once it is there
        begun = path.name == "0001.lock" and path in seen
        seen.append(path)
        assert len(seen) < 100, "it waits for the other"
        return None if begun else free(path)

    monkeypatch.setattr(search, "free", others)
    monkeypatch.setattr(search, "taken", lambda *a: (trial for trial in ask(*a) if trial.number != 1))
    with pytest.raises(SystemExit, match="the first three trials failed"):
        played("optimizer.lr=interval(0.6,1)", "trials=8")
    assert len(study_of(tmp_path / "found").trials) == 4


def test_a_signal_ends_a_worker_in_order_wherever_it_comes(played, monkeypatch, capsys):
    """SQLAlchemy wraps what comes up while it works."""

    def wrapped(*_):
        try:
            signal.raise_signal(signal.SIGTERM)
        except Exception as error:
            raise RuntimeError("in a database") from error

    monkeypatch.setattr(search, "taken", wrapped)
    with pytest.raises(SystemExit) as ended:
        played("optimizer.lr=interval(0.6,1)")
    assert ended.value.code == 128 + signal.SIGTERM
    assert "all is saved: the same command goes on" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------------- real ones, slow


def waited(condition, seconds=200):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def children(process):
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the children of a process in /proc")
def test_two_workers_share_a_search_two_are_killed_and_nothing_is_lost(tmp_path):
    """One worker is killed alone, so that its run goes on without it; another with its run, as when a machine goes
    down. A third is told to end. Each trial ends once, as a run that was never disturbed."""
    arguments = [
        *RUN,
        "max_kimg=20",
        "optimizer.lr=tag(log,interval(1e-4,1e-1))",
        "trials=6",
        "startup=3",
        "output=found",
    ]
    found = tmp_path / "found"
    scored = lambda: {
        path.parent.name for path in found.glob("*/scores.json") if not (path.parent / "result.json").exists()
    }
    first, second = start(*arguments, cwd=tmp_path), start(*arguments, cwd=tmp_path)
    waited(lambda: len(scored()) == 2)
    first.kill()
    third = start(*arguments, cwd=tmp_path)
    waited(lambda: len(list(found.glob("*/result.json"))) >= 2 and children(second))
    for pid in children(second):
        os.kill(pid, signal.SIGKILL)
    second.kill()
    fourth = start(*arguments, cwd=tmp_path)
    waited(lambda: len(list(found.glob("*/result.json"))) >= 3 and children(fourth))
    fourth.terminate()
    told = fourth.communicate(timeout=120)[0]
    assert fourth.returncode == 128 + signal.SIGTERM
    assert "the same command goes on" in told
    fifth = start(*arguments, cwd=tmp_path)
    for worker in (third, fifth):
        words = worker.communicate(timeout=400)[0]
        assert worker.returncode == 0, words
    study = study_of(found)
    assert [trial.number for trial in study.trials] == list(range(6))
    assert {trial.state.name for trial in study.trials} <= {"COMPLETE", "PRUNED"}
    for trial in study.trials:
        place = found / f"{trial.number:04d}"
        run = json.loads((place / "run.json").read_text())
        assert f"optimizer.lr={trial.params['optimizer.lr']}" in run["overrides"]
        history = json.loads((place / "scores.json").read_text())["history"]
        assert [round(entry["kimg"]) for entry in history] == list(range(1, len(history) + 1))
        if trial.state.name == "COMPLETE":
            assert json.loads((place / "result.json").read_text())["best"] == trial.value
            assert list(trial.intermediate_values) == list(range(1, 21))
    assert len(list(csv.DictReader((found / "search.csv").read_text().splitlines()))) == 6
