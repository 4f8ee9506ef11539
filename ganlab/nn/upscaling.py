"""From smaller images to larger ones: by how much, in which steps, and the usual enlargement to begin from."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ganlab.nn.pyramid import image_shape


def scale_of(shape: Sequence[int], inputs: Sequence[int] | None, model: str) -> int:
    """By how much the sides of `shape` are longer than those of `inputs`; 1 without inputs.

    Raises:
        ValueError: by no whole number, or one that 2 and 3 do not make
    """
    _, *size = image_shape(shape, model)
    small = list(inputs[1:]) if inputs is not None else size
    scale = size[0] // small[0]
    if scale < 1 or [side * scale for side in small] != size or scale not in (1, 2, 3, 4, 6, 8, 9, 12, 16):
        raise ValueError(
            f"generator.inputs={list(inputs or ())}: {model} makes images 1, 2, 3, 4, 6, 8, 9, 12 or 16 times as "
            f"large, and is to make {size[0]}x{size[1]}: set task.degradation.scale, or data.size"
        )
    return scale


def steps_of(scale: int) -> list[int]:
    """Its factors 2 and 3: 4 is 2 and 2."""
    steps = []
    for factor in (2, 3):
        while scale % factor == 0:
            steps.append(factor)
            scale //= factor
    return steps


def begin_at_enlargement(last: nn.Conv2d, start: int) -> None:
    """Makes 0 of what is added to the enlargement of images of `start` channels.

    Raises:
        ValueError: it has other channels
    """
    if last.out_channels != start:
        raise ValueError(
            f"generator.residual=true: {start} channels can't be added to {last.out_channels}: set it to false"
        )
    nn.init.zeros_(last.weight)
    if last.bias is not None:
        nn.init.zeros_(last.bias)


def enlarged(x: Tensor, scale: int) -> Tensor:
    """Images [N, C, h, w] by bicubic interpolation, as MATLAB and Pillow have it."""
    size = [side * scale for side in x.shape[2:]]
    return F.interpolate(x.float(), size, mode="bicubic", antialias=True).to(x.dtype) if scale > 1 else x
