"""The user's own clips: folders of frames, animations, film strips and video files; subfolders are the labels."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from ganlab.data.decode import Bad
from ganlab.data.films import Film, Layout, check_readers, films_below, read
from ganlab.data.folder import tell
from ganlab.data.images import as_channels
from ganlab.data.rounds import DataModule, drawn
from ganlab.files import Unavailable, memory

SKIP = ", or leave out what can't be read: data.on_bad=skip"


class Cut:
    """Windows of some clips, whose frames are kept once.

    frames   uint8 [F, C, H, W], of all clips, one after the other
    begins   int64 [N]: the first frame of each window
    offsets  int64 [T]: where its others are
    label    int64 [N], where there are labels
    """

    in_memory = True  # no processes are needed to read it

    def __init__(self, frames: Tensor, begins: Tensor, offsets: Tensor, label: Tensor | None):
        self.frames, self.begins, self.offsets, self.label = frames, begins, offsets, label

    def __len__(self) -> int:
        return len(self.begins)

    def take(self, indices: Tensor) -> dict[str, Tensor]:
        rows = (self.begins[indices][:, None] + self.offsets).flatten()
        real = self.frames.index_select(0, rows).unflatten(0, (len(indices), len(self.offsets))).transpose(1, 2)
        return {"real": real.contiguous()} | ({} if self.label is None else {"label": self.label[indices]})

    def fingerprint(self) -> str:
        content = hashlib.blake2b(repr(tuple(self.frames.shape)).encode(), digest_size=8)
        for value in (self.frames, self.begins, self.offsets, *([] if self.label is None else [self.label])):
            content.update(value.contiguous().numpy().data)
        return content.hexdigest()


class Clips(DataModule):
    """Windows of `frames` frames of every clip below `root`. If all clips lie in subfolders, the first subfolder that a
    clip is in is its label; a folder of frames is a clip itself, and not a label.

    frames     of a window
    step       2: every second frame of a clip
    hop        frames between the beginnings of two windows of a clip; None: windows do not overlap
    size       pixels: one number, or (height, width); frames are scaled to cover it and cropped. Needed unless all have
               the same size
    channels   1 to 4; None: 1 if all frames are grey, else 3
    layout     "strips": each picture is a film strip of square frames; "frames": each is a frame; "auto": it is a strip
               where it is at least 4 times as long as wide, by a whole number
    held_out   share of the clips that are kept for testing, whole ones, the same choice in every run
    on_bad     "error": a file that can't be read is refused. "skip": it is left out, named and counted
    fps        frames per second when a window is shown

    Clips that are shorter than a window are left out, named and counted.
    """

    def __init__(
        self, root: str | None = None, frames: int = 16, step: int = 1, hop: int | None = 1,
        size: int | Sequence[int] | None = 64, channels: int | None = None, layout: Layout = "auto",
        held_out: float = 0.1, on_bad: Literal["error", "skip"] = "error", fps: float = 8.0, batch_size: int = 32,
        flip: bool = False, rounds: int = 8, seed: int = 0, memory: float = 4.0, count: int | None = None,
    ):  # fmt: skip
        super().__init__(batch_size, rounds, seed, flip, memory, count=count)
        if root is None:
            raise ValueError("data.root is not set: give the folder of clips, as in data.root=my/clips")
        if layout not in ("auto", "frames", "strips"):
            raise ValueError(f"data.layout={layout!r}: must be auto, frames or strips")
        if on_bad not in ("error", "skip"):
            raise ValueError(f"data.on_bad={on_bad!r}: must be error or skip")
        if not 0 <= held_out < 1:
            raise ValueError(f"data.held_out={held_out}: a share of the clips, at least 0 and below 1")
        self.size = (size, size) if isinstance(size, int) else tuple(size) if size is not None else None
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 4):
            raise ValueError(f"data.size={list(self.size)}: must be one number or [height, width], at least 4 pixels")
        for key, value in (("frames", frames), ("step", step), ("hop", hop or 1)):
            if value < 1:
                raise ValueError(f"data.{key}={value}: must be at least 1")
        self.root, self.frames, self.step, self.hop = Path(root).expanduser(), frames, step, hop or frames * step
        self.channels, self.layout, self.share, self.on_bad, self.fps = channels, layout, held_out, on_bad, fps
        self.films: list[tuple[Film, Tensor]] = []  # with frames uint8 [F, C, H, W]
        self.class_names: list[str] | None = None

    @property
    def title(self) -> str:
        return f"clips {self.root.name}, {self.frames} frames of step {self.step}"

    def facts(self) -> dict[str, Any]:
        """What networks, scores and pictures must know: the shape [C, T, H, W], the classes, frames per second."""
        self.read()
        shape = [self.films[0][1].shape[1], self.frames, *self.films[0][1].shape[2:]]
        classes = len(self.class_names) if self.class_names else None
        frequencies = None
        if classes:
            counts = torch.bincount(self.split("train").label, minlength=classes).double()  # type: ignore[arg-type]
            frequencies = None if (counts == counts[0]).all() else (counts / counts.sum()).tolist()
        of_labels = {"classes": classes, "class_names": self.class_names, "frequencies": frequencies, "several": False}
        return {"shape": shape, **of_labels, "fps": self.fps}

    def read(self) -> None:
        """Decodes all clips, once.

        Raises:
            Unavailable: there is no such folder, there are no clips, one can't be read, or all are too short
            ValueError: they have different sizes, or take more memory than there is
        """
        if self.films:
            return
        if not self.root.is_dir():
            raise Unavailable(f"data.root={self.root}: there is no such folder")
        films, bad, others = films_below(self.root, self.layout)
        check_readers(films)
        found, short, taken, total = list[tuple[Film, Tensor]](), list[str](), 0, len(films) + len(bad)
        for film in tqdm(films, desc="reading clips", unit="clip", disable=None, leave=False):
            try:
                frames = read(film, (self.channels, self.size))
            except Bad as error:
                bad.append(error)
                continue
            if len(frames) < self.needed:
                short.append(f"{film.name} ({len(frames)})")
                continue
            taken += frames.nbytes
            if taken > memory() // 2:
                raise ValueError(
                    f"data.size={self.size}: the clips take {taken >> 30} GiB of memory after {len(found)} of "
                    f"{total}, more than half of what there is: set it lower, or give fewer clips"
                )
            found.append((film, frames))
        if bad and self.on_bad == "error":
            also = f", nor can {len(bad) - 1:,} others of {total:,}" if len(bad) > 1 else ""
            raise Unavailable(
                f"{bad[0].path} can't be read as a clip ({bad[0].reason}{also}): remove or repair it{SKIP}"
            )
        root = f"data.root={self.root}"
        if bad:
            tell(f"{root}: {named([str(b.path.name) for b in bad])} of {total:,} can't be read, left out")
        window = f"shorter than {self.needed} frames, which data.frames={self.frames} of data.step={self.step} need"
        if short:
            tell(f"{root}: {named(short)} of {total:,} clips {window}, left out")
        if not found:
            why = f"all {len(short):,} clips are {window}: {named(short)}" if short else "no clips found in it"
            also = f", and {others:,} other files" if others else ""
            raise Unavailable(f"{root}: {why}{also}. A clip is a folder of frames, a GIF, a film strip or a video file")
        sizes = Counter(tuple(frames.shape[2:]) for _, frames in found)
        if len(sizes) > 1:
            some = ", ".join(f"{w}x{h}" for (h, w), _ in sizes.most_common(3))
            raise ValueError(f"data.size=null: the clips have {len(sizes)} sizes ({some}): set data.size")
        channels = max(frames.shape[1] for _, frames in found)
        self.films = [(film, as_channels(frames, channels)) for film, frames in found]
        tops = [Path(film.name).parts[:-1] for film, _ in self.films]
        if all(tops):
            self.class_names = sorted({top[0] for top in tops})

    @property
    def needed(self) -> int:
        """Frames that a window spans."""
        return (self.frames - 1) * self.step + 1

    def load(self, split: str) -> Cut:
        self.read()
        kept = round(self.share * len(self.films))
        test, train = drawn(len(self.films), kept, "test clips")
        rows = (train if split == "train" else test).tolist()
        if not rows:
            raise Unavailable(f"{self.title}: no clips are kept for testing (data.held_out={self.share:g})")
        begins, labels, first = list[Tensor](), list[int](), 0
        for i in rows:
            film, frames = self.films[i]
            at = torch.arange(0, len(frames) - self.needed + 1, self.hop)
            begins.append(first + at)
            first += len(frames)
            if self.class_names:
                labels += [self.class_names.index(Path(film.name).parts[0])] * len(at)
        label = torch.tensor(labels) if self.class_names else None
        offsets = torch.arange(self.frames) * self.step
        return Cut(torch.cat([self.films[i][1] for i in rows]), torch.cat(begins), offsets, label)


def named(names: Sequence[str], most: int = 5) -> str:
    """The first of them, and how many there are."""
    more = f" and {len(names) - most:,} others" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}: {len(names):,}"
