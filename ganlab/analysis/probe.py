"""What a discriminator has learnt of classes that it was never told: a linear classifier on its features.

Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks (Radford et al. 2016),
arXiv:1511.06434, section 5.1.
"""

from typing import Any

import torch
from torch import Tensor, nn


class Features(nn.Module):
    """Images [N, C, H, W] in [-1, 1] -> what the last layer with a weight matrix of D is handed, flattened [N, d].

    label   what D is told of every image, where it is told a label: the same for all, so that it gives nothing away
    """

    def __init__(self, D: nn.Module, label: int | None = None):
        super().__init__()
        self.D: Any = D.eval().requires_grad_(False)
        self.label = label

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        last: list[Tensor] = []

        def keep(layer: nn.Module, args: Any) -> None:
            if args and isinstance(args[0], Tensor) and args[0].is_floating_point() and len(args[0]) == len(x):
                last[:] = [args[0]]

        weights = [(layer, getattr(layer, "weight", None)) for layer in self.D.modules()]
        layers = [layer for layer, weight in weights if isinstance(weight, Tensor) and weight.dim() > 1]
        handles = [layer.register_forward_pre_hook(keep) for layer in layers]
        try:
            self.D(x) if self.label is None else self.D(x, torch.full((len(x),), self.label, device=x.device))
        except (TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise ValueError(f"{type(self.D).__name__} does not judge single images: {error}") from None
        finally:
            for handle in handles:
                handle.remove()
        if not last:
            raise ValueError(f"{type(self.D).__name__} has no layer with a weight matrix that sees each image alone")
        return last[0].flatten(1)


def linear_accuracy(x: Tensor, y: Tensor, held: float = 0.2, seed: int = 0) -> float:
    """Share of right answers of logistic regression on standardised features [n, d], on `held` of the samples that it
    did not learn from."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    test, train = order[: round(held * len(x))], order[round(held * len(x)) :]
    if len(test) == 0 or len(y[train].unique()) < 2:
        raise ValueError(f"{len(x)} labelled images of {len(y.unique())} classes are too few to learn from")
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300, random_state=seed))
    model.fit(x[train].numpy(), y[train].numpy())
    return float(model.score(x[test].numpy(), y[test].numpy()))
