"""python -m ganlab.search search=lr_r1 model=dcgan data=mnist: better values of any keys, found by Optuna.

Each trial is an ordinary run in a process of its own. Several workers may share a search: each holds the lock of the
trial that it works on, for as long as it lives, and begins with trials that others left behind.
"""

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import yaml
from filelock import FileLock, Timeout
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig

from ganlab.conf import CONF
from ganlab.entry import run
from ganlab.files import write_text
from ganlab.signals import HEEDED
from ganlab.space import Dimension, split
from ganlab.tables import aligned, as_csv, mean

GIVEN: list[str] = []  # overrides of the runs, from the command line
Point = Mapping[str, Any]


def main() -> None:
    own = {"search", "hydra"} | set(yaml.safe_load((Path(CONF) / "search.yaml").read_text())) - {"defaults"}
    mine = [a for a in sys.argv[1:] if a.startswith("-") or a.lstrip("+~").partition("=")[0].split(".")[0] in own]
    GIVEN[:] = [a for a in sys.argv[1:] if a not in mine]
    sys.argv[1:] = mine
    composed()


@hydra.main(version_base="1.3", config_path=CONF, config_name="search")
def composed(cfg: DictConfig) -> None:
    run(cfg, search)


def search(
    space: Mapping[str, str], trials: int, seeds: Sequence[int], prune: bool, startup: int, warmup: int,
    seed_of_search: int, output: str, storage: str | None,
) -> None:  # fmt: skip
    """Tries points until there are `trials` of them, then writes the table and the plots.

    Raises:
        ValueError: the first run fails, or what is asked can't work
    """
    from ganlab.limits import check_arguments

    check_arguments("", locals(), search)
    try:
        import optuna
    except ModuleNotFoundError:
        raise ValueError('ganlab.search needs Optuna: pip install "ganlab[search]"') from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if not seeds:
        raise ValueError("seeds=[]: name one at least")
    fixed, dimensions = split([*GIVEN, *(f"{key}={values}" for key, values in space.items())])
    lower_is_better, score = checked(fixed, dimensions, seeds[0])
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "runs": fixed,
        "space": {k: v.written for k, v in dimensions.items()},
        "seeds": list(seeds),
        "score": score,
    }
    with FileLock(folder / "study.lock"):
        begun = folder / "search.json"
        if begun.exists() and (then := json.loads(begun.read_text())) != about:
            differing = [f"  {k} was {then.get(k)} and is {v} now" for k, v in about.items() if then.get(k) != v]
            raise ValueError(f"output={output} holds another search; choose another folder:\n" + "\n".join(differing))
        write_text(begun, json.dumps(about, indent=1))
        study = optuna.create_study(
            study_name=folder.name, storage=storage or f"sqlite:///{folder.absolute()}/study.db", load_if_exists=True,
            direction="minimize" if lower_is_better else "maximize",
            pruner=optuna.pruners.MedianPruner(startup, warmup) if prune else optuna.pruners.NopPruner(),
        )  # fmt: skip
    asked = Asked()
    for trial, lock in taken(study, folder, trials):
        with lock:
            study.sampler = optuna.samplers.TPESampler(seed=seed_of_search + trial.number, n_startup_trials=startup)
            point = {key: dimension.suggested(trial, key) for key, dimension in dimensions.items()}
            told = ", ".join(f"{k}={v}" for k, v in point.items())
            print(f"trial {trial.number + 1} of {trials}: {told}", flush=True)
            try:
                value = valued(trial, point, fixed, seeds, folder, score, asked)
                study.tell(trial, value)
                print(f"trial {trial.number + 1}: {score} {value:.4g}, best so far {study.best_value:.4g}", flush=True)
            except optuna.TrialPruned as pruned:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                print(f"trial {trial.number + 1}: {pruned}", flush=True)
            except RunFailed as failed:
                trial.set_user_attr("error", str(failed))
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                print(f"trial {trial.number + 1} failed: {failed}", flush=True)
                if trial.number == 0:
                    raise ValueError(f"the first trial failed, so the search ends: {failed}") from None
    ended(study, folder, score, list(dimensions))


def checked(fixed: Sequence[str], dimensions: Mapping[str, Dimension], seed: int) -> tuple[bool, str]:
    """(whether a lower score is better, its name): composes and prepares a run at both ends of the space.

    Raises:
        ValueError: what such a run refuses
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    import ganlab.train  # noqa: F401  the resolvers of its configs
    from ganlab.callbacks.evaluate import Evaluate
    from ganlab.settings import callbacks_and_loggers, prepare

    given = HydraConfig.get()
    for end in (0, 1):
        point = [f"{key}={dimension.ends()[end]}" for key, dimension in dimensions.items()]
        GlobalHydra.instance().clear()
        with initialize_config_dir(version_base="1.3", config_dir=CONF):
            overrides = [*fixed, *point, f"seed={seed}"]
            try:
                cfg = compose("train", [*overrides, "hydra.run.dir=unused"], return_hydra_config=True)
            except HydraException as error:
                raise ValueError(str(error)) from None
        cfg.hydra.runtime.output_dir = "unused"
        HydraConfig.instance().set_config(cfg)
        plain: Any = OmegaConf.to_container(cfg)
        del plain["hydra"]
        job = OmegaConf.create(plain)
        OmegaConf.set_struct(job, True)
        settings = prepare(job, overrides)
    HydraConfig.instance().cfg = OmegaConf.create({"hydra": given})  # type: ignore[assignment]
    scores = [callback for callback in callbacks_and_loggers(settings)[0] if isinstance(callback, Evaluate)]
    if not scores:
        raise ValueError("metrics.enabled=false: a search needs a score to go by")
    return scores[0].lower_is_better, scores[0].monitored


# ------------------------------------------------------------------------------------------------------------- trials


def taken(study: Any, folder: Path, trials: int) -> Iterator[tuple[Any, FileLock]]:
    """Trials for this worker, one after the other, each with its lock held: first those that a worker left behind."""
    import optuna

    running = (optuna.trial.TrialState.RUNNING,)
    while True:
        with FileLock(folder / "study.lock"):
            for known in study.get_trials(deepcopy=False, states=running):
                if (lock := free(folder, known.number)) is not None:
                    trial = optuna.trial.Trial(study, known._trial_id)
                    break
            else:
                if len(study.get_trials(deepcopy=False)) >= trials:
                    return
                trial = study.ask()
                lock = free(folder, trial.number)
        assert lock is not None, "a new trial is nobody else's"
        yield trial, lock


def free(folder: Path, number: int) -> FileLock | None:
    """The lock of a trial, held; None if another worker holds it."""
    lock = FileLock(folder / f"{number:04d}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


class RunFailed(Exception):
    """A run of a trial ended with an error."""


class Asked:
    """A signal to this worker is its run's: that saves, then both end."""

    def __init__(self) -> None:
        self.number, self.run = 0, None  # type: int, subprocess.Popen[bytes] | None
        for name in HEEDED:
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self.heed)

    def heed(self, number: int, _: Any) -> None:
        self.number = number
        if self.run is None:
            sys.exit(128 + number)
        self.run.send_signal(number)


def valued(
    trial: Any, point: Point, fixed: Sequence[str], seeds: Sequence[int], folder: Path, score: str, asked: Asked
) -> float:  # fmt: skip
    """The mean over seeds of a point's best scores. Only the first seed's curve decides whether it is worth going on.

    Raises:
        RunFailed: a run did
        TrialPruned: its score lies behind
    """
    import optuna

    seen = set(trial.study._storage.get_trial(trial._trial_id).intermediate_values)  # of an earlier worker

    def behind(place: Path) -> bool:
        for entry in history(place):
            if (kimg := round(entry["kimg"])) not in seen:
                seen.add(kimg)
                trial.report(entry[score], kimg)
        return trial.should_prune()

    best = []
    for seed in seeds:
        place = folder / f"{trial.number:04d}" / (f"seed_{seed}" if len(seeds) > 1 else "")
        overrides = [*fixed, *(f"{key}={value}" for key, value in point.items()), f"seed={seed}"]
        ended = trained(overrides, place, behind if seed == seeds[0] else lambda _: False, asked)
        if ended is None:
            raise optuna.TrialPruned(f"stopped at {max(seen)} kimg, behind the median of the others")
        best.append(ended)
    return mean(best)


def trained(
    overrides: Sequence[str], place: Path, behind: Callable[[Path], bool], asked: Asked
) -> float | None:  # fmt: skip
    """The best score of a run, begun, gone on with, or ended long ago; None: it was stopped, as `behind` says.

    Raises:
        RunFailed: it ended with an error, or has no score
    """
    stopped, place = False, place.absolute()
    if not (place / "result.json").exists():
        place.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "ganlab", *overrides, f"hydra.run.dir={place}", "resume=auto"]
        with open(place / "output.log", "ab") as log:
            asked.run = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        while asked.run.poll() is None:
            time.sleep(0.2)
            if not stopped and not asked.number and behind(place):
                stopped = True
                asked.run.terminate()
        code, asked.run = asked.run.returncode, None
        if asked.number:
            sys.exit(128 + asked.number)
        if code and not stopped:
            lines = (place / "output.log").read_text(errors="replace").strip().splitlines() or ["no word"]
            raise RunFailed(f"{lines[-1][:500]} (all of it: {place / 'output.log'})")
    if not (place / "result.json").exists():
        return None
    behind(place)
    best = json.loads((place / "result.json").read_text()).get("best")
    if best is None or not math.isfinite(best):
        raise RunFailed(f"{place} has no finite score")
    return best


def history(place: Path) -> list[dict[str, float]]:
    """The scores of a run so far."""
    try:
        return json.loads((place / "scores.json").read_text())["history"]
    except (OSError, ValueError):
        return []


# -------------------------------------------------------------------------------------------------------------- the end


def ended(study: Any, folder: Path, score: str, keys: Sequence[str]) -> None:
    """Prints and writes the table of all trials, the best first, how much each key matters, and plots of both."""
    rows = []
    for trial in study.get_trials(deepcopy=False):
        state = {"COMPLETE": "done", "PRUNED": "stopped", "FAIL": "failed"}.get(trial.state.name, "running")
        values = {key: trial.params.get(key, "") for key in keys}
        kimg = max(trial.intermediate_values, default="")
        more = {score: trial.value if state == "done" else "", "kimg": kimg, "state": state}
        rows.append({"trial": trial.number + 1, **values, **more, "run": f"{trial.number:04d}"})
    sign = 1 if study.direction.name == "MINIMIZE" else -1
    rows.sort(key=lambda row: (row["state"] != "done", sign * row[score] if row["state"] == "done" else row["trial"]))
    write_text(folder / "search.csv", as_csv(rows))
    print(f"\n{aligned(rows)}\n\ntable   {folder / 'search.csv'}")
    done = [row for row in rows if row["state"] == "done"]
    if len(done) > 1:
        plots(study, folder, score)
    if done:
        best = " ".join(f"{key}={done[0][key]}" for key in keys)
        print(f"curves  tensorboard --logdir {folder}\nbest    {best}")


def plots(study: Any, folder: Path, score: str) -> None:
    """history.png: the trials' values in their order; importance.png: how much of their variance each key explains."""
    import warnings

    import matplotlib
    import optuna

    matplotlib.use("Agg")
    from optuna.visualization import matplotlib as drawn

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = {"history": lambda: drawn.plot_optimization_history(study, target_name=score)}
        if len({key for trial in study.trials for key in trial.params}) > 1:
            made["importance"] = lambda: drawn.plot_param_importances(study)
            shares = optuna.importance.get_param_importances(study)
            print("matters " + ", ".join(f"{key} {share:.0%}" for key, share in shares.items()))
        for name, draw in made.items():
            figure: Any = draw().figure
            figure.savefig(folder / f"{name}.png", dpi=120, bbox_inches="tight")
            matplotlib.pyplot.close(figure)
            print(f"{name:<11} {folder / f'{name}.png'}")


if __name__ == "__main__":
    main()
