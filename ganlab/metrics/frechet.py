"""The Frechet distance between two sets of features, each taken to be Gaussian.

GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium (Heusel et al. 2017),
arXiv:1706.08500, eq. 6; named FID when the features are Inception's.
"""

import torch
from torch import Tensor

from ganlab.metrics.scores import Given, Kept, Score


class FID(Score):
    """|mu_r - mu_f|^2 + tr(S_r + S_f - 2 (S_r S_f)^(1/2)).

    output   what of the extractor it reads; "spatial" makes it sFID (Nash et al. 2021, arXiv:2103.03841, section 4)
    """

    keys = ("fid",)

    def __init__(self, output: str = "features"):
        self.reads = {output: "moments"}
        self._output = output
        if output != "features":
            self.keys = ("sfid" if output == "spatial" else f"fid_{output}",)

    def check(self, given: Given) -> None:
        given.squarable(self._output, f"scores.{self.keys[0]}")

    def settings(self) -> dict[str, str]:
        return {}

    def __call__(self, real: Kept, fake: Kept) -> dict[str, float]:
        return {self.keys[0]: frechet_distance(*real.moments(self._output), *fake.moments(self._output)).item()}


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
