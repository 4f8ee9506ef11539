"""Layers that look at several samples at once, so that D sees whether they differ."""

import torch
from torch import Tensor, nn

from ganlab.phase import full


class MinibatchStd(nn.Module):
    """Appends one feature: the standard deviation over a group of samples, averaged over all features and places
    (Karras et al. 2018, arXiv:1710.10196, section 3). [N, C, ...] -> [N, C + 1, ...].

    group   samples that are looked at together; the last group of a batch may be smaller
    """

    def __init__(self, group: int = 4):
        super().__init__()
        if group < 2:
            raise ValueError(f"minibatch_std={group}: a group has at least 2 samples")
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        x = full(x)  # a spread is small: not in half precision
        spread = [(part.var(0, unbiased=False) + 1e-8).sqrt().mean() for part in x.split(self.group)]
        sizes = [len(part) for part in x.split(self.group)]
        feature = torch.cat([value.expand(n) for value, n in zip(spread, sizes, strict=True)])
        return torch.cat([x, feature.view(-1, 1, *[1] * (x.dim() - 2)).expand(-1, 1, *x.shape[2:])], 1)
