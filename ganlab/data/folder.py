"""The user's own images: a folder, its class subfolders being the labels, or a table of attributes."""

import errno
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from tqdm import tqdm

from ganlab.data.attributes import read_table
from ganlab.data.decode import Bad, decode, header, whole
from ganlab.data.images import Images
from ganlab.data.mapped import Mapped
from ganlab.data.rounds import GIB, InMemory, Samples
from ganlab.data.scan import EXTENSIONS, Found, Names, listed
from ganlab.data.windows import Files, Windows
from ganlab.files import Remote, Unavailable, atomic, cache_folder, fetch, unpack, write_text
from ganlab.ranks import rank

SKIP = ", or leave out what can't be read: data.on_bad=skip"
T = TypeVar("T")


class Folder(Images):
    """Every image below `root`. If none lies in `root` itself, each of its subfolders is a class.

    attributes       a table, CSV, in `root` or elsewhere: the names of the files in its first column, one attribute in
                     each other, 1 or 0 (or -1). A label then is a vector of these, float32 [attributes]
    attribute_names  which columns; None: all
    size       needed unless all images have the same size
    channels   None: 1 if all are grey, else 3; transparency is laid over white unless channels is 2 or 4
    memory     GiB up to which the images are kept in memory; they were decoded once, into the cache folder
    disk       GiB up to which, beyond `memory`, they are read from there; still beyond, `workers` processes decode the
               files in each epoch
    crop       "center": images are scaled to cover `size`, and the middle is cut out. "random": they stay as large as
               they are, and a window of `size` is cut out, in each epoch another
    on_bad     "error": a file that can't be read is refused. "skip": every file is decoded once, those that can't be
               are left out, and listed in the cache folder; what was found is kept until a file changes
    """

    def __init__(
        self, root: str | None = None, workers: int = 2, attributes: str | None = None,
        attribute_names: Sequence[str] | None = None, on_bad: Literal["error", "skip"] = "error",
        disk: float = 64.0, crop: Literal["center", "random"] = "center", **kwargs: Any,
    ):  # fmt: skip
        super().__init__(root, workers=workers, **kwargs)
        if crop not in ("center", "random"):
            raise ValueError(f"data.crop={crop!r}: must be center or random")
        self.disk, self.crop = disk, crop
        if on_bad not in ("error", "skip"):
            raise ValueError(f"data.on_bad={on_bad!r}: must be error or skip")
        self.attributes, self.attribute_names, self.on_bad, self.advice = attributes, attribute_names, on_bad, SKIP
        self.paths: Sequence[Path] = []
        self.bad: Mapping[str, str] = {}  # of those that were left out, why
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
            Unavailable: there is no such folder, fewer than two images are in it, or one can't be read
        """
        assert self.root is not None
        if not self.root.is_dir():
            raise Unavailable(f"data.root={self.root}: there is no such folder")
        found = listed(self.root)
        about = surveyed(found, self.on_bad)
        self.paths, kinds = found.names, " ".join(sorted(EXTENSIONS))
        if about["bad"]:
            if self.on_bad == "error":
                name, reason = next(iter(about["bad"].items()))
                refuse([Bad(self.root / name, reason)], len(found.names), self.advice, about["count"])
            self.bad, self.paths = about["bad"], found.names.but(set(about["bad"]))
            count, names = len(about["bad"]), len(found.names)
            tell(f"data.on_bad=skip: {count:,} of {names:,} can't be read and are left out, listed in {about['file']}")
        if found.links:
            tell(f"data.root={self.root}: {found.told()}")
        if len(self.paths) < 2:
            links = f"; {found.told()}" if found.links else ""
            raise Unavailable(
                f"data.root={self.root}: {len(self.paths)} images found in it, at least 2 are needed ({kinds}){links}"
            )
        self.sizes = {(h, w): n for h, w, n in about["sizes"]}
        self.different, self.grey = about["different"], about["grey"]
        if self.attributes is not None:
            self.read_attributes(self.attributes)
        else:
            self.read_classes()

    def read_classes(self) -> None:
        """If no image lies in the folder itself, each is of the class of its subfolder."""
        names = [os.fsdecode(name) for name in self.tops()]
        if "" in names:
            return
        self.class_names = sorted(set(names))
        self.classes = len(self.class_names)
        index = {name: i for i, name in enumerate(self.class_names)}
        self.labels = [index[name] for name in names]
        counts = Counter(self.labels)
        if len(set(counts.values())) > 1:
            self.frequencies = [counts[i] / len(names) for i in range(self.classes)]

    def tops(self) -> Iterator[bytes]:
        """The subfolder that each image is in, empty where it is in none."""
        assert isinstance(self.paths, Names)
        return (
            top if rest else b"" for top, _, rest in (self.paths.raw(i).partition(b"/") for i in range(len(self.paths)))
        )

    def read_attributes(self, table: str) -> None:
        """Gives each image its attributes.

        Raises:
            Unavailable: there is no such table, or it lacks an image or a column
        """
        assert self.root is not None
        path = next((p for p in (self.root / table, self.root.parent / table, Path(table)) if p.is_file()), None)
        if path is None:
            raise Unavailable(f"data.attributes={table}: there is no such file, in {self.root} or beside it")
        chosen = [self.attribute_names] if isinstance(self.attribute_names, str) else self.attribute_names
        wanted, known = read_table(path, chosen)
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
        if self.size is None and self.different > 1:
            common = ", ".join(f"{h}x{w} ({n} times)" for (h, w), n in self.sizes.items())
            raise ValueError(
                f"data.size is not set, and the images in {self.root} have {self.different} different sizes: "
                f"{common}. Say which one to train at, as in data.size=64"
            )
        self.native = (1 if self.grey else 3, *next(iter(self.sizes)))

    def on_disk(self, split: str) -> "OnDisk":
        shape = self.facts()["shape"]
        if split == "test":
            raise Unavailable("a folder of images has no test part")
        return OnDisk(self.paths, None if self.labels is None else torch.tensor(self.labels), shape, self.advice)

    def load(self, split: str) -> Samples:
        samples = self.on_disk(split)
        if self.crop == "random":
            return self.windows(samples)
        decoded = samples.decoded() if samples.nbytes <= max(self.memory, self.disk) * GIB else None
        if decoded is None and samples.nbytes <= self.memory * GIB:
            return InMemory(samples.take(torch.arange(len(samples)))["real"], samples.label)
        if decoded is None:
            return samples
        if samples.nbytes > self.memory * GIB:
            tell(f"{self.title}: {samples.nbytes / GIB:.2g} GiB, beyond data.memory, are read from {decoded}")
            self.workers = 0  # copying them costs a tenth of what handing them over from another process does
            return Mapped(decoded, samples.label)
        return InMemory(torch.from_numpy(np.load(decoded)), samples.label)

    def windows(self, samples: "OnDisk") -> Windows:
        """Parts of these images, which stay as large as they are.

        Raises:
            Unavailable: one is smaller than a part
        """
        channels, *size = samples.shape
        headers = list(tried(lambda i: header(samples.paths[i]), samples.paths, "looking at images"))
        if bad := [found for found in headers if isinstance(found, Bad)]:
            refuse(bad, len(samples), self.advice)
        sizes = [found[:2] for found in headers if not isinstance(found, Bad)]
        small = [i for i, (h, w) in enumerate(sizes) if h < size[0] or w < size[1]]
        if small:
            h, w = sizes[small[0]]
            others = f", and {len(small) - 1:,} others are too small" if len(small) > 1 else ""
            raise Unavailable(
                f"data.crop=random cuts {size[0]}x{size[1]} out of images as large as they are, and "
                f"{samples.paths[small[0]]} has {h}x{w}{others}: remove what is small, or set data.size to "
                f"{min(map(min, sizes))} or less"
            )
        files, about = Files(samples.paths, channels), stamp(samples.paths, channels)
        if channels * sum(h * w for h, w in sizes) > self.memory * GIB:
            return Windows(files, size, samples.label, about)
        decoded = list(tried(files.__getitem__, samples.paths, "reading images"))
        if bad := [image for image in decoded if isinstance(image, Bad)]:
            refuse(bad, len(samples), self.advice)
        return Windows([image for image in decoded if not isinstance(image, Bad)], size, samples.label, about)


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
    """Image files, read when asked for.

    advice   what else to do about one that can't be read
    """

    def __init__(self, paths: Sequence[Path], label: Tensor | None, shape: Sequence[int], advice: str = ""):
        self.paths, self.label, self.shape, self.advice = paths, label, shape, advice

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def nbytes(self) -> int:
        return len(self.paths) * int(np.prod(self.shape))

    def decode(self, path: Path) -> Tensor:
        """uint8 of `shape`."""
        return decode(path, self.shape)

    def fingerprint(self) -> str:
        return stamp(self.paths, list(self.shape))

    def take(self, indices: Tensor) -> dict[str, Tensor]:
        try:
            real = torch.stack([self.decode(self.paths[i]) for i in indices.tolist()])
        except Bad as bad:
            raise Bad(bad.path, bad.reason, self.advice) from None
        return {"real": real} | ({} if self.label is None else {"label": self.label[indices]})

    def decoded(self) -> Path | None:
        """An .npy file in the cache folder: uint8 [N, *shape], written when first asked for, one image at a time, and
        kept as long as no file changes. None: it can't be, and why was told."""
        path = cache_folder("decoded") / f"{self.fingerprint()}.npy"
        try:
            if not path.exists():
                with FileLock(f"{path}.lock"):  # of several processes one decodes, the others find the file
                    if not path.exists():
                        self.decode_into(path)
        except OSError as error:
            tell(f"{path.parent}: {error.strerror}: images are not kept there, and are decoded again in each epoch")
            return None
        return path

    def decode_into(self, path: Path) -> None:
        for half in path.parent.glob(f".{path.name}.*.tmp"):  # of one who was killed
            half.unlink()
        if 1.1 * self.nbytes > (free := shutil.disk_usage(path.parent).free):
            needs = f"{1.1 * self.nbytes / GIB:,.1f} GiB are needed and {free / GIB:,.1f} free (GANLAB_CACHE moves it)"
            raise OSError(errno.ENOSPC, needs)
        with atomic(path) as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(self), *self.shape)}
            np.lib.format.write_array_header_1_0(file, header)
            start, size, alone = file.tell(), self.nbytes // len(self), Lock()

            def fill(i: int) -> None:
                image = self.decode(self.paths[i]).contiguous().numpy()
                with alone:  # written, not mapped: on a disk that is full, that is an error and no crash
                    file.seek(start + i * size)
                    file.write(image.data)

            if bad := [bad for bad in tried(fill, self.paths, "decoding images once") if isinstance(bad, Bad)]:
                refuse(bad, len(self), self.advice)


def refuse(bad: Sequence[Bad], total: int, advice: str = "", count: int | None = None) -> None:
    """Raises the first of these errors of so many images, and says how many others there are."""
    others = (count or len(bad)) - 1
    also = f", nor can {others:,} others of {total:,}" if others else ""
    raise Bad(bad[0].path, f"{bad[0].reason}{also}", advice)


def tried(function: Callable[[int], T], paths: Sequence[Path], what: str) -> Iterator[T | Bad]:
    """function(i) of each file's number, in order, or why that file is bad; by several threads."""

    def attempt(i: int) -> T | Bad:
        try:
            return function(i)
        except Bad as bad:
            return bad

    bar = tqdm(desc=what, total=len(paths), unit="image", disable=len(paths) < 2000, leave=False)
    with ThreadPoolExecutor() as pool, bar:
        for first in range(0, len(paths), 4096):  # millions of futures at once would fill the memory
            chunk = range(first, min(first + 4096, len(paths)))
            pieces = [chunk[i : i + 32] for i in range(0, len(chunk), 32)]
            for results in pool.map(lambda piece: [attempt(i) for i in piece], pieces):
                yield from results
                bar.update(len(results))


def surveyed(found: Found, on_bad: str) -> dict[str, Any]:
    """What the headers of all files say, or with on_bad="skip" their pixels: sizes [[h, w, how many]], the most common
    three, how many are different, whether all are grey, and bad {relative name: reason}; on_bad="error": the first of
    them, and their count. Kept in `file` until a file changes."""
    root, names = found.names.root, found.names
    path = cache_folder("folders") / f"{stamp(names, on_bad, sorted(found.bad.items()))}.json"
    if not path.exists():
        sizes, grey, bad, count = Counter[tuple[int, int]](), True, dict(found.bad), len(found.bad)

        def look(i: int) -> tuple[int, int, bool]:
            if on_bad == "skip":
                whole(names[i])
            return header(names[i])

        for i, result in enumerate(tried(look, names, "looking at images")):
            if isinstance(result, Bad):
                count += 1
                if on_bad == "skip" or not bad:
                    bad[names[i].relative_to(root).as_posix()] = result.reason
            else:
                sizes[result[:2]] += 1
                grey &= result[2]
        common = [[*size, n] for size, n in sizes.most_common(3)]
        about = {"sizes": common, "different": len(sizes), "grey": grey, "bad": bad, "count": count}
        if bad and on_bad == "error":  # about to be refused
            return about | {"file": None}
        write_text(path, json.dumps(about, indent=1))
    return json.loads(path.read_text()) | {"file": path}


def stamp(paths: Sequence[Path], *more: Any) -> str:
    """16 hex digits that change with these files' names, sizes and times.

    Raises:
        Bad: one of them is gone
    """
    content = hashlib.blake2b(":".join(map(repr, more)).encode(), digest_size=8)
    try:
        if isinstance(paths, Names):
            content.update(paths.stamp)
        else:
            for path in tqdm(paths, desc="looking for changes", unit="image", delay=2, leave=False):
                stat = path.stat()
                content.update(f"{path.absolute()}:{stat.st_size}:{stat.st_mtime_ns};".encode(errors="surrogateescape"))
    except OSError as error:
        raise Bad(Path(os.fsdecode(error.filename)), error.strerror or str(error)) from None
    return content.hexdigest()


_told: set[str] = set()


def tell(line: str) -> None:
    """Prints a line, once, in one of several processes."""
    if line not in _told and rank() == 0:
        _told.add(line)
        print(line, flush=True)
