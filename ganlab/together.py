"""One forward of D over reals and fakes together, where it says the same of them as in two."""

import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils.parametrize import ParametrizationList
from torch.utils._pytree import tree_leaves

from ganlab.phase import Phase, detach, join, opinion, size


class Together:
    """Whether D, in its own phase, looks at both at once; not where somebody asks for its gradient with respect to one
    of them.

    option   None: where that changes nothing but rounding, found out in D's first phase
    """

    def __init__(self, option: bool | None = None):
        self.option = option

    def __call__(self, phase: Phase) -> bool:
        if phase.player != "D" or phase.grad_inputs:
            return False
        if self.option is None:
            self.option = judges_each_alone(phase)
        return self.option


def judges_each_alone(phase: Phase) -> bool:
    """Whether what D says of a sample depends neither on the others (batch norm, minibatch statistics) nor on what it
    was shown before (spectral norm's power iteration) nor on chance (dropout). Tried with a copy of D whose weights are
    moved a little, so that nothing is hidden by a weight of 0."""
    assert phase.D is not None
    if any(isinstance(layer, (_BatchNorm, _DropoutNd, ParametrizationList)) for layer in phase.D.modules()):
        return False  # no need to try
    sides = [detach(phase.shown(side)) for side in ("real", "fake")]
    device = tree_leaves(sides)[0].device
    if (sides[0][1] is None) != (sides[1][1] is None):
        return False
    chance = torch.random.fork_rng([device] if device.type == "cuda" else [])
    exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    with torch.no_grad(), chance, exact, torch.autocast(device.type, enabled=False):
        torch.manual_seed(0)
        D = copy.deepcopy(phase.D)
        for p in D.parameters():
            spread = p.std() if p.numel() > 1 else torch.zeros_like(p)
            p.add_(0.1 * torch.randn_like(p) * torch.where(spread > 0, spread, torch.ones_like(spread)))
        apart = [opinion(D, *side) for side in sides]
        both = opinion(D, *(None if part[0] is None else join(part) for part in zip(*sides, strict=True)))
    first = size(sides[0][0])
    return alike(apart[0], both, slice(0, first)) and alike(apart[1], both, slice(first, None))


def alike(one: Any, both: Any, rows: slice) -> bool:
    """Whether `one` is these rows of `both`, to rounding."""
    pairs = [(a, b) for a, b in zip(tree_leaves(one), tree_leaves(both), strict=True) if isinstance(a, Tensor)]
    return all(
        b.dim() > 0 and a.shape == b[rows].shape and bool(((a - b[rows]).abs() <= 1e-4 * a.abs().max()).all())
        for a, b in pairs
    )
