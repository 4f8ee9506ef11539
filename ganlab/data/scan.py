"""The image files below a folder, by name: millions of them in little memory, and listed once."""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import overload

import numpy as np
from tqdm import tqdm

from ganlab.files import Unavailable, arrays_in, atomic, cache_folder

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
ENDINGS = tuple(os.fsencode(e) for e in EXTENSIONS)
MANY = 10_000  # files of a folder whose listing is kept
SETTLED = 5_000_000_000  # ns that a folder must not have changed, for its time to tell the next change


class Names(Sequence[Path]):
    """Paths below `root`, kept in one piece of memory: 8 bytes each besides the names, where a list of paths takes
    hundreds."""

    def __init__(self, root: Path, names: Iterable[bytes]):
        self.root, packed, ends = root, bytearray(), []
        pieces = []
        for name in names:
            packed += name
            ends.append(len(packed))
            if len(ends) == 1 << 16:
                pieces.append(np.array(ends, np.int64))
                ends = []
        self.packed = bytes(packed)
        self.ends = np.concatenate([np.zeros(1, np.int64), *pieces, np.array(ends, np.int64)])

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, i: int) -> Path: ...
    @overload
    def __getitem__(self, i: slice) -> "Names": ...
    def __getitem__(self, i: int | slice) -> "Path | Names":
        if isinstance(i, slice):
            return Names(self.root, map(self.raw, range(*i.indices(len(self)))))
        return self.root / os.fsdecode(self.raw(i))

    def raw(self, i: int) -> bytes:
        """Relative, with slashes."""
        i = i + len(self) if i < 0 else i
        if not 0 <= i < len(self):
            raise IndexError(i)
        return self.packed[self.ends[i] : self.ends[i + 1]]

    @cached_property
    def stamp(self) -> bytes:
        """Changes with the names, sizes and times of these files; looked up once, by several threads, since a file
        system on the net takes its time to answer.

        Raises:
            OSError: one of them is gone
        """
        home, content = os.path.join(os.fsencode(self.root.absolute()), b""), hashlib.blake2b(digest_size=16)

        def look(first: int) -> bytes:
            ends = self.ends[first : first + 2049].tolist()
            stats = [os.stat(home + self.packed[start:end]) for start, end in pairwise(ends)]
            return np.array([(stat.st_size, stat.st_mtime_ns) for stat in stats], np.int64).tobytes()

        content.update(home + self.packed + self.ends.tobytes())
        bar = tqdm(desc="looking for changes", total=len(self), unit="image", delay=2, leave=False)
        with bar, ThreadPoolExecutor(8) as pool:
            for looked in pool.map(look, range(0, len(self), 2048)):
                content.update(looked)
                bar.update(len(looked) // 16)
        return content.digest()

    def but(self, left_out: set[str]) -> "Names":
        """Those whose relative names are not among these."""
        return Names(self.root, (name for name in map(self.raw, range(len(self))) if os.fsdecode(name) not in left_out))


@dataclass
class Found:
    """What a folder holds.

    names   of the image files, in the order of their parts
    bad     {relative name of a folder that can't be read: why}
    links   how many links are not followed since they lead out of the folder, to a folder, or nowhere
    link    the first of them, by name
    times   {folder: when it changed last, in ns, before it was listed}
    plain   there are neither links nor folders that can't be read: what is there, `times` tell
    """

    names: Names
    bad: dict[str, str] = field(default_factory=dict)
    links: int = 0
    link: str | None = None
    times: dict[bytes, int] = field(default_factory=dict)
    plain: bool = True

    def told(self) -> str:
        """What is to be said about links."""
        if not self.links:
            return ""
        what = "link leads" if self.links == 1 else "links lead"
        return f"{self.links:,} {what} out of it, to a folder or nowhere, not followed: {self.link}"


def images_below(root: Path) -> Found:
    """All files with the ending of an image. Links to files within `root` count, all others don't, so that nothing
    from outside gets in and no circle is run in; `root` itself may be a link."""
    found = Found(Names(root, ()))
    with tqdm(desc=f"files in {root.name}", unit="", unit_scale=True, delay=2, leave=False) as bar:
        found.names = Names(root, _walk(os.fsencode(root), found, bar))
    return found


def listed(root: Path) -> Found:
    """The same. Of many files the listing is kept in the cache folder, until a folder changes."""
    path = cache_folder("folders") / f"{hashlib.blake2b(os.fsencode(root.resolve()), digest_size=8).hexdigest()}.npz"
    if (names := kept(path, root)) is not None:
        return Found(names)
    began = time.time_ns()
    found = images_below(root)
    if found.plain and len(found.names) >= MANY and max(found.times.values()) < began - SETTLED:
        folders = np.frombuffer(b"".join(folder + b"\0" for folder in found.times), np.uint8)
        times = np.array(list(found.times.values()), np.int64)
        packed = np.frombuffer(found.names.packed, np.uint8)
        with suppress(OSError), atomic(path) as file:  # without room there, it is listed again
            np.savez(file, names=packed, ends=found.names.ends, folders=folders, times=times)
    return found


def kept(path: Path, root: Path) -> Names | None:
    """The names in a kept listing; None: there is none, or a folder has changed."""
    try:
        told = arrays_in(path)
        folders = told["folders"].tobytes().split(b"\0")[:-1]
        now = [os.stat(os.path.join(os.fsencode(root), folder)).st_mtime_ns for folder in folders]
        if now != told["times"].tolist():
            return None
        names = Names(root, ())
        names.packed, names.ends = told["names"].tobytes(), told["ends"]
        return names
    except (OSError, KeyError, Unavailable):
        return None


def _walk(root: bytes, found: Found, bar: tqdm) -> Iterator[bytes]:
    home = os.path.join(os.path.realpath(root), b"")
    stack = [(b"", _listed(root, b"", home, found, bar))]
    while stack:
        prefix, names = stack[-1]
        if not names:
            stack.pop()
            continue
        name = names.pop()
        if name.endswith(b"\0"):
            inside = prefix + name[:-1] + b"/"
            stack.append((inside, _listed(root, inside, home, found, bar)))
        else:
            yield prefix + name


def _listed(root: bytes, prefix: bytes, home: bytes, found: Found, bar: tqdm) -> list[bytes]:
    """Names in one folder, the last first; those of folders end in a zero byte, which sorts before any other."""
    names = []
    try:
        found.times[prefix] = os.stat(os.path.join(root, prefix)).st_mtime_ns
        with os.scandir(os.path.join(root, prefix)) as entries:
            for entry in entries:
                bar.update()
                if entry.is_dir(follow_symlinks=False):
                    names.append(entry.name + b"\0")
                elif entry.is_symlink():
                    found.plain = False
                    image = entry.name.lower().endswith(ENDINGS)
                    if image and entry.is_file() and os.path.realpath(entry.path).startswith(home):
                        names.append(entry.name)
                    elif image or entry.is_dir():
                        found.links += 1
                        name = os.fsdecode(prefix + entry.name)
                        found.link = min(found.link or name, name)
                elif entry.name.lower().endswith(ENDINGS) and entry.is_file():
                    names.append(entry.name)
    except OSError as error:
        found.bad[os.fsdecode(prefix) or "."], found.plain = error.strerror or str(error), False
    names.sort(reverse=True)
    return names
