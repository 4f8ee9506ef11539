"""From a small map to an image: how often a generator doubles its map, for any image size that this reaches."""

from collections.abc import Sequence


def image_shape(shape: Sequence[int], model: str) -> tuple[int, int, int]:
    """(C, H, W), where the data are images.

    Raises:
        ValueError: they are not
    """
    if len(shape) != 3:
        raise ValueError(f"{model} makes images, and the data's samples have the shape {list(shape)}: use model=mlp")
    channels, height, width = shape
    return channels, height, width


def same_size(shape: Sequence[int], inputs: Sequence[int] | None, model: str) -> tuple[int, int, list[int]]:
    """(channels of the images, of what they are made from, [H, W] of both). inputs: None: as `shape`

    Raises:
        ValueError: they have different sizes, or are no images
    """
    channels, *size = image_shape(shape, model)
    start, *given = inputs if inputs is not None else shape
    if list(given) != size:
        raise ValueError(
            f"generator.inputs={list(inputs or ())}: {model} keeps the size, and is to make {size[0]}x{size[1]}: set "
            "data.size, or use another model or task"
        )
    return channels, start, size


def pyramid(height: int, width: int, model: str) -> tuple[int, tuple[int, int]]:
    """(doublings, (h, w) of the smallest map): as many doublings as leave the smaller side at 4 to 7.

    32x32 gives 3 and 4x4; 28x28 gives 2 and 7x7; 48x96 gives 3 and 6x12.

    Raises:
        ValueError: the size can't be halved so often; names the nearest that can
    """
    small = min(height, width)
    doublings = max(0, (small // 4).bit_length() - 1)
    step = 2**doublings
    if doublings < 1 or height % step or width % step:
        step = max(step, 2)
        fits = [max(8, round(side / step) * step) for side in (height, width)]
        raise ValueError(
            f"{model} doubles a small map until it is an image: {height}x{width} can't be reached, {fits[0]}x{fits[1]} "
            f"can. Set data.size={fits[0] if fits[0] == fits[1] else fits}"
        )
    return doublings, (height // step, width // step)


def widths(width: int, doublings: int) -> list[int]:
    """Channels from the largest map to the smallest: width, 2 width, 4 width, ... at most 16 width."""
    return [width * min(2**i, 16) for i in range(doublings)]
