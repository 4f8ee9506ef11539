"""Which of a run's processes this one is, as torchrun or SLURM tells; and what was asked of SLURM that can't work."""

import os

STARTERS = ("bash", "interactive")  # names of SLURM jobs in which Lightning takes no notice of SLURM
OF_TASKS = ("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_NNODES", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")


def number(name: str, otherwise: int) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() else otherwise


def by_torchrun() -> bool:
    return "LOCAL_RANK" in os.environ


def by_slurm() -> bool:
    """Whether this is one of several tasks of a SLURM job."""
    return not by_torchrun() and number("SLURM_NTASKS", 1) > 1 and os.environ.get("SLURM_JOB_NAME") not in STARTERS


def started_by_others() -> bool:
    """Whether torchrun, SLURM or the like started this process as one of several."""
    return by_torchrun() or by_slurm()


def world() -> int | None:
    """How many processes others started; None: they did not."""
    return None if not started_by_others() else number("SLURM_NTASKS" if by_slurm() else "WORLD_SIZE", 1)


def rank() -> int:
    """The number of this process in its run; 0 where there is but one."""
    return number("SLURM_PROCID" if by_slurm() else "RANK", 0)


def local_rank() -> int:
    """The same among those of this machine."""
    return number("SLURM_LOCALID" if by_slurm() else "LOCAL_RANK", 0)


def leave() -> None:
    """From now on this task of SLURM's works alone, and what it starts, too."""
    for name in OF_TASKS:
        os.environ.pop(name, None)


def check_slurm(devices: int, nodes: int) -> None:
    """Refuses what does not go with the job that SLURM started.

    devices   processes of the run on each machine

    Raises:
        ValueError: names what to change
    """
    tasks, step = number("SLURM_NTASKS", 1), "SLURM_STEP_ID" in os.environ
    write = f"write #SBATCH --nodes={nodes} --ntasks-per-node={devices} --gres=gpu:{devices}"
    name = os.environ.get("SLURM_JOB_NAME")
    if tasks > 1 and name in STARTERS and step and not by_torchrun():
        raise ValueError(
            f"srun started {tasks} tasks in a job called {name}, in which Lightning takes each for a run of its own: "
            "srun --job-name=gan python -m ganlab ..."
        )
    if not by_slurm():
        return
    if not step:
        raise ValueError(
            f"SLURM gave this job {tasks} tasks, and only one was started: start it with srun python -m ganlab ..., or "
            "ask for one task (#SBATCH --ntasks=1), and ganlab starts its processes itself"
        )
    there, each = number("SLURM_NNODES", 1), number("SLURM_NTASKS_PER_NODE", 0)
    if not each:
        raise ValueError(f"srun started {tasks} tasks, and --ntasks-per-node was not given: {write}")
    if there != nodes:
        fix = f"set trainer.num_nodes={there}, or {write}"
        raise ValueError(f"SLURM gave this job {there} machine(s), and trainer.num_nodes={nodes}: {fix}")
    if each != devices:
        fix = f"set trainer.devices={each}, or {write}"
        raise ValueError(f"SLURM starts {each} task(s) on each machine, and trainer.devices={devices}: {fix}")
