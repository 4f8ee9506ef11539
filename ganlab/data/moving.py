"""Digits that move and bounce in a small frame: clips whose motion is known."""

import math
from typing import Any

import torch
from torch import Tensor

from ganlab.data.rounds import DataModule, InMemory
from ganlab.data.sets import DIGITS, MNIST, Digits
from ganlab.files import memory
from ganlab.rng import seed_of


class MovingDigits(DataModule):
    """Clips of one handwritten digit that moves straight on at a constant speed, in any direction, and is thrown back
    by the edges of the frame. The label is the digit. After Moving MNIST (Srivastava et al. 2015, arXiv:1502.04681).

    Digits lie between pixels, by linear interpolation, so that their centre of mass moves exactly as they do.

    root     folder of MNIST's files, whose digits have 28x28 pixels; None: scikit-learn's, which have 8x8
    frames   of a clip
    size     pixels of a side of the frame
    speed    pixels per frame
    fps      frames per second when a clip is shown
    clips    how many there are to train on; a quarter as many, of other digits, are for testing
    """

    def __init__(
        self, root: str | None = None, frames: int = 8, size: int = 16, speed: float = 1.0, fps: float = 8.0,
        clips: int = 2000, batch_size: int = 32, rounds: int = 8, seed: int = 0, memory: float = 4.0,
        count: int | None = None,
    ):  # fmt: skip
        super().__init__(batch_size, rounds, seed, memory=memory, count=count)
        self.source = MNIST(root) if root else Digits()
        self.frames, self.size, self.speed, self.fps, self.clips = frames, size, speed, fps, clips
        self.digit = 28 if root else 8
        if size <= self.digit:
            raise ValueError(f"data.size={size}: digits of {self.digit} pixels need room to move: set it higher")

    @property
    def title(self) -> str:
        return f"moving digits, {self.speed:g} pixels per frame"

    def facts(self) -> dict[str, Any]:
        """What networks, scores and pictures must know: the shape [1, T, H, W], the classes, frames per second."""
        shape = [1, self.frames, self.size, self.size]
        of_labels = {"classes": 10, "class_names": list(DIGITS), "frequencies": None, "several": False}
        return {"shape": shape, **of_labels, "fps": self.fps}

    def load(self, split: str) -> InMemory:
        n = self.clips if split == "train" else max(2, self.clips // 4)
        if (needed := n * self.frames * self.size**2) > memory() // 4:
            raise ValueError(f"data.clips={self.clips}: they take {needed >> 30} GiB, over a quarter of the memory")
        images, labels = self.source.read(split)
        generator = torch.Generator().manual_seed(seed_of("moving digits", split))  # the same set in every run
        uniform = lambda *shape: torch.rand(*shape, generator=generator, dtype=torch.float64)
        chosen = torch.randint(len(images), (n,), generator=generator)
        at = bounced(uniform(n, 2), 2 * math.pi * uniform(n), self.speed, self.frames, self.size - self.digit)
        parts = zip(images[chosen, 0].split(500), at.split(500), strict=True)
        return InMemory(torch.cat([placed(x, p, self.size) for x, p in parts])[:, None], labels[chosen])


def bounced(begin: Tensor, direction: Tensor, speed: float, frames: int, room: float) -> Tensor:
    """Where a digit's corner is in each frame, [N, T, 2] in [0, room]: straight on, and mirrored at the edges.

    begin       [N, 2] in [0, 1], as a share of the room
    direction   [N], an angle
    """
    step = speed * torch.stack([direction.sin(), direction.cos()], 1)  # [N, 2]
    free = begin[:, None] * room + torch.arange(frames)[:, None] * step[:, None]
    return room - (free.remainder(2 * room) - room).abs()


def placed(x: Tensor, at: Tensor, size: int) -> Tensor:
    """uint8 images [N, h, w] laid into black frames at `at` [N, T, 2], by linear interpolation: uint8 [N, T, size,
    size]."""

    def weights(corner: Tensor, side: int) -> Tensor:  # [N, T, size, side]: how much of each pixel falls on each
        apart = torch.arange(size)[:, None] - torch.arange(side) - corner[..., None, None]
        return (1 - apart.abs()).clamp_min(0).float()

    down, across = weights(at[..., 0], x.shape[1]), weights(at[..., 1], x.shape[2])
    return (down @ x[:, None].float() @ across.mT).round().to(torch.uint8)
