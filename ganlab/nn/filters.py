"""Resampling of maps with a small low-pass filter, which keeps high frequencies from folding over."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMOOTH = (1.0, 3.0, 3.0, 1.0)  # a binomial filter, between two pixels (Karras et al. 2020, arXiv:1912.04958)


SMALL = 256  # pixels up to which filtering is a product with a matrix: several times faster on a CPU, and short work


def upfirdn(x: Tensor, taps: Tensor, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0)) -> Tensor:
    """Puts up - 1 zeros after each pixel, pads with zeros (below 0: crops), convolves rows and columns with taps, and
    keeps every `down`-th pixel; in the precision of x, under autocast too.

    x [N, C, H, W], taps [K] -> [N, C, h, w] with h = (up H + pad before + pad after - K) // down + 1
    """
    with torch.autocast(x.device.type, enabled=False):
        taps = taps.to(x.dtype)
        if max(x.shape[2:]) > SMALL:
            return along_rows(along_rows(x.mT, taps, up, down, pad).mT, taps, up, down, pad)
        height, width = (torch.eye(n, dtype=x.dtype, device=x.device)[None, None] for n in x.shape[2:])
        first, second = (along_rows(side, taps, up, down, pad)[0, 0] for side in (height, width))  # [H, h], [W, w]
        return first.mT @ x @ second


def along_rows(x: Tensor, taps: Tensor, up: int, down: int, pad: tuple[int, int]) -> Tensor:
    """The same in one direction: [N, C, H, W] -> [N, C, H, w]."""
    if up > 1:
        x = F.pad(x[..., None], (0, up - 1)).flatten(3)
    kernel = taps.flip(0).expand(x.shape[1], 1, 1, -1)  # conv2d correlates
    return F.conv2d(F.pad(x, pad), kernel, stride=(1, down), groups=x.shape[1])


class Filter(nn.Module):
    """`upfirdn` with taps that are scaled to a sum of `gain`."""

    taps: Tensor

    def __init__(
        self, taps: Sequence[float] = SMOOTH, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0),
        gain: float = 1.0,
    ):  # fmt: skip
        super().__init__()
        self.up, self.down, self.pad = up, down, pad
        self.register_buffer("taps", torch.tensor(taps) * (gain / sum(taps)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return upfirdn(x, self.taps, self.up, self.down, self.pad)


class Double(Filter):
    """[N, C, H, W] -> [N, C, 2H, 2W]."""

    def __init__(self) -> None:
        super().__init__(up=2, pad=(2, 1), gain=2.0)


class Halve(Filter):
    """[N, C, H, W] -> [N, C, H/2, W/2]."""

    def __init__(self) -> None:
        super().__init__(down=2, pad=(1, 1))
