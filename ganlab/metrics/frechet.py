"""The Frechet distance between two sets of features, each taken to be Gaussian.

GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium (Heusel et al. 2017),
arXiv:1706.08500, eq. 6; named FID when the features are Inception's.
"""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

Gaussian = tuple[Tensor, Tensor, int]  # mean [d], covariance [d, d], number of samples


class FrechetDistance(Metric):
    """|mu_r - mu_f|^2 + tr(S_r + S_f - 2 (S_r S_f)^(1/2)), from sums in float64: exact however it is split.

    dim   number of features
    """

    higher_is_better = False
    is_differentiable = False
    full_state_update = False
    needs_reals = True
    keys = None  # what `compute` returns is named as the score is
    real_sum: Tensor
    real_outer: Tensor

    def __init__(self, dim: int, **kwargs: Any):
        super().__init__(**kwargs)
        for side in ("real", "fake"):
            self.add_state(f"{side}_sum", torch.zeros(dim, dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(f"{side}_outer", torch.zeros(dim, dim, dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(f"{side}_count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.reference: Gaussian | None = None
        self.set_dtype(torch.float64)

    def update(self, features: Tensor, real: bool) -> None:
        """features: [n, dim]."""
        side = "real" if real else "fake"
        x = features.double()
        getattr(self, f"{side}_sum").add_(x.sum(0))
        getattr(self, f"{side}_outer").add_(x.T @ x)
        getattr(self, f"{side}_count").add_(len(x))

    def gaussian(self, real: bool) -> Gaussian:
        """What was seen here of one side; over all processes inside `sync_context`.

        Raises:
            ValueError: fewer than two samples
        """
        side = "real" if real else "fake"
        n = int(getattr(self, f"{side}_count"))
        if n < 2:
            raise ValueError(f"a Frechet distance needs at least 2 {side} samples, not {n}")
        mean = getattr(self, f"{side}_sum") / n
        return mean, (getattr(self, f"{side}_outer") - n * torch.outer(mean, mean)) / (n - 1), n

    def reference_arrays(self) -> dict[str, Tensor]:
        """What `load_reference` needs to know of the reals seen here: mu [d], sigma [d, d], n."""
        mean, covariance, n = self.gaussian(real=True)
        return {"mu": mean, "sigma": covariance, "n": torch.tensor(n)}

    def load_reference(self, mu: Tensor, sigma: Tensor, n: Tensor) -> None:
        """Takes known statistics for the reals in place of what `update(real=True)` would sum.

        Raises:
            ValueError: of another number of features
        """
        mean, covariance = mu, sigma
        if mean.shape != self.real_sum.shape or covariance.shape != self.real_outer.shape:
            raise ValueError(
                f"the reference has {tuple(mean.shape)} features, the extractor {tuple(self.real_sum.shape)}"
            )
        self.reference = (mean.to(self.real_sum), covariance.to(self.real_sum), int(n))

    def compute(self) -> Tensor:
        real = self.reference or self.gaussian(real=True)
        fake = self.gaussian(real=False)
        return frechet_distance(real[0], real[1], fake[0], fake[1])


def frechet_distance(mean1: Tensor, covariance1: Tensor, mean2: Tensor, covariance2: Tensor) -> Tensor:
    """The distance, in the inputs' precision; covariances may be singular.

    With S1 = L L^T, the eigenvalues of S1 S2 are those of the symmetric L^T S2 L. L is Cholesky's factor where there is
    one, and otherwise comes from an eigendecomposition.
    """
    factor, failed = torch.linalg.cholesky_ex(covariance1)
    if failed:
        values, vectors = torch.linalg.eigh(covariance1)
        factor = vectors * values.clamp_min(0).sqrt()
    eigenvalues = torch.linalg.eigvalsh(factor.T @ covariance2 @ factor)
    trace = covariance1.trace() + covariance2.trace() - 2 * eigenvalues.clamp_min(0).sqrt().sum()
    return (mean1 - mean2).square().sum() + trace
