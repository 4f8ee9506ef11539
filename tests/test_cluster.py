"""Several machines and many runs: what SLURM and torchrun tell, launchers of sweeps, one GPU for each run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from composing import prepared
from filelock import FileLock

from ganlab import conf, launch, ranks, train

ROOT = Path(__file__).parent.parent
RUN = [
    "model=mlp", "data=toy", "experiment=tiny", "data.batch_size=50", "data.count=500", "logger=csv",
    "callbacks.samples=null", "trainer.accelerator=cpu",
]  # fmt: skip
TASKS = {
    "SLURM_JOB_ID": "1234", "SLURM_JOB_NAME": "gan", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "SLURM_NNODES": "1",
    "SLURM_NTASKS_PER_NODE": "2", "SLURM_NODELIST": "127.0.0.1",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    for name in os.environ:
        if name.startswith("SLURM_") or name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
            monkeypatch.delenv(name)


def slurm(monkeypatch, **changes):
    """The environment of one of srun's tasks. None: it is not there"""
    tasks = TASKS | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"} | changes
    for name, value in tasks.items():
        if value is not None:
            monkeypatch.setenv(name, value)


# --------------------------------------------------------------------------------------------------------- who is who


def test_who_this_process_is(monkeypatch):
    assert (ranks.started_by_others(), ranks.world(), ranks.rank(), ranks.local_rank()) == (False, None, 0, 0)
    slurm(
        monkeypatch, SLURM_NTASKS="8", SLURM_NTASKS_PER_NODE="4", SLURM_NNODES="2", SLURM_PROCID="6", SLURM_LOCALID="2"
    )
    assert (ranks.started_by_others(), ranks.world(), ranks.rank(), ranks.local_rank()) == (True, 8, 6, 2)
    for name, value in {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}.items():  # torchrun in a job of SLURM's
        monkeypatch.setenv(name, value)
    assert (ranks.started_by_others(), ranks.world(), ranks.rank(), ranks.local_rank()) == (True, 4, 3, 1)


@pytest.mark.parametrize("changes", [{"SLURM_NTASKS": "1"}, {"SLURM_JOB_NAME": "interactive", "SLURM_STEP_ID": None}])
def test_a_job_of_one_task_and_a_shell_in_a_job_start_their_processes_themselves(monkeypatch, changes):
    slurm(monkeypatch, **changes)
    assert not ranks.started_by_others()
    assert ranks.rank() == 0
    ranks.check_slurm(4, 1)


@pytest.mark.parametrize(
    ("changes", "devices", "told"),
    [
        ({}, 4, "starts 2 task.* trainer.devices=4: set trainer.devices=2, or .*--ntasks-per-node=4"),
        ({}, 1, "trainer.devices=1: set trainer.devices=2"),
        ({"SLURM_NNODES": "2", "SLURM_NTASKS": "4"}, 2, "2 machine.*num_nodes=1: set trainer.num_nodes=2"),
        ({"SLURM_NTASKS_PER_NODE": None}, 2, "--ntasks-per-node was not given: write #SBATCH --nodes=1"),
        ({"SLURM_STEP_ID": None}, 2, "2 tasks, and only one was started: start it with srun"),
        ({"SLURM_JOB_NAME": "bash"}, 2, "a job called bash, .*--job-name=gan"),
    ],
)
def test_what_does_not_go_with_the_job_is_explained(monkeypatch, changes, devices, told):
    slurm(monkeypatch, **changes)
    with pytest.raises(ValueError, match=told):
        prepared(*RUN, f"trainer.devices={devices}")


def test_a_task_that_leaves_is_alone(monkeypatch):
    slurm(monkeypatch)
    for name in ranks.OF_TASKS:  # what it takes away belongs to the test
        monkeypatch.setenv(name, os.environ[name])
    ranks.leave()
    assert not ranks.started_by_others()
    assert os.environ["SLURM_JOB_ID"] == "1234"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["max_kimg=1"], "hydra.run.dir=outputs/NAME"),
        (["-m", "seed=1,2"], "start it without torchrun or srun"),
        (["-m", "seed=1,2", "hydra/launcher=joblib"], "start it without torchrun or srun"),
    ],
)
def test_commands_that_do_not_go_with_several_tasks(monkeypatch, tmp_path, arguments, told):
    slurm(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ganlab", *RUN, *arguments])
    with pytest.raises(SystemExit, match=told):
        train.main()
    assert not list(tmp_path.rglob("run.json"))


@pytest.mark.parametrize("starter", ["srun", "torchrun"])
def test_a_run_in_several_tasks_is_never_written_over(monkeypatch, tmp_path, starter):
    if starter == "srun":
        slurm(monkeypatch)
    else:
        for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
            monkeypatch.setenv(name, value)
    (tmp_path / "run.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "train", lambda *_: pytest.fail("it was begun"))
    monkeypatch.setattr(sys, "argv", ["ganlab", *RUN, "trainer.devices=2", f"hydra.run.dir={tmp_path}"])
    with pytest.raises(SystemExit, match="already holds a run"):
        train.main()
    assert (tmp_path / "run.json").read_text() == "{}"


def test_launchers_are_for_sweeps_and_say_what_they_need(monkeypatch):
    with pytest.raises(ValueError, match="hydra/launcher=joblib is for sweeps: add -m"):
        conf.check_start(["hydra/launcher=joblib"])
    monkeypatch.setattr(conf, "find_spec", lambda name: None)
    for name, extra in {"joblib": "joblib", "submitit_slurm": "submitit", "submitit_local": "submitit"}.items():
        with pytest.raises(
            ValueError, match=rf'hydra/launcher={name} needs a package: pip install "ganlab\[{extra}\]"'
        ):
            conf.check_start(["-m", f"hydra/launcher={name}"])
    conf.check_start(["-m", "hydra/launcher=basic"])


# ------------------------------------------------------------------------------------------------------ GPUs and places


def of(devices, accelerator="auto"):
    return {"devices": devices, "accelerator": accelerator}


@pytest.fixture
def four_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(launch, "HELD", [])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def taken(folder, devices, monkeypatch):
    """What another process would see."""
    monkeypatch.setattr(launch, "HELD", [])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    launch.own_gpus(of(devices), folder)
    return os.environ["CUDA_VISIBLE_DEVICES"], launch.HELD


def test_no_two_runs_have_the_same_gpu(four_gpus, tmp_path, monkeypatch):
    first, held = taken(tmp_path, 1, monkeypatch)
    second, more = taken(tmp_path, 2, monkeypatch)
    assert (first, second) == ("0", "1,2")
    with pytest.raises(ValueError, match=r"1 of 4 GPUs are not taken by other runs, and trainer.devices=2"):
        taken(tmp_path, 2, monkeypatch)
    third, last = taken(tmp_path, 1, monkeypatch)  # what was refused holds none
    assert third == "3"
    held[0].release()
    assert taken(tmp_path, 1, monkeypatch)[0] == "0"
    assert len(more + last) == 3
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666}  # whoever made it, all may lock it


def test_a_process_keeps_its_gpu_and_is_given_one_of_those_that_it_may_see(four_gpus, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,7")
    other = FileLock(tmp_path / "ganlab-gpu-6.lock")
    other.acquire()
    for _ in range(2):  # a process of joblib's makes several runs
        launch.own_gpus(of(1), tmp_path)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "7"


def test_runs_side_by_side_say_how_many_gpus_they_need(four_gpus, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"trainer.devices=auto: runs side by side need a number"):
        launch.own_gpus(of("auto"), tmp_path)
    launch.own_gpus(of("auto", "cpu"), tmp_path)
    assert [launch.places(devices) for devices in (1, 2, 3, "auto")] == [4, 2, 1, 4]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(launch, "cores", lambda: 9)
    assert launch.places() == 4
    monkeypatch.setattr(launch, "cores", lambda: 1)
    assert launch.places() == 1


# ------------------------------------------------------------------------------------------------------- real processes


def tasks(arguments, cwd, nodes=1, each=2, **more):
    """Starts `nodes` x `each` processes as srun would."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    env |= TASKS | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MASTER_PORT": str(20_000 + os.getpid() % 20_000)}
    env |= {"SLURM_NTASKS": str(nodes * each), "SLURM_NNODES": str(nodes), "SLURM_NTASKS_PER_NODE": str(each), **more}
    started = []
    for i in range(nodes * each):
        place = {"SLURM_PROCID": str(i), "SLURM_NODEID": str(i // each), "SLURM_LOCALID": str(i % each)}
        log = open(Path(cwd) / f"task_{i}.log", "a")  # noqa: SIM115
        command = [sys.executable, "-m", "ganlab", *RUN, *arguments]
        started.append(subprocess.Popen(command, cwd=cwd, env=env | place, stdout=log, stderr=log))
    return started


def ended(started, cwd, code=0):
    codes = [task.wait(300) for task in started]
    assert codes == [code] * len(codes), "".join(path.read_text()[-3000:] for path in Path(cwd).glob("task_*.log"))


@pytest.mark.slow
@pytest.mark.parametrize(("nodes", "each"), [(1, 2), (2, 1)])
def test_tasks_of_slurm_train_together(tmp_path, nodes, each):
    """Two tasks on one machine, and one on each of two (both are this one): one run, as by two processes of its own."""
    (tmp_path / "tasks").mkdir()
    asked = [f"trainer.devices={each}", f"trainer.num_nodes={nodes}", "metrics.enabled=false", "seed=3"]
    ended(tasks([*asked, "hydra.run.dir=run"], tmp_path / "tasks", nodes, each), tmp_path / "tasks")
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "ganlab", *RUN, "trainer.devices=2", "metrics.enabled=false", "seed=3"]
    subprocess.run([*command, "hydra.run.dir=run"], cwd=tmp_path, env=env, check=True, capture_output=True, timeout=300)
    assert json.loads((tmp_path / "tasks" / "run" / "run.json").read_text())["processes"] == 2
    assert [path.name for path in (tmp_path / "tasks").iterdir() if path.is_dir()] == ["run"]
    mine, other = (
        torch.load(path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for path in (tmp_path / "tasks", tmp_path)
    )
    weights = [key for key, value in mine.items() if isinstance(value, torch.Tensor)]
    assert len(weights) > 10
    assert all(torch.equal(mine[key], other[key]) for key in weights)


@pytest.mark.slow
def test_slurms_signal_saves_has_the_job_run_again_and_it_goes_on(tmp_path):
    script = tmp_path / "scontrol"
    script.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    script.chmod(0o755)
    asked = ["trainer.devices=2", "max_kimg=40", "metrics.enabled=false", "hydra.run.dir=run", "resume=auto"]
    more = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    started = tasks(asked, tmp_path, **more)
    curves, until = tmp_path / "run" / "metrics.csv", time.monotonic() + 200
    while not curves.exists() or len(curves.read_text().splitlines()) < 4:
        assert time.monotonic() < until
        time.sleep(0.1)
    for task in started:
        task.send_signal(signal.SIGUSR1)
    ended(started, tmp_path, code=128 + signal.SIGUSR1)
    assert (tmp_path / "asked").read_text() == "requeue 1234\n"
    ended(tasks(asked, tmp_path, **more), tmp_path)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["kimg"] == 40
    assert [row.split(",")[0] for row in curves.read_text().splitlines()[1:]].count("2") <= 1


FAKES = {
    "sbatch": """
cp $1 {folder}/script
number=$(( $(cat {folder}/number 2>/dev/null || echo 0) + 100 ))
echo $number > {folder}/number
for i in $(seq 0 $(grep -oP -- '--array=0-\\K[0-9]+' $1)); do
  SLURM_JOB_ID=$((number + i)) SLURM_ARRAY_JOB_ID=$number SLURM_ARRAY_TASK_ID=$i SLURM_JOB_NAME=ganlab SLURM_NTASKS=1 \\
  SLURM_NNODES=1 SLURM_NTASKS_PER_NODE=1 SLURM_NODEID=0 bash $1 > {folder}/job_$i.log 2>&1 &
done
echo Submitted batch job $number
""",
    "srun": """
while [[ $1 == -* ]]; do if [[ $1 == *=* || $1 == --unbuffered ]]; then shift; else shift 2; fi; done
SLURM_STEP_ID=0 SLURM_PROCID=0 SLURM_LOCALID=0 exec "$@"
""",
    "sacct": "echo 'JobID|State|NodeList'",
}  # of a cluster that runs an array's jobs side by side on this machine


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    folder = tmp_path / "fakes"
    folder.mkdir()
    for name, text in FAKES.items():
        (folder / name).write_text("#!/bin/bash\n" + text.replace("{folder}", str(folder)))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def swept(*arguments, cwd, code=0):
    env = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "ganlab", "-m", *RUN, "metrics.enabled=true", "metrics.n=200", "scores=[fid]"]
    done = subprocess.run([*command, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "submitit_slurm"])
def test_launchers_make_the_runs_of_a_plain_sweep_and_only_those_that_are_not_done(tmp_path, launcher, cluster):
    asked = ["seed=1,2", "generator.width=8,-8", "hydra.sweep.dir=sweep"]  # every second run fails
    swept("seed=1,2", "generator.width=8", "hydra.sweep.dir=plain", cwd=tmp_path)
    text = swept(*asked, f"hydra/launcher={launcher}", cwd=tmp_path, code=1)
    assert "2 of 4 runs failed: 1, 3" in text
    results = [json.loads((tmp_path / "sweep" / i / "result.json").read_text()) for i in "02"]
    plain = [json.loads((tmp_path / "plain" / i / "result.json").read_text()) for i in "01"]
    assert [run["best"] for run in results] == [run["best"] for run in plain]
    if launcher == "submitit_slurm":
        assert "#SBATCH --gpus-per-node=1" in (script := (cluster / "script").read_text())
        assert "#SBATCH --signal=USR2@120" in script
    story = json.loads((tmp_path / "sweep" / "0" / "run.json").read_text())
    assert story["command"].startswith("python -m ganlab -m model=mlp")
    made = lambda: [(tmp_path / "sweep" / i / "result.json").stat().st_mtime_ns for i in "02"]
    before = made()
    assert "2 of 4 runs failed" in swept(*asked, "resume=auto", f"hydra/launcher={launcher}", cwd=tmp_path, code=1)
    assert made() == before
    asked[0] = "seed=4,5"  # another sweep: nothing is written over
    text = swept(*asked, "resume=auto", f"hydra/launcher={launcher}", cwd=tmp_path, code=1)
    assert "4 of 4 runs failed: 0, 1, 2, 3" in text
    assert made() == before
