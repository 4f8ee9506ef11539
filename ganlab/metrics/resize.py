"""How an image becomes the size that a network was trained at: three ways that give three different scores."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

How = Literal["tf1", "torch", "clean"]
WAYS = {
    "tf1": "bilinear as TensorFlow 1 (the literature's FID)",
    "torch": "bilinear as PyTorch, without antialiasing",
    "clean": "bicubic with antialiasing, as PIL (clean-fid)",
}


def resized(x: Tensor, size: int, how: How) -> Tensor:
    """[N, C, h, w] with values 0 to 255 -> float [N, C, size, size].

    tf1     Heusel et al. 2017: pixel corners, no antialiasing
    torch   pixel centres, no antialiasing
    clean   each channel as float by PIL's bicubic, clipped to 0 .. 255 (Parmar et al. 2022, arXiv:2104.11222)
    """
    x = x.float()
    if how == "tf1":
        return between(between(x, size, 3), size, 2)
    if x.shape[-2:] == (size, size):
        return x
    if how == "torch":
        return F.interpolate(x, (size, size), mode="bilinear", align_corners=False)
    x = x.double()  # PIL's sums are; float32 would be 1e-3 grey levels off
    return F.interpolate(x, (size, size), mode="bicubic", align_corners=False, antialias=True).clamp(0, 255).float()


def between(x: Tensor, size: int, dim: int) -> Tensor:
    """Place i of `size` is at i * n / size of the n there are, and the last goes on beyond the end."""
    n = x.shape[dim]
    place = torch.arange(size, device=x.device) * torch.tensor(n / size, dtype=torch.float32)
    low = place.long()
    share = (place - low).view(-1, *[1] * (3 - dim))
    left, right = x.index_select(dim, low), x.index_select(dim, (low + 1).clamp_max(n - 1))
    return right.sub_(left).mul_(share).add_(left)


def check_way(how: str) -> None:
    if how not in WAYS:
        raise ValueError(f"extractor.resize={how!r}: must be one of {', '.join(WAYS)}")
