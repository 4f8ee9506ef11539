"""What values keys may have: of which kind, from the signatures they are handed to, and in which range, by name."""

import contextlib
import inspect
import math
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from ganlab.files import memory

VAST = 1e12  # beyond, numbers are typing errors


@dataclass(frozen=True)
class Range:
    """Numbers from `low` on, or above it, to `high`, or below it."""

    low: float = -VAST
    high: float = VAST
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        low = value > self.low if self.above else value >= self.low
        return low and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        if self.low > -VAST and self.high < VAST and not (self.above or self.below):
            return f"from {self.low:.15g} to {self.high:.15g}"
        low = f"{'above' if self.above else 'at least'} {self.low:.15g}" if self.low > -VAST else ""
        high = f"{'below' if self.below else 'at most'} {self.high:.15g}" if self.high < VAST else ""
        return " and ".join(filter(None, (low, high))) or f"at most {VAST:g}"

    def whole(self) -> "Range":
        """The whole numbers in it."""
        return Range(math.floor(self.low) + 1 if self.above else math.ceil(self.low), self.high, False, self.below)


POSITIVE, NOT_NEGATIVE, SHARE = Range(0, above=True), Range(0), Range(0, 1)
COUNT, CHANNELS = Range(1, 10**9), Range(1, 1 << 16)

# arguments of ganlab's own classes, and keys, by their last name: where a name is missing, any finite number will do
NAMES = {
    CHANNELS: "width z_dim w_dim code_dim embed shared codes features growth units content motion",
    Range(
        1, 10_000
    ): """depth blocks expansion group pack layers pieces steps n_critic rounds rows columns samples directions
        devices num_nodes patience keep bands kernels ngrams rollouts""",
    Range(0, 10_000): """mapping minibatch_std continuous interpolations styles workers rollbacks preview border
        overlap shuffle startup""",
    COUNT: """classes conditions capacity test count epochs interval strokes splits subsets k k_coverage g_steps n
        labelled modes starts attention tile components length clips hop step frames vocabulary number trials near
        shard""",
    Range(2, 10**9): "n_real subset_size",
    Range(1, 1 << 20): "batch_size micro_batches",
    Range(0.001): "every log_every",  # kimg: a sample
    POSITIVE: """max_kimg stage_kimg clip_norm clip rate temperature sigma epsilon radius scale extent kimg reach probe
        minutes bandwidths pca floor fps speed timeout""",
    NOT_NEGATIVE: """weight start stop fade_kimg half_life ema_half_life ramp eps target weight_decay dampening lambda_k
        continuous_weight beta deviation memory disk standing noise seconds pixels class_weights label
        purge_step trim anneal_kimg ahead warmup""",
    SHARE: """mixing smooth decay share p frequencies alpha gamma momentum jitter thickness peak held_out hide hint""",
    Range(0, 1, below=True): "betas drop dropout hold",
    Range(0, 1, above=True): "top imbalance factor",
    Range(0, 0.5, below=True): "discard",
    Range(0, 1000): "lr",
    Range(1, 4): "channels source_channels",
    Range(2, 1 << 16): "categories",
    Range(2, 255): "map_classes",
    Range(1, 100): "quality",
    Range(0, 255): "palette",
    Range(0, (1 << 16) - 1): "void",
    Range(4, 8192): "size",
    Range(1, 1 << 14): "shapes",
    Range(0, (1 << 32) - 1): "seed seeds seed_of_search",
}
RANGES = {name: limit for limit, names in NAMES.items() for name in names.split()}


class Target:
    """A node with a _target_."""


Keys, Entries, AtLeast2 = Mapping[str, Any], Mapping[str, Mapping[str, Any] | None], Annotated[int, Range(2, 10**9)]
Betas, Accelerator = tuple[float, float], Literal["auto", "cpu", "gpu", "cuda", "mps"]
# fmt: off
_player = {
    "": Keys, ".init": Literal["orthogonal", "normal", "xavier"] | None, ".spectral": bool, ".dropout": float,
    ".freeze": Sequence[str | int],
}
TRAIN: dict[str, Any] = {
    "max_kimg": float, "g_steps": int | None, "seed": int, "resume": str | None, "finetune": str | None,
    "n_critic": int, "micro_batches": int, "clip_norm": float | None, "share_fake": bool, "together": bool | None,
    "adam": Keys, "adam.lr": float, "adam.betas": Betas, "adam.eps": float, "ema_half_life": float, "log_every": float,
    "start": Mapping[str, float], "stop": Mapping[str, float | None], "speed": Keys, "speed.rounds": int,
    "speed.channels_last": bool, "speed.compile": bool, "speed.graph": bool,
    "networks": Keys, **{f"networks.{player}{key}": kind for player in "GD" for key, kind in _player.items()},
    **dict.fromkeys(("data", "optimizer", "metrics", "trainer"), Keys), "task": Target, "ema": Target,
    **dict.fromkeys(("discriminator", "loss", "extractor", "beta2"), Target | None), "generator": Target,
    "lr_schedule": Target | Mapping[str, Target | None] | None,
    **dict.fromkeys(("terms", "augment", "scores", "callbacks", "logger"), Entries), "paths": Mapping[str, str],
    **{f"optimizer.{key}": float for key in ("lr", "eps", "alpha", "momentum", "weight_decay")},
    "optimizer.betas": Betas, "optimizer.G": Target | None, "optimizer.D": Target | None,
    "metrics.enabled": bool, "metrics.every": float, "metrics.n": AtLeast2, "metrics.n_real": int | None,
    "metrics.batch_size": int, "metrics.seed": int, "metrics.monitor": str | None, "trainer.accelerator": Accelerator,
    "trainer.devices": Annotated[int, Range(-1, 10_000)] | str | Sequence[Annotated[int, Range(0)]],
    "trainer.num_nodes": int, "trainer.timeout": float,
    "trainer.strategy": str, "trainer.precision": str | int, "trainer.sync_batchnorm": bool,
    "trainer.deterministic": bool | Literal["warn"] | None, "trainer.benchmark": bool | None,
}
METRICS = ("enabled", "n", "n_real", "batch_size", "seed", "monitor")
EVALUATE: dict[str, Any] = {
    "fakes": str | None, "reals": str | None, "split": Literal["train", "test"] | None, "n": AtLeast2 | None,
    "n_real": int | None, "seeds": Sequence[int], "generator": Literal["G_ema", "G"], "truncation": float | None,
    "standing": int, "batch_size": int, "devices": int, "accelerator": Accelerator, "output": str | None,
    "statistics": str | None, "trust": Sequence[str], "self_test": bool, "data": Keys | None,
    "extractor": Target, "scores": Entries, "seed": int, "speed": Keys, "speed.rounds": int,
}
ANALYZE: dict[str, Any] = {
    "checkpoint": str, "parts": Sequence[str], "output": str | None, "n": int, "seed": int, "n_real": int | None,
    "k": int, "rows": int, "directions": int, "samples": int, "label": int, "reach": float, "columns": int,
    "labelled": int, "batch_size": int, "device": str, "trust": Sequence[str], "data": Keys | None,
    "extractor": Target, "speed": Keys, "speed.rounds": int,
}
BALANCE: dict[str, Any] = {
    "checkpoint": str, "output": str, "seed": int, "report": bool, "test": str | None, "seeds": Sequence[int],
    "steps": int, "columns": Annotated[int, Range(2, 1000)], "batch_size": int, "device": str,
    "trust": Sequence[str], "data": Keys, "speed": Keys, "speed.rounds": int,
}
BASELINE: dict[str, Any] = {
    "kind": Literal["gmm", "kde"], "components": int | Sequence[int], "bandwidths": float | Sequence[float] | None,
    "pca": int | float | None, "floor": float, "seed": int, "rows": int, "columns": int, "data": Keys,
    **{f"metrics.{key}": TRAIN[f"metrics.{key}"] for key in METRICS}, "extractor": Target, "scores": Entries,
    "task": Target, "speed": Keys, "speed.rounds": int,
}
PACK: dict[str, Any] = {
    "output": str, "format": Literal["png", "webp", "jpg", "npy"] | None, "quality": int, "shard": int | None,
    "seed": int, "data": Keys,
}
CHECK: dict[str, Any] = {"output": str | None, "seconds": float, "columns": int, "classes": int}
OPTIMIZER: dict[str, Any] = {
    **dict.fromkeys(("lr", "eps", "alpha", "momentum", "weight_decay", "dampening"), float), "betas": Betas,
    **dict.fromkeys(("fused", "foreach"), bool | None),
    **dict.fromkeys(("amsgrad", "nesterov", "centered", "maximize", "capturable", "differentiable"), bool),
}
LOGGER: dict[str, Any] = {
    **dict.fromkeys(("save_dir", "name", "project", "id", "prefix"), str | None), "version": int | str | None,
    "purge_step": int | None,
    **dict.fromkeys(("default_hp_metric", "offline", "log_graph"), bool),
}
OTHERS = {"torch.optim": OPTIMIZER, "lightning.pytorch": LOGGER}  # of classes that are not ganlab's
# fmt: on


def check_values(settings: Mapping[str, Any], known: Mapping[str, Any], locate: Callable[[str], Any]) -> None:
    """Refuses values of a wrong kind, or out of range. What is still an interpolation is let through.

    known    {key, with dots: its kind}
    locate   a target's name -> what it names, whose arguments' kinds count, where it is ganlab's own

    Raises:
        ValueError: names the key, what was given, and what is allowed
    """
    for key, kind in known.items():
        node: Any = settings
        for part in key.split("."):
            node = node.get(part, Missing) if isinstance(node, Mapping) else Missing
        if node is not Missing:
            check_value(key, node, kind)
    for key, node in settings.items():
        _check_objects(key, node, locate)


Missing: Any = object()


def _check_objects(path: str, node: Any, locate: Callable[[str], Any]) -> None:
    if isinstance(node, (list, tuple)):
        for i, child in enumerate(node):
            _check_objects(f"{path}.{i}", child, locate)
    if not isinstance(node, Mapping):
        return
    if "_target_" in node:
        target = None
        if not isinstance(node["_target_"], str):
            raise ValueError(f"{path}._target_={shown(node['_target_'])}: must be the name of a class")
        with contextlib.suppress(Exception):  # `checks` says what can't be found
            target = locate(node["_target_"])
        if target is not None:
            check_arguments(path, node, target)
        for name, kind in getattr(target, "entries", {}).items():
            given = node.get(name)
            for entry, child in given.items() if isinstance(given, Mapping) else ():
                check_value(f"{path}.{name}.{entry}", child, Keys | None)
                check_arguments(f"{path}.{name}.{entry}", child if isinstance(child, Mapping) else {}, kind)
    for key, child in node.items():
        _check_objects(f"{path}.{key}", child, locate)


def check_arguments(path: str, given: Mapping[str, Any], target: Any) -> None:
    """The same for arguments of a function, or of a class, of ganlab's own."""
    module = getattr(target, "__module__", "")
    kinds = next((kinds for name, kinds in OTHERS.items() if module.startswith(name)), None) or kinds_of(target)
    kinds = {"_partial_": bool, **kinds}
    for key, value in given.items():
        if key in kinds:
            check_value(f"{path}.{key}" if path else key, value, kinds[key])


def kinds_of(target: Any) -> dict[str, Any]:
    """{argument: its annotation} of a function or a class of ganlab's, those that it hands to its bases included."""
    steps = [c for c in target.__mro__ if "__init__" in vars(c)] if inspect.isclass(target) else [target]
    kinds: dict[str, Any] = {}
    for step in steps:
        if getattr(step, "__module__", "").split(".")[0] == "ganlab":
            hints = get_type_hints(step.__init__ if inspect.isclass(step) else step, include_extras=True)
            kinds |= {name: hint for name, hint in hints.items() if kinds.get(name, Any) is Any and name != "return"}
    return kinds


def check_value(key: str, value: Any, kind: Any) -> None:
    """Raises ValueError where the value, or one inside of it, is of another kind or out of its name's range."""
    limit = RANGES.get(key.rsplit(".", 1)[-1], Range())
    of = next((get_args(option)[1] for option in options(kind) if is_kind(option, Mapping) and get_args(option)), None)
    if isinstance(value, Mapping) and "_target_" not in value and of is not None:
        for name, child in value.items():
            if not fits(child, of, limit):
                raise ValueError(f"{key}.{name}={shown(child)}: must be {said(of, limit)}")
    if not fits(value, kind, limit):
        raise ValueError(f"{key}={shown(value)}: must be {said(kind, limit)}")


def options(kind: Any) -> list[Any]:
    """The members of a union."""
    return list(get_args(kind)) if get_origin(kind) in (Union, types.UnionType) else [kind]


def is_kind(kind: Any, of: type) -> bool:
    found = get_origin(kind) or kind
    return inspect.isclass(found) and issubclass(found, of)


def fits(value: Any, kind: Any, limit: Range) -> bool:
    if isinstance(value, str) and "${" in value:
        return True
    return any(_fits(value, option, limit) for option in options(kind))


def _fits(value: Any, kind: Any, limit: Range) -> bool:
    if get_origin(kind) is Annotated:
        return fits(value, get_args(kind)[0], get_args(kind)[1])
    if get_origin(kind) is Literal:
        return any(value == option and type(value) is type(option) for option in get_args(kind))
    if kind is Any or not (inspect.isclass(kind) or get_origin(kind)):
        return True
    if kind is type(None):
        return value is None
    if kind is bool:
        return isinstance(value, bool)
    if kind in (int, float):
        return (
            isinstance(value, (int, kind))
            and not isinstance(value, bool)
            and whole_or_finite(value)
            and limit.holds(value)
        )
    if kind is str:
        return isinstance(value, str)
    inner = [i for i in get_args(kind) if i is not Ellipsis]
    if is_kind(kind, Mapping):
        of = inner[1] if len(inner) == 2 else Any
        return isinstance(value, Mapping) and ("_target_" in value or all(fits(v, of, limit) for v in value.values()))
    if is_kind(kind, Sequence):
        right = len(inner) < 2 or len(value) == len(inner) if isinstance(value, (list, tuple)) else False
        return right and all(fits(child, inner[0] if inner else Any, limit) for child in value)
    if isinstance(value, Mapping):
        return "_target_" in value
    return not isinstance(value, (str, int, float, list, type(None)))


def whole_or_finite(value: float) -> bool:
    return isinstance(value, int) or math.isfinite(value)


def shown(value: Any) -> str:
    """As it is written in yaml, shortened."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def said(kind: Any, limit: Range) -> str:
    """What is allowed, in words."""
    words = [_said(option, limit) for option in options(kind) if option is not type(None)]
    return " or ".join(dict.fromkeys(words + ["null"] * (type(None) in options(kind))))


def _said(kind: Any, limit: Range) -> str:
    if get_origin(kind) is Annotated:
        return _said(get_args(kind)[0], get_args(kind)[1])
    if get_origin(kind) is Literal:
        return " or ".join(map(str, get_args(kind)))
    if kind in (int, float):
        return f"a whole number {limit.whole()}" if kind is int else f"a number {limit}"
    if kind in (bool, str):
        return "true or false" if kind is bool else "text"
    inner = [i for i in get_args(kind) if i is not Ellipsis]
    if is_kind(kind, Mapping):
        return f"names with {said(inner[1], limit)} each" if inner and inner[1] is not Any else "keys with values"
    if is_kind(kind, Sequence):
        more = f", {len(inner)} of them" if len(inner) > 1 else ""
        return f"a list of {said(inner[0], limit)}{more}" if inner and inner[0] is not Any else "a list"
    return "an object with a _target_"


def check_memory(key: str, needed: float, what: str) -> None:
    """Raises ValueError where so many bytes can't be had on this machine."""
    if needed > memory():
        have = memory() / 2**30
        raise ValueError(f"{key}: {what} would take {needed / 2**30:,.0f} GiB, and this machine has {have:,.0f}")
