"""Images as a DataModule: what all image sets share."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as T

from ganlab.data.imbalance import profile
from ganlab.data.rounds import DataModule


class Images(DataModule):
    """A set of images. A subclass says where they come from, and what is known of them without reading any: `native`,
    `classes`, `class_names`, `frequencies`.

    root         folder that holds the set's files; it is downloaded there if it can be
    size         pixels: one number, or (height, width); None: as the set is. Images are scaled to cover it and cropped
    channels     1 to 4; None: as the set is

    The others are DataModule's.
    """

    native: tuple[int, int, int] | None = None  # channels, height, width; None: `measure` finds out
    classes: int | None = None
    class_names: Sequence[str] | None = None
    frequencies: Sequence[float] | None = None  # of the labels; None: equal
    several = False  # whether a label is a vector of attributes, of which a sample may have several

    def __init__(
        self,
        root: str | None = None,
        size: int | Sequence[int] | None = None,
        channels: int | None = None,
        batch_size: int = 64,
        flip: bool = False,
        memory: float = 4.0,
        workers: int = 0,
        rounds: int = 8,
        seed: int = 0,
        count: int | None = None,
        imbalance: float | None = None,
        balanced: bool = False,
    ):
        super().__init__(batch_size, rounds, seed, flip, memory, workers, count, imbalance, balanced)
        self.root = Path(root).expanduser() if root else None
        self.size = (size, size) if isinstance(size, int) else tuple(size) if size is not None else None
        self.channels = channels
        self.check()

    def check(self) -> None:
        if self.channels not in (None, 1, 2, 3, 4):
            raise ValueError(f"data.channels={self.channels}: must be 1 to 4, or null for what the set has")
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 4):
            raise ValueError(f"data.size={list(self.size)}: must be one number or [height, width], at least 4 pixels")
        if self.native and self.channels not in (None, 1, 3, self.native[0]):
            raise ValueError(f"data.channels={self.channels}: the set has {self.native[0]}, which can become 1 or 3")

    def measure(self) -> None:
        """Sets `native`, `classes`, `class_names` and `frequencies` where only the files know them."""

    def facts(self) -> dict[str, Any]:
        """What networks must know before they are built: shape [C, H, W], classes, class_names, the frequencies of the
        labels that are trained on, None where they are equal, and whether a sample may have several."""
        self.measure()
        assert self.native is not None
        if (self.imbalance is not None or self.balanced) and (self.several or not self.classes):
            raise ValueError(self.needs_labels())
        shape = [self.channels or self.native[0], *(self.size or self.native[1:])]
        names = list(self.class_names) if self.class_names is not None else None
        frequencies = list(self.frequencies) if self.frequencies is not None else None
        if self.imbalance is not None and self.classes:
            frequencies = profile(self.classes, self.imbalance)
        frequencies = None if self.balanced else frequencies
        of_labels = {"classes": self.classes, "class_names": names, "frequencies": frequencies}
        return {"shape": shape, **of_labels, "several": self.several}


def conform(x: Tensor, shape: Sequence[int], chunk: int = 4096) -> Tensor:
    """uint8 [N, c, h, w] to [N, *shape]: grey or colour as asked, scaled to cover the size, cropped at the centre."""
    if tuple(x.shape[1:]) == tuple(shape):
        return x
    channels, *size = shape
    return torch.cat([cover(as_channels(part, channels), size) for part in x.split(chunk)])


def as_channels(x: Tensor, channels: int) -> Tensor:
    """Grey to colour by repeating, colour to grey by ITU-R 601 luma; alpha is laid over white, or added opaque."""
    have = x.shape[1]
    if have == channels:
        return x
    if have in (2, 4):  # the last channel is alpha
        alpha = x[:, -1:].float() / 255
        return as_channels((x[:, :-1] * alpha + 255 * (1 - alpha)).round().to(torch.uint8), channels)
    if channels in (2, 4):
        return torch.cat([as_channels(x, channels - 1), torch.full_like(x[:, :1], 255)], 1)
    if channels == 3:
        return x.expand(-1, 3, -1, -1).contiguous()
    luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (x * luma).sum(1, keepdim=True).round().to(torch.uint8)


def cover(x: Tensor, size: Sequence[int]) -> Tensor:
    """Scales uint8 images (bicubic, antialiased) so that they cover `size`, and crops the centre. Of a strip, all but
    the middle is cut off first: scaled whole, it might not fit into memory."""
    h, w = x.shape[-2:]
    if (h, w) == tuple(size):
        return x
    scale = max(size[0] / h, size[1] / w)
    most = [math.ceil(8 * side / scale) for side in size]
    if h > most[0] or w > most[1]:
        h, w = min(h, most[0]), min(w, most[1])
        x = T.center_crop(x, [h, w])
    scaled = [max(size[0], round(h * scale)), max(size[1], round(w * scale))]
    x = T.resize(x, scaled, interpolation=T.InterpolationMode.BICUBIC, antialias=True)
    return T.center_crop(x, list(size))
