"""Media: how samples are kept that are no pictures, as files and in TensorBoard."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from torch import Tensor


class Medium(ABC):
    """A kind of samples: sound, text, clips, rows of a table."""

    @abstractmethod
    def write(self, x: Tensor, folder: Path, first: int = 0, prefix: str = "") -> list[Path]:
        """Writes samples x [n, ...] into a folder: each as PREFIX and its number, from `first` on, or all in one file.
        Returns the files."""

    def picture(self, x: Tensor) -> Tensor:
        """Samples [n, ...] as pictures [m, C, H, W] in [-1, 1]."""
        return x

    def log(self, writer: Any, name: str, x: Tensor, step: int) -> None:  # noqa: B027
        """Shows samples in TensorBoard. writer: a SummaryWriter"""
