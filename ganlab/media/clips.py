"""Clips: GIF files, and film strips where a picture is wanted."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ganlab.files import atomic
from ganlab.media import Medium


class Clips(Medium):
    """Clips [N, C, T, H, W] in [-1, 1], grey or in colour.

    fps   frames shown per second; GIF files know hundredths of a second, and viewers 50 frames at most
    """

    def __init__(self, fps: float = 8.0):
        self.fps = fps

    def write(self, x: Tensor, folder: Path, first: int = 0, prefix: str = "") -> list[Path]:
        """One GIF for each clip."""
        paths = [folder / f"{prefix}{first + i:06d}.gif" for i in range(len(x))]
        for path, clip in zip(paths, x, strict=True):
            with atomic(path) as file:
                file.write(gif(levels(clip), self.fps))
        return paths

    def picture(self, x: Tensor) -> Tensor:
        """Film strips: the frames of each clip side by side, [N, C, H, T * W]."""
        return x.transpose(2, 3).flatten(3)

    def log(self, writer: Any, name: str, x: Tensor, step: int) -> None:
        """The clips, moving, side by side: TensorBoard shows an image that is a GIF."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        frames = levels(x.permute(1, 2, 3, 0, 4).flatten(3))  # n clips in a row
        image = Summary.Image(
            height=frames.shape[1], width=frames.shape[2], colorspace=1 if frames.ndim == 3 else 3,
            encoded_image_string=gif(frames, self.fps),
        )  # fmt: skip
        writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=f"{name}/clips", image=image)]), step)


def levels(clip: Tensor) -> np.ndarray:
    """[C, T, H, W] in [-1, 1] -> uint8 [T, H, W] where it is grey, or else [T, H, W, 3]; alpha is left out."""
    x = ((clip.float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
    return x[0] if len(x) < 3 else x[:3].transpose(1, 2, 3, 0)


def gif(frames: Sequence[np.ndarray] | np.ndarray, fps: float) -> bytes:
    """The bytes of a GIF of uint8 frames [H, W] or [H, W, 3], for ever again from the beginning."""
    first, *others = [Image.fromarray(frame) for frame in frames]
    content = io.BytesIO()
    duration = max(20, round(100 / fps) * 10)  # milliseconds
    first.save(content, "gif", save_all=True, append_images=others, duration=duration, loop=0)
    return content.getvalue()
