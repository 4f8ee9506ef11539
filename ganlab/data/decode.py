"""Image files that anybody may have made: looked at before they are decoded, and decoded in bounded memory."""

import contextlib
import io
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ganlab.data.images import as_channels, cover
from ganlab.files import Unavailable

# What a file may be, whatever its name says; Pillow knows more, some of which start other programs (Ghostscript)
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MOST_PIXELS = 1 << 26  # 8192x8192, 256 MiB decoded: a file of some kB can claim any size
MOST_BYTES = 16 * MOST_PIXELS  # of a file: Pillow reads some formats whole
BIG = threading.Lock()  # of large images, a process decodes one at a time
TURNS = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT,), 3: (Image.Transpose.ROTATE_180,), 4: (Image.Transpose.FLIP_TOP_BOTTOM,),
    5: (Image.Transpose.TRANSPOSE,), 6: (Image.Transpose.ROTATE_270,), 7: (Image.Transpose.TRANSVERSE,),
    8: (Image.Transpose.ROTATE_90,),
}  # fmt: skip


class Bad(Unavailable):
    """A file that can't be read as an image.

    path, reason   which one, and why
    """

    def __init__(self, path: Path, reason: str, advice: str = ""):
        super().__init__(f"{path} can't be read as an image ({reason}): remove or repair it{advice}")
        self.path, self.reason = path, reason


def opened(path: Path, content: bytes | None = None) -> Image.Image:
    """The image, not decoded yet.

    content   of the file, where that was read already; None: it is read from `path`

    Raises:
        Bad: it is none, or it has too many pixels
    """
    try:
        size = path.stat().st_size if content is None else len(content)
        if size == 0 or size > MOST_BYTES:
            raise ValueError("it is empty" if size == 0 else f"{size:,} bytes are too many, {MOST_BYTES:,} at most")
        image = Image.open(path if content is None else io.BytesIO(content), formats=FORMATS)
        few_enough(image)
        return image
    except Exception as error:  # Pillow raises all sorts
        raise Bad(path, reason_of(error)) from None


def few_enough(image: Image.Image) -> None:
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(f"{image.width}x{image.height} pixels are too many, {MOST_PIXELS:,} at most")


def reason_of(error: Exception) -> str:
    known = {
        Image.UnidentifiedImageError: f"it is none of {', '.join(FORMATS)}",
        MemoryError: "memory does not suffice",
        Image.DecompressionBombError: f"its pixels are too many, {MOST_PIXELS:,} at most",
    }
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = known.get(type(error)) or str(error) or type(error).__name__
    return " ".join(text.split())[:200]


def header(path: Path) -> tuple[int, int, bool]:
    """(height, width, whether it is grey) of the upright image, without decoding it."""
    with opened(path) as image:
        late = image.format == "PNG" and "exif" not in image.info  # may come after the pixels, and would decode them
        w, h = image.size if late or orientation(image) < 5 else image.size[::-1]
        return h, w, image.mode in ("1", "L", "LA", "I;16", "I;16B", "I")


def orientation(image: Image.Image) -> int:
    """1 to 8, as EXIF has it; 1 where that can't be read."""
    with contextlib.suppress(Exception):
        return int(image.getexif().get(0x0112, 1))
    return 1


def whole(path: Path, content: bytes | None = None) -> Tensor:
    """uint8 [1 to 4, H, W] of the first frame, upright as its EXIF data say.

    content   as in `opened`

    Raises:
        Bad: it can't be decoded
    """
    big = lambda image: BIG if image.width * image.height > MOST_PIXELS // 16 else contextlib.nullcontext()
    with opened(path, content) as image, big(image):
        try:
            image.load()
            few_enough(image)  # a GIF's first frame can be larger than the header says
            turned: Image.Image = image
            for turn in TURNS.get(orientation(image), ()):
                turned = image.transpose(turn)
            turned.info = image.info
            return pixels(turned)
        except Exception as error:
            raise Bad(path, reason_of(error)) from None


def decode(path: Path, shape: Sequence[int], content: bytes | None = None) -> Tensor:
    """uint8 [C, H, W] of the first frame, upright, scaled and cropped.

    content   as in `opened`

    Raises:
        Bad: it can't be decoded
    """
    channels, *size = shape
    return cover(as_channels(whole(path, content)[None], channels), size)[0]


def pixels(image: Image.Image) -> Tensor:
    """uint8 [1 to 4, H, W]: grey, grey with alpha, colour, or colour with alpha.

    Raises:
        ValueError: its numbers are floats, whose range nobody knows
    """
    if image.mode == "F":
        raise ValueError("its numbers are floats, and what is white is not known: store it with 8 or 16 bits")
    if image.mode.startswith("I"):  # deep grey: the file's 16 bits become 8
        deep = np.asarray(image).astype(np.float32)
        return torch.from_numpy((deep / 257).round().clip(0, 255).astype(np.uint8))[None]
    alpha = "A" in image.getbands() or "transparency" in image.info
    grey = image.mode in ("1", "L", "LA")
    x = torch.from_numpy(np.array(image.convert(("LA" if alpha else "L") if grey else ("RGBA" if alpha else "RGB"))))
    return x[None] if x.dim() == 2 else x.permute(2, 0, 1)
