"""Texts: one file with a line for each, a picture of the lines, text in TensorBoard."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ganlab.files import write_text
from ganlab.media import Medium

END = 0  # the symbol that ends a text and fills what follows
MOST = 200  # lines in a picture


class Text(Medium):
    """Texts [n, T, V], each position's largest number being its symbol, or int64 [n, T].

    symbols   the V symbols, the first of which ends a text
    between   what stands between two symbols
    """

    def __init__(self, symbols: Sequence[str], between: str = ""):
        self.symbols, self.between = [str(symbol) for symbol in symbols], between

    def lines(self, x: Tensor) -> list[str]:
        """One line each, whatever is in it: line feeds and their like are shown as one sign."""
        tokens = (x.argmax(-1) if x.dim() == 3 else x).tolist()
        texts = [row[: row.index(END)] if END in row else row for row in tokens]
        lines = [self.between.join(self.symbols[i] for i in text) for text in texts]
        return ["".join(c if c.isprintable() else "\u23ce" for c in line) for line in lines]

    def write(self, x: Tensor, folder: Path, first: int = 0, prefix: str = "") -> list[Path]:
        path = Path(folder) / f"{prefix}samples.txt"
        write_text(path, "".join(f"{line}\n" for line in self.lines(x)))
        return [path]

    def picture(self, x: Tensor) -> Tensor:
        """The lines, at most 200 of them, in columns: one picture [1, 1, H, W]."""
        lines = self.lines(x[:MOST])
        font: Any = ImageFont.load_default(12)
        width, height = math.ceil(max([font.getlength(line) for line in lines], default=0)) + 16, 16
        columns = max(1, min(len(lines), round(math.sqrt(len(lines) * height / width))))
        rows = -(-len(lines) // columns)
        page = Image.new("L", (columns * width, rows * height), 255)
        draw = ImageDraw.Draw(page)
        for i, line in enumerate(lines):
            draw.text((i // rows * width + 8, i % rows * height + 8), line, 0, font, anchor="lm")
        return torch.from_numpy(np.array(page))[None, None].float() / 127.5 - 1

    def log(self, writer: Any, name: str, x: Tensor, step: int) -> None:
        writer.add_text(name, "".join(f"    {line}\n" for line in self.lines(x)), step)  # indented: as it stands
