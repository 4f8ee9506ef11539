"""Images that go together: "inputs", which G is handed, and "real", what it is to make of them."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from ganlab.data.decode import Bad, header, opened, reason_of, whole
from ganlab.data.folder import SKIP, Folder, OnDisk, tell, tried
from ganlab.data.images import as_channels, cover
from ganlab.data.rounds import GIB, DataModule, InMemory, Samples, Zipped, chosen, drawn
from ganlab.files import Unavailable
from ganlab.rng import seed_of

VOID = 255  # in a map of classes: not labelled, does not count


class Sides:
    """Sets of samples side by side. A shorter one begins again at its end.

    partners   whether samples at the same place go together
    """

    label = None

    def __init__(self, parts: Mapping[str, Samples], partners: bool = True):
        self.parts, self.partners = dict(parts), partners

    def __len__(self) -> int:
        return max(map(len, self.parts.values()))

    def take(self, indices: Tensor) -> dict[str, Tensor]:
        return {name: part.take(indices % len(part))["real"] for name, part in self.parts.items()}

    def fingerprint(self) -> str:
        content = repr([(name, part.fingerprint()) for name, part in self.parts.items()])
        return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


class Pairs(DataModule):
    """Pairs in two folders, an image and its partner having the same name; the ending may be another.

    root             the folder that both are in
    source, target   the folders in it: what G is handed, and what it is to make. "{split}" in both stands for train,
                     and for `test`: "{split}A" and "{split}B" are trainA, trainB, testA and testB
    size             pixels: one number, or (height, width); None: as the images are. They are scaled to cover it and
                     cropped
    channels         of the target, 1 to 4; None: 1 if all are grey, else 3
    source_channels  of the source, likewise
    jitter           images are scaled larger by this share, and a window of `size` is cut out at random, the same of
                     both partners (Isola et al. 2017, arXiv:1611.07004, section 6.2: 30/256); whoever looks at the data
                     otherwise, as scores do, sees all of an image
    test             what is kept for testing: a number of pairs, always the same choice; a text file, in `root` or
                     elsewhere, with a name in each line; with "{split}" what stands there, None: test
    on_bad           "error": a file that can't be read is refused. "skip": it is left out, and its partner with it

    The others are DataModule's.
    """

    PARTNERS: ClassVar[bool] = True  # whether images with the same name go together

    def __init__(
        self, root: str | None = None, source: str = "source", target: str = "target",
        size: int | Sequence[int] | None = None, channels: int | None = None, source_channels: int | None = None,
        jitter: float = 0.0, test: int | str | None = None, batch_size: int = 1, flip: bool = False,
        memory: float = 4.0, workers: int = 2, rounds: int = 8, seed: int = 0, count: int | None = None,
        on_bad: Literal["error", "skip"] = "error",
    ):  # fmt: skip
        super().__init__(batch_size, rounds, seed, flip, memory, workers, count)
        if root is None:
            raise ValueError("data.root is not set: give the folder of the pairs, as in data.root=my/pairs")
        if ("{split}" in source) != ("{split}" in target):
            raise ValueError(f"data.source={source} and data.target={target}: {{split}} must be in both, or in none")
        for key, value in (("channels", channels), ("source_channels", source_channels)):
            if value not in (None, 1, 2, 3, 4):
                raise ValueError(f"data.{key}={value}: must be 1 to 4, or null for what the images have")
        if not 0 <= jitter <= 1:
            raise ValueError(f"data.jitter={jitter}: a share of the size, from 0 to 1")
        if "{split}" in source and isinstance(test, int):
            raise ValueError(f"data.test={test}: with {{split}} in data.source it is the name of a folder, as test")
        self.root, self.places = Path(root).expanduser(), {"inputs": source, "real": target}
        self.size = (size, size) if isinstance(size, int) else tuple(size) if size is not None else None
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 4):
            raise ValueError(f"data.size={list(self.size)}: must be one number or [height, width], at least 4 pixels")
        self.channels = {"inputs": source_channels, "real": channels}
        self.jitter, self.test, self.on_bad = jitter, test, on_bad
        self._found: dict[Path, Folder] = {}
        self._shapes: dict[str, list[int]] = {}

    @property
    def title(self) -> str:
        return f"pairs {self.root.name}"

    # ------------------------------------------------------------------------------------------------------- the files

    def folder(self, side: str, split: str) -> Folder:
        """The images of one side, before any are kept for testing."""
        named = "train" if split == "train" else str(self.test or "test")
        path = self.root / self.places[side].replace("{split}", named)
        if path not in self._found:
            found = Folder(str(path), on_bad=self.on_bad)
            found.list()
            self._found[path] = found
        return self._found[path]

    def files(self, split: str) -> dict[str, list[Path]]:
        """{side: its files of a split}; partners are at the same place.

        Raises:
            Unavailable: an image has no partner, or there is no such split
        """
        sides = {side: by_name(self.folder(side, split)) for side in self.places}
        if self.PARTNERS:
            if lost := sorted(self.left_out(split) & (sides["inputs"].keys() ^ sides["real"].keys())):
                tell(f"data.on_bad=skip: {len(lost):,} whose partner can't be read are left out, too: {few(lost)}")
                sides = {side: {k: v for k, v in files.items() if k not in lost} for side, files in sides.items()}
            (a, inputs), (b, real) = ((self.folder(side, split).root, files) for side, files in sides.items())
            for one, other, alone in ((a, b, inputs.keys() - real.keys()), (b, a, real.keys() - inputs.keys())):
                if alone:
                    raise Unavailable(f"no partner in {other} for {few(sorted(alone))} of {one}")
        if "{split}" in self.places["inputs"]:
            return {side: list(files.values()) for side, files in sides.items()}
        return {side: [files[name] for name in self.names(list(files), split)] for side, files in sides.items()}

    def left_out(self, split: str) -> set[str]:
        """Names of files that can't be read, of either side."""
        return {os.path.splitext(name)[0] for side in self.places for name in self.folder(side, split).bad}

    def names(self, names: list[str], split: str) -> list[str]:
        """Those of a split, where one folder holds both.

        Raises:
            Unavailable: there is no test part, or a name that is not there is listed
        """
        if self.test is None:
            if split == "test":
                raise Unavailable(f"{self.title} has no test part: set data.test to a number of pairs")
            return names
        if isinstance(self.test, int):
            if not 0 < self.test <= len(names) - 2:
                raise ValueError(f"data.test={self.test}: from 1 to {len(names) - 2} can be kept of {len(names)} pairs")
            kept, others = drawn(len(names), self.test, "test")
            return [names[i] for i in (kept if split == "test" else others)]
        listed = self.listed()
        if missing := sorted(listed - set(names) - self.left_out(split)):
            raise Unavailable(f"data.test={self.test}: it lists {', '.join(missing[:3])}, which {self.root} has not")
        return [name for name in names if (name in listed) == (split == "test")]

    def listed(self) -> set[str]:
        """The names in the file `test`."""
        path = next((p for p in (self.root / str(self.test), Path(str(self.test))) if p.is_file()), None)
        try:
            if path is None:
                raise ValueError(f"there is no such file, in {self.root} or elsewhere")
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            raise Unavailable(f"data.test={self.test}: {error}") from None
        return {os.path.splitext(line.strip())[0] for line in lines if line.strip()}

    def native(self) -> tuple[int, int]:
        """(height, width) that all targets have.

        Raises:
            ValueError: they differ
        """
        folder = self.folder("real", "train")
        folder.measure()
        assert folder.native is not None
        return folder.native[1:]

    def shape(self, side: str) -> list[int]:
        """[C, H, W] of one side, as it is shown."""
        if side not in self._shapes:
            grey = self.folder(side, "train").grey
            self._shapes[side] = [self.channels[side] or (1 if grey else 3), *(self.size or self.native())]
        return self._shapes[side]

    def facts(self) -> dict[str, Any]:
        """What networks must know: shape [C, H, W] of what G makes, and inputs, of what it starts from; whether the
        first are maps of classes, and whether the two go together."""
        shapes = {"shape": list(self.shape("real")), "inputs": list(self.shape("inputs"))}
        labels = {"classes": None, "class_names": None, "frequencies": None, "several": False}
        return {**shapes, **labels, "maps": isinstance(self, LabelMaps), "partners": self.PARTNERS}

    # ----------------------------------------------------------------------------------------------------- the samples

    def on_disk(self, side: str, paths: Sequence[Path], size: Sequence[int]) -> OnDisk:
        return OnDisk(paths, None, [self.shape(side)[0], *size], SKIP)

    def load(self, split: str) -> Sides:
        return self.sides(split, self.shape("real")[1:])

    def sides(self, split: str, size: Sequence[int]) -> Sides:
        """Both sides at this size."""
        files = self.files(split)
        if self.PARTNERS:
            self.check_sizes(split, files)
        parts = {side: self.on_disk(side, paths, size) for side, paths in files.items()}
        if sum(part.nbytes for part in parts.values()) > self.memory * GIB:
            return Sides(parts, self.PARTNERS)
        kept = {side: part.decoded() for side, part in parts.items()}  # None: no room for the file
        held = lambda path: InMemory(torch.from_numpy(np.load(path)))
        sides = {side: held(path) if (path := kept[side]) else part for side, part in parts.items()}
        return Sides(sides, self.PARTNERS)

    def check_sizes(self, split: str, files: Mapping[str, Sequence[Path]]) -> None:
        """Raises Unavailable where partners have different sizes."""
        folders = [self.folder(side, split) for side in files]
        alike = all(f.different == 1 for f in folders) and folders[0].sizes.keys() == folders[1].sizes.keys()
        if alike or folders[0] is folders[1]:
            return
        pairs = list(zip(*files.values(), strict=True))

        def look(i: int) -> list[tuple[int, int]]:
            return [header(path)[:2] for path in pairs[i]]

        for paths, both in zip(pairs, tried(look, files["real"], "comparing sizes"), strict=True):
            if not isinstance(both, Bad) and both[0] != both[1]:  # `decode` names bad ones
                told = [f"{path} has {width}x{height}" for path, (height, width) in zip(paths, both, strict=True)]
                raise Unavailable(f"partners must have the same size: {' and '.join(told)}")

    def train_dataloader(self) -> Zipped:
        """Both sides in the same order, mirrored and cut alike."""
        height, width = self.shape("real")[1:]
        larger = [round(side * (1 + self.jitter)) for side in (height, width)]
        window = (height, width) if self.jitter else None
        shown = self.sides("train", larger) if self.jitter else self.split("train")
        assert isinstance(shown, Sides)
        parts = shown.parts
        if self.count is not None and self.count < len(shown):
            kept, _ = drawn(len(shown), self.count, "count")
            parts = {side: chosen(part, kept) for side, part in parts.items()}
        return Zipped({side: self.served(part, self.seed_of(side), window) for side, part in parts.items()})

    def seed_of(self, side: str) -> int:
        """Of a side's order."""
        return self.seed


class SideBySide(Pairs):
    """Pairs in one image each, left and right half, as pix2pix has them.

    folder   in `root`; "{split}" in it stands for train, and for `test`
    source   which half G is handed: "left" or "right"
    """

    def __init__(
        self, root: str | None = None, folder: str = ".", source: Literal["left", "right"] = "left", **kwargs: Any
    ):  # fmt: skip
        if source not in ("left", "right"):
            raise ValueError(f"data.source={source!r}: must be left or right")
        super().__init__(root, folder, folder, **kwargs)
        self.half = {"inputs": source, "real": "right" if source == "left" else "left"}

    def native(self) -> tuple[int, int]:
        height, width = super().native()
        return height, width // 2

    def on_disk(self, side: str, paths: Sequence[Path], size: Sequence[int]) -> OnDisk:
        return Half(self.half[side], paths, None, [self.shape(side)[0], *size])


class Half(OnDisk):
    """The left or right halves of images."""

    def __init__(self, half: str, *args: Any):
        super().__init__(*args)
        self.half = half

    def decode(self, path: Path) -> Tensor:
        x = whole(path)
        if x.shape[-1] % 2:
            raise Bad(path, f"it is {x.shape[-1]} pixels wide, and two images of one size side by side were expected")
        x = x.chunk(2, -1)[self.half == "right"]
        return cover(as_channels(x[None], self.shape[0]), self.shape[1:])[0]

    def fingerprint(self) -> str:
        return f"{super().fingerprint()[:15]}{'lr'.index(self.half[0])}"


class LabelMaps(Pairs):
    """Images and what is where in them: the target is a map of classes, int64 [N, H, W], 255 where nothing counts.

    map_classes   number of classes; a map's pixels, or the entries of its palette, are 0 .. map_classes - 1
    void          the number of pixels that do not count; None: all do
    palette       colours [[r, g, b], ...] of the classes, where maps are colour images; with `void`, any other does not
                  count
    """

    def __init__(
        self, root: str | None = None, map_classes: int | None = None, void: int | None = None,
        palette: Sequence[Sequence[int]] | None = None, **kwargs: Any,
    ):  # fmt: skip
        super().__init__(root, **kwargs)
        self.map_classes = map_classes or (len(palette) if palette is not None else 0)
        if not 2 <= self.map_classes <= VOID:
            raise ValueError(f"data.map_classes={map_classes}: how many classes the maps have, from 2 to {VOID}")
        if palette is not None and len(palette) != self.map_classes:
            raise ValueError(
                f"data.palette has {len(palette)} colours, and data.map_classes={map_classes}: one for each class"
            )
        if palette is not None and any(len(c) != 3 or not all(0 <= v <= 255 for v in c) for c in palette):
            raise ValueError("data.palette: must be colours [red, green, blue], each from 0 to 255")
        self.void, self.palette = void, [tuple(color) for color in palette] if palette is not None else None

    def shape(self, side: str) -> list[int]:
        channels, *size = super().shape(side)
        return [self.map_classes if side == "real" else channels, *size]

    def on_disk(self, side: str, paths: Sequence[Path], size: Sequence[int]) -> OnDisk:
        if side == "inputs":
            return super().on_disk(side, paths, size)
        return Maps(self.map_classes, self.void, self.palette, paths, None, size)


class Maps(OnDisk):
    """Maps of classes, uint8 [H, W]."""

    def __init__(self, classes: int, void: int | None, palette: Sequence[tuple[int, ...]] | None, *args: Any):
        super().__init__(*args)
        self.classes, self.void, self.palette = classes, void, palette

    def decode(self, path: Path) -> Tensor:
        with opened(path) as image:
            try:
                image.load()
                if self.palette is not None:
                    ids = self.of_colors(np.asarray(image.convert("RGB")).astype(np.int64))
                elif image.mode in ("P", "L", "1", "I", "I;16", "I;16B"):
                    ids = np.asarray(image).astype(np.int64)
                else:
                    raise ValueError("it is a colour image: give data.palette, the colour of each class")
                void = ids == (self.void if self.palette is None else -1) if self.void is not None else ids != ids
                wrong = ids[~void & ((ids < 0) | (ids >= self.classes))]
                if wrong.size:
                    raise ValueError(self.told(int(wrong[0])))
                ids = np.where(void, VOID, ids).astype(np.uint8)
            except Exception as error:
                raise Bad(path, reason_of(error)) from None
        return cover(torch.from_numpy(ids)[None, None], self.shape, smooth=False)[0, 0]

    def of_colors(self, x: np.ndarray) -> np.ndarray:
        """[H, W, 3] -> [H, W], -1 for colours that are no class's."""
        code, ids = x @ np.array([1 << 16, 1 << 8, 1]), np.full(x.shape[:2], -1)
        for i, (r, g, b) in enumerate(self.palette or ()):
            ids[code == (r << 16) + (g << 8) + b] = i
        return ids

    def told(self, found: int) -> str:
        if self.palette is not None:
            return "it has a colour that data.palette has not: add it, or set data.void"
        fix = f"if that does not count, set data.void={found}"
        return f"it has class {found}, and data.map_classes={self.classes} are 0 to {self.classes - 1}: {fix}"

    def fingerprint(self) -> str:
        content = repr((super().fingerprint(), self.classes, self.void, self.palette))
        return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


class Unpaired(Pairs):
    """Two folders of images that have nothing to do with one another, each in its own order: a round shows as many of
    the one as of the other, and neither waits for the other's end."""

    PARTNERS = False

    def __init__(self, root: str | None = None, **kwargs: Any):
        super().__init__(root, **kwargs)
        if self.count is not None:
            raise ValueError(
                f"data.count={self.count}: the two folders have their own counts: leave images out of them"
            )

    def seed_of(self, side: str) -> int:
        return seed_of(self.seed, side)


def few(names: Sequence[str]) -> str:
    """The first three, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")


def by_name(folder: Folder) -> dict[str, Path]:
    """{name within the folder, without its ending: file}, in the order of files.

    Raises:
        Unavailable: two files differ in their ending alone
    """
    assert folder.root is not None
    found: dict[str, Path] = {}
    for path in folder.paths:
        name = os.path.splitext(path.relative_to(folder.root).as_posix())[0]
        if name in found:
            raise Unavailable(f"{found[name]} and {path}: which one is meant? Remove one of them")
        found[name] = path
    return found
