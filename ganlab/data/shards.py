"""Sets beyond memory: tar files as WebDataset has them, with an index, as `python -m ganlab.pack` writes them."""

import hashlib
import io
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from tqdm import tqdm

from ganlab.data.decode import Bad, decode
from ganlab.data.folder import stamp
from ganlab.data.images import Images, conform
from ganlab.data.order import InGroups, Order
from ganlab.data.rounds import GIB, InMemory, Samples
from ganlab.files import Unavailable, cache_folder, digest

VERSION, INDEX, HALF = 1, "index.json", "half.json"  # the latter is there while shards are written
MEMBERS, LABELS = "members.npy", "labels.npy"
ADVICE = ": copy it anew, or pack the set again"


class Shards(Images):
    """A folder that `python -m ganlab.pack` wrote. What the networks must know is in its index.

    near     shards that are shuffled together: an epoch goes through groups of so many, and reads nothing else
             meanwhile. What the system keeps of them in memory should have room there
    memory   GiB up to which the images are kept in memory; beyond, they are read in the same order, by `workers`
             processes, or where they are pixels, by a thread of this one
    verify   compare each shard with its checksum, once, and again when it changes; false: its size alone, and each
             image when it is read
    """

    def __init__(self, root: str | None = None, workers: int = 2, near: int = 8, verify: bool = True, **kwargs: Any):
        super().__init__(root, workers=workers, **kwargs)
        self.near, self.verify = near, verify
        self.index: Index | None = None

    @property
    def title(self) -> str:
        return f"shards {self.root.name}" if self.root else "shards"

    def check(self) -> None:
        super().check()
        if self.root is None:
            raise ValueError("data.root is not set: give the folder that ganlab.pack wrote, as in data.root=my/shards")

    def measure(self) -> None:
        if self.index is None:
            assert self.root is not None
            self.index = Index(self.root)
            self.native = self.index.shape
            self.classes, self.class_names = self.index.classes, self.index.class_names
            self.frequencies, self.several = self.index.frequencies, self.index.several

    def load(self, split: str) -> Samples:
        shape = self.facts()["shape"]
        if split == "test":
            raise Unavailable("a folder of shards has no test part")
        assert self.index is not None
        self.index.check_files(self.verify)
        samples = Packed(self.index, shape)
        if samples.nbytes <= self.memory * GIB:
            return samples.held()
        if self.index.raw:
            self.workers = 0  # reading pixels costs less than handing them over from another process does
        return samples

    def state_dict(self) -> dict[str, Any]:
        self.measure()
        assert self.index is not None
        return {**super().state_dict(), "shards": self.index.about}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if (now := self.state_dict()["shards"]) != state["shards"]:
            raise ValueError(
                f"resume: the run was begun with other shards than those in {self.root} (index {state['shards']}, not "
                f"{now}), which would be shown in another order. Give the same ones, or begin a new run with finetune="
            )

    def order(self, samples: Samples, seed: int) -> Order:
        """The same whether they are in memory or not."""
        if self.balanced or not isinstance(samples, Packed | Held):
            return super().order(samples, seed)
        return InGroups(samples.counts, self.near, self.batch_size, seed, self.flip)


class Index:
    """What the index of a folder of shards says, which anybody may have written.

    shards   {"name", "count", "bytes", "sha256"} each
    files    {"name", "bytes", "sha256"} of MEMBERS and, where there are labels, LABELS
    raw      images are pixels, .npy of `shape`, not files to decode

    Raises:
        Unavailable: there is none, or it is another
    """

    def __init__(self, root: Path):
        self.root, path = root, root / INDEX
        if not path.is_file():
            if not root.is_dir():
                raise Unavailable(f"data.root={root}: there is no such folder")
            half = (root / HALF).exists()
            why = "it was packed in part: give the same command again" if half else "was it packed by ganlab.pack?"
            raise Unavailable(f"data.root={root}: there is no {INDEX} in it: {why}")
        try:
            content = path.read_bytes()
            told = json.loads(content)
            version = told["version"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise Unavailable(f"{path} can't be read as an index of shards{ADVICE}") from None
        if version != VERSION:
            raise Unavailable(f"{path} has version {version}, and this ganlab reads {VERSION}: pack the set again")
        self.about = hashlib.blake2b(content, digest_size=8).hexdigest()
        try:
            self.read(told)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Unavailable(f"{path} is damaged ({error!r}){ADVICE}") from None

    def read(self, told: Mapping[str, Any]) -> None:
        self.shards, self.files, self.raw = told["shards"], told["files"], told["raw"]
        self.shape: tuple[int, int, int] = tuple(told["shape"])
        self.classes, self.class_names = told["classes"], told["class_names"]
        self.frequencies, self.several = told["frequencies"], told["several"]
        self.counts = [shard["count"] for shard in self.shards]
        self.count = sum(self.counts)
        names, classes = self.class_names, self.classes
        right = {
            "shards": self.counts and all(isinstance(count, int) and count > 0 for count in self.counts),
            "shape": len(self.shape) == 3 and all(isinstance(n, int) and 0 < n <= 8192 for n in self.shape),
            "files": [f["name"] for f in self.files] == [MEMBERS, *([] if classes is None else [LABELS])],
            "classes": classes is None or (isinstance(classes, int) and classes > 0),
            "class_names": names is None or (len(names) == classes and all(isinstance(name, str) for name in names)),
            "frequencies": self.frequencies is None or (len(self.frequencies) == classes and sum(self.frequencies) > 0),
        }
        for file in [*self.shards, *self.files]:
            plain = isinstance(file["name"], str) and Path(file["name"]).name == file["name"]
            right[file["name"]] = plain and isinstance(file["bytes"], int) and isinstance(file["sha256"], str)
        if wrong := [key for key in right if not right[key]]:
            raise ValueError(wrong[0])

    @staticmethod
    def entry(path: Path) -> dict[str, Any]:
        """What an index says of a file."""
        return {"name": path.name, "bytes": path.stat().st_size, "sha256": digest(path)}

    def check_files(self, thorough: bool) -> None:
        """Compares sizes, and if `thorough` checksums, of all files with what they were when they were written. What
        was found right is not looked at again until a file changes.

        Raises:
            Unavailable: names the first that is another one
        """
        files = [*self.files, *self.shards]
        paths = [self.root / file["name"] for file in files]
        for file, path in zip(files, paths, strict=True):
            if not path.is_file():
                raise Unavailable(f"{path} is not there{ADVICE}")
            if (size := path.stat().st_size) != file["bytes"]:
                what = "is truncated" if size < file["bytes"] else "was changed"
                raise Unavailable(f"{path} {what}: it has {size:,} bytes, and had {file['bytes']:,}{ADVICE}")
        if not thorough:
            return
        right = cache_folder("shards") / stamp(paths, self.about)
        with FileLock(f"{right}.lock"):  # of several processes one reads them
            if not right.exists():
                size = sum(file["bytes"] for file in files)
                bar = tqdm(desc="checking shards", total=size, unit="B", unit_scale=True, delay=2, leave=False)
                with bar, ThreadPoolExecutor() as pool:
                    for file, path, found in zip(files, paths, pool.map(digest, paths), strict=True):
                        if found != file["sha256"]:
                            raise Unavailable(f"{path} was changed: its checksum is another than it was{ADVICE}")
                        bar.update(file["bytes"])
                right.touch()

    def array(self, name: str, shape: tuple[int, ...], kinds: str) -> np.ndarray:
        """One of its .npy files, mapped.

        Raises:
            Unavailable: it is another one
        """
        path = self.root / name
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise Unavailable(f"{path} can't be read ({error}){ADVICE}") from None
        if array.shape != shape or array.dtype.kind not in kinds:
            raise Unavailable(f"{path} is damaged: it holds {array.dtype} {array.shape}{ADVICE}")
        return array

    def label(self) -> Tensor | None:
        """int64 [count], or float32 [count, classes] where a sample may have several."""
        if self.classes is None:
            return None
        if self.several:
            return torch.from_numpy(self.array(LABELS, (self.count, self.classes), "f").astype(np.float32))
        label = torch.from_numpy(self.array(LABELS, (self.count,), "i").astype(np.int64))
        if not 0 <= int(label.min()) <= int(label.max()) < self.classes:
            raise Unavailable(f"{self.root / LABELS} is damaged: labels go beyond {self.classes} classes{ADVICE}")
        return label


class Packed:
    """Images in shards, of which those asked for are read: each is at a known place.

    shape   that they are scaled to
    rows    which of them, in order; None: all
    """

    def __init__(self, index: Index, shape: Sequence[int], rows: Tensor | None = None, label: Tensor | None = None):
        self.index, self.shape, self.rows = index, list(shape), rows
        self.label = index.label() if rows is None else label
        self.counts = index.counts if rows is None else left(index.counts, rows)
        self.members = index.array(MEMBERS, (index.count, 3), "i")  # where it begins, its bytes, their CRC-32
        self.ends = np.cumsum(index.counts)
        self.start = npy_header(index.shape)
        self.paths = [(index.root / shard["name"], shard["bytes"]) for shard in index.shards]
        self.file = lru_cache(maxsize=64)(lambda shard: File(self.paths[shard][0]))

    def __reduce__(self) -> Any:
        return Packed, (self.index, self.shape, self.rows, self.label)  # to another process go no open files

    def __len__(self) -> int:
        return self.index.count if self.rows is None else len(self.rows)

    @property
    def nbytes(self) -> int:
        return len(self) * int(np.prod(self.shape))

    def fingerprint(self) -> str:
        content = hashlib.blake2b(repr((self.index.about, self.shape)).encode(), digest_size=8)
        content.update(b"" if self.rows is None else self.rows.numpy().tobytes())
        return content.hexdigest()

    def subset(self, rows: Tensor) -> "Packed":
        """rows: in order"""
        label = None if self.label is None else self.label[rows]
        return Packed(self.index, self.shape, rows if self.rows is None else self.rows[rows], label)

    def take(self, indices: Tensor) -> dict[str, Tensor]:
        numbers = (indices if self.rows is None else self.rows[indices]).numpy()
        shards, places = np.searchsorted(self.ends, numbers, side="right").tolist(), self.members[numbers].tolist()
        real = np.empty((len(numbers), *(self.index.shape if self.index.raw else self.shape)), np.uint8)
        for i, number in enumerate(numbers.tolist()):
            real[i] = self.image(number, shards[i], *places[i])
        x = conform(torch.from_numpy(real), self.shape)
        return {"real": x} | ({} if self.label is None else {"label": self.label[indices]})

    def image(self, number: int, shard: int, offset: int, size: int, crc: int) -> np.ndarray:
        """uint8 of `shape`, or as it is stored where pixels are.

        Raises:
            Unavailable: it is not what was written
        """
        path, length = self.paths[shard]
        try:
            if offset < 0 or not 0 < size <= length - offset:
                raise ValueError(f"{MEMBERS} says that it lies outside")
            content = self.file(shard).read(offset, size)
            if len(content) < size:
                raise ValueError("the shard is truncated")
            if zlib.crc32(content) != crc:
                raise ValueError("it was changed, its checksum is another")
            if not self.index.raw:
                return decode(path, self.shape, content).numpy()
            return np.frombuffer(content, np.uint8, offset=len(self.start)).reshape(self.index.shape)
        except (OSError, ValueError, Bad) as error:
            why = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            raise Unavailable(f"{path}: image {number:09} in it can't be read ({why}){ADVICE}") from None

    def held(self) -> "Held":
        """All of them, in memory."""
        real, parts = torch.empty(len(self), *self.shape, dtype=torch.uint8), torch.arange(len(self)).split(512)

        def fill(rows: Tensor) -> int:
            real[rows] = self.take(rows)["real"]
            return len(rows)

        bar = tqdm(desc="reading shards", total=len(self), unit="image", delay=2, leave=False)
        with bar, ThreadPoolExecutor() as pool:
            for count in pool.map(fill, parts):
                bar.update(count)
        return Held(self, real)


class Held(InMemory):
    """The same images, in memory."""

    def __init__(self, packed: Packed, real: Tensor):
        super().__init__(real, packed.label)
        self.packed, self.counts = packed, packed.counts

    def subset(self, rows: Tensor) -> "Held":
        """rows: in order"""
        return Held(self.packed.subset(rows), self.take(rows)["real"])

    def fingerprint(self) -> str:
        return self.packed.fingerprint()


class File:
    """An open file, of which several threads may read; it is closed when nobody does any more."""

    def __init__(self, path: Path):
        self.handle = os.open(path, os.O_RDONLY)

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self.handle, size, offset)

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            os.close(self.handle)


def left(counts: Sequence[int], rows: Tensor) -> list[int]:
    """How many of these rows each shard has."""
    shards = torch.bucketize(rows, torch.tensor(counts).cumsum(0), right=True)
    return torch.bincount(shards, minlength=len(counts)).tolist()


def npy_header(shape: Sequence[int]) -> bytes:
    """With which an .npy file of uint8 [*shape] begins."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)})
    return file.getvalue()
