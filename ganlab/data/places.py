"""Images at a place on disk, as they are: a folder, a zip of one, or an array in an .npz."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ganlab.data.folder import Folder
from ganlab.data.rounds import GIB, DataModule, InMemory, Samples
from ganlab.files import Unavailable, arrays_in, unpack


class Place(DataModule):
    """A set with one part, whatever it is asked for.

    title   what a protocol calls it
    """

    def __init__(self, title: str, samples: Samples, shape: Sequence[int]):
        super().__init__(batch_size=1, rounds=1, seed=0)
        self._title, self.samples, self.shape = title, samples, list(shape)
        self._classes: int | None = None

    @property
    def title(self) -> str:
        return self._title

    def facts(self) -> dict[str, Any]:
        """The shape of an image, and the number of classes where there are labels."""
        if self._classes is None and "label" in self.samples.take(torch.arange(1)):
            self._classes = int(self.samples.take(torch.arange(len(self.samples)))["label"].max()) + 1
        return {"shape": self.shape, "classes": self._classes, "class_names": None, "frequencies": None}

    def load(self, split: str) -> Samples:
        if split == "test":
            raise Unavailable(f"{self.title} has no test part")
        return self.samples


def images_at(path: str | Path) -> Place:
    """The images at a place.

    Raises:
        Unavailable: there are none, or they can't be read
    """
    path = Path(path).expanduser()
    if path.is_dir():
        folder = found_in(path, f"folder {path.name}")
        return Place(f"folder {path.name}", folder.split("train"), folder.facts()["shape"])
    if not path.is_file():
        raise Unavailable(f"{path}: there is no such file or folder")
    if path.suffix == ".zip":
        return zipped(path)
    if path.suffix != ".npz":
        raise Unavailable(f"{path}: a folder or .zip of images, or an .npz was expected")
    arrays = arrays_in(path)
    name = next((k for k in ("arr_0", "images", "samples") if k in arrays), None)
    if name is None:
        raise Unavailable(f"{path} holds {', '.join(arrays)}, and no images: arr_0 [N, H, W, C], uint8")
    x = arrays[name]
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[3] > 4 or len(x) < 2 or x.size == 0:
        raise Unavailable(f"{path}: {name} is {x.dtype} {list(x.shape)}, and must be uint8 [N, H, W, C], N at least 2")
    images = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    return Place(f"array {path.name}", InMemory(images), images.shape[1:])


def zipped(path: Path) -> Place:
    """Unpacked to a temporary folder, and read from there into memory."""
    with tempfile.TemporaryDirectory() as temporary:
        unpack(path, Path(temporary))
        folder = found_in(Path(temporary), f"zip {path.name}")
        files = folder.on_disk("train")
        if files.nbytes > MOST * GIB:
            raise Unavailable(f"{path} holds more than {MOST} GiB of images: unpack it, and give the folder")
        content = files.take(torch.arange(len(files)))
    return Place(f"zip {path.name}", InMemory(content["real"], content.get("label")), folder.facts()["shape"])


MOST = 8  # GiB of images from a zip


def found_in(path: Path, title: str) -> Folder:
    folder = Folder(str(path), disk=0)  # looked at once: from the files
    folder.advice = ""
    try:
        folder.facts()
    except ValueError:
        raise Unavailable(f"{title}: its images have different sizes, and scores are of images of one size") from None
    return folder


def is_statistics(path: str | Path) -> bool:
    """Whether it is an .npz of mean and covariance, as pytorch-fid and others publish them."""
    path = Path(path).expanduser()
    return path.suffix == ".npz" and path.is_file() and {"mu", "sigma"} <= set(arrays_in(path))
