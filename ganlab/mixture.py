"""Densities that are no networks, to compare with: a Gaussian mixture and a kernel density estimate.

Both are mixtures of Gaussians: one of a few components, fitted by expectation maximisation, the other with one at each
training sample.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ganlab.rng import IndexedRNG, seed_of

NAMES = {"gmm": "a Gaussian mixture", "kde": "a kernel density estimate"}  # as protocols call them
MOST = 2000  # held-out samples by which a size is chosen


@dataclass(frozen=True)
class Mixture:
    """sum_k w_k N(mu_k, L_k L_k^T), in the space of d principal components of the samples, or of their own numbers.

    weights  [K], sum 1
    means    [K, d]
    factors  [K, d, d], lower triangles; or one number, the same deviation everywhere
    basis    [d, D] and origin [D]: a point y is the sample y basis + origin
    shape    of a sample, D numbers
    """

    weights: Tensor
    means: Tensor
    factors: Tensor
    basis: Tensor | None
    origin: Tensor
    shape: Sequence[int]

    def generate(self, start: int, n: int, seed: int = 0) -> Tensor:
        """Samples start .. start + n - 1, [n, *shape]; sample i depends on (seed, i) alone."""
        rng = IndexedRNG(seed, range(start, start + n), dtype=torch.float64)
        k, noise = rng.choice(self.weights), rng.normal(self.means.shape[1])
        moved = self.factors * noise if self.factors.dim() == 0 else torch.einsum("nij,nj->ni", self.factors[k], noise)
        x = self.means[k] + moved
        x = self.origin + (x if self.basis is None else x @ self.basis)
        return x.float().view(n, *self.shape)


def fit(
    x: Tensor, kind: Literal["gmm", "kde"], sizes: Sequence[float], *, pca: float | None = None, floor: float = 1e-3,
    seed: int = 0,
) -> tuple[Mixture, dict[float, float]]:  # fmt: skip
    """(the density, {size: mean log likelihood of held-out samples in nats}) of samples x [N, ...].

    kind    "gmm": Gaussians of full covariance; "kde": one of the same width at each sample
    sizes   numbers of components, or bandwidths, in units of x. Of several, the one under which a tenth of the samples,
            held out, are likeliest; it is then fitted to all
    pca     principal components: how many, or the share of the variance that they hold; None: x as it is
    floor   added to the variances of a mixture's components
    seed    of what is held out, and of the components' beginnings
    """
    flat = x.flatten(1).double().numpy()
    origin, basis = flat.mean(0), None
    points = flat - origin
    if pca is not None:
        from sklearn.decomposition import PCA

        basis = PCA(pca, svd_solver="full", random_state=seed).fit(points).components_
        points = points @ basis.T
    fitted: Callable[[Any, float], Any] = lambda part, size: density(kind, size, floor, seed).fit(part)
    likelihood: dict[float, float] = {}
    if len(sizes) > 1:
        order = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed_of(seed, "held out"))).numpy()
        held = min(MOST, len(points) // 10)
        for size in tqdm(sizes, desc=f"choosing among {len(sizes)}", leave=False, disable=None):
            scores = fitted(points[order[held:]], size).score_samples(points[order[:held]])
            likelihood[size] = float(np.mean(scores))
    best = max(likelihood, key=lambda size: likelihood[size]) if likelihood else sizes[0]
    tensor = lambda a: torch.as_tensor(np.asarray(a, dtype=np.float64))
    if kind == "kde":  # its samples are the training points, moved
        n = len(points)
        parts = torch.full((n,), 1 / n, dtype=torch.float64), tensor(points), tensor(best)
    else:
        model = fitted(points, best)
        parts = tensor(model.weights_), tensor(model.means_), torch.linalg.cholesky(tensor(model.covariances_))
    own = None if basis is None else tensor(basis)
    return Mixture(*parts, own, tensor(origin), x.shape[1:]), likelihood or {best: float("nan")}


def widths(x: Tensor, count: int = 13) -> list[float]:
    """Bandwidths to choose from: 1/32 to 2 times the deviation of samples x [N, ...], root mean square of numbers."""
    deviation = x.flatten(1).double().var(0).mean().sqrt().item()
    return [round(deviation * factor, 6) for factor in np.geomspace(1 / 32, 2, count).tolist()]


def density(kind: str, size: float, floor: float, seed: int) -> Any:
    """scikit-learn's."""
    if kind == "kde":
        from sklearn.neighbors import KernelDensity

        return KernelDensity(bandwidth=size)
    from sklearn.mixture import GaussianMixture

    return GaussianMixture(int(size), covariance_type="full", reg_covar=floor, random_state=seed)
