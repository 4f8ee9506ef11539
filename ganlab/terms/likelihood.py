"""Terms that measure how well data are explained."""

from typing import Any

from torch import Tensor

from ganlab.phase import Phase
from ganlab.terms import Term


class ELBO(Term):
    """The negative evidence lower bound of a variational autoencoder, in nats per sample up to a constant (Kingma &
    Welling 2014, arXiv:1312.6114, eq. 10): |x - G(x)|^2 / (2 sigma^2) + beta KL(q(z|x) || N(0, 1)).

    sigma   standard deviation of a pixel around its reconstruction
    beta    weight of the second part; 1 is the bound
    """

    player = "G"

    def __init__(self, weight: Any = 1.0, every: int = 1, sigma: float = 0.3, beta: float = 1.0, **kwargs: Any):
        super().__init__(weight, every, **kwargs)
        if sigma <= 0:
            raise ValueError(f"terms.elbo.sigma={sigma}: must be above 0")
        self.sigma, self.beta = sigma, beta

    def forward(self, phase: Phase) -> Tensor:
        mean, log_variance = phase.aux
        squares = (phase.real - phase.fake).square().flatten(1).sum(1)
        kl = (mean.square() + log_variance.exp() - log_variance - 1).sum(1) / 2
        return squares / (2 * self.sigma**2) + self.beta * kl


class Likelihood(Term):
    """The negative log-likelihood of real texts under a G that tells it, in nats per text.

    G has log_prob: tokens [N, T] -> [N, T]
    """

    player = "G"

    def check(self, gan: Any) -> None:
        if not hasattr(gan.G, "log_prob"):
            raise ValueError(
                f"terms.likelihood: {type(gan.G).__name__} tells no likelihood: use model=mle, gumbel or seqgan"
            )

    def forward(self, phase: Phase) -> Tensor:
        return -phase.G.log_prob(phase.batch.real).sum(1)  # type: ignore[operator]
