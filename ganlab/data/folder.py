"""The user's own images: a folder, its class subfolders being the labels, or a table of attributes."""

import csv
import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from ganlab.data.images import Images, as_channels, cover
from ganlab.data.rounds import GIB, InMemory, Samples
from ganlab.files import Remote, Unavailable, atomic, cache_folder, fetch, unpack

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, UnidentifiedImageError, Image.DecompressionBombError)


class Folder(Images):
    """Every image below `root`. If none lies in `root` itself, each of its subfolders is a class.

    attributes       a table, CSV, in `root` or elsewhere: the names of the files in its first column, one attribute in
                     each other, 1 or 0 (or -1). A label then is a vector of these, float32 [attributes]
    attribute_names  which columns; None: all
    size       needed unless all images have the same size
    channels   None: 1 if all are grey, else 3; transparency is laid over white unless channels is 2 or 4
    memory     GiB; beyond, the images stay on disk and `workers` processes read them
    """

    def __init__(
        self, root: str | None = None, workers: int = 2, attributes: str | None = None,
        attribute_names: Sequence[str] | None = None, **kwargs: Any,
    ):  # fmt: skip
        super().__init__(root, workers=workers, **kwargs)
        self.attributes, self.attribute_names = attributes, attribute_names
        self.paths: list[Path] = []
        self.labels: Any = None  # numbers, or vectors

    @property
    def title(self) -> str:
        return f"folder {self.root.name}" if self.root else "folder"

    def check(self) -> None:
        super().check()
        if self.root is None:
            raise ValueError("data.root is not set: give the folder of images, as in data.root=my/pictures")

    def list(self) -> None:
        """Finds the images and their classes.

        Raises:
            Unavailable: there is no such folder, or fewer than two images in it
        """
        assert self.root is not None
        if not self.root.is_dir():
            raise Unavailable(f"data.root={self.root}: there is no such folder")
        found = sorted(p for p in self.root.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file())
        if len(found) < 2:
            kinds = " ".join(sorted(EXTENSIONS))
            raise Unavailable(
                f"data.root={self.root}: {len(found)} images found in it, at least 2 are needed ({kinds})"
            )
        self.paths = found
        if self.attributes is not None:
            self.read_attributes(self.attributes)
        elif all(p.parent != self.root for p in found):
            of = [p.relative_to(self.root).parts[0] for p in found]
            self.class_names = sorted(set(of))
            self.classes = len(self.class_names)
            index = {name: i for i, name in enumerate(self.class_names)}
            self.labels = [index[name] for name in of]
            counts = Counter(self.labels)
            if len(set(counts.values())) > 1:
                self.frequencies = [counts[i] / len(found) for i in range(self.classes)]

    def read_attributes(self, table: str) -> None:
        """Gives each image its attributes.

        Raises:
            Unavailable: there is no such table, or it lacks an image or a column
        """
        assert self.root is not None
        path = next((p for p in (self.root / table, self.root.parent / table, Path(table)) if p.is_file()), None)
        if path is None:
            raise Unavailable(f"data.attributes={table}: there is no such file, in {self.root} or beside it")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        if lines and lines[0].strip().isdigit():  # as CelebA's own: a count, then names, separated by blanks
            names, rows = lines[1].split(), [line.split() for line in lines[2:]]
        else:
            (_, *names), *rows = [row for row in csv.reader(lines) if row] or [[""]]
        for row in rows:
            if len(row) != len(names) + 1 or not set(row[1:]) <= {"0", "1", "-1"}:
                raise Unavailable(
                    f"data.attributes={table}: a file's name and {len(names)} times 1, 0 or -1, with commas, were "
                    f"expected, and there is {','.join(row)[:80]!r}"
                )
        chosen = [self.attribute_names] if isinstance(self.attribute_names, str) else self.attribute_names
        wanted = list(chosen or names)
        if missing := [name for name in wanted if name not in names]:
            raise Unavailable(f"data.attribute_names: {path} has no {', '.join(missing)}; there are {', '.join(names)}")
        at = [names.index(name) for name in wanted]
        known = {row[0]: [float(row[1:][i] == "1") for i in at] for row in rows}
        of = [known.get(p.relative_to(self.root).as_posix(), known.get(p.name)) for p in self.paths]
        if None in of:
            first, count = self.paths[of.index(None)].name, of.count(None)
            raise Unavailable(f"data.attributes={table}: {count} images are not in it, {first} is the first of them")
        self.labels, self.class_names, self.classes, self.several = of, wanted, len(wanted), True
        self.frequencies = torch.tensor(of).mean(0).tolist()

    def measure(self) -> None:
        if self.native is not None:
            return
        self.list()
        sizes, grey = Counter[tuple[int, int]](), True
        for path in tqdm(self.paths, desc="sizes", unit="image", disable=len(self.paths) < 2000, leave=False):
            with opened(path) as image:
                sizes[image.height, image.width] += 1
                grey &= image.mode in ("1", "L", "LA", "I;16", "I;16B", "I", "F")
        if self.size is None and len(sizes) > 1:
            common = ", ".join(f"{h}x{w} ({n} times)" for (h, w), n in sizes.most_common(3))
            raise ValueError(
                f"data.size is not set, and the images in {self.root} have {len(sizes)} different sizes: "
                f"{common}. Say which one to train at, as in data.size=64"
            )
        self.native = (1 if grey else 3, *sizes.most_common(1)[0][0])

    def on_disk(self, split: str) -> "OnDisk":
        shape = self.facts()["shape"]
        if split == "test":
            raise Unavailable("a folder of images has no test part")
        return OnDisk(self.paths, None if self.labels is None else torch.tensor(self.labels), shape)

    def load(self, split: str) -> Samples:
        samples = self.on_disk(split)
        return InMemory(samples.all(), samples.label) if samples.nbytes <= self.memory * GIB else samples


class CelebA(Folder):
    """202,599 aligned faces, 178x218 (Liu et al. 2015, arXiv:1411.7766), its 40 attributes in list_attr_celeba.txt. Its
    owners serve it from a place that scripts can't read: put img_align_celeba.zip, or the folder in it, into `root`,
    and beside it list_attr_celeba.txt, where attributes are wanted."""

    archive = Remote("img_align_celeba.zip", (), "md5:00d2c5bc6d35e252742224ab0c1e8fcb")

    def list(self) -> None:
        assert self.root is not None
        folder = self.root / "img_align_celeba"
        if not folder.is_dir() and not any(self.root.glob("*.jpg")):
            hint = "From https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html, 'Align&Cropped Images'."
            unpack(fetch(self.archive, self.root, hint), self.root)
        self.root = folder if folder.is_dir() else self.root
        super().list()


class OnDisk:
    """Image files, read when asked for."""

    def __init__(self, paths: Sequence[Path], label: Tensor | None, shape: Sequence[int]):
        self.paths, self.label, self.shape = paths, label, shape

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def nbytes(self) -> int:
        return len(self.paths) * int(np.prod(self.shape))

    def fingerprint(self) -> str:
        content = hashlib.blake2b(repr(list(self.shape)).encode(), digest_size=8)
        for path in self.paths:
            stat = path.stat()
            content.update(f"{path.absolute()}:{stat.st_size}:{stat.st_mtime_ns};".encode())
        return content.hexdigest()

    def take(self, indices: Tensor) -> dict[str, Tensor]:
        real = torch.stack([decode(self.paths[i], self.shape) for i in indices.tolist()])
        return {"real": real} | ({} if self.label is None else {"label": self.label[indices]})

    def all(self) -> Tensor:
        """uint8 [N, *shape], decoded once and kept in the cache folder as long as no file changes."""
        cached = cache_folder("decoded") / f"{self.fingerprint()}.npy"
        if not cached.exists():
            with ThreadPoolExecutor() as pool:
                images = pool.map(lambda path: decode(path, self.shape), self.paths)
                bar = tqdm(images, desc="reading images", total=len(self), unit="image", disable=len(self) < 2000)
                array = np.stack([image.numpy() for image in bar])
            with atomic(cached) as file:
                np.save(file, array)
        return torch.from_numpy(np.load(cached))


def opened(path: Path) -> Image.Image:
    """The image, not decoded yet.

    Raises:
        Unavailable: the file can't be read as an image
    """
    try:
        image = Image.open(path)
        if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
            raise OSError(f"{image.width}x{image.height} pixels are too many")
        return image
    except UNREADABLE as error:
        raise Unavailable(f"{path} can't be read as an image ({error}): remove or repair it") from None


def decode(path: Path, shape: Sequence[int]) -> Tensor:
    """uint8 [C, H, W] of the first frame, upright as its EXIF data say."""
    channels, *size = shape
    with opened(path) as image:
        try:
            x = pixels(ImageOps.exif_transpose(image))
        except UNREADABLE as error:
            raise Unavailable(f"{path} can't be read as an image ({error}): remove or repair it") from None
    return cover(as_channels(x[None], channels), size)[0]


def pixels(image: Image.Image) -> Tensor:
    """uint8 [1 to 4, H, W]: grey, grey with alpha, colour, or colour with alpha."""
    if image.mode in ("I;16", "I;16B", "I", "F"):  # deep grey: the file's 16 bits become 8
        deep = np.asarray(image).astype(np.float64)
        return torch.from_numpy((deep / 257).round().clip(0, 255).astype(np.uint8))[None]
    alpha = "A" in image.getbands() or "transparency" in image.info
    grey = image.mode in ("1", "L", "LA")
    x = torch.from_numpy(np.array(image.convert(("LA" if alpha else "L") if grey else ("RGBA" if alpha else "RGB"))))
    return x[None] if x.dim() == 2 else x.permute(2, 0, 1)
