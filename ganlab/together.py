"""One forward of D over reals and fakes together, where it says the same of them as in two."""

from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils.parametrize import ParametrizationList
from torch.utils._pytree import tree_leaves

from ganlab.phase import Phase, detach, join, size


class Together:
    """Whether D, in its own phase, looks at both at once; not where somebody asks for its gradient with respect to one
    of them, or where it is told something with one of them only.

    option   None: where that changes nothing but rounding, tried once for each size of a batch
    """

    def __init__(self, option: bool | None = None):
        self.option = option
        self.found: dict[tuple[int, int], bool] = {}

    def __call__(self, phase: Phase) -> bool:
        if (
            phase.player != "D"
            or phase.grad_inputs
            or (phase.batch.cond is None) != (phase.batch.told_with_real is None)
        ):
            return False
        if self.option is not None:
            return self.option
        sizes = size(phase.real), size(phase.fake)
        if sizes not in self.found:
            self.found[sizes] = judges_each_alone(phase)
        return self.found[sizes]


def judges_each_alone(phase: Phase) -> bool:
    """Whether what D says of a sample depends neither on the others (batch norm, minibatch statistics) nor on what it
    was shown before (spectral norm's power iteration) nor on chance (dropout). Tried with weights that are moved a
    little, so that nothing is hidden by a weight of 0. A D that can't be tried so is no such D."""
    assert phase.D is not None
    if any(isinstance(layer, (_BatchNorm, _DropoutNd, ParametrizationList)) for layer in phase.D.modules()):
        return False  # no need to try
    sides = [detach(phase.shown(side)) for side in ("real", "fake")]
    device = tree_leaves(sides)[0].device
    chance = torch.random.fork_rng([device] if device.type == "cuda" else [])
    exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    with torch.no_grad(), chance, exact, torch.autocast(device.type, enabled=False):
        torch.manual_seed(0)
        state = {name: b.clone() for name, b in phase.D.named_buffers()}
        state |= {name: moved(p) for name, p in phase.D.named_parameters()}
        say = lambda x, cond: functional_call(phase.D, state, (x,) if cond is None else (x, cond))
        try:
            apart = [say(*side) for side in sides]
            both = say(*(None if part[0] is None else join(part) for part in zip(*sides, strict=True)))
        except (RuntimeError, TypeError, ValueError):
            return False
    first = size(sides[0][0])
    return alike(apart[0], both, slice(0, first)) and alike(apart[1], both, slice(first, None))


def moved(p: Tensor) -> Tensor:
    spread = p.std() if p.numel() > 1 else torch.zeros_like(p)
    return p + 0.1 * torch.randn_like(p) * torch.where(spread > 0, spread, torch.ones_like(spread))


def alike(one: Any, both: Any, rows: slice) -> bool:
    """Whether `one` is these rows of `both`, to rounding."""
    pairs = [(a, b) for a, b in zip(tree_leaves(one), tree_leaves(both), strict=True) if isinstance(a, Tensor)]
    return all(
        b.dim() > 0 and a.shape == b[rows].shape and bool(((a - b[rows]).abs() <= 1e-4 * a.abs().max()).all())
        for a, b in pairs
    )
