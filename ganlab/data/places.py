"""Images at a place on disk, as they are: a folder, a zip of one, or an array in an .npz."""

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ganlab.data.folder import Folder
from ganlab.data.rounds import DataModule, InMemory, Samples
from ganlab.files import Unavailable, unpack


class Place(DataModule):
    """A set with one part, whatever it is asked for.

    title   what a protocol calls it
    """

    def __init__(self, title: str, samples: Samples, shape: Sequence[int]):
        super().__init__(batch_size=1, rounds=1, seed=0)
        self._title, self.samples, self.shape = title, samples, list(shape)

    @property
    def title(self) -> str:
        return self._title

    def facts(self) -> dict[str, Any]:
        has_labels = "label" in self.samples.take(torch.arange(1))
        return {"shape": self.shape, "classes": 1 if has_labels else None}

    def load(self, split: str) -> Samples:
        return self.samples


def images_at(path: str | Path) -> Place:
    """The images at a place.

    Raises:
        Unavailable: there are none, or they can't be read
    """
    path = Path(path).expanduser()
    if path.is_dir():
        folder = Folder(str(path))
        return Place(f"folder {path.name}", folder.split("train"), folder.facts()["shape"])
    if not path.is_file():
        raise Unavailable(f"{path}: there is no such file or folder")
    if path.suffix == ".zip":
        with tempfile.TemporaryDirectory() as temporary:
            unpack(path, Path(temporary))
            folder = Folder(temporary, memory=float("inf"))
            samples = folder.split("train")
        return Place(f"zip {path.name}", samples, folder.facts()["shape"])
    if path.suffix != ".npz":
        raise Unavailable(f"{path}: a folder or .zip of images, or an .npz was expected")
    with np.load(path, allow_pickle=False) as stored:
        name = next((k for k in ("arr_0", "images", "samples") if k in stored.files), None)
        if name is None:
            raise Unavailable(f"{path} holds {', '.join(stored.files)}, and no images: arr_0 [N, H, W, C], uint8")
        x = stored[name]
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[3] > 4:
        raise Unavailable(f"{path}: {name} is {x.dtype} {list(x.shape)}, and must be uint8 [N, H, W, C]")
    images = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    return Place(f"array {path.name}", InMemory(images), images.shape[1:])


def is_statistics(path: str | Path) -> bool:
    """Whether it is an .npz of mean and covariance, as pytorch-fid and others publish them."""
    path = Path(path).expanduser()
    if path.suffix != ".npz" or not path.is_file():
        return False
    with np.load(path, allow_pickle=False) as stored:
        return {"mu", "sigma"} <= set(stored.files)


def short_digest(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
