"""The command line as users have it: whole processes, their exit codes and what they leave behind."""

import csv
import json
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from ganlab import load

ROOT = Path(__file__).parent.parent
TINY = ["generator.width=8", "discriminator.width=8", "data.batch_size=32"]
QUIET = ["metrics.enabled=false", "callbacks.samples=null", "logger=csv"]


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory):
    """One cache for all runs: the digits' classifier is trained once."""
    old = os.environ.get("GANLAB_CACHE")
    os.environ["GANLAB_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ.pop("GANLAB_CACHE") if old is None else os.environ.update(GANLAB_CACHE=old)


def ganlab(*arguments, cwd, code=0, module="ganlab", path=ROOT):
    """Runs a command in a new process; returns what it printed."""
    env = os.environ | {"PYTHONPATH": str(path)}
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return done.stdout + done.stderr


# ------------------------------------------------------------------------------------------------------------- one run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short default run: (folder, what it printed)."""
    cwd = tmp_path_factory.mktemp("run")
    text = ganlab(*TINY, "max_kimg=3", "metrics.every=1", "metrics.n=200", "callbacks.samples.every=2", cwd=cwd)
    (folder,) = (cwd / "outputs" / "dcgan-digits").iterdir()
    return folder, text


def test_the_last_words_say_where_everything_is(run):
    folder, text = run
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "done"
    assert result["score"] == "fid200_classifier"
    assert result["kimg"] == pytest.approx(3, abs=0.032)
    assert result["best"] <= result["final"]
    words = {line.split()[0]: line for line in text.splitlines() if line}
    assert f"{result['final']:.4g}" in words["score"]
    assert "held-out images" in words["protocol"]
    assert "s per kimg" in words["trained"]
    assert f"outputs/dcgan-digits/{folder.name}/samples" in words["pictures"]
    assert "best.ckpt" in words["model"]
    assert words["curves"].endswith(f"tensorboard --logdir outputs/dcgan-digits/{folder.name}")


def test_a_run_is_never_written_over(run):
    folder, _ = run
    content = lambda: {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.parent.name != "generated"}
    before = content()
    text = ganlab("max_kimg=1", "seed=7", f"hydra.run.dir={folder}", *QUIET, cwd=folder.parent, code=1)
    assert "already holds a run" in text
    assert content() == before


def test_the_folder_tells_its_own_story(run):
    folder, _ = run
    story = json.loads((folder / "run.json").read_text())
    assert story["command"].startswith("python -m ganlab generator.width=8")
    assert "max_kimg=3" in story["overrides"]
    assert set(story) >= {"started", "git", "versions", "host", "seed", "device", "processes", "threads"}
    assert story["versions"]["torch"] == torch.__version__.split("+")[0]
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["generator"]["shape"] == [1, 16, 16]
    assert config["generator"]["width"] == 8


CURVES = {
    "loss/D/adversarial", "loss/D/r1", "loss/G/adversarial", "D/logit_real", "D/logit_fake", "D/accuracy_real",
    "D/accuracy_fake", "gradient_norm/D", "gradient_norm/G", "lr/D", "lr/G", "speed/sec_per_kimg",
    "score/fid200_classifier",
}  # fmt: skip


def test_curves_are_in_tensorboard_and_in_the_csv_alike(run):
    folder, _ = run
    with open(folder / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) >= CURVES
    events = EventAccumulator(str(folder / "tensorboard"), {"images": 0}).Reload()
    assert set(events.Tags()["scalars"]) >= CURVES
    steps = [e.step for e in events.Scalars("loss/G/adversarial")]
    assert steps == [1, 2, 3]  # kimg
    for name in CURVES:
        in_csv = [float(r[name]) for r in rows if r[name]]
        assert in_csv == pytest.approx([e.value for e in events.Scalars(name)], rel=1e-5)
    assert {"reals", "fakes", "interpolation"} <= set(events.Tags()["images"])


def test_hyperparameters_stand_beside_the_final_score(run):
    folder, _ = run
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert events.Scalars("final/fid200_classifier")[-1].value == pytest.approx(
        json.loads((folder / "result.json").read_text())["final"], rel=1e-5
    )
    content = plugin_data_pb2.HParamsPluginData.FromString(
        events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    ).session_start_info.hparams
    assert content["optimizer.lr"].number_value == 2e-4
    assert content["generator.width"].number_value == 8
    assert content["loss._target_"].string_value == "ganlab.losses.NonSaturating"


def test_pictures_and_checkpoints_are_there_and_safe(run):
    folder, _ = run
    names = {p.name for p in (folder / "samples").iterdir()}
    assert {"reals.png", "fakes_000002.png", "fakes_000003.png", "interpolation_000003.png"} <= names
    for name in ("last", "best"):
        content = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert content["ganlab"]["config"]["generator"]["width"] == 8
    assert content["clock"]["seen"] <= 3008
    history = json.loads((folder / "scores.json").read_text())["history"]
    assert [round(h["kimg"]) for h in history] == [1, 2, 3]


def test_samples_of_a_run(run, tmp_path):
    """By seed and number, in any pieces; a sheet and an interpolation; what it can't do is refused."""
    folder, _ = run
    checkpoint = f"checkpoint={folder / 'checkpoints' / 'best.ckpt'}"
    text = ganlab(checkpoint, "n=6", f"output={tmp_path / 'a'}", cwd=tmp_path, module="ganlab.sample")
    assert "6 samples" in text
    names = {p.name for p in (tmp_path / "a").iterdir()}
    assert names == {f"{i:06d}.png" for i in range(6)} | {"sheet.png", "interpolation.png"}
    from ganlab.sample import sample

    rest = {"classes": None, "truncation": None, "interpolations": 0, "columns": 8, "device": "cpu", "trust": []}
    path = str(folder / "checkpoints" / "best.ckpt")
    sample(path, n=2, start=4, seed=0, output=str(tmp_path / "b"), batch_size=1, **rest)
    assert (tmp_path / "b" / "000005.png").read_bytes() == (tmp_path / "a" / "000005.png").read_bytes()
    sample(path, n=1, start=5, seed=1, output=str(tmp_path / "c"), batch_size=1, **rest)
    assert (tmp_path / "c" / "000005.png").read_bytes() != (tmp_path / "a" / "000005.png").read_bytes()
    for wrong, message in (({"classes": [3]}, "no labels"), ({"truncation": 0}, "must be above 0")):
        with pytest.raises(ValueError, match=message):
            sample(path, n=1, start=0, seed=0, output=None, batch_size=1, **(rest | wrong))


def test_a_run_is_shared(run, tmp_path):
    """The README's command, on the run's folder; its best model comes back, and its scores are on the card."""
    folder, _ = run
    text = ganlab(f"checkpoint={folder}", f"output={tmp_path / 'shared'}", cwd=tmp_path, module="ganlab.export")
    assert "licence   not said" in text
    card = json.loads((tmp_path / "shared" / "card.json").read_text())
    history = json.loads((folder / "scores.json").read_text())["history"]
    best = min(history, key=lambda entry: entry["fid200_classifier"])
    assert card["scores"][0]["scores"] == {"fid200_classifier": best["fid200_classifier"]}
    assert (card["model"], card["kimg"]) == ("dcgan", best["kimg"])
    assert card["data"]["title"] == "Digits train"
    made = [load(place).generate(0, 2) for place in (tmp_path / "shared", folder / "checkpoints" / "best.ckpt")]
    assert torch.equal(*made)


# ----------------------------------------------------------------------------------------------------------- own code

MYGAN = """
import os
import torch
from torch import nn

class Generator(nn.Module):
    def __init__(self, shape, z_dim=8, fail=False):
        super().__init__()
        self.z_dim, self.shape, self.fail = z_dim, shape, fail
        self.net = nn.Linear(z_dim, shape[0] * shape[1] * shape[2])
        self.noise = nn.Dropout(0.2)

    def forward(self, z, truncation=1.0):
        if self.fail and os.environ.get("RANK", "0") != "0":
            raise RuntimeError("mygan broke on purpose")
        return self.net(self.noise(truncation * z)).tanh().view(-1, *self.shape)
"""


@pytest.fixture
def own(tmp_path):
    """A folder with the user's own code and configs, outside of the package."""
    (tmp_path / "mygan.py").write_text(MYGAN)
    (tmp_path / "my_conf" / "model").mkdir(parents=True)
    whole = """
        # @package _global_
        # My own GAN
        generator: {_target_: mygan.Generator, shape: "${data.shape}", z_dim: 8, fail: false}
        discriminator: {_target_: ganlab.models.dcgan.Discriminator, shape: "${data.shape}", width: 8, norm: none}
        n_critic: 2
    """
    (tmp_path / "my_conf" / "model" / "mine.yaml").write_text(textwrap.dedent(whole))
    return tmp_path


def test_own_code_in_a_sweep_on_two_devices_with_a_failing_run(own):
    """One tree, a folder and a process group for each run; the failing run disturbs no other and is in the table; the
    exit code tells."""
    text = ganlab(
        "--config-dir", "my_conf", "-m", "model=mine", "optimizer.lr=1e-3,2e-3", "generator.fail=true,false",
        "trainer.devices=2", "max_kimg=0.64", "metrics.n=100", "hydra.sweep.dir=sweep", "callbacks.samples=null",
        cwd=own, code=1,
    )  # fmt: skip
    assert "mygan broke on purpose" in text
    assert "2 of 4 runs failed: 0, 2" in text
    assert sorted(p.name for p in (own / "sweep").iterdir()) == ["0", "1", "2", "3", "multirun.yaml", "sweep.csv"]
    assert not (own / "multirun").exists()
    assert not (own / "outputs").exists()
    with open(own / "sweep" / "sweep.csv") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert [row["status"] for row in rows.values()] == ["done", "done", "failed", "failed"]
    assert [rows[r]["optimizer.lr"] for r in "0123"] == ["0.001", "0.001", "0.002", "0.002"]
    assert "mygan broke on purpose" in rows["0"]["error"]
    for run, lr in (("1", 1e-3), ("3", 2e-3)):  # each run had its own learning rate, and two processes
        content = torch.load(own / "sweep" / run / "checkpoints" / "last.ckpt", weights_only=True)
        assert [g["lr"] for state in content["optimizer_states"] for g in state["param_groups"]] == [lr, lr]
        assert json.loads((own / "sweep" / run / "run.json").read_text())["processes"] == 2
    groups = {json.loads((own / "sweep" / run / "run.json").read_text())["group"] for run in "13"}
    assert len(groups) == 2
    best = min(float(rows[r]["best"]) for r in "13")
    assert float(next(iter(rows.values()))["best"]) == best

    finished = (own / "sweep" / "1" / "result.json").read_bytes()  # the same once more: nothing is written over
    text = ganlab(
        "--config-dir", "my_conf", "-m", "model=mine", "seed=5,6", "max_kimg=0.1", "hydra.sweep.dir=sweep", *QUIET,
        cwd=own, code=1,
    )  # fmt: skip
    assert "already holds a run" in text
    assert (own / "sweep" / "1" / "result.json").read_bytes() == finished


def test_own_code_resumes_bit_for_bit_in_a_new_process_and_is_sampled_by_trust(own):
    """10 rounds, then 10 more in a new process, equal 20 rounds; with dropout, lazy R1 and an average."""
    search = f"hydra.searchpath=[file://{own / 'my_conf'}]"
    common = [search, "model=mine", "data.batch_size=64", "lr_schedule=linear", "lr_schedule.stop=2", *QUIET]
    elsewhere = own / "elsewhere"
    elsewhere.mkdir()
    path = f"{ROOT}{os.pathsep}{own}"
    ganlab(*common, "max_kimg=1.28", "hydra.run.dir=whole", cwd=elsewhere, path=path)
    ganlab(*common, "max_kimg=0.64", "hydra.run.dir=half", cwd=elsewhere, path=path)
    ganlab(*common, "max_kimg=1.28", "hydra.run.dir=rest", "resume=half", cwd=elsewhere, path=path)
    whole, rest = (
        torch.load(elsewhere / d / "checkpoints" / "last.ckpt", weights_only=True) for d in ("whole", "rest")
    )
    assert whole["clock"]["rounds"] == rest["clock"]["rounds"] == 20
    for name, value in whole["state_dict"].items():
        other = rest["state_dict"][name]
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, name
    for one, other in zip(whole["optimizer_states"], rest["optimizer_states"], strict=True):
        for key, state in one["state"].items():
            assert all(torch.equal(v, other["state"][key][k]) for k, v in state.items())

    text = ganlab(*common, "resume=half", "optimizer.lr=3e-4", "n_critic=1", cwd=elsewhere, path=path, code=1)
    assert "optimizer.lr was 0.0002 and is 0.0003 now" in text
    assert "n_critic was 2 and is 1 now" in text

    checkpoint = f"checkpoint={elsewhere / 'rest' / 'checkpoints' / 'last.ckpt'}"
    text = ganlab(checkpoint, "n=2", cwd=own, module="ganlab.sample", code=1)
    assert "trust=[mygan]" in text
    ganlab(checkpoint, "n=2", "trust=[mygan]", "truncation=0.5", cwd=own, module="ganlab.sample")
    assert (elsewhere / "rest" / "generated" / "last_seed_0_truncation_0.5" / "sheet.png").exists()


def test_own_options_are_in_the_help(own):
    text = ganlab("--help", "--config-dir", "my_conf", cwd=own)
    assert "My own GAN" in text
    assert "DCGAN (Radford et al. 2016)" in text


def test_unknown_key_in_own_yaml_is_refused(own):
    path = own / "my_conf" / "model" / "mine.yaml"
    path.write_text(path.read_text() + "\nn_critics: 3\n")
    text = ganlab("--config-dir", "my_conf", "model=mine", cwd=own, code=1)
    assert "n_critics: there is no such key; did you mean n_critic?" in text
    assert "Traceback" not in text


# ------------------------------------------------------------------------------------------------- devices, installing


def cifar(folder):
    rows = np.random.default_rng(0).integers(0, 256, (20, 3073), np.uint8)
    rows[:, 0] %= 10
    for i in range(1, 6):
        rows.tofile(folder / f"data_batch_{i}.bin")


def test_the_main_command_on_two_processes(tmp_path):
    cifar(tmp_path)
    ganlab(
        "model=dcgan", "data=cifar10", "trainer.devices=2", "trainer.accelerator=cpu", f"data.root={tmp_path}",
        "max_kimg=0.3", "extractor=pixels", "data.size=16", "data.channels=1", "metrics.n=50", "hydra.run.dir=run",
        *TINY,
        cwd=tmp_path,
    )  # fmt: skip
    story, result = (json.loads((tmp_path / "run" / f"{name}.json").read_text()) for name in ("run", "result"))
    assert story["processes"] == 2
    assert story["threads"] == max(1, len(os.sched_getaffinity(0)) // 2)
    assert result["score"] == "fid50_pixels"
    assert result["kimg"] == pytest.approx(0.32)
    text = ganlab(
        "data=cifar10", "trainer.devices=2", "data.batch_size=63", f"data.root={tmp_path}", cwd=tmp_path, code=1
    )
    assert "error: data.batch_size=63" in text
    assert "Traceback" not in text


def test_a_missing_set_is_named_with_all_that_helps(tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    text = ganlab("data=cifar10", f"data.root={tmp_path}", "extractor=pixels", cwd=tmp_path, code=1)
    for part in (
        "https://www.cs.toronto.edu",
        "sha256:c4a38c50",
        str(tmp_path / "cifar-10-binary.tar.gz"),
        "*.bin are enough",
    ):
        assert part in text
    cifar(tmp_path)
    text = ganlab("data=cifar10", f"data.root={tmp_path}", cwd=tmp_path, code=1)
    for part in (
        "weights-inception-2015-12-05-6726825d.pth",
        "github.com/toshas",
        "sha256:6726825d",
        "metrics.enabled=false",
    ):
        assert part in text


def test_an_installed_wheel_works_from_anywhere(own):
    """conf/ travels in the wheel; the user's own code and configs work with it."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "-w", str(own / "dist")], check=True)
    (wheel,) = (own / "dist").glob("*.whl")
    subprocess.run([*pip, "install", str(wheel), "--no-deps", "--target", str(own / "site")], check=True)
    arguments = ["--config-dir", "my_conf", "model=mine", "max_kimg=0.2", "hydra.run.dir=run", *QUIET]
    ganlab(*arguments, cwd=own, path=own / "site")
    code = "import ganlab.conf; print(ganlab.conf.CONF)"
    env = os.environ | {"PYTHONPATH": str(own / "site")}
    shown = subprocess.run([sys.executable, "-c", code], cwd=own, env=env, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == str(own / "site" / "ganlab" / "_conf")
    assert (own / "run" / "checkpoints" / "last.ckpt").exists()


def test_two_processes_resume_bit_for_bit_in_their_own_folder(tmp_path):
    """Begun, stopped and continued in one folder: the weights of an undisturbed run, and curves without a gap."""
    common = [
        "trainer.devices=2",
        "data.batch_size=64",
        "log_every=1",
        "metrics.enabled=false",
        "callbacks.samples=null",
        *TINY[:2],
    ]
    ganlab(*common, "max_kimg=4", "hydra.run.dir=whole", cwd=tmp_path)
    ganlab(*common, "max_kimg=2", "hydra.run.dir=parts", cwd=tmp_path)
    ganlab(*common, "max_kimg=4", "hydra.run.dir=parts", "resume=parts", cwd=tmp_path)
    whole, parts = (
        torch.load(tmp_path / d / "checkpoints" / "last.ckpt", weights_only=True) for d in ("whole", "parts")
    )
    assert whole["clock"]["seen"] == parts["clock"]["seen"] == 4032
    for name, value in whole["state_dict"].items():
        if isinstance(value, torch.Tensor) and "running_" not in name and "num_batches" not in name:
            assert torch.equal(value, parts["state_dict"][name]), name
    texts = {d: (tmp_path / d / "metrics.csv").read_text().splitlines() for d in ("whole", "parts")}
    rows = {d: list(csv.DictReader(text)) for d, text in texts.items()}
    assert [float(r["kimg"]) for r in rows["parts"]][:2] == [float(r["kimg"]) for r in rows["whole"]][:2]
    assert [round(float(r["kimg"])) for r in rows["parts"]] == [1, 2, 3, 4]
    result = json.loads((tmp_path / "parts" / "result.json").read_text())
    assert result["seconds"] / result["kimg"] == pytest.approx(result["sec_per_kimg"], rel=0.05)
    text = ganlab(*common, "max_kimg=5", "hydra.run.dir=whole", "resume=parts", cwd=tmp_path, code=1)
    assert "whole already holds a run" in text  # to go on with a run is not to write over another


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_every_precision_resumes_bit_for_bit(tmp_path, precision):
    """Weights in float64 are put back in float64."""
    common = [*TINY, "metrics.enabled=false", "callbacks.samples=null", f"trainer.precision={precision}", "log_every=1"]
    ganlab(*common, "max_kimg=2", "hydra.run.dir=whole", cwd=tmp_path)
    ganlab(*common, "max_kimg=1", "hydra.run.dir=parts", cwd=tmp_path)
    ganlab("resume=parts", "max_kimg=2", cwd=tmp_path)
    whole, parts = (
        torch.load(tmp_path / d / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for d in ("whole", "parts")
    )
    assert all(torch.equal(value, parts[key]) for key, value in whole.items() if isinstance(value, torch.Tensor))


def test_processes_that_others_started_must_be_as_many_as_asked(tmp_path, monkeypatch):
    """torchrun with another number, or around a sweep, would train independent runs into one folder."""
    for key, value in {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(key, value)
    text = ganlab("max_kimg=1", "hydra.run.dir=run", cwd=tmp_path, code=1)
    assert "2 processes were started" in text
    assert "set trainer.devices=2" in text
    text = ganlab("-m", "seed=1,2", "max_kimg=1", "hydra.sweep.dir=sweep", cwd=tmp_path, code=1)
    assert "start it without torchrun" in text


def test_torchrun(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "ganlab"]
    arguments = ["trainer.devices=2", "trainer.accelerator=cpu", "max_kimg=1", "hydra.run.dir=run", *TINY, *QUIET]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, *arguments], cwd=tmp_path, env=env, check=True, capture_output=True, timeout=300)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["processes"] == 2


def test_runs_that_start_in_the_same_second_have_their_own_folders(tmp_path):
    from ganlab.conf import free_folder

    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(free_folder, [str(tmp_path / "outputs" / "now")] * 20))
    assert len(set(folders)) == 20
    assert str(tmp_path / "outputs" / "now-2") in folders
