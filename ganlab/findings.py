"""What a search found: a table of its trials, how much each key matters, and plots."""

import shlex
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from ganlab.files import write_text
from ganlab.report import relative
from ganlab.tables import aligned, as_csv

STATES = ["done", "stopped", "failed"]  # in the order of the table


def told(study: Any, folder: Path, score: str, fixed: Sequence[str]) -> None:
    """Prints all of it, and writes search.csv and the plots into the search's folder.

    fixed   what the command of the best one has besides its values
    """
    rows = table(study, score)
    write_text(folder / "search.csv", as_csv(rows))
    print(f"\n{aligned(rows)}\n")
    print(f"{'table':<11} {relative(str(folder / 'search.csv'))}")
    if rows[0]["state"] != "done":
        return
    if shares := importances(study):
        print(f"{'matters':<11} {', '.join(f'{key} {share:.0%}' for key, share in shares.items())}")
    plot(study, folder / "search.png", score, shares)
    print(f"{'plots':<11} {relative(str(folder / 'search.png'))}")
    print(f"{'curves':<11} tensorboard --logdir {relative(str(folder))}")
    best = [f"{key}={value}" for key, value in study.best_params.items()]
    print(f"{'the best':<11} {shlex.join(['python', '-m', 'ganlab', *fixed, *best])}")


def state(trial: Any) -> str:
    return "failed" if "failed" in trial.user_attrs else STATES[["COMPLETE", "PRUNED", "FAIL"].index(trial.state.name)]


def table(study: Any, score: str) -> list[dict[str, Any]]:
    """One row per trial: the best first, then those that were stopped, the farthest first, then failed ones. kimg is of
    the first seed's run."""
    known = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    sign = 1 if study.direction.name == "MINIMIZE" else -1
    order = lambda t: (STATES.index(state(t)), sign * t.value if state(t) == "done" else -(t.last_step or 0), t.number)
    keys = dict.fromkeys(key for trial in known for key in trial.params)
    return [
        {
            "trial": f"{trial.number:04d}",
            **{key: trial.params.get(key, "") for key in keys},
            score: trial.value if state(trial) == "done" else "",
            "kimg": trial.last_step or "",
            "state": state(trial),
        }
        for trial in sorted(known, key=order)
    ]


def importances(study: Any) -> dict[str, float]:
    """The share of the variance of the ended trials' values that each key explains, by fANOVA; {} if unknown."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    ended = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
    if len({trial.value for trial in ended}) < 2:
        return {}
    return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))


def plot(study: Any, path: Path, score: str, shares: Mapping[str, float]) -> None:
    """Draws the trials' values in their order, their scores over kimg, those that were stopped in grey, and how much
    each key matters."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (history, curves, importance) = pyplot.subplots(1, 3, figsize=(15, 4), layout="constrained")
    better = min if study.direction.name == "MINIMIZE" else max
    ended = []
    for trial in study.get_trials(deepcopy=False):
        points = sorted(trial.intermediate_values.items())
        if trial.state.name == "COMPLETE":
            ended.append(trial)
            curves.plot(*zip(*points), "o-", ms=3, lw=1)
        elif points:
            curves.plot(*zip(*points), "o-", ms=3, lw=1, color="lightgrey", zorder=0)
    numbers, values = [trial.number for trial in ended], [trial.value for trial in ended]
    history.plot(numbers, values, "o")
    history.plot(numbers, list(accumulate(values, better)), drawstyle="steps-post", label="the best so far")
    history.set(xlabel="trial", ylabel=score)
    history.legend()
    curves.set(xlabel="kimg", ylabel=f"{score} (stopped trials: grey)")
    importance.barh(list(shares)[::-1], list(shares.values())[::-1])
    importance.set(xlabel=f"share of the variance of {len(ended)} trials that it explains", xlim=(0, 1))
    for axes in (history, curves):
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
