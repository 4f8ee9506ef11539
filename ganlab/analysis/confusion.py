"""Whether a conditional generator makes the class that it is told."""

from pathlib import Path

import torch
from torch import Tensor

from ganlab.files import atomic


def confusion(asked: Tensor, recognised: Tensor, classes: int) -> Tensor:
    """[classes, classes]: how many images of the class of the row were recognised as that of the column."""
    return torch.bincount(asked * classes + recognised, minlength=classes**2).view(classes, classes)


def save_matrix(counts: Tensor, path: Path, cell: int = 28) -> None:
    """A picture: a row for each asked class, a column for each recognised one; percent of the row, the darker the
    more."""
    from PIL import Image, ImageDraw

    classes = len(counts)
    picture = Image.new("RGB", ((classes + 1) * cell, (classes + 1) * cell), "white")
    draw = ImageDraw.Draw(picture)
    middle = lambda i: (i + 0.5) * cell
    share = counts / counts.sum(1, keepdim=True).clamp(min=1)
    for i in range(classes):
        draw.text((middle(0), middle(i + 1)), str(i), "black", anchor="mm")
        draw.text((middle(i + 1), middle(0)), str(i), "black", anchor="mm")
        for j in range(classes):
            s = share[i, j].item()
            corner = ((j + 1) * cell, (i + 1) * cell, (j + 2) * cell - 2, (i + 2) * cell - 2)
            draw.rectangle(corner, (round(255 - 225 * s), round(255 - 160 * s), 255 - round(85 * s)))
            if counts[i, j]:
                text = f"{100 * s:.0f}" if s >= 0.005 else "<1"
                draw.text((middle(j + 1), middle(i + 1)), text, "white" if s > 0.5 else "black", anchor="mm")
    with atomic(path) as file:
        picture.save(file, format="png")
