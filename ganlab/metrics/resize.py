"""How an image becomes the size that a network was trained at: three ways that give three different scores."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

How = Literal["tf1", "torch", "clean"]
WAYS = {
    "tf1": "bilinear as TensorFlow 1 (the literature's FID)",
    "torch": "bilinear as PyTorch, without antialiasing",
    "clean": "bicubic with antialiasing, as PIL (clean-fid)",
}


def resized(x: Tensor, size: int, how: How) -> Tensor:
    """[N, C, h, w] with values 0 to 255 -> float [N, C, size, size].

    tf1     Heusel et al. 2017, by torch-fidelity: pixel corners, no antialiasing
    torch   pixel centres, no antialiasing
    clean   each channel as float by PIL's bicubic, clipped to 0 .. 255 (Parmar et al. 2022, arXiv:2104.11222)
    """
    x = x.float()
    if how == "tf1":
        return interpolate_bilinear_2d_like_tensorflow1x(x, size=(size, size), align_corners=False)
    if x.shape[-2:] == (size, size):
        return x
    if how == "torch":
        return F.interpolate(x, (size, size), mode="bilinear", align_corners=False)
    x = x.double()  # PIL's sums are; float32 would be 1e-3 grey levels off
    return F.interpolate(x, (size, size), mode="bicubic", align_corners=False, antialias=True).clamp(0, 255).float()


def check_way(how: str) -> None:
    if how not in WAYS:
        raise ValueError(f"extractor.resize={how!r}: must be one of {', '.join(WAYS)}")
