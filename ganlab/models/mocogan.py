"""MoCoGAN: a clip is one content and a path of motion; one discriminator sees a frame, another the clip.

MoCoGAN: Decomposing Motion and Content for Video Generation (Tulyakov et al. 2018), arXiv:1707.04993. For 64x64 the
paper has 50 numbers of content and 10 of motion, and 16 frames.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ganlab.nn.clips import clip_shape, initialised
from ganlab.nn.pyramid import pyramid, widths


class Generator(nn.Module):
    """z [N, z_dim] -> clips [N, *shape] in [-1, 1]. z is the content, the state in which the motion begins, and what
    pushes it at each frame (section 3.1): z_dim = content + (T + 1) * motion.

    width     channels of a frame's largest map
    content   numbers that all frames share
    motion    numbers that a recurrent network (a GRU) moves from frame to frame
    """

    def __init__(self, shape: Sequence[int], width: int = 64, content: int = 50, motion: int = 10):
        super().__init__()
        channels, self.frames, height, breadth = clip_shape(shape, "mocogan")
        doublings, base = pyramid(height, breadth, "mocogan")
        self.content, self.motion = content, motion
        self.z_dim = content + (self.frames + 1) * motion
        self.path = nn.GRU(motion, motion, batch_first=True)
        *larger, have = widths(width, doublings)
        layers: list[nn.Module] = [
            nn.Unflatten(1, (content + motion, 1, 1)),
            nn.ConvTranspose2d(content + motion, have, base, bias=False),  # [N T, have, *base]
            nn.BatchNorm2d(have),
            nn.ReLU(),
        ]
        for out in reversed(larger):
            layers += [nn.ConvTranspose2d(have, out, 4, 2, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
            have = out
        self.frame = nn.Sequential(*layers, nn.ConvTranspose2d(have, channels, 4, 2, 1, bias=False), nn.Tanh())
        self.apply(initialised)

    def forward(self, z: Tensor) -> Tensor:
        content, begin, pushes = z.split([self.content, self.motion, self.frames * self.motion], 1)
        motion, _ = self.path(pushes.unflatten(1, (self.frames, self.motion)), begin[None].contiguous())
        both = torch.cat([content[:, None].expand(-1, self.frames, -1), motion], 2)  # [N, T, content + motion]
        x = self.frame(both.flatten(0, 1))
        return x.unflatten(0, (len(z), self.frames)).transpose(1, 2)


class Discriminator(nn.Module):
    """clips [N, *shape] -> logits [[N], [N]]: of one frame, drawn at random in training and the middle one otherwise,
    and of the clip (section 3.2).

    width   channels of the largest maps
    norm    "batch", or "none", as a gradient penalty needs it
    """

    def __init__(self, shape: Sequence[int], width: int = 64, norm: Literal["batch", "none"] = "batch"):
        super().__init__()
        if norm not in ("batch", "none"):
            raise ValueError(f"discriminator.norm={norm!r}: must be batch or none")
        channels, frames, height, breadth = clip_shape(shape, "mocogan")
        doublings, base = pyramid(height, breadth, "mocogan")
        still: list[nn.Module] = []
        moving: list[nn.Module] = []
        have = channels
        for i, out in enumerate(widths(width, doublings)):
            normed = i > 0 and norm == "batch"
            deep = min(4, frames)
            still.append(nn.Conv2d(have, out, 4, 2, 1, bias=not normed))
            moving.append(nn.Conv3d(have, out, (deep, 4, 4), (1, 2, 2), (0, 1, 1), bias=not normed))
            still += [nn.BatchNorm2d(out)] if normed else []
            moving += [nn.BatchNorm3d(out)] if normed else []
            still.append(nn.LeakyReLU(0.2))
            moving.append(nn.LeakyReLU(0.2))
            have, frames = out, frames - deep + 1
        self.still = nn.Sequential(*still, nn.Conv2d(have, 1, base, bias=False), nn.Flatten(0))
        self.moving = nn.Sequential(*moving, nn.Conv3d(have, 1, (frames, *base), bias=False), nn.Flatten(0))
        self.apply(initialised)

    def forward(self, x: Tensor) -> list[Tensor]:
        n, frames = len(x), x.shape[2]
        at = torch.randint(frames, (n,), device=x.device) if self.training else torch.full((n,), frames // 2)
        return [self.still(x[torch.arange(n, device=x.device), :, at.to(x.device)]), self.moving(x)]
