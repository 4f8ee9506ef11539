"""`resume=`: what a command line becomes, and that a run's folder from somebody else can run no code."""

import csv
import json
import os
import signal
from unittest import mock

import pytest

from ganlab.callbacks.curves import CSVFile
from ganlab.callbacks.saving import SaveCheckpoint
from ganlab.checks import check_resume
from ganlab.resume import go_on, logged, quoted
from ganlab.signals import Interrupted, Signals, requeue


@pytest.fixture
def run(tmp_path):
    """Writes a run's folder with these overrides; returns its name."""

    def written(*overrides, **more):
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / "run.json").write_text(json.dumps({"overrides": list(overrides), **more}))
        return str(tmp_path / "run")

    return written


def test_the_runs_own_overrides_come_first_and_its_folder_last(run):
    folder = run("model=sngan", "terms=[r1]", "max_kimg=100", "resume=null", "hydra.run.dir=elsewhere")
    assert go_on([f"resume={folder}", "max_kimg=200"]) == [
        "model=sngan", "terms=[r1]", f"resume={folder}", "max_kimg=200", f"hydra.run.dir={folder}",
    ]  # fmt: skip


def test_a_file_goes_on_in_a_folder_of_its_own(run, tmp_path):
    folder = run("model=sngan")
    file = tmp_path / "run" / "checkpoints" / "last-1.ckpt"
    file.parent.mkdir()
    file.touch()
    assert go_on([f"resume={file}"]) == ["model=sngan", f"resume={file}"]
    assert go_on([f"resume={folder}", "hydra.run.dir=other"])[-1] == "hydra.run.dir=other"


def test_auto_needs_a_fixed_folder(run, tmp_path):
    folder = run("model=sngan", "seed=1")
    with pytest.raises(ValueError, match=r"hydra\.run\.dir=outputs/NAME resume=auto"):
        go_on(["resume=auto"])
    again = ["model=sngan", "seed=1", f"hydra.run.dir={folder}", "resume=auto"]
    assert go_on(again) == again  # as SLURM starts it again: nothing is given twice
    new = ["model=sngan", f"hydra.run.dir={tmp_path / 'new'}", "resume=auto"]
    assert go_on(new) == new


@pytest.mark.parametrize(
    "arguments", [[], ["model=dcgan"], ["resume=null"], ["-m", "resume=auto", "seed=1,2"], ["resume=nowhere"]]
)
def test_all_else_stays_as_it_is(arguments):
    assert go_on(arguments) == arguments


@pytest.mark.parametrize(
    "override",
    [
        "generator._target_=os.system",
        "+callbacks.mine={_target_: subprocess.Popen, args: [true]}",
        "generator.width=${oc.env:HOME}",
        "hydra.searchpath=[file:///evil]",
        "+hydra.callbacks.x={}",
        "logger.csv.path=/home/me/.bashrc",
        "callbacks.samples.folder=/home/me",
        "paths.output=/",
        "--config-dir=/evil",
    ],
)
def test_what_runs_code_or_writes_elsewhere_must_be_given_again(run, override):
    folder = run("model=sngan", override)
    with pytest.raises(ValueError, match="not taken from a file"):
        go_on([f"resume={folder}"])
    assert override in go_on([f"resume={folder}", override])


def test_own_configs_must_be_given_again(run):
    folder = run("model=mine", config_dirs=["my_conf"])
    with pytest.raises(ValueError, match="--config-dir my_conf: give it again"):
        go_on([f"resume={folder}"])
    assert "model=mine" in go_on(["--config-dir", "my_conf", f"resume={folder}"])


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"overrides": 1}', '{"overrides": [1]}', "[" * 99999])
def test_a_broken_run_json_adds_nothing(run, content, tmp_path):
    folder = run()
    (tmp_path / "run" / "run.json").write_text(content)
    assert go_on([f"resume={folder}", "seed=1"])[:2] == [f"resume={folder}", "seed=1"]


@pytest.mark.parametrize("name", ["outputs/a b", "it's", "a=b,c", "x(1)"])
def test_hydra_reads_any_folder_back(name):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    assert OverridesParser.create().parse_override(f"resume={quoted(name)}").value() == name


# ------------------------------------------------------------------------------------------------------------- curves


def test_a_moved_file_of_weights_is_found_by_its_new_name():
    """Where features come from may have moved; what they are compared in may not change."""
    then = {"terms": {"content": {"net": "vgg19", "weights": "old.pth"}}}
    now = lambda **new: {"resume": "run", "terms": {"content": then["terms"]["content"] | new}}
    check_resume(then, now(weights="new.pth"))
    with pytest.raises(ValueError, match=r"terms.content.net was vgg19 and is vgg16 now"):
        check_resume(then, now(weights="new.pth", net="vgg16"))


def test_curves_go_on_from_where_the_checkpoint_was_written(tmp_path):
    """Rows after it are of a future that did not happen; a row that was cut off is none."""
    path = tmp_path / "metrics.csv"
    path.write_text("kimg,loss\n1.0,0.5\n2.0,0.4\n3.0,0.3\n4.0,0.2\n1")
    curves = CSVFile(str(path), purge_step=3)
    curves.log_metrics({"kimg": 3.0, "loss": 0.35, "more": 1.0})
    curves.log_metrics({"kimg": 4.0, "loss": 0.25, "more": 2.0})
    with open(path, newline="") as file:
        assert [(r["kimg"], r["loss"], r["more"]) for r in csv.DictReader(file)] == [
            ("1.0", "0.5", ""), ("2.0", "0.4", ""), ("3.0", "0.35", "1.0"), ("4.0", "0.25", "2.0"),
        ]  # fmt: skip


def test_what_is_logged_at_one_kimg_is_one_row(tmp_path):
    curves = CSVFile(str(tmp_path / "metrics.csv"))
    for metrics in ({"kimg": 1.0, "loss": 0.5}, {"kimg": 1.0, "fid": 9.0}, {"kimg": 2.0, "loss": 0.4}):
        curves.log_metrics(metrics)
    curves.log_metrics({"kimg": 2.0, "fid": 8.25})
    curves.log_metrics({"kimg": 3.0, "fid": 7.0})
    assert (tmp_path / "metrics.csv").read_text() == "kimg,loss,fid\n1.0,0.5,9.0\n2.0,0.4,8.25\n3.0,,7.0\n"


def test_what_was_logged_last_is_what_any_callback_did_last():
    assert logged({"callbacks": {"a": {"acted": 2000}, "b": {"acted": 3048}, "c": {"acted": None}, "d": {}}}) == 3
    assert logged({"callbacks": {}}) == 0
    assert logged({}) == -1
    saving = SaveCheckpoint(1, "unused")
    saving.acted = 4700
    assert logged({"callbacks": {"a": {"acted": 4000}, "saving": saving.state_dict()}}) == 4


# ------------------------------------------------------------------------------------------------------------ signals


def test_a_signal_is_heeded_at_the_next_turn_and_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    signals = Signals()
    signals.listen(1)
    assert signals.agreed() is None
    assert signals.agreed("late") == "late"
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.agreed("late") == signal.SIGTERM
    signals.restore()
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_ignored_hangup_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        signals = Signals()
        signals.listen(1)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        signals.restore()
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGUSR1", 138)])
def test_exit_codes_are_the_shells(name, code):
    interrupted = Interrupted(getattr(signal, name), 12.5, "outputs/it is", True)
    assert interrupted.code == code
    assert (
        str(interrupted)
        == f"ended by {name} at 12.5 kimg; all is saved. To go on:\n  python -m ganlab 'resume=outputs/it is'"
    )


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """A stand-in for SLURM's command that writes down what it was asked."""
    script = tmp_path / "scontrol"
    script.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    return tmp_path / "asked"


def test_slurm_is_asked_to_run_the_job_again_if_it_then_goes_on(scontrol, monkeypatch):
    asked = Interrupted(signal.SIGUSR1)
    assert "requeued as job 17" in requeue(asked, "auto")
    assert scontrol.read_text() == "requeue 17\n"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "18")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    requeue(asked, "auto")
    assert scontrol.read_text() == "requeue 18_3\n"
    scontrol.unlink()
    assert "would begin anew" in requeue(asked, None)
    assert requeue(Interrupted(signal.SIGTERM), "auto") is None
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3; rm")
    assert "no number" in requeue(asked, "auto")
    assert not scontrol.exists()
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    with mock.patch("subprocess.run", side_effect=OSError("not there")):
        assert "failed: not there" in requeue(asked, "auto")
