"""Images at their own size, of which a window is shown: for training on parts of a few large images."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ganlab.data.batches import cut
from ganlab.data.decode import whole
from ganlab.data.images import as_channels


class Files:
    """Images uint8 [channels, h, w], each decoded when it is asked for."""

    def __init__(self, paths: Sequence[Path], channels: int):
        self.paths, self.channels = paths, channels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> Tensor:
        return as_channels(whole(self.paths[i])[None], self.channels)[0]


class Windows:
    """Windows of images of any size. Whoever looks at the data sees the middle of each, training another part each
    time.

    images   uint8 [C, h, w] each, in a list (in memory), or read when asked for; none is smaller than a window
    size     of a window, (height, width)
    about    16 hex digits that change when an image does
    rows     which of them; None: all
    """

    def __init__(
        self, images: list[Tensor] | Files, size: Sequence[int], label: Tensor | None, about: str,
        rows: Tensor | None = None,
    ):  # fmt: skip
        self.images, self.size, self.about = images, tuple(size), about
        self.rows = torch.arange(len(images)) if rows is None else rows
        self.labels = label

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def label(self) -> Tensor | None:
        return None if self.labels is None else self.labels[self.rows]

    @property
    def in_memory(self) -> bool:
        return isinstance(self.images, list)

    def windows(self, indices: Tensor, corner: Tensor) -> dict[str, Tensor]:
        """corner [n, 2] in [0, 1): where each lies, from top to bottom and left to right."""
        rows = self.rows[indices]
        pairs = zip(rows.tolist(), corner, strict=True)
        real = torch.cat([cut(self.images[i][None], at[None], self.size) for i, at in pairs])
        return {"real": real} | ({} if self.labels is None else {"label": self.labels[rows]})

    def take(self, indices: Tensor) -> dict[str, Tensor]:
        return self.windows(indices, torch.full((len(indices), 2), 0.5))

    def subset(self, rows: Tensor) -> "Windows":
        return Windows(self.images, self.size, self.labels, self.about, self.rows[rows])

    def fingerprint(self) -> str:
        content = repr((self.about, self.size, self.rows.tolist()))
        return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()
