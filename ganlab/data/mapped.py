"""Images that lie in a file, decoded, of which a round copies its own."""

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Mapped:
    """Images in an .npy file, of which those asked for are copied; the system keeps of it in memory what has room."""

    def __init__(self, path: Path, label: Tensor | None):
        self.path, self.label = path, label
        mapped = np.load(path, mmap_mode="r")
        self.images, self.file, self.begin = np.asarray(mapped), mapped._mmap, mapped.offset

    def __reduce__(self) -> Any:
        return Mapped, (self.path, self.label)  # to another process goes the file's name

    def __len__(self) -> int:
        return len(self.images)

    def fingerprint(self) -> str:
        return self.path.stem

    def take(self, indices: Tensor) -> dict[str, Tensor]:
        self.announce(indices)
        real = torch.from_numpy(self.images.take(indices.numpy(), 0))
        return {"real": real} | ({} if self.label is None else {"label": self.label[indices]})

    def announce(self, indices: Tensor) -> None:
        """Has the disk begin to read all of them. Otherwise each is waited for alone, and much around it is read."""
        if not hasattr(mmap, "MADV_WILLNEED") or not (size := self.images[:1].nbytes):
            return
        for i in indices.tolist():
            start = self.begin + i * size
            page = start // mmap.PAGESIZE * mmap.PAGESIZE
            self.file.madvise(mmap.MADV_WILLNEED, page, start + size - page)
