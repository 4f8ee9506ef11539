"""python -m ganlab.search search=lr_r1 model=dcgan data=mnist +terms=[r1]: better values of any keys, found by Optuna.

Each trial is an ordinary run in a process of its own. Start the command several times, and the workers share the
search: each holds the lock of the trial that it works on, for as long as it lives, and first takes up those that
others left behind.
"""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import yaml
from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from ganlab.conf import CONF
from ganlab.entry import run
from ganlab.ranks import leave
from ganlab.resume import key_of
from ganlab.space import Space, split

GIVEN: list[str] = []  # what the command line says of the runs
OURS = {"seed": "give seeds=[...]", "resume": "the same command goes on"}
POLL = 0.3  # seconds between two looks at a run
Point = Mapping[str, Any]


class RunFailed(Exception):
    """A run of a trial ended with an error."""


def main() -> None:
    sys.argv[1:], GIVEN[:] = divided(sys.argv[1:])
    leave()  # tasks of one SLURM job are workers
    composed()


def divided(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """(what is of the search, overrides of its runs)"""
    keys = {"search", *yaml.safe_load((Path(CONF) / "search.yaml").read_text())}
    flags: list[str] = []
    own: list[str] = []
    runs: list[str] = []
    for before, argument in zip(["", *arguments], arguments):
        flag = argument.startswith("-") or before in ("--config-dir", "-cd")
        key = argument.lstrip("+~").partition("=")[0].split(".")[0]
        (flags if flag else own if key in keys else runs).append(argument)
    return [*flags, *own], runs


@hydra.main(version_base="1.3", config_path=CONF, config_name="search")
def composed(cfg: DictConfig) -> None:
    from ganlab.signals import Ending, Interrupted, requeue

    ending = Ending()
    try:
        with ending:
            run(cfg, search)
    except Exception:
        if ending.asked is None:
            raise
        interrupted = Interrupted(ending.asked)  # SQLAlchemy makes others of it
        told = [f"\n{interrupted}; all is saved: the same command goes on", requeue(interrupted, "auto")]
        print(*filter(None, told), sep="\n", file=sys.stderr)
        sys.exit(interrupted.code)


def search(
    space: Mapping[str, str], trials: int, seeds: Sequence[int], prune: bool, startup: int, warmup: float | None,
    seed_of_search: int, output: str, storage: str | None,
) -> None:  # fmt: skip
    """Tries points until there are `trials` of them, then writes the table and the plots.

    Raises:
        ValueError: what is asked can't work, or the first runs fail
    """
    from ganlab.limits import check_arguments

    check_arguments("", locals(), search)
    try:
        import matplotlib  # noqa: F401
        import optuna
    except ModuleNotFoundError as error:
        raise ValueError(f'ganlab.search needs {error.name}: pip install "ganlab[search]"') from None
    import numpy as np

    from ganlab.findings import told
    from ganlab.launch import own_gpus

    if not seeds:
        raise ValueError("seeds=[]: name one at least")
    fixed, dimensions, written = split([*(f"{key}={values}" for key, values in space.items()), *GIVEN])
    if taken_over := [key for key in OURS if key in dimensions or any(key_of(o) == key for o in fixed)]:
        raise ValueError(f"{taken_over[0]} is what the search sets in each run: {OURS[taken_over[0]]}")
    if not dimensions:
        raise ValueError(
            "nothing is searched: choose a space (search=lr_r1), or give a key several values, as in "
            "'optimizer.lr=tag(log,interval(1e-5,1e-3))'"
        )
    settings, evaluate = checked(fixed, dimensions, seeds[0])
    if "CUDA_VISIBLE_DEVICES" not in os.environ:
        own_gpus(settings["trainer"])
    folder = Path(output).absolute()
    about = {"runs": fixed, "space": written, "seeds": list(seeds), "score": evaluate.monitored}
    study = opened(folder, storage, about, evaluate.lower_is_better)
    kept = math.ceil(0.4 * settings["max_kimg"] if warmup is None else warmup)
    study.pruner = optuna.pruners.MedianPruner(startup, kept) if prune else optuna.pruners.NopPruner()
    for trial in taken(study, folder, trials):
        mixed = int(np.random.SeedSequence((seed_of_search, trial.number)).generate_state(1)[0])
        study.sampler = optuna.samplers.TPESampler(seed=mixed, n_startup_trials=startup)
        point = {key: dimension.suggested(trial, key) for key, dimension in dimensions.items()}
        say = lambda words, number=trial.number: print(f"{number:04d}  {words}", flush=True)
        say(" ".join(f"{key}={value}" for key, value in point.items()))
        try:
            value = valued(trial, point, fixed, seeds, folder, evaluate, settings["max_kimg"])
            study.tell(trial, value)
            say(f"{evaluate.monitored} {value:.4g}, best so far {study.best_value:.4g}")
        except optuna.TrialPruned as pruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            say(str(pruned))
        except RunFailed as failed:
            trial.set_user_attr("failed", str(failed))
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)  # of what it calls failed, Optuna learns nothing
            say(f"failed: {failed}")
            ended = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
            if len(ended) > 2 and all("failed" in t.user_attrs for t in ended):  # with whomever
                raise ValueError("the first three trials failed, so the search ends") from None
    told(study, folder, evaluate.monitored, [*config_dirs(), *fixed, f"seed={seeds[0]}"])


def checked(fixed: Sequence[str], space: Space, seed: int) -> tuple[dict[str, Any], Any]:
    """(settings of a run, what scores it): composes and prepares runs with each choice and both ends of intervals.

    Raises:
        ValueError: what such a run refuses, or the points' scores can't be compared
    """
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    import ganlab.train  # noqa: F401  the resolvers of its configs
    from ganlab.callbacks.evaluate import Evaluate
    from ganlab.settings import callbacks_and_loggers, prepare

    found: dict[str, tuple[dict[str, Any], Any]] = {}
    for i in range(max(len(dimension.values) for dimension in space.values())):
        point = {key: dimension.values[i % len(dimension.values)] for key, dimension in space.items()}
        overrides = of_run(fixed, point, seed)
        try:
            cfg = hydra.compose("train", [*overrides, "hydra.run.dir=unused"], return_hydra_config=True)
        except HydraException as error:
            hint = "; a term comes with +terms=[NAME]" if "override 'terms." in str(error) else ""
            raise ValueError(f"{' '.join(str(error).split())}{hint}") from None
        cfg.hydra.runtime.output_dir = "unused"
        HydraConfig.instance().set_config(cfg)
        plain: Any = OmegaConf.to_container(cfg)
        job = OmegaConf.create({key: node for key, node in plain.items() if key != "hydra"})
        OmegaConf.set_struct(job, True)
        settings = prepare(job, overrides)
        for callback in callbacks_and_loggers(settings)[0]:
            if isinstance(callback, Evaluate):
                found[callback.monitored] = settings, callback
    if len(found) != 1:
        told = f"the space has several: {', '.join(found)}" if found else "there is none (metrics.enabled=false)"
        raise ValueError(f"a search needs one score to go by, and {told}")
    return next(iter(found.values()))


def of_run(fixed: Sequence[str], point: Point, seed: int) -> list[str]:
    """The overrides of a run."""
    return [*fixed, *(f"{key}={value}" for key, value in point.items()), f"seed={seed}"]


def config_dirs() -> list[str]:
    """The user's own, as a run's command names them."""
    sources = HydraConfig.get().runtime.config_sources
    return [part for s in sources if s.provider == "command-line" for part in ("--config-dir", s.path)]


def opened(folder: Path, storage: str | None, about: Mapping[str, Any], lower_is_better: bool) -> Any:
    """The study that belongs to this folder, begun or gone on with.

    Raises:
        ValueError: the folder has another search, or the storage can't be reached
    """
    import uuid

    import optuna
    import sqlalchemy

    from ganlab.files import write_text

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "search.json"
    with FileLock(folder / "study.lock"):
        begun = json.loads(path.read_text()) if path.exists() else {"study": uuid.uuid4().hex, **about}
        if differing := [f"{k} was {begun[k]} and is {v} now" for k, v in about.items() if begun[k] != v]:
            raise ValueError(f"output={folder} has another search, choose another: {'; '.join(differing)}")
        try:
            study = optuna.create_study(
                study_name=begun["study"], storage=storage or f"sqlite:///{folder}/study.db", load_if_exists=True,
                direction="minimize" if lower_is_better else "maximize",
            )  # fmt: skip
        except (ImportError, sqlalchemy.exc.SQLAlchemyError) as error:
            raise ValueError(f"storage: {str(error).splitlines()[0]}") from None
        if path.exists() and not study.get_trials(deepcopy=False) and any(folder.glob("[0-9]*")):
            raise ValueError(f"storage: has nothing of the trials in {folder}; give the same as before")
        write_text(path, json.dumps(begun, indent=1))
    return study


# ------------------------------------------------------------------------------------------------------------- trials


def taken(study: Any, folder: Path, trials: int) -> Iterator[Any]:
    """Trials for this worker, one after the other, each while its lock is held: those that others left behind, then new
    ones. Ends when all have ended, with whomever."""
    from optuna.trial import Trial, TrialState

    running = lambda: {t.number: t._trial_id for t in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))}
    while True:
        with FileLock(folder / "study.lock"):
            trial, begun = None, running()
            for number, known in begun.items():
                if (lock := free(folder / f"{number:04d}.lock")) is not None:
                    if number in running():  # it may just have ended
                        trial = Trial(study, known)
                        break
                    lock.release()
            if trial is None and len(study.get_trials(deepcopy=False)) < trials:
                trial = study.ask()
                lock = free(folder / f"{trial.number:04d}.lock")
        if trial is not None and lock is not None:
            yield trial
            lock.release()
        elif begun or trial is not None:  # others work on them, or hold the lock of the new one
            time.sleep(POLL)
        else:
            return


def free(path: Path) -> FileLock | None:
    """A lock, held; None if another process holds it."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def valued(
    trial: Any, point: Point, fixed: Sequence[str], seeds: Sequence[int], folder: Path, evaluate: Any, max_kimg: float
) -> float:  # fmt: skip
    """The mean over seeds of a point's best scores. The first seed's curve decides, up to its last score, whether it is
    worth going on.

    Raises:
        RunFailed: a run did
        TrialPruned: its score lies behind
    """
    import optuna

    known = list(trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values)  # of an earlier worker
    best = []
    for seed in seeds:
        place = folder / f"{trial.number:04d}" / (f"seed_{seed}" if len(seeds) > 1 else "")

        def behind(place: Path = place, first: bool = seed == seeds[0]) -> bool:
            new = history(place)[len(known) :] if first else []
            for entry in new:
                known.append((len(known) + 1) * evaluate.every)  # kimg, the same for all
                trial.report(entry[evaluate.monitored], known[-1])
            return bool(new) and known[-1] < max_kimg and trial.should_prune()

        result = trained(of_run(fixed, point, seed), place, behind)
        if result is None:
            raise optuna.TrialPruned(f"stopped at {known[-1]:g} kimg, behind the median of the others")
        if not math.isfinite(result.get("best", math.nan)):
            raise RunFailed(f"{place} has no finite score")
        protocol = trial.study.user_attrs.get("protocol", result["protocol_id"])
        if result["protocol_id"] != protocol:
            raise RunFailed(f"{place} was scored by another protocol than the others, and can't be compared with them")
        trial.study.set_user_attr("protocol", protocol)
        best.append(result["best"])
    return sum(best) / len(best)


def trained(overrides: Sequence[str], place: Path, behind: Callable[[], bool]) -> dict[str, Any] | None:
    """The result of a run, begun, gone on with, or ended long ago; None: it was stopped, as `behind` says.

    Raises:
        RunFailed: it ended with an error
    """
    place.mkdir(parents=True, exist_ok=True)
    while (alone := free(place / ".lock")) is None:  # the run of a worker that was killed goes on without it
        behind()
        time.sleep(POLL)
    alone.release()
    if not (place / "result.json").exists():
        command = [sys.executable, "-m", "ganlab", *config_dirs(), *overrides, f"hydra.run.dir={place}", "resume=auto"]
        with open(place / "output.log", "ab") as log:
            training = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            stopped = False
            while not stopped and training.poll() is None:
                time.sleep(POLL)
                stopped = behind()
        finally:  # also when this worker is told to end
            if training.poll() is None:
                training.terminate()  # it saves
                training.wait()
        if not (place / "result.json").exists():
            if stopped:
                return None
            words = (place / "output.log").read_text(errors="replace").strip().splitlines() or ["no word"]
            raise RunFailed(f"{words[-1][:500]} (all of it: {place / 'output.log'})")
    behind()
    return json.loads((place / "result.json").read_text())


def history(place: Path) -> list[dict[str, float]]:
    """The scores of a run so far."""
    try:
        return json.loads((place / "scores.json").read_text())["history"]
    except FileNotFoundError:
        return []


if __name__ == "__main__":
    main()
