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
    dropout: float = 0.0, freeze: Sequence[str] = (),
) -> None:  # fmt: skip
    """Changes a network in place.

    init       of the weights of all linear and convolutional layers and embeddings; None: as the network made them
    spectral   spectral norm on all of those layers that have none (Miyato et al. 2018, arXiv:1802.05957)
    dropout    probability with which an output of such a layer becomes 0 in training; the last layer's do not
    freeze     beginnings of the names of parameters that are not to move (Mo et al. 2020, arXiv:2002.10964)

    Raises:
        ValueError: there is no such initialisation, probability or parameter
    """
    if init is not None and init not in INITS:
        raise ValueError(f"networks.*.init={init!r}: must be null or one of {', '.join(INITS)}")
    if not 0 <= dropout < 1:
        raise ValueError(f"networks.*.dropout={dropout}: a probability, at least 0 and below 1")
    if init is not None:
        for layer in net.modules():
            if isinstance(layer, (*LAYERS, nn.Embedding)):
                with torch.no_grad():
                    weight = torch.empty_like(layer.weight)
                    INITS[init](weight)
                    layer.weight = weight if parametrize.is_parametrized(layer, "weight") else nn.Parameter(weight)
    if spectral:
        normalise(net)
    if dropout:
        for layer in [layer for layer in net.modules() if isinstance(layer, LAYERS)][:-1]:
            layer.register_forward_hook(Dropped(dropout))
    for start in freeze:
        chosen = [p for name, p in net.named_parameters() if name == start or name.startswith(f"{start}.")]
        if not chosen:
            parts = ", ".join(dict.fromkeys(name.split(".")[0] for name, _ in net.named_parameters()))
            raise ValueError(f"networks.*.freeze: no parameter's name begins with {start}; there are {parts}")
        for p in chosen:
            p.requires_grad_(False)


def normalise(net: nn.Module) -> None:
    """Spectral norm on every linear and convolutional layer and embedding that has none."""
    for layer in list(net.modules()):
        if isinstance(layer, (*LAYERS, nn.Embedding)) and not parametrize.is_parametrized(layer, "weight"):
            spectral_norm(layer)


class Dropped:
    """A forward hook that drops outputs in training; maps lose whole channels."""

    def __init__(self, probability: float):
        self.probability = probability

    def __call__(self, layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        drop = F.dropout2d if output.dim() == 4 else F.dropout
        return drop(output, self.probability, layer.training)


def take_over(gan: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Gives G, D and G_ema the weights of an earlier game where name and shape are the same. Returns what is new or
    does not fit, one line each."""
    own = {k: v for k, v in gan.state_dict().items() if k.split(".")[0] in ("G", "D", "G_ema")}
    fitting = {k: state[k] for k, v in own.items() if k in state and state[k].shape == v.shape}
    gan.load_state_dict(fitting, strict=False)
    left = [k for k in own if k not in fitting and not k.startswith("G_ema.")]
    was = lambda k: f"was {list(state[k].shape)} and is {list(own[k].shape)}" if k in state else "is new"
    return [f"{k} {was(k)}" for k in left]
