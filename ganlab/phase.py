"""What the game is played with: a `Batch`, what G and D return, and a `Phase`: one player facing one batch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import register_pytree_node, tree_map

from ganlab.rng import SampleRNG

Data = Any  # a Tensor, or a (nested) tuple of Tensors: two domains, a frame and a clip, ...


@dataclass(frozen=True)
class Batch:
    """One batch as the game sees it."""

    inputs: Data  # what G starts from: noise, a source image, ...
    real: Data  # what G must learn to imitate
    cond: Data = None  # what both players may know of the fakes: a label, a caption, the source image
    real_cond: Data = None  # what D is told with the reals; None: the same as `cond`

    @property
    def told_with_real(self) -> Data:
        return self.cond if self.real_cond is None else self.real_cond


@dataclass(frozen=True)
class GeneratorOutput:
    """What G makes when that is more than the fakes. D and scores see `fake`, terms may read `aux`."""

    fake: Data
    aux: Any = None


@dataclass(frozen=True)
class DiscriminatorOutput:
    """What D says. `logits` is all the game needs; the rest is for the terms that ask for it."""

    logits: Data  # [N, ...], or a list of them, one per sub-discriminator
    features: Any = field(default_factory=list)  # intermediate activations
    aux: Any = None  # class logits, recovered codes, embeddings


for _kind in (Batch, GeneratorOutput, DiscriminatorOutput):  # so that tree_map reaches into them
    register_pytree_node(
        _kind,
        lambda x: ([getattr(x, f.name) for f in fields(x)], type(x)),
        lambda children, kind: kind(*children),
    )


def full(x: Data) -> Data:
    """Raises half precision to float32, for reductions; float64 stays float64."""
    if x is None or isinstance(x, Tensor):
        return x if x is None else raised(x)
    return tree_map(lambda t: raised(t) if isinstance(t, Tensor) else t, x)


def raised(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def mean(x: Tensor) -> Tensor:
    """A scalar, whose mean is itself, stays as it is."""
    return x.mean() if x.dim() else x


def detach(x: Data) -> Data:
    if isinstance(x, Tensor):
        return x.detach()
    return tree_map(lambda t: t.detach() if isinstance(t, Tensor) else t, x)


def one_hot(index: Tensor, count: int, like: Tensor) -> Tensor:
    """[...] -> [..., count] of zeros and a one, in the type of `like`. PyTorch's own looks at the values first, for
    which the device would be waited for."""
    return (index[..., None] == torch.arange(count, device=index.device)).to(like.dtype)


def size(x: Data) -> int:
    """Number of samples."""
    while not isinstance(x, Tensor):  # the first tensor of a batch, or of a tuple
        x = next(iter(x.values() if isinstance(x, Mapping) else x))
    return len(x)


def take(x: Data, rows: slice) -> Data:
    return tree_map(lambda t: t[rows] if isinstance(t, Tensor) and t.dim() else t, x)


def micro(n: int, parts: int) -> list[slice]:
    """n rows in `parts` slices that differ by at most one."""
    edges = [n * i // parts for i in range(parts + 1)]
    return [slice(a, b) for a, b in pairwise(edges) if b > a]


def output_of(G: nn.Module, inputs: Data, cond: Data) -> GeneratorOutput:
    return wrap(G(inputs) if cond is None else G(inputs, cond))


def wrap(output: Any) -> GeneratorOutput:
    return output if isinstance(output, GeneratorOutput) else GeneratorOutput(output)


def opinion(D: nn.Module | None, x: Data, cond: Data = None) -> DiscriminatorOutput:
    assert D is not None, "there is no D in this game"
    output = D(x) if cond is None else D(x, cond)
    if not isinstance(output, DiscriminatorOutput):
        return DiscriminatorOutput(full(output))
    return replace(output, logits=full(output.logits))


def join(parts: Sequence[Data]) -> Data:
    """Concatenates micro-batches; scalars are averaged."""

    def one(*t: Any) -> Any:
        if not isinstance(t[0], Tensor):
            return t[0]
        return torch.cat(t) if t[0].dim() else torch.stack(t).mean()

    return tree_map(one, *parts)


@dataclass(eq=False)
class Phase:
    """One player facing one batch. What is costly is lazy: a loss or a term pays only for what it reads.

    fake       what G makes of the batch; in D's phase without gradient to G
    real       what is real (in some games G has a part in it, so `Task.play` makes both)
    aux        what else G returned
    on_fake    what D says of the fakes, seen through the augmentation
    on_real    what D says of the reals, likewise
    """

    player: str  # "D" or "G": whose move it is
    batch: Batch
    G: nn.Module
    D: nn.Module | None
    play: Callable[[nn.Module, Batch], tuple[Data, Data]]
    augments: Sequence[Callable[[Data, SampleRNG], Data]]  # what D sees everything through
    rng: SampleRNG  # for what belongs to the samples of this batch: the alpha of a penalty, ...
    seen: int = 0  # real samples shown to D before this round, over all devices
    keep_graph: bool = False  # in D's phase: keep G's graph, because G's phase will use the same fakes
    together: Callable[["Phase"], bool] = lambda phase: False  # whether D looks at reals and fakes in one forward
    grad_inputs: frozenset[str] = frozenset()  # of "fake" and "real": what D's phase needs input gradients of

    @cached_property
    def played(self) -> tuple[GeneratorOutput, Data]:
        """What the task made of the batch: G's output and the reals."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and (self.player == "G" or self.keep_graph)):
            fake, real = self.play(self.G, self.batch)
        made = wrap(fake)
        return GeneratorOutput(full(made.fake), full(made.aux)), full(real)

    @cached_property
    def fake(self) -> Data:
        return self._seen_by_player("fake", self.played[0].fake)

    @cached_property
    def real(self) -> Data:
        return self._seen_by_player("real", self.played[1])

    @property
    def aux(self) -> Any:
        return self.played[0].aux

    @cached_property
    def on_fake(self) -> DiscriminatorOutput:
        if self.together(self):
            vars(self)["on_fake"], vars(self)["on_real"] = self.judge_two(self.shown("fake"), self.shown("real"))
            return vars(self)["on_fake"]
        return self.judge(*self.shown("fake"))

    @cached_property
    def on_real(self) -> DiscriminatorOutput:
        if self.together(self):
            vars(self)["on_real"], vars(self)["on_fake"] = self.judge_two(self.shown("real"), self.shown("fake"))
            return vars(self)["on_real"]
        return self.judge(*self.shown("real"))

    def shown(self, side: str) -> tuple[Data, Data]:
        """(what D is shown of "fake" or "real", what it is told with it)"""
        return (self.fake, self.batch.cond) if side == "fake" else (self.real, self.batch.told_with_real)

    def judge(self, x: Data, cond: Data = None) -> DiscriminatorOutput:
        """What D says of x, always through the augmentation, so that G's gradients pass through it too."""
        return opinion(self.D, self.augmented(x), cond)

    def judge_two(self, *sides: tuple[Data, Data]) -> list[DiscriminatorOutput]:
        """The same of several (x, cond), in one forward of D."""
        xs = [self.augmented(x) for x, _ in sides]
        output = opinion(self.D, join(xs), join([cond for _, cond in sides]))
        rows, first = [], 0
        for x in xs:
            rows.append(slice(first, first := first + size(x)))
        return [take(output, part) for part in rows]

    def augmented(self, x: Data) -> Data:
        for augment in self.augments:
            x = augment(x, self.rng)
        return x

    def again(self, **changes: Any) -> "Phase":
        """The same phase played once more with other parts: `again(D=unrolled)`, `again(inputs=z)`."""
        of_batch = {k: changes.pop(k) for k in list(changes) if k in {f.name for f in fields(Batch)}}
        return replace(self, batch=replace(self.batch, **of_batch), **changes)

    def mean(self, x: Tensor) -> Tensor:
        """The mean of x over samples and over all processes."""
        total = full(x.detach()).mean()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(total)
            total /= torch.distributed.get_world_size()
        return total

    @classmethod
    def finished(cls, parts: Sequence["Phase"], rng: SampleRNG) -> "Phase":
        """The micro-batches of one move as one phase without gradient, with what was computed in all of them."""
        whole = replace(parts[0], batch=join([p.batch for p in parts]), rng=rng)
        for name in ("played", "fake", "real", "on_fake", "on_real"):
            if all(name in vars(p) for p in parts):
                vars(whole)[name] = join([detach(vars(p)[name]) for p in parts])
        return whole

    def _seen_by_player(self, name: str, x: Data) -> Data:
        if self.player == "G":
            return x
        if name not in self.grad_inputs:
            return detach(x)
        return tree_map(lambda t: t.detach().requires_grad_(t.is_floating_point()), x)
