"""SeqGAN's loss: G is a policy whose actions are symbols, and D's opinion of the whole text its reward.

SeqGAN: Sequence Generative Adversarial Nets with Policy Gradient (Yu et al. 2017), arXiv:1609.05473.
"""

from typing import Any

import torch
from torch import Tensor

from ganlab.losses import NonSaturating
from ganlab.phase import Phase, one_hot
from ganlab.schedule import within


class PolicyGradient(NonSaturating):
    """REINFORCE: G minimises -sum_t log p(symbol t) Q(t) (eq. 7 and 8). Q(t) is the probability of being real that D
    gives, on average, to `rollouts` texts that G draws on from the first t symbols (eq. 4). D's half is that of the
    non-saturating loss.

    rollouts   for each symbol
    baseline   Q counts from its mean over the batch at the same position, or over each micro-batch of n: on average
               the gradient has the same direction and (n - 1) / n of its length, with less noise (not in the paper)
    ahead      D plays alone for this share of `start`, before G's first move

    G has complete(tokens, known, choose) and log_prob(tokens).
    """

    def __init__(self, rollouts: int = 4, baseline: bool = True, ahead: float = 0.0, **kwargs: Any):
        super().__init__(**kwargs)
        if rollouts < 1:
            raise ValueError(f"loss.rollouts={rollouts}: must be at least 1")
        self.rollouts, self.baseline, self.ahead = rollouts, baseline, ahead

    def check(self, gan: Any) -> None:
        super().check(gan)
        if not hasattr(gan.G, "complete"):
            raise ValueError(
                f"loss=policy_gradient needs a G that draws one symbol after the other, and "
                f"{type(gan.G).__name__} does not: use model=seqgan"
            )
        if self.top != 1:
            raise ValueError(f"loss.top={self.top}: a policy learns from all its texts: set it to 1")

    def due(self, player: str, number: int, seen: int) -> bool:
        return within(self.start * (1 + self.ahead * (player == "G")), self.stop, seen)

    def generator(self, phase: Phase) -> Tensor:
        texts: Tensor = phase.fake.detach()
        tokens = texts.argmax(2)
        reward = self.rewards(phase, texts, tokens)
        if self.baseline:
            reward = reward - reward.mean(0)
        return -(phase.G.log_prob(tokens) * reward).sum(1)  # type: ignore[operator]

    @torch.no_grad()
    def rewards(self, phase: Phase, texts: Tensor, tokens: Tensor) -> Tensor:
        """Q [N, T]: how real the texts look from each symbol on; of the last one, as they are."""
        n, length = tokens.shape
        G: Any = phase.G
        u = phase.rng.uniform(length - 1, self.rollouts, length)  # [N, T - 1, R, T]
        rewards = []
        for known in range(1, length):
            draws = u[:, known - 1].flatten(0, 1)  # [N R, T]
            drawn = G.complete(
                tokens.repeat_interleave(self.rollouts, 0), known, lambda logits, t, u=draws: quantile(logits, u[:, t])
            )
            logits = phase.judge(one_hot(drawn, texts.shape[2], like=texts)).logits
            rewards.append(logits.sigmoid().view(n, self.rollouts).mean(1))
        return torch.stack([*rewards, phase.judge(texts).logits.sigmoid()], 1)


def quantile(logits: Tensor, u: Tensor) -> Tensor:
    """[N]: the symbol at which the cumulative softmax of logits [N, V] passes u [N] in [0, 1)."""
    cumulative = logits.double().softmax(1).cumsum(1)
    return torch.searchsorted(cumulative, u[:, None].double() * cumulative[:, -1:], right=True)[:, 0]
