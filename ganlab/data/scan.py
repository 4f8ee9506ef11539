"""The image files below a folder, by name: millions of them in little memory."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import numpy as np
from tqdm import tqdm

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
ENDINGS = tuple(os.fsencode(e) for e in EXTENSIONS)


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
    """

    names: Names
    bad: dict[str, str] = field(default_factory=dict)
    links: int = 0
    link: str | None = None

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
        with os.scandir(os.path.join(root, prefix)) as entries:
            for entry in entries:
                bar.update()
                if entry.is_dir(follow_symlinks=False):
                    names.append(entry.name + b"\0")
                elif entry.is_symlink():
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
        found.bad[os.fsdecode(prefix) or "."] = error.strerror or str(error)
    names.sort(reverse=True)
    return names
