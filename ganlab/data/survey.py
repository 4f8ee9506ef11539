"""What is in a data set, found by looking at every image once, in the memory of a few of them."""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ganlab.data.decode import Bad, decode, opened, whole
from ganlab.data.images import as_channels
from ganlab.data.rounds import Samples
from ganlab.data.scan import images_below
from ganlab.files import Unavailable

AT_ONCE = 512  # images that are looked at before the next are begun


@dataclass
class Found:
    """A part of a set.

    count     samples that can be used
    hashes    uint64 [count], of the pixels in colour over white: equal for equal images, whatever their format
    label     int64 [count], or None
    sizes     {(height, width): how many}
    modes     {"grey", "colour", with "and alpha": how many}; empty of sets that are not files
    formats   {"PNG", ...: how many}; likewise
    bad       [(file, why it can't be read)]
    others    files that are no images by their name
    names     of the files, in the order of the hashes
    nbytes    of the files; 0 where there are none
    seconds   that reading took
    """

    count: int = 0
    hashes: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    label: np.ndarray | None = None
    sizes: Counter = field(default_factory=Counter)
    modes: Counter = field(default_factory=Counter)
    formats: Counter = field(default_factory=Counter)
    bad: list[tuple[str, str]] = field(default_factory=list)
    others: int = 0
    names: list[str] = field(default_factory=list)
    class_names: list[str] | None = None
    nbytes: int = 0
    seconds: float = 0.0

    def short_sides(self) -> np.ndarray:
        """[count], sorted."""
        return np.repeat(*map(np.array, zip(*sorted((min(size), n) for size, n in self.sizes.items()), strict=True)))

    def copies(self) -> list[list[int]]:
        """Numbers of samples that show the same, in groups of two or more, the largest group first."""
        order = np.argsort(self.hashes, kind="stable")
        edges = np.flatnonzero(np.diff(self.hashes[order])) + 1
        groups = [part.tolist() for part in np.split(order, edges) if len(part) > 1]
        return sorted(groups, key=lambda group: (-len(group), group))

    def also_in(self, other: "Found") -> np.ndarray:
        """Numbers of those samples that the other part has, too."""
        return np.flatnonzero(np.isin(self.hashes, other.hashes))


def digest(x: Tensor) -> int:
    """64 bits of an image [C, H, W]; of uint8 ones, as they look in colour over white."""
    x = as_channels(x[None], 3)[0] if x.dtype == torch.uint8 and x.dim() == 3 else x
    content = hashlib.blake2b(repr(tuple(x.shape)).encode(), digest_size=8)
    content.update(x.contiguous().numpy().data)
    return int.from_bytes(content.digest(), "little")


def survey_samples(samples: Samples, title: str) -> Found:
    """A set that is no folder of files, or a part of one."""
    found, start, hashes = Found(count=len(samples)), time.perf_counter(), []
    for rows in tqdm(torch.arange(len(samples)).split(AT_ONCE), desc=title, disable=None, leave=False):
        taken = samples.take(rows)["real"]
        hashes += [digest(x) for x in taken]
        if taken.dim() == 4:
            found.sizes[tuple(taken.shape[2:])] += len(taken)
    found.hashes = np.array(hashes, np.uint64)
    if samples.label is not None and samples.label.dim() == 1:
        found.label = samples.label.numpy()
    found.seconds = time.perf_counter() - start
    return found


def survey_folder(root: Path) -> Found:
    """All files below a folder. One that can't be decoded is listed, with the reason.

    Raises:
        Unavailable: there is no such folder, or nothing in it can be read
    """
    if not root.is_dir():
        raise Unavailable(f"data.root={root}: there is no such folder")
    there = images_below(root)
    paths, files = there.names, sum(p.is_file() for p in root.rglob("*"))
    found, start, hashes = Found(others=files - len(paths)), time.perf_counter(), []
    found.bad = list(there.bad.items())
    for path, seen in looked_at(paths, look):
        name = path.relative_to(root).as_posix()
        if isinstance(seen, str):
            found.bad.append((name, seen))
            continue
        kind, mode, size, value, nbytes = seen
        found.formats[kind] += 1
        found.modes[mode] += 1
        found.sizes[size] += 1
        found.nbytes += nbytes
        found.names.append(name)
        hashes.append(value)
    if not hashes:
        raise Unavailable(f"data.root={root}: none of its {files:,} files can be read as an image")
    found.count, found.hashes, found.seconds = len(hashes), np.array(hashes, np.uint64), time.perf_counter() - start
    if all("/" in name for name in found.names):
        of = [name.partition("/")[0] for name in found.names]
        found.class_names = sorted(set(of))
        found.label = np.searchsorted(found.class_names, of)
    return found


def looked_at(paths: Sequence[Path], see: Callable[[Path], Any]) -> Iterator[tuple[Path, Any]]:
    """(path, what `see` says of it), by several threads, some hundred at once."""
    with (
        ThreadPoolExecutor() as pool,
        tqdm(total=len(paths), desc="looking", unit="image", disable=None, leave=False) as bar,
    ):
        for first in range(0, len(paths), AT_ONCE):
            part = paths[first : first + AT_ONCE]
            yield from zip(part, pool.map(see, part), strict=True)
            bar.update(len(part))


def look(path: Path) -> tuple[str, str, tuple[int, int], int, int] | str:
    """(format, mode, (height, width), digest, bytes) of a file, or why it can't be read."""
    try:
        with opened(path) as image:
            kind = image.format or "?"
        x = whole(path)
        mode = ("grey" if len(x) < 3 else "colour") + (" and alpha" if len(x) in (2, 4) else "")
        return kind, mode, (x.shape[1], x.shape[2]), digest(x), path.stat().st_size
    except Bad as bad:
        return bad.reason


def tiles(data: Any, root: Path | None, found: Found, chosen: Sequence[int], shape: Sequence[int]) -> Tensor:
    """uint8 [n, *shape]: these samples, scaled and cropped as a network is shown them."""
    if root is not None:
        return torch.stack([decode(root / found.names[i], shape) for i in chosen])
    return data.split("train").take(torch.tensor(chosen))["real"]
