"""python -m ganlab.translate checkpoint=FILE input=IMAGES output=FOLDER: a generator applied to images of any size."""

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import hydra
from omegaconf import DictConfig

from ganlab.conf import CONF
from ganlab.entry import run
from ganlab.limits import check_arguments

if TYPE_CHECKING:
    from torch import Tensor

SHEET, CELL = "before_after", 192  # its name, and pixels of an image on it
FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}


@hydra.main(version_base="1.3", config_path=CONF, config_name="translate")
def main(cfg: DictConfig) -> None:
    run(cfg, translate, checkpoint="outputs/.../checkpoints/best.ckpt", input="my/pictures")


def translate(
    checkpoint: str, input: str, output: str | None = None, mask: str | None = None, degrade: bool = False,
    back: bool = False, tile: int | None = 1024, overlap: int = 128, format: Literal["png", "jpg", "webp"] = "png",
    overwrite: bool = False, preview: int = 8, seed: int = 0, device: str = "auto", trust: Sequence[str] = (),
) -> Path:  # fmt: skip
    """Writes what a checkpoint's G_ema makes of the images at `input`, in the same subfolders, and a sheet of the first
    few, before and after. What can't be read or translated is left out, named and counted.

    Raises:
        ValueError: the checkpoint can't be used, or not so
        Unavailable: there are no images, none could be translated, or nothing can be written
    """
    check_arguments("", locals(), translate)
    from tqdm import tqdm

    from ganlab.data.decode import whole
    from ganlab.files import Unavailable, atomic
    from ganlab.pictures import save_rows
    from ganlab.sharing import load, located, place_beside
    from ganlab.translator import Translator

    source = Path(input).expanduser()
    root, names, bad = images_at(source, "input")
    translator = Translator(load(checkpoint, trust).at(device), tile, overlap, degrade, seed, back)
    if mask is not None and not translator.asks:
        raise ValueError(f"mask={mask}: {'degrade=true makes its own' if degrade else 'this generator fills no holes'}")
    masks = Masks(mask) if mask is not None else None
    folder = Path(output or place_beside(located(checkpoint)) / "translated" / source.stem).expanduser()
    if source.is_dir() and folder.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"output={folder} lies in input={input}: what is made would be translated the next time")
    done = there = 0
    rows: list[tuple[str, Any]] = []
    bar = tqdm(zip(names, stems(names), strict=True), "translating", len(names), unit="image", disable=None)
    for i, (name, stem) in enumerate(bar):
        path = root / name
        files = {key: folder / key / f"{stem}{ending(key, format)}" for key in translator.makes}
        if not overwrite and all(file.exists() for file in files.values()):
            there += 1
            continue
        try:
            if any(file.exists() and file.samefile(path) for file in files.values()):
                raise ValueError("it would be overwritten: give another output")
            picture = whole(path)
            if note := translator.note(*picture.shape[1:]):
                bar.write(note)
            made = translator.translated(picture, masks(name) if masks else None, i)
            content = {key: encoded(made[key], file.suffix[1:]) for key, file in files.items()}
        except (Unavailable, ValueError, RuntimeError, MemoryError, OSError) as error:
            bad.append(f"{path}: {getattr(error, 'reason', None) or str(error)[:300] or 'memory does not suffice'}")
            continue
        try:
            for key, file in files.items():
                with atomic(file) as opened:
                    opened.write(content[key])
        except OSError as error:
            raise Unavailable(f"output={folder} can't be written to: {error.strerror}") from None
        done += 1
        if len(rows) < preview:
            shown = [made["before"], made[translator.makes[-1]], *([picture] if degrade else [])]
            rows.append((str(name), thumbnails(shown)))
    if rows:
        save_rows(rows, folder / f"{SHEET}.png", 2 + degrade, CELL, CELL)
    if bad and not done and not there:
        raise Unavailable(f"none of {len(names)} images could be translated: {bad[0]}")
    counted = f"; {there} were there already (overwrite=true makes them anew)" if there else ""
    print(f"{done} images in {folder}{counted}")
    if rows:
        columns = "before | after | as it was" if degrade else "before | after"
        print(f"{columns} in {folder / f'{SHEET}.png'}")
    if bad:
        print(f"{len(bad)} left out:", *bad, sep="\n  ")
    return folder


def images_at(path: Path, key: str) -> tuple[Path, list[Path], list[str]]:
    """(folder, the images in it, by relative name, and what can't be looked into) of a file or of a folder.

    Raises:
        Unavailable: there are none
    """
    from ganlab.data.scan import images_below
    from ganlab.files import Unavailable

    if path.is_file():
        return path.parent, [Path(path.name)], []
    found = images_below(path)
    if not found.names:
        raise Unavailable(f"{key}={path}: there is no such image, nor a folder with any {found.told()}".rstrip())
    if found.links:
        print(f"{key}={path}: {found.told()}")
    bad = [f"{path / name}: {reason}" for name, reason in found.bad.items()]
    return path, [name.relative_to(path) for name in found.names], bad


def stems(names: Sequence[Path]) -> list[str]:
    """What each image's outputs are called, without their ending; where two would be called the same, with it."""
    of = lambda name: name.with_suffix("").as_posix()
    often = Counter([SHEET, *map(of, names)])
    return [of(name) if often[of(name)] == 1 else name.as_posix() for name in names]


class Masks:
    """What is missing in images: a file for all of them, or a folder in which it has the image's name. White is
    missing, and what is transparent is not.

    Raises:
        ValueError: two masks have the same name
    """

    def __init__(self, place: str):
        self.place = Path(place).expanduser()
        root, names, _ = images_at(self.place, "mask")
        self.files: dict[str, Path] = {}
        for name in names:
            other = self.files.setdefault(name.with_suffix("").as_posix(), root / name)
            if other != root / name:
                raise ValueError(f"mask={place}: which one is meant, {other} or {root / name}? Remove one of them")

    def __call__(self, name: Path) -> "Tensor":
        """bool [1, H, W].

        Raises:
            ValueError: there is none for this image
        """
        from ganlab.data.decode import whole
        from ganlab.data.images import as_channels

        wanted = name.with_suffix("").as_posix()
        path = self.place if self.place.is_file() else self.files.get(wanted)
        if path is None:
            raise ValueError(f"there is no mask {wanted} in {self.place}")
        x = whole(path)
        if len(x) in (2, 4):  # what is transparent is black, whatever colour lies below
            x = x[:-1] * (x[-1:] >= 128)
        return as_channels(x[None], 1)[0] >= 128


def ending(key: str, format: str) -> str:
    """Numbers of classes must come back as they were."""
    return ".png" if key == "classes" else f".{format}"


def encoded(x: "Tensor", format: str) -> bytes:
    """uint8 [1 to 4, H, W] as a file; JPEG has no transparency, which is laid over white there."""
    from PIL import Image

    from ganlab.data.images import as_channels

    x = as_channels(x[None], len(x) - 1)[0] if format == "jpg" and len(x) in (2, 4) else x
    image = Image.fromarray((x[0] if len(x) == 1 else x.permute(1, 2, 0)).contiguous().numpy())
    file = io.BytesIO()
    image.save(file, FORMATS[format], **({} if format == "png" else {"quality": 95}))
    return file.getvalue()


def thumbnails(pictures: Sequence["Tensor"]) -> Any:
    """uint8 [n, 3, CELL, CELL] of images of any sizes, as large as the second would be: small ones are enlarged without
    smoothing, what is left is white."""
    import torch
    from torchvision.transforms.v2 import functional as T

    from ganlab.data.images import as_channels

    height, width = pictures[1].shape[1:]
    scale = CELL / max(height, width)
    scale = float(int(scale)) if scale > 1 else scale
    h, w = max(1, round(height * scale)), max(1, round(width * scale))
    cells = torch.full((len(pictures), 3, CELL, CELL), 255, dtype=torch.uint8)
    top, left = (CELL - h) // 2, (CELL - w) // 2
    for cell, x in zip(cells, pictures, strict=True):
        smooth = x.shape[1] > h
        mode = T.InterpolationMode.BICUBIC if smooth else T.InterpolationMode.NEAREST_EXACT
        cell[:, top : top + h, left : left + w] = T.resize(as_channels(x[None], 3), [h, w], mode, antialias=smooth)[0]
    return cells


if __name__ == "__main__":
    main()
