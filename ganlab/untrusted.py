"""What a file from somebody else may make: objects of ganlab's own and of trusted classes, of plain values."""

import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ganlab.limits import check_arguments


def check_content(content: Mapping[str, Any], told: str) -> None:
    """Checks a checkpoint's content for its form: tensors whose numbers are all there, and of what networks are built
    from, names and numbers where they belong.

    Raises:
        ValueError: begins with `told`
    """
    for name, value in tensors(content):
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            raise ValueError(f"{told}: {name} is no plain tensor")
        if value.numel() * value.element_size() > max(value.untyped_storage().nbytes(), 1 << 20):
            raise ValueError(f"{told}: {name} claims to be larger than the file")
    config, state, clock = content["ganlab"]["config"], content["state_dict"], content.get("clock", {"seen": 0})
    networks = config.get("networks", {}) if isinstance(config, Mapping) else {}
    players = networks.values() if isinstance(networks, Mapping) else [networks]
    if not all(player is None or isinstance(player, Mapping) for player in players):
        raise ValueError(f"{told}: its networks are not described")
    if not isinstance(state, Mapping) or not all(isinstance(key, str) for key in state):
        raise ValueError(f"{told} holds no weights by name")
    if not isinstance(clock, Mapping) or type(clock.get("seen")) not in (int, float):
        raise ValueError(f"{told} does not say how long it was trained")


def tensors(node: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in a checkpoint's content, and where they are."""
    if isinstance(node, Tensor):
        yield path, node
    elif isinstance(node, (Mapping, list, tuple)):
        for key, child in node.items() if isinstance(node, Mapping) else enumerate(node):
            yield from tensors(child, f"{path}.{key}" if path else str(key))


def build(config: Any, allowed: Sequence[str], what: str, objects: Mapping[str, Sequence[str]] | None = None) -> Any:
    """The object that a stored config describes, see `described`.

    objects   {an argument that may be such an object itself, of plain values: the packages of its class}

    Raises:
        ValueError: the config names anything else, or the class can't be called so
    """
    given = config if isinstance(config, Mapping) else {}
    parts = {k: build(given[k], inside, f"{what}.{k}") for k, inside in (objects or {}).items() if given.get(k)}
    kind, arguments = described({k: v for k, v in given.items() if k not in parts} if parts else config, allowed, what)
    try:
        return kind(**arguments, **parts)
    except ValueError:
        raise
    except Exception as error:
        target = config["_target_"][:200]
        raise ValueError(
            f"the checkpoint's {what}, {target}, can't be made of what is stored: {str(error)[:300]}"
        ) from None


def described(config: Any, allowed: Sequence[str], what: str) -> tuple[type, dict[str, Any]]:
    """(class, arguments) of a stored config; such a config is data from somebody else, not trusted.

    Only a class defined in one of the `allowed` packages is accepted, with plain values.

    Raises:
        ValueError: the config names anything else
    """
    if not isinstance(config, Mapping) or not isinstance(config.get("_target_"), str):
        raise ValueError(f"the checkpoint's {what} names no class")
    target = config["_target_"][:200]
    arguments = {k: v for k, v in config.items() if k != "_target_"}
    try:
        simple = plain(arguments) and not any(k.startswith("_") for k in arguments)
    except RecursionError:
        simple = False
    if not simple:
        raise ValueError(f"the checkpoint's {what} ({target}) has arguments that are not plain values")
    inside = lambda module: any(module == p or module.startswith(p + ".") for p in allowed)
    module, _, name = target.rpartition(".")
    refused = ValueError(
        f"the checkpoint's {what} is {target}, which is not ganlab's own. If you trust that package and it is "
        f"installed here, say so: trust=[{target.split('.')[0]}]"
    )
    if not inside(module):
        raise refused
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"the checkpoint's {what} is {target}, which can't be found here: {error}") from None
    if not inspect.isclass(found) or not inside(found.__module__):  # not what merely is imported there
        raise refused
    check_arguments(f"the checkpoint's {what}", arguments, found)
    return found, arguments


def check_room(kind: type, arguments: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Raises RuntimeError if a network is larger than the weights for it, without taking memory for it."""
    try:
        with torch.device("meta"):
            needed = sum(p.numel() for p in kind(**arguments).parameters())
    except Exception:  # its constructor looks at numbers, or fails: in earnest it says why
        return
    have = sum(v.numel() for v in state.values() if isinstance(v, Tensor))
    if needed > have:
        raise RuntimeError(f"it has {needed:,} numbers, and they are {have:,}")


def plain(value: Any) -> bool:
    """Whether it is made of numbers, text, None, lists and dicts alone, with no interpolation and no target in it."""
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and k != "_target_" and plain(v) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(plain, value))
    return value is None or (isinstance(value, (bool, int, float, str)) and "${" not in str(value))
