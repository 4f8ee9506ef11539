"""What can be done to any network before it is trained: another initialisation, spectral norm, dropout, frozen layers,
the weights of an earlier run."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
INITS: dict[str, Callable[[Tensor], Any]] = {
    "orthogonal": nn.init.orthogonal_,  # Saxe et al. 2014, arXiv:1312.6120
    "normal": lambda weight: nn.init.normal_(weight, 0.0, 0.02),
    "xavier": nn.init.xavier_uniform_,
}


def alter(
    net: nn.Module, init: Literal["orthogonal", "normal", "xavier"] | None = None, spectral: bool = False,
    dropout: float = 0.0, freeze: Sequence[str | int] = (), key: str = "networks.*",
) -> None:  # fmt: skip
    """Changes a network in place.

    init       of the weights of all linear and convolutional layers; None: as the network made them
    spectral   spectral norm on all of those layers that have none (Miyato et al. 2018, arXiv:1802.05957)
    dropout    probability with which what such a layer is handed becomes 0 in training; not what the first are handed
    freeze     beginnings of the names of parameters that are not to move (Mo et al. 2020, arXiv:2002.10964)
    key        what a message calls it

    Raises:
        ValueError: there is no such initialisation, probability or parameter, or the network can't be changed so
    """
    if init is not None and init not in INITS:
        raise ValueError(f"{key}.init={init!r}: must be null or one of {', '.join(INITS)}")
    if not isinstance(spectral, bool):
        raise ValueError(f"{key}.spectral={spectral!r}: must be true or false")
    if not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        raise ValueError(f"{key}.dropout={dropout!r}: a probability, at least 0 and below 1")
    for name, asked in (("init", init), ("spectral", spectral), ("dropout", dropout)):
        if asked and any(getattr(layer, "equalized", False) for layer in net.modules()):
            raise ValueError(
                f"{key}.{name}={asked}: this network scales its weights as it uses them; leave it as it is"
            )
        if asked and not layers(net):
            raise ValueError(f"{key}.{name}={asked}: this network has no linear or convolutional layer")
    for layer in layers(net) if init is not None else ():
        with torch.no_grad():
            weight = torch.empty_like(layer.weight)
            INITS[init or ""](weight)
            layer.weight = weight if parametrize.is_parametrized(layer, "weight") else nn.Parameter(weight)
    if spectral:
        normalise(net, key)
    if dropout:
        first = layers(net)[0]
        for layer in layers(net):
            if (type(layer), inputs(layer)) != (type(first), inputs(first)):
                layer.register_forward_pre_hook(Dropped(dropout))
    for start in [freeze] if isinstance(freeze, str) else freeze:
        chosen = [p for name, p in net.named_parameters() if name == start or name.startswith(f"{start}.")]
        if not chosen:
            parts = ", ".join(dict.fromkeys(name.split(".")[0] for name, _ in net.named_parameters()))
            raise ValueError(f"{key}.freeze: no parameter's name begins with {start}; there are {parts}")
        for p in chosen:
            p.requires_grad_(False)
    if freeze and not any(p.requires_grad for p in net.parameters()):
        raise ValueError(f"{key}.freeze={freeze}: nothing is left that could move; to keep a player still, set stop")


def channels_last(net: nn.Module) -> None:
    """Weights and buffers of two-dimensional maps in that memory format; maps follow the weights."""
    for t in (*net.parameters(), *net.buffers()):
        if t.dim() == 4:
            t.data = t.data.contiguous(memory_format=torch.channels_last)


def align(optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Gives what optimizers keep for each weight, as loaded from a file, the weight's memory format: fused ones walk
    through both as they lie in memory, without a look at the format."""
    for optimizer in optimizers:
        for p, kept in optimizer.state.items():
            for name, value in kept.items():
                if isinstance(value, Tensor) and value.shape == p.shape and value.stride() != p.stride():
                    kept[name] = torch.empty_like(p, dtype=value.dtype).copy_(value)


def compile_in_place(gan: Any) -> None:
    """torch.compile for each player that nothing differentiates twice, which it can't do (G_ema stays as it is). State
    and names of parameters do not change.

    Raises:
        ValueError: none is left
    """
    goals = [goal for goal in (gan.loss, *gan.terms.values()) if goal is not None]
    twice = {name for goal in goals for name in goal.differentiates | ({"D"} if goal.grad_inputs else set())}
    if not (left := [name for name in gan.players if name not in twice]):
        raise ValueError("speed.compile=true: terms differentiate both G and D twice, which torch.compile can't: false")
    for name in left:
        getattr(gan, name).compile()


def layers(net: nn.Module) -> list[Any]:
    """All linear and convolutional ones."""
    return [layer for layer in net.modules() if isinstance(layer, LAYERS)]


def inputs(layer: Any) -> int:
    """Features or channels that it is handed."""
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


def normalise(net: nn.Module, key: str = "networks.*") -> None:
    """Spectral norm on every linear and convolutional layer that has none.

    Raises:
        ValueError: a layer begins with zeros
    """
    for name, layer in list(net.named_modules()):
        if isinstance(layer, LAYERS) and not parametrize.is_parametrized(layer, "weight"):
            if not layer.weight.any():
                raise ValueError(f"{key}.spectral=true: {name} begins with zeros, which have no direction to normalise")
            spectral_norm(layer)


class Dropped:
    """A forward pre-hook that drops what a layer is handed in training; maps lose whole channels."""

    def __init__(self, probability: float):
        self.probability = probability

    def __call__(self, layer: nn.Module, inputs: Any) -> Any:
        drop = F.dropout2d if inputs[0].dim() == 4 else F.dropout
        return (drop(inputs[0], self.probability, layer.training), *inputs[1:])


def take_over(gan: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Gives G, D and G_ema the weights of an earlier game where name and shape are the same, with or without spectral
    norm. Returns what is new or does not fit, one line each, and how much was taken over.

    Raises:
        ValueError: nothing fits
    """
    plain = lambda name: name.replace("parametrizations.", "").replace(".original", "")
    old = {plain(k): v for k, v in state.items() if isinstance(v, Tensor)}
    own = {
        k: v for k, v in gan.state_dict().items() if k.split(".")[0] in ("G", "D", "G_ema") and isinstance(v, Tensor)
    }
    fitting = {k: old[plain(k)] for k, v in own.items() if plain(k) in old and old[plain(k)].shape == v.shape}
    if not any(v.dim() > 1 for v in fitting.values()):
        raise ValueError("nothing of that run's networks fits: was it another model?")
    gan.load_state_dict(fitting, strict=False)
    named = [k for k in own if not k.startswith("G_ema.")]
    was = lambda k: f"was {list(old[plain(k)].shape)} and is {list(own[k].shape)}" if plain(k) in old else "is new"
    lines = [f"{k} {was(k)}: begins anew" for k in named if k not in fitting]
    return [*lines, f"{sum(k in fitting for k in named)} of {len(named)} tensors were taken over"]
