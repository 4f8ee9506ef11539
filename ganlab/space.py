"""A space of values to search, written as Hydra writes sweeps: key=interval(0,1), key=choice(a,b)."""

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, QuotedString, RangeSweep


class Dimension:
    """The values that one key may have."""

    def __init__(self, override: Override):
        self.written = str(override.input_line).partition("=")[2]
        self.sweep: Any = override.value()

    def suggested(self, trial: Any, key: str) -> Any:
        """A value of this trial's, as one would write it on the command line."""
        sweep = self.sweep
        if isinstance(sweep, ChoiceSweep):
            written = [text(value) for value in sweep.list]
            return trial.suggest_categorical(key, written)
        if isinstance(sweep, RangeSweep):
            numbers = [n for n in (sweep.start, sweep.stop, sweep.step) if n is not None]
            if all(isinstance(n, int) for n in numbers):
                return trial.suggest_int(key, sweep.start, sweep.stop, step=sweep.step or 1)
            return trial.suggest_float(key, sweep.start, sweep.stop, step=sweep.step)
        low, high, log = sweep.start, sweep.end, "log" in sweep.tags
        if isinstance(low, int) and isinstance(high, int):
            return trial.suggest_int(key, low, high, log=log)
        return trial.suggest_float(key, low, high, log=log)

    def ends(self) -> list[Any]:
        """Two of the values, as far apart as can be."""
        if isinstance(self.sweep, ChoiceSweep):
            return [text(self.sweep.list[0]), text(self.sweep.list[-1])]
        return [self.sweep.start, self.sweep.end if isinstance(self.sweep, IntervalSweep) else self.sweep.stop]


def text(value: Any) -> Any:
    """A value of an override as one writes it."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return f"[{','.join(str(text(v)) for v in value)}]"
    return value if isinstance(value, (int, float, str, bool)) else str(value)


def split(overrides: Sequence[str]) -> tuple[list[str], dict[str, Dimension]]:
    """(overrides with one value, {key: its values} of those with several)

    Raises:
        ValueError: nothing is to be searched, or an override can't be read
    """
    fixed, dimensions = [], {}
    for given in overrides:
        try:
            override = OverridesParser.create().parse_override(given)
        except Exception as error:
            raise ValueError(f"{given}: {str(error).splitlines()[0]}") from None
        if not override.is_sweep_override():
            fixed.append(given)
            continue
        dimension = Dimension(override)
        if isinstance(dimension.sweep, (IntervalSweep, RangeSweep)):
            low, high = dimension.ends()
            if not (low is not None and high is not None and low < high):
                raise ValueError(f"{given}: needs a lower and a higher end")
            if "log" in dimension.sweep.tags and low <= 0:
                raise ValueError(f"{given}: log needs a lower end above 0")
        elif not isinstance(dimension.sweep, ChoiceSweep):
            raise ValueError(f"{given}: use interval(low,high), range(low,high,step) or choice(a,b,...)")
        dimensions[str(override.get_key_element())] = dimension
    if not dimensions:
        raise ValueError(
            "nothing is searched: choose a space (search=lr_r1), or give a key several values, as in "
            "'optimizer.lr=tag(log,interval(1e-5,1e-3))'"
        )
    return fixed, dimensions
