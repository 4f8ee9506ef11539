"""Adversarial losses: each is a pair, `discriminator(phase)` and `generator(phase)`.

Logits may be a tensor of any shape or a list of them (sub-discriminators); the loss is the mean over all.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from ganlab.gradient import descended
from ganlab.phase import Phase
from ganlab.schedule import Schedule, at, within


class Loss(nn.Module):
    """What all pairs share; a pair adds `discriminator(phase)` and `generator(phase)`, each a scalar to minimise.

    weight          {"D": ..., "G": ...}: factor on each player's adversarial loss, 1 where not given
    start, stop     kimg between which the adversarial loss is played; outside, only terms move the players
    top             G learns from this share of its fakes only, those that D takes most for real (Sinha et al. 2020,
                    arXiv:2002.06224, section 3); a schedule may lower it
    class_weights   how much samples of each label count: one number per label, or "balanced": inversely to how often
                    it occurs. Fakes whose labels are drawn on their own all count 1
    frequencies     how often each label occurs, for "balanced"; None: equally often

    boundary        logit above which D takes a sample for real; None: the loss has no such logit
    """

    boundary: float | None = 0.0
    pairs = False  # whether a fake's logit means something only beside a real's

    grad_inputs: frozenset[str] = frozenset()  # a loss that needs input gradients names "fake" or "real", as terms do
    differentiates: frozenset[str] = frozenset()  # of "G" and "D", as for terms

    def __init__(
        self,
        weight: Mapping[str, float | Schedule] | None = None,
        start: float = 0.0,
        stop: float | None = None,
        top: float | Schedule = 1.0,
        class_weights: Sequence[float] | Literal["balanced"] | None = None,
        frequencies: Sequence[float] | None = None,
    ):
        super().__init__()
        self.weight = {"D": 1.0, "G": 1.0, **(weight or {})}
        if set(self.weight) != {"D", "G"} or None in self.weight.values():
            raise ValueError(f"loss.weight={dict(self.weight)}: must be one number or schedule each for D and G")
        if not callable(top) and not 0 < top <= 1:
            raise ValueError(f"loss.top={top}: a share of the fakes, above 0 and at most 1")
        self.start, self.stop, self.top = start, stop, top
        if isinstance(class_weights, str) and class_weights != "balanced":
            raise ValueError(f"loss.class_weights={class_weights}: must be balanced, null, or a number for each label")
        if class_weights == "balanced":
            class_weights = [1 / (len(frequencies) * f) if f else 0.0 for f in frequencies] if frequencies else None
        self.class_weights = None if class_weights is None else [float(w) for w in class_weights]

    def due(self, player: str, number: int, seen: int) -> bool:
        return within(self.start, self.stop, seen)

    def factor(self, player: str, seen: int) -> float:
        return at(self.weight[player], seen)

    def check(self, gan: Any) -> None:
        if gan.D is None:
            raise ValueError("an adversarial loss needs a discriminator: give one, or remove the loss (loss=none)")
        if self.pairs and self.top != 1:
            raise ValueError(
                f"loss.top={self.top}: {type(self).__name__} compares each fake with a real, so that no fakes can be "
                "left out: use another loss, as loss=non_saturating"
            )
        if self.class_weights is not None:
            classes = getattr(gan.task, "classes", None)
            if getattr(gan.task, "several", False):
                raise ValueError("loss.class_weights: samples here have several labels, or none, and no class")
            if len(self.class_weights) != classes:
                told = f"{classes} labels" if classes else "no labels: choose a model that is told them, as model=cgan"
                raise ValueError(f"loss.class_weights has {len(self.class_weights)} numbers, and the game has {told}")

    def forward(self, phase: Phase) -> Tensor:
        """The moving player's half of the pair."""
        return getattr(self, {"D": "discriminator", "G": "generator"}[phase.player])(phase)

    def reals(self, phase: Phase, f: Callable[[Tensor], Tensor]) -> Tensor:
        """The mean of f over D's logits on the reals."""
        return each(f, phase.on_real.logits, counts=self.counts(phase.batch.told_with_real))

    def fakes(self, phase: Phase, f: Callable[[Tensor], Tensor]) -> Tensor:
        """The mean of f over D's logits on the fakes; in G's phase over the best of them, where `top` says so."""
        counts = None if phase.batch.real_cond is not None else self.counts(phase.batch.cond)
        if phase.player == "G" and (share := at(self.top, phase.seen)) < 1:
            kept = best(phase.on_fake.logits, share)
            counts = kept if counts is None else kept * counts
        return each(f, phase.on_fake.logits, counts=counts)

    def pairs_of(self, phase: Phase, f: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """The mean of f(real, fake) over D's logits, each real beside one fake."""
        return each(f, phase.on_real.logits, phase.on_fake.logits, counts=self.counts(phase.batch.told_with_real))

    def counts(self, label: Any) -> Tensor | None:
        """How much each sample counts, [N]; None: all alike."""
        return None if self.class_weights is None else torch.tensor(self.class_weights, device=label.device)[label]


def each(f: Callable[..., Tensor], *logits: Tensor | list[Tensor], counts: Tensor | None = None) -> Tensor:
    """The mean of f over all logits of one or several sub-discriminators, samples counting as `counts` [N] says."""
    if counts is None and all(isinstance(x, Tensor) for x in logits):
        return f(*logits).mean()
    values = [f(*group) for group in zip(*map(tree_leaves, logits), strict=True)]
    if counts is not None:
        values = [value.reshape(len(value), -1).mean(1) * counts for value in values]
    return torch.stack([value.mean() for value in values]).mean()


def best(logits: Tensor | list[Tensor], share: float) -> Tensor:
    """[N]: n / k for the k samples of the highest logits, k being this share of n, and 0 for the others."""
    opinion = torch.stack([x.detach().reshape(len(x), -1).mean(1) for x in tree_leaves(logits)]).mean(0)
    k = max(1, round(share * len(opinion)))
    return torch.zeros_like(opinion).index_fill_(0, opinion.topk(k).indices, len(opinion) / k)


class Minimax(Loss):
    """min_G max_D  E log s(D(x)) + E log(1 - s(D(G(z))))  (Goodfellow et al. 2014, arXiv:1406.2661, eq. 1).

    smooth   D is to say 1 - smooth of the reals, not 1: one-sided label smoothing (Salimans et al. 2016,
             arXiv:1606.03498, section 3.4; 0.1 there)
    """

    def __init__(self, smooth: float = 0.0, **kwargs: Any):
        super().__init__(**kwargs)
        if not 0 <= smooth < 0.5:
            raise ValueError(f"loss.smooth={smooth}: must be at least 0 and below 0.5")
        self.smooth = smooth

    def discriminator(self, phase: Phase) -> Tensor:
        on_reals = self.reals(phase, lambda x: F.softplus(-x) + self.smooth * x)  # cross entropy with 1 - smooth
        return on_reals + self.fakes(phase, F.softplus)

    def generator(self, phase: Phase) -> Tensor:
        return self.fakes(phase, lambda y: -F.softplus(y))


class NonSaturating(Minimax):
    """G maximises log s(D(G(z))) instead: the same fixed point, larger gradients early (same paper, section 3)."""

    def generator(self, phase: Phase) -> Tensor:
        return self.fakes(phase, lambda y: F.softplus(-y))


class Bidirectional(NonSaturating):
    """The same where G has a part in the reals too, an encoder's codes: it wants its fakes taken for real and its reals
    for fakes (Donahue et al. 2017, arXiv:1605.09782, section 3.4)."""

    pairs = True

    def generator(self, phase: Phase) -> Tensor:
        return super().generator(phase) + self.reals(phase, F.softplus)


class Cells(Minimax):
    """D says of each cell of a completed row whether it was given: cross entropy over all cells. G wants the others
    taken for given; the mean is over all cells, as in the authors' code (Yoon et al. 2018, arXiv:1806.02920, eq. 9
    to 11). Of task=impute, whose batch.inputs are (row, which cells are given [N, D], 0 or 1)."""

    pairs = True

    def check(self, gan: Any) -> None:
        super().check(gan)
        if not hasattr(gan.task, "hint"):
            raise ValueError("loss=cells asks which cells of a row were given: it goes with task=impute, as model=gain")

    def discriminator(self, phase: Phase) -> Tensor:
        target = (1 - self.smooth) * phase.batch.inputs[1]
        return F.binary_cross_entropy_with_logits(phase.on_fake.logits, target)

    def generator(self, phase: Phase) -> Tensor:
        return ((1 - phase.batch.inputs[1]) * F.softplus(-phase.on_fake.logits)).mean()


class LeastSquares(Loss):
    """1/2 (D(x) - b)^2 + 1/2 (D(G(z)) - a)^2 against 1/2 (D(G(z)) - c)^2  (Mao et al. 2017, arXiv:1611.04076)."""

    def __init__(self, a: float = 0.0, b: float = 1.0, c: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        self.a, self.b, self.c = a, b, c
        self.boundary = (a + b) / 2

    def discriminator(self, phase: Phase) -> Tensor:
        on_reals = self.reals(phase, lambda x: 0.5 * (x - self.b).square())
        return on_reals + self.fakes(phase, lambda y: 0.5 * (y - self.a).square())

    def generator(self, phase: Phase) -> Tensor:
        return self.fakes(phase, lambda y: 0.5 * (y - self.c).square())


class Wasserstein(Loss):
    """D is a critic without a sigmoid, to be kept Lipschitz by a term (Arjovsky et al. 2017, arXiv:1701.07875)."""

    boundary: float | None = None

    def discriminator(self, phase: Phase) -> Tensor:
        return self.fakes(phase, lambda y: y) - self.reals(phase, lambda x: x)

    def generator(self, phase: Phase) -> Tensor:
        return -self.fakes(phase, lambda y: y)


class ClippedWasserstein(Wasserstein):
    """The same critic, kept Lipschitz by clipping its weights after each of its moves (same paper, algorithm 1).

    clip   largest absolute value of a weight
    """

    def __init__(self, clip: float = 0.01, **kwargs: Any):
        super().__init__(**kwargs)
        if clip <= 0:
            raise ValueError(f"loss.clip={clip}: must be above 0")
        self.clip = clip

    def after_move(self, phase: Phase) -> None:
        if phase.player == "D" and phase.D is not None:
            for weight in phase.D.parameters():
                weight.clamp_(-self.clip, self.clip)


class Hinge(Wasserstein):
    """Lim & Ye 2017, arXiv:1705.02894; Miyato et al. 2018, arXiv:1802.05957, eq. 16 and 17."""

    boundary = 0.0

    def discriminator(self, phase: Phase) -> Tensor:
        return self.reals(phase, lambda x: F.relu(1 - x)) + self.fakes(phase, lambda y: F.relu(1 + y))


class Relativistic(Loss):
    """Each real against one fake: softplus of the difference of their logits (Jolicoeur-Martineau 2019,
    arXiv:1807.00734; with R1 and R2 in Huang et al. 2024, arXiv:2501.05441, eq. 2)."""

    boundary: float | None = None
    pairs = True

    def discriminator(self, phase: Phase) -> Tensor:
        return self.pairs_of(phase, lambda x, y: F.softplus(y - x))

    def generator(self, phase: Phase) -> Tensor:
        return self.pairs_of(phase, lambda x, y: F.softplus(x - y))


class RelativisticAverage(Relativistic):
    """Each real against the mean logit of the fakes, and each fake against that of the reals: RaSGAN of the same paper,
    as ESRGAN plays it (Wang et al. 2018, arXiv:1809.00219, eq. 1 and 2)."""

    def discriminator(self, phase: Phase) -> Tensor:
        return self.pairs_of(phase, lambda x, y: F.softplus(y.mean() - x) + F.softplus(y - x.mean()))

    def generator(self, phase: Phase) -> Tensor:
        return self.pairs_of(phase, lambda x, y: F.softplus(x - y.mean()) + F.softplus(x.mean() - y))


class Unrolled(Loss):
    """Any loss, whose G looks `steps` moves of D ahead and learns through them (Metz et al. 2017, arXiv:1611.02163,
    eq. 7 to 9). The moves ahead are plain gradient steps of D's adversarial loss on this batch; D itself does not move.

    loss    what is played
    steps   moves of D ahead
    rate    their learning rate
    """

    differentiates = frozenset({"D"})

    def __init__(
        self, loss: Loss, steps: int = 5, rate: float = 0.1, weight: Mapping[str, float | Schedule] | None = None,
        start: float = 0.0, stop: float | None = None,
    ):  # fmt: skip
        super().__init__(weight, start, stop)
        if steps < 1 or rate <= 0:
            raise ValueError(f"loss.steps={steps}, loss.rate={rate}: at least one step, with a rate above 0")
        self.steps, self.rate = steps, rate
        self.loss: Any = loss
        self.boundary, self.grad_inputs = loss.boundary, loss.grad_inputs
        if hasattr(loss, "after_move"):
            self.after_move = loss.after_move

    def check(self, gan: Any) -> None:
        super().check(gan)
        self.loss.check(gan)

    def discriminator(self, phase: Phase) -> Tensor:
        return self.loss.discriminator(phase)

    def generator(self, phase: Phase) -> Tensor:
        assert phase.D is not None
        weights = {name: p.detach().requires_grad_() for name, p in phase.D.named_parameters()}
        buffers = {name: b.clone() for name, b in phase.D.named_buffers()}  # batch norm's are not to move
        ahead = phase
        for step in range(self.steps + 1):
            ahead = phase.again(D=Moved(phase.D, {**weights, **buffers}))
            ahead.played = phase.played
            if step < self.steps:
                weights = descended(weights, self.loss.discriminator(ahead), self.rate)
        return self.loss.generator(ahead)


class Moved(nn.Module):
    """D with other weights than its own."""

    def __init__(self, D: nn.Module, weights: dict[str, Tensor]):
        super().__init__()
        self.call = lambda *inputs: functional_call(D, weights, inputs)

    def forward(self, *inputs: Any) -> Any:
        return self.call(*inputs)


class Equilibrium(Loss):
    """L(x) - k L(G(z)) against L(G(z)), where -L is the logit: for a D that is an autoencoder, whose error is L. k
    moves so that L(G(z)) stays at gamma L(x) (Berthelot et al. 2017, arXiv:1703.10717, section 3.4).

    gamma      share of the reals' error that the fakes' error is held at, in (0, 1]; smaller: better and less varied
    lambda_k   step of k, per move of D; k starts at 0
    """

    boundary = None
    drawn = ("k", "convergence")
    k: Tensor
    convergence: Tensor

    def __init__(self, gamma: float = 0.5, lambda_k: float = 0.001, **kwargs: Any):
        super().__init__(**kwargs)
        if not 0 < gamma <= 1:
            raise ValueError(f"loss.gamma={gamma}: must be above 0 and at most 1")
        if lambda_k <= 0:
            raise ValueError(f"loss.lambda_k={lambda_k}: must be above 0")
        self.gamma, self.lambda_k = gamma, lambda_k
        self.register_buffer("k", torch.zeros(()))
        self.register_buffer("convergence", torch.zeros(()))  # how far it has come, section 3.4.1: smaller is better

    def check(self, gan: Any) -> None:
        super().check(gan)
        if not getattr(gan.D, "is_autoencoder", False):
            raise ValueError(
                f"loss=equilibrium needs a D that is an autoencoder, as model=began has it (is_autoencoder = True): "
                f"{type(gan.D).__name__} is none"
            )

    def discriminator(self, phase: Phase) -> Tensor:
        return self.k * self.fakes(phase, lambda y: y) - self.reals(phase, lambda x: x)

    def generator(self, phase: Phase) -> Tensor:
        return -self.fakes(phase, lambda y: y)

    def after_move(self, phase: Phase) -> None:
        if phase.player == "D":
            real, fake = (-phase.mean(each(lambda t: t, side.logits)) for side in (phase.on_real, phase.on_fake))
            self.k.add_(self.lambda_k * (self.gamma * real - fake)).clamp_(0, 1)
            self.convergence.copy_(real + (self.gamma * real - fake).abs())
