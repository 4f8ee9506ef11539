"""Scores of the fakes alone: how many different things they are."""

from typing import Any

import torch
from torch import Tensor
from torch_fidelity.metric_isc import isc_features_to_metric

from ganlab.metrics.scores import Given, Kept, Score
from ganlab.rng import IndexedRNG, seed_of


class InceptionScore(Score):
    """exp(E KL(p(y|x) || p(y))), mean and deviation over splits (Salimans et al. 2016, arXiv:1606.03498, section 4),
    computed by torch-fidelity.

    splits    how many parts
    shuffle   draw the parts at random
    """

    reads = {"logits": "rows"}
    reals = False
    higher_is_better = True
    keys = ("is", "is_std")

    def __init__(self, splits: int = 10, shuffle: bool = True, seed: int = 2020):
        self.splits, self.shuffle, self.seed = splits, shuffle, seed

    def check(self, given: Given) -> None:
        if given.n_fake < self.splits:
            raise ValueError(f"scores.is.splits={self.splits}, and there are only {given.n_fake} fakes")

    def __call__(self, real: Kept, fake: Kept) -> dict[str, float]:
        result = isc_features_to_metric(fake.rows("logits"), self.splits, self.shuffle, self.seed)
        return dict(zip(self.keys, result.values(), strict=True))


class Vendi(Score):
    """The effective number of different samples: exp of the entropy of the eigenvalues of the cosine similarities / n
    (Friedman & Dieng 2022, arXiv:2210.02410, eq. 3), which are those of the features' second moment."""

    reals = False
    higher_is_better = True
    keys = ("vendi",)

    def check(self, given: Given) -> None:
        given.squarable("features", "scores.vendi")

    def __call__(self, real: Kept, fake: Kept) -> dict[str, float]:
        second = torch.zeros(())
        for x in fake.rows().split(8192):
            unit = torch.nn.functional.normalize(x.double(), dim=1)
            second = second.to(unit) + unit.T @ unit
        eigenvalues = torch.linalg.eigvalsh(second / fake.n).clamp_min(0)
        return {"vendi": torch.special.entr(eigenvalues).sum().exp().item()}


class Diversity(Score):
    """Mean squared distance of two fakes, over all pairs. In LPIPS features that is LPIPS (Zhang et al. 2018,
    arXiv:1801.03924, eq. 1), so that this is the LPIPS diversity of the literature without its random pairs."""

    reads = {"features": "sums"}
    reals = False
    higher_is_better = True
    keys = ("diversity",)

    def __call__(self, real: Kept, fake: Kept) -> dict[str, float]:
        mean, mean_square = fake.arrays["features_mu"], fake.arrays["features_square"]
        return {"diversity": (2 * fake.n / (fake.n - 1) * (mean_square - mean.square().sum())).item()}


class PathLength(Score):
    """Perceptual path length: E d(G(slerp(a, b; t)), G(slerp(a, b; t + epsilon))) / epsilon^2 in the space of z, t
    uniform in [0, 1) (Karras et al. 2019, arXiv:1812.04948, eq. 2). With LPIPS features d is LPIPS.

    epsilon         length of the step
    discard         share of the smallest and of the largest distances that are left out, as the authors do
    """

    reads = {"path": "rows"}
    reals = False
    keys = ("ppl",)

    def __init__(self, epsilon: float = 1e-4, discard: float = 0.01):
        if not 0 <= discard < 0.5:
            raise ValueError(f"scores.ppl.discard={discard}: must be at least 0 and below 0.5")
        self.epsilon, self.discard = float(epsilon), float(discard)

    def probe(self, generator: Any, see: Any, first: int, count: int, seed: int) -> Tensor:
        """Distances [count, 1] of samples first ...; see: images in [-1, 1] -> features."""
        rng = lambda part: IndexedRNG(
            seed_of(seed, "path", part), range(first, first + count), generator.device, generator.dtype
        )
        (a, cond), (b, _) = generator.task.draw(rng("a")), generator.task.draw(rng("b"))
        t = rng("t").uniform()
        near, far = (generator(slerp(a, b, s), cond) for s in (t, t + self.epsilon))
        pairs = zip(near.split(8), far.split(8), strict=True)  # features may be long
        distances = [(see(x) - see(y)).square().sum(1, keepdim=True, dtype=torch.float64) for x, y in pairs]
        return torch.cat(distances) / self.epsilon**2

    def __call__(self, real: Kept, fake: Kept) -> dict[str, float]:
        distances = fake.rows("path")[:, 0].sort().values
        cut = int(self.discard * len(distances))
        return {"ppl": distances[cut : len(distances) - cut].mean().item()}


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """[n, d]: on the unit sphere between a and b, sample by sample; scaled to their mean length, sqrt(d)."""
    a, b = (torch.nn.functional.normalize(x.double(), dim=1) for x in (a, b))
    angle = (a * b).sum(1, keepdim=True).clamp(-1, 1).acos() * t[:, None].double()
    direction = torch.nn.functional.normalize(b - (a * b).sum(1, keepdim=True) * a, dim=1)
    return ((a * angle.cos() + direction * angle.sin()) * a.shape[1] ** 0.5).to(t.dtype)
