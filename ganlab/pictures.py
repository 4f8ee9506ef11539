"""Sheets of pictures, and walks from one sample to another."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.utils._pytree import tree_map
from torchvision.utils import make_grid, save_image

from ganlab.data.images import as_channels
from ganlab.files import atomic
from ganlab.rng import IndexedRNG


def sheet(pictures: Tensor, columns: int, padding: int = 1) -> Tensor:
    """[N, C, H, W] in [-1, 1] -> one picture [3 or 4, h, w] in [0, 1]."""
    pictures = pictures[:, :1] if pictures.shape[1] == 2 else pictures  # grey with alpha: grey
    return make_grid((pictures.float().cpu().clamp(-1, 1) + 1) / 2, columns, padding)


def save_sheet(pictures: Tensor, path: Path, columns: int, padding: int = 1) -> Tensor:
    grid = sheet(pictures, columns, padding)
    with atomic(path) as file:
        save_image(grid, file, format="png")
    return grid


def beside(*parts: Tensor) -> Tensor:
    """[n, C, H, W] each, in [-1, 1] -> [n * parts, C, H, W]: the first of each, then the second of each, ... at the
    size of the largest, with as many channels as the most have."""
    size = max(x.shape[2:] for x in parts)
    channels = max(3 if x.shape[1] == 2 else x.shape[1] for x in parts)
    alike = []
    for x in parts:
        x = F.interpolate(x.float(), size) if x.shape[2:] != size else x.float()
        x = x[:, :1] if x.shape[1] == 2 else x
        x = x.expand(-1, 3, -1, -1) if x.shape[1] == 1 and channels > 1 else x
        alike.append(torch.cat([x, x.new_ones(len(x), channels - x.shape[1], *size)], 1))
    return torch.stack(alike, 1).flatten(0, 1)


@torch.no_grad()
def interpolated(
    gan: Any, rows: int, columns: int, seed: int = 0, cond: Tensor | None = None,
    along: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
) -> Tensor:  # fmt: skip
    """`rows` walks of `columns` steps, each from one sample to another under the first one's label.

    gan    has `task`, `device` and (inputs, cond) -> fakes
    cond   labels of the 2 * rows samples; None: as the task draws them
    along  (a, b, steps) -> the walk from a to b; None: `slerp`

    Returns [rows * columns, ...].
    """
    inputs, cond = gan.task.draw(IndexedRNG(seed, range(2 * rows), gan.device, gan.dtype), cond)
    steps = torch.linspace(0, 1, columns, device=gan.device, dtype=gan.dtype)
    between = along or slerp
    walk = tree_map(lambda z: torch.cat([between(a, b, steps) for a, b in zip(z[::2], z[1::2], strict=True)]), inputs)
    return gan(walk, None if cond is None else cond[::2].repeat_interleave(columns, 0))


def slerp(a: Tensor, b: Tensor, steps: Tensor) -> Tensor:
    """[n, *]: from a to b along the great circle, length changing linearly (White 2016, arXiv:1609.04468)."""
    unit_a, unit_b = a / a.norm(), b / b.norm()
    angle = torch.acos((unit_a * unit_b).sum().clamp(-1 + 1e-6, 1 - 1e-6))
    t = steps.view(-1, *[1] * a.dim())
    direction = (((1 - t) * angle).sin() * unit_a + (t * angle).sin() * unit_b) / angle.sin()
    return direction * torch.lerp(a.norm(), b.norm(), t)


def lerp(a: Tensor, b: Tensor, steps: Tensor) -> Tensor:
    """[n, *]: from a to b in a straight line."""
    return torch.lerp(a, b, steps.view(-1, *[1] * a.dim()))


WALKS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"slerp": slerp, "lerp": lerp}


def bordered(left: Tensor, top: Tensor, inner: Tensor) -> Tensor:
    """[(rows + 1) * (columns + 1), C, H, W]: a table of pictures with a heading above each column and beside each row.

    left    [rows, C, H, W]
    top     [columns, C, H, W]
    inner   [rows * columns, C, H, W]
    """
    corner = torch.ones_like(top[:1])
    rows = zip(left.split(1), inner.split(len(top)), strict=True)
    return torch.cat([corner, top, *(part for row in rows for part in row)])


def save_rows(rows: Sequence[tuple[str, Tensor]], path: Path, columns: int, least: int = 48, most: int = 128) -> None:
    """A contact sheet: (name, uint8 [n, C, H, W]) in a row each, small images enlarged without smoothing.

    least, most   pixels of the longer side of an image on the sheet
    """
    height, width = rows[0][1].shape[2:]
    scale = min(most / max(height, width), max(1, -(-least // max(height, width))))
    cell = (max(1, round(width * scale)), max(1, round(height * scale)))
    font = ImageFont.load_default(12)
    margin = max(round(font.getlength(name[:20])) for name, _ in rows)
    margin += 8 if margin else 0
    grid = Image.new("RGB", (margin + columns * (cell[0] + 2), len(rows) * (cell[1] + 2)), (40, 40, 40))
    draw = ImageDraw.Draw(grid)
    for i, (name, pictures) in enumerate(rows):
        top = i * (cell[1] + 2) + 1
        draw.text((4, top + cell[1] // 2), name[:20], (230, 230, 230), font, anchor="lm")
        for j, x in enumerate(as_channels(pictures, 3)[:columns]):
            picture = Image.fromarray(x.permute(1, 2, 0).numpy())
            smooth = Image.Resampling.BOX if scale >= 1 else Image.Resampling.LANCZOS
            grid.paste(picture.resize(cell, smooth), (margin + j * (cell[0] + 2) + 1, top))
    with atomic(path) as file:
        grid.save(file, "png")
