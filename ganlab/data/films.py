"""Files of clips that anybody may have made: found below a folder, and decoded in bounded memory. A clip is a folder of
frames, an animation (GIF, WebP, PNG, TIFF), a film strip, or a video file."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ganlab.data.decode import MOST_BYTES, MOST_PIXELS, Bad, opened, pixels, reason_of, whole
from ganlab.data.images import as_channels, cover
from ganlab.data.scan import EXTENSIONS
from ganlab.files import memory

VIDEOS = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".m4v"})
STRIP = 4  # a picture so many times as long as wide, by a whole number, is a strip unless data.layout says otherwise
Layout = Literal["auto", "frames", "strips"]
Asked = tuple[int | None, Sequence[int] | None]  # channels and (height, width), None: as the files have them


@dataclass(frozen=True)
class Film:
    """A clip, not read yet.

    name    of its file, or of the folder of its frames, below the root
    kind    "frames", "strip", "animation" or "video"
    files   one, but of a folder of frames
    """

    name: str
    kind: str
    files: tuple[Path, ...]


def films_below(root: Path, layout: Layout) -> tuple[list[Film], list[Bad], int]:
    """(clips in the order of their names, files that can't be read, how many files are none of these). Links that lead
    out of the folder are not followed."""
    home = os.path.realpath(root)
    films, bad, others = list[Film](), list[Bad](), 0
    frames: dict[Path, list[Path]] = defaultdict(list)
    for folder, folders, names in os.walk(root):
        folders.sort()
        for path in (Path(folder, name) for name in names):
            ending = path.suffix.lower()
            inside = not path.is_symlink() or os.path.realpath(path).startswith(os.path.join(home, ""))
            if not inside or ending not in EXTENSIONS | VIDEOS or path.name.startswith("."):
                others += 1
                continue
            try:
                kind = "video" if ending in VIDEOS else kind_of(path, layout)
            except Bad as error:
                bad.append(error)
                continue
            if kind == "frame":
                frames[path.parent].append(path)
            else:
                films.append(Film(path.relative_to(root).as_posix(), kind, (path,)))
    for place in frames.keys() - {error.path.parent for error in bad}:  # a clip without one of its frames is none
        paths = frames[place]
        films.append(Film(place.relative_to(root).as_posix(), "frames", tuple(sorted(paths, key=counted))))
    return sorted(films, key=lambda film: counted(Path(film.name))), bad, others


def counted(path: Path) -> list[Any]:
    """A key to sort by: 2.png comes before 10.png."""
    parts = [part for part in re.split(r"(\d+)", path.as_posix()) if part]
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def kind_of(path: Path, layout: Layout) -> str:
    """ "animation", "strip" or "frame", from the header."""
    with opened(path) as image:
        try:
            if getattr(image, "is_animated", False):  # Pillow reads on, to the second frame
                return "animation"
        except Exception as error:
            raise Bad(path, reason_of(error)) from None
        long, short = max(image.size), min(image.size)
    if layout == "strips" and long % short:
        raise Bad(path, f"{image.width}x{image.height} is no strip of square frames")
    strip = long % short == 0 and long >= STRIP * short
    return "strip" if layout == "strips" or (layout == "auto" and strip) else "frame"


def check_readers(films: Sequence[Film]) -> None:
    """Raises ValueError where there is a video file, and nothing to read it with."""
    video = next((film for film in films if film.kind == "video"), None)
    if video is not None and find_spec("av") is None:
        raise ValueError(
            f"{video.name} is a video file, which PyAV is needed to read: pip install 'ganlab[video]', "
            "or give GIF files, strips or folders of frames"
        )


def read(film: Film, asked: Asked) -> Tensor:
    """uint8 [T, C, H, W]

    Raises:
        Bad: it can't be decoded, or its frames differ in size
    """
    reader = {"frames": from_files, "strip": from_strip, "animation": from_animation, "video": from_video}[film.kind]
    path = film.files[0]
    frames, sizes, most = [], list[tuple[int, ...]](), memory() // 2
    try:
        for frame in reader(film):
            if sizes and frame.shape[1:] != sizes[0]:
                more = f"{frame.shape[2]}x{frame.shape[1]} after {sizes[0][1]}x{sizes[0][0]}"
                raise Bad(path.parent if film.kind == "frames" else path, f"its frames are of mixed size, {more}")
            sizes.append(tuple(frame.shape[1:]))
            frames.append(fitted(frame, asked))
            if len(frames) * frames[0].nbytes > most:
                raise Bad(path, f"its frames take more than {most >> 30} GiB of memory: set data.size lower")
    except Bad:
        raise
    except Exception as error:  # Pillow and FFmpeg raise all sorts
        raise Bad(path, reason_of(error)) from None
    if not frames:
        raise Bad(path, "it has no frames")
    channels = max(len(frame) for frame in frames)
    return torch.cat([as_channels(frame[None], channels) for frame in frames])


def fitted(frame: Tensor, asked: Asked) -> Tensor:
    """uint8 [C, H, W]; without a number of channels, grey or colour as it is, over white where it is transparent."""
    channels, size = asked
    frame = as_channels(frame[None], channels or (1 if len(frame) < 3 else 3))
    return (cover(frame, size) if size is not None else frame)[0]


def from_files(film: Film) -> Iterator[Tensor]:
    yield from map(whole, film.files)


def from_strip(film: Film) -> Iterator[Tensor]:
    strip = whole(film.files[0])
    side = min(strip.shape[1:])
    yield from strip.split(side, 1 if strip.shape[1] > strip.shape[2] else 2)


def from_animation(film: Film) -> Iterator[Tensor]:
    with opened(film.files[0]) as image:
        count = getattr(image, "n_frames", 1)
        if count * image.width * image.height > 16 * MOST_PIXELS:
            raise ValueError(f"{count:,} frames of {image.width}x{image.height} are too many pixels")
        for i in range(count):
            image.seek(i)
            x = pixels(image)  # a GIF that is grey may come in colour
            yield x[:1] if len(x) == 3 and (x[1:] == x[:1]).all() else x


def from_video(film: Film) -> Iterator[Tensor]:
    import av

    path = film.files[0]
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path.stat().st_size:,} bytes are too many, {MOST_BYTES:,} at most")
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise ValueError("it has no pictures")
        stream = container.streams.video[0]
        if stream.width * stream.height > MOST_PIXELS:
            raise ValueError(f"{stream.width}x{stream.height} pixels are too many, {MOST_PIXELS:,} at most")
        for frame in container.decode(stream):
            grey = frame.format.name.startswith("gray")
            x = torch.from_numpy(frame.to_ndarray(format="gray" if grey else "rgb24"))
            yield x[None] if grey else x.permute(2, 0, 1)
