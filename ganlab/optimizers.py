"""Optimizers that are not PyTorch's own."""

from typing import Any

import torch


def lazy_adam(params: Any, every: int, lr: float, betas: tuple[float, float], **kwargs: Any) -> torch.optim.Adam:
    """Adam for a player of whom a lazy term joins every `every`-th move, which the settings were made for as if it were
    a step of its own: with c = every / (every + 1), the learning rate is times c and the betas to the power of c
    (Karras et al. 2020, arXiv:1912.04958, appendix B)."""
    if every < 1:
        raise ValueError(f"optimizer.*.every={every}: must be at least 1 (moves of the player)")
    c = every / (every + 1)
    return torch.optim.Adam(params, lr=lr * c, betas=(betas[0] ** c, betas[1] ** c), **kwargs)
