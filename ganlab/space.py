"""A space of values to search, written as Hydra writes sweeps: key=interval(low,high), key=choice(a,b)."""

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override


class Choice:
    """A few values, as one writes them on the command line."""

    def __init__(self, values: Sequence[str]):
        self.values = list(values)

    def suggested(self, trial: Any, key: str) -> str:
        return trial.suggest_categorical(key, self.values)


class Interval:
    """All numbers from the first to the last, or all whole ones if both are whole.

    log   whether each order of magnitude is as likely as any other
    """

    def __init__(self, low: float, high: float, log: bool):
        if not low < high:
            raise ValueError("needs a lower and a higher end")
        if log and low <= 0:
            raise ValueError("log needs a lower end above 0")
        self.values, self.log = [low, high], log

    def suggested(self, trial: Any, key: str) -> float:
        whole = all(isinstance(value, int) for value in self.values)
        return (trial.suggest_int if whole else trial.suggest_float)(key, *self.values, log=self.log)


Space = dict[str, Choice | Interval]


def split(overrides: Sequence[str]) -> tuple[list[str], Space, dict[str, str]]:
    """(overrides with one value, {key: its values} of those with several, {key: how these are written}). A later one
    replaces the values of its key.

    Raises:
        ValueError: one can't be read, or is no range of values
    """
    fixed: list[str] = []
    space: Space = {}
    written: dict[str, str] = {}
    for given in overrides:
        try:
            override = OverridesParser.create().parse_override(given)
            key = override.get_key_element()
            if not override.is_sweep_override():
                fixed.append(given)
                space.pop(key, None), written.pop(key, None)
            else:
                space[key], written[key] = dimension(override), given.partition("=")[2]
        except Exception as error:  # Hydra's have no common base
            raise ValueError(f"{given}: {str(error).splitlines()[0]}") from None
    return fixed, space, written


def dimension(override: Override) -> Choice | Interval:
    sweep: Any = override.value()
    if isinstance(sweep, IntervalSweep) and sweep.start is not None and sweep.end is not None:
        return Interval(sweep.start, sweep.end, "log" in sweep.tags)
    if isinstance(sweep, ChoiceSweep):
        return Choice(list(override.sweep_string_iterator()))
    raise ValueError("use interval(low,high), int(interval(low,high)), tag(log,interval(low,high)) or choice(a,b,...)")
