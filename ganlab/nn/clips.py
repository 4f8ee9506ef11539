"""Clips [C, T, H, W]: how often a generator doubles them in space and in time."""

from collections.abc import Sequence

from torch import nn

from ganlab.nn.pyramid import pyramid


def clip_shape(shape: Sequence[int], model: str) -> tuple[int, int, int, int]:
    """(C, T, H, W), where the data are clips.

    Raises:
        ValueError: they are not, or have a single frame
    """
    if len(shape) != 4:
        raise ValueError(
            f"{model} makes clips, and the data's samples have the shape {list(shape)}: use data=moving_digits or "
            "data=clips"
        )
    channels, frames, height, width = shape
    if frames < 2:
        raise ValueError(f"{model} makes clips of 2 frames or more: set data.frames, which is {frames}")
    return channels, frames, height, width


def clip_pyramid(frames: int, height: int, width: int, model: str) -> tuple[int, int, tuple[int, int, int]]:
    """(doublings of height and width, of them also of the time, (t, h, w) of the smallest map): in space as images
    have it, in time as often, but down to 2 or 3 frames at most.

    32 frames of 64x64 give 4, 4 and 2x4x4; 8 of 64x64 give 4, 2 and 2x4x4; 16 of 16x16 give 2, 2 and 4x4x4.

    Raises:
        ValueError: a side can't be halved so often; names the nearest that can
    """
    doublings, (h, w) = pyramid(height, width, model)
    in_time = min(doublings, (frames // 2).bit_length() - 1)
    step = 2**in_time
    if frames % step:
        below = frames - frames % step
        raise ValueError(
            f"{model} doubles a short clip {in_time} times: {frames} frames can't be reached, {below} or "
            f"{below + step} can. Set data.frames={below}"
        )
    return doublings, in_time, (frames // step, h, w)


def initialised(module: nn.Module) -> None:
    """Convolutions N(0, 0.02), batch norm N(1, 0.02), shifts 0, as DCGAN has it."""
    if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
        nn.init.normal_(module.weight, 1.0, 0.02)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)
