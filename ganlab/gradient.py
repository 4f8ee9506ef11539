"""Gradients of D's opinion with respect to what it was shown, and of fakes: the only `autograd.grad` in the house."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import reduce
from operator import add

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ganlab.phase import Data, DiscriminatorOutput, full


def input_gradient(output: DiscriminatorOutput, x: Data) -> list[Tensor]:
    """d(sum of all logits)/dx for each tensor of x, itself differentiable, in at least float32.

    The sum runs over samples, patches and sub-discriminators: row i holds sample i's own gradient as long as D does
    not mix samples.
    """
    total = reduce(add, [logits.sum() for logits in tree_leaves(output.logits)])
    gradients = torch.autograd.grad(total, tree_leaves(x), create_graph=True, materialize_grads=True)
    return [full(g) for g in gradients]


def descended(weights: dict[str, Tensor], loss: Tensor, rate: float) -> dict[str, Tensor]:
    """The weights after one gradient step on the loss, differentiable through that step."""
    gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True, materialize_grads=True)
    return {name: w - rate * g for (name, w), g in zip(weights.items(), gradients, strict=True)}


def pullback(y: Tensor, x: Tensor, direction: Tensor) -> Tensor:
    """J^T direction, J being the Jacobian dy/dx; itself differentiable, in at least float32.

    y and direction are alike, the result is like x. Row i belongs to sample i as long as no samples are mixed.
    """
    (gradient,) = torch.autograd.grad((y * direction).sum(), x, create_graph=True)
    return full(gradient)


def squared_norm(gradients: list[Tensor]) -> Tensor:
    """[N]: each sample's squared L2 norm, over all its numbers and all tensors of a tuple."""
    return sum((g.flatten(1).square().sum(1) for g in gradients), torch.zeros((), device=gradients[0].device))


def weighted_sum(parts: Iterable[tuple[float | Tensor, Tensor]]) -> Tensor:
    """The sum of weight * x; a weight of 1 is no operation, which small networks would notice."""
    return reduce(add, [weight * x if isinstance(weight, Tensor) or weight != 1 else x for weight, x in parts])


def clear(optimizer: torch.optim.Optimizer) -> None:
    """No gradients: zero_grad without its hooks, which take longer than that."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = None


@contextmanager
def frozen(parameters: Sequence[Tensor]) -> Iterator[None]:
    """No gradients for these meanwhile; afterwards those that had them have them again."""
    held = [p for p in parameters if p.requires_grad]
    try:
        for p in held:
            p.requires_grad_(False)
        yield
    finally:
        for p in held:
            p.requires_grad_(True)


def without_autocast(device: str) -> AbstractContextManager[None]:
    """What is computed meanwhile is computed in the precision of its inputs."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
