"""What can be done to an image that a generator is to undo: noise, blur, holes, fewer pixels, no colour, JPEG."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg

from ganlab.rng import SampleRNG


class Degradation(nn.Module, ABC):
    """Images [N, C, H, W] in [-1, 1] -> what is left of them, which is what G starts from. What is random in it comes
    from `rng`: a sample's own numbers."""

    @abstractmethod
    def forward(self, x: Tensor, rng: SampleRNG) -> Tensor: ...

    def shape(self, shape: Sequence[int]) -> list[int]:
        """[C, H, W] of what is left of images of this shape.

        Raises:
            ValueError: it can't be done to such images
        """
        return list(shape)

    def merged(self, inputs: Tensor, fake: Tensor) -> Tensor:
        """What G made, with what was known all along."""
        return fake

    def picture(self, inputs: Tensor) -> Tensor:
        """What is left, as an image."""
        return inputs


class Nothing(Degradation):
    """Images as they are: of an autoencoder."""

    def forward(self, x: Tensor, rng: SampleRNG) -> Tensor:
        return x


class Noise(Degradation):
    """Gaussian noise.

    sigma   its standard deviation, of 255 levels
    """

    def __init__(self, sigma: float = 25.0):
        super().__init__()
        if sigma <= 0:
            raise ValueError(f"task.degradation.sigma={sigma}: must be above 0 (of 255 levels)")
        self.sigma = sigma

    def forward(self, x: Tensor, rng: SampleRNG) -> Tensor:
        return x + self.sigma / 127.5 * rng.normal(*x.shape[1:]).to(x)


class Blur(Degradation):
    """A Gaussian filter; at the border the image is mirrored.

    pixels   its standard deviation
    """

    def __init__(self, pixels: float = 1.5):
        super().__init__()
        if pixels <= 0:
            raise ValueError(f"task.degradation.pixels={pixels}: must be above 0")
        self.pixels, self.reach = pixels, math.ceil(3 * pixels)

    def shape(self, shape: Sequence[int]) -> list[int]:
        if min(shape[1:]) <= self.reach:
            raise ValueError(
                f"task.degradation.pixels={self.pixels}: the filter reaches {self.reach} pixels far, and images have "
                f"{shape[1]}x{shape[2]}: make it smaller, or data.size larger"
            )
        return list(shape)

    def forward(self, x: Tensor, rng: SampleRNG) -> Tensor:
        at = torch.arange(-self.reach, self.reach + 1, dtype=x.dtype, device=x.device)
        taps = (-(at**2) / (2 * self.pixels**2)).exp()
        kernel = (taps / taps.sum()).expand(x.shape[1], 1, 1, -1)
        for _ in range(2):  # rows, then columns
            x = F.conv2d(F.pad(x, (self.reach, self.reach, 0, 0), "reflect"), kernel, groups=x.shape[1]).mT
        return x


class Grayscale(Degradation):
    """Luma as ITU-R 601 has it: [N, 1, H, W]. It stays as it is, and G adds the colours alone."""

    def shape(self, shape: Sequence[int]) -> list[int]:
        if shape[0] != 3:
            raise ValueError(
                f"task.degradation: images of {shape[0]} channel(s) have no colour to lose: data.channels=3"
            )
        return [1, *shape[1:]]

    def forward(self, x: Tensor, rng: SampleRNG) -> Tensor:
        return luma(x)

    def merged(self, inputs: Tensor, fake: Tensor) -> Tensor:
        return fake + (inputs - luma(fake))


def luma(x: Tensor) -> Tensor:
    """[N, 3, H, W] -> [N, 1, H, W]"""
    return (x * torch.tensor([0.299, 0.587, 0.114]).to(x)[:, None, None]).sum(1, keepdim=True)


class JPEG(Degradation):
    """What a JPEG file leaves; colour at half the resolution.

    quality   of the file, 1 to 100; or two numbers, between which each image's is drawn
    """

    def __init__(self, quality: int | Sequence[int] = 10):
        super().__init__()
        self.quality = (quality, quality) if isinstance(quality, int) else tuple(quality)
        if len(self.quality) != 2 or not 1 <= self.quality[0] <= self.quality[1] <= 100:
            raise ValueError(f"task.degradation.quality={quality}: one number, or two in order, from 1 to 100")

    def shape(self, shape: Sequence[int]) -> list[int]:
        if shape[0] not in (1, 3):
            raise ValueError(f"task.degradation: JPEG has 1 or 3 channels, not {shape[0]}: set data.channels")
        return list(shape)

    def forward(self, x: Tensor, rng: SampleRNG) -> Tensor:
        low, high = self.quality
        quality = (low + rng.integers(high - low + 1)).tolist()
        mode = ImageReadMode.GRAY if x.shape[1] == 1 else ImageReadMode.RGB
        images = as_levels(x).to(torch.uint8).cpu()
        stored = [decode_jpeg(encode_jpeg(t, q), mode) for t, q in zip(images, quality, strict=True)]
        return torch.stack(stored).to(x) / 127.5 - 1


class Downscale(Degradation):
    """Fewer pixels: bicubic and antialiased, rounded to 256 levels, as super-resolution's benchmarks are made.

    scale   by which each side becomes shorter
    """

    def __init__(self, scale: int = 4):
        super().__init__()
        if scale < 2:
            raise ValueError(f"task.degradation.scale={scale}: must be a whole number of at least 2")
        self.scale = scale

    def shape(self, shape: Sequence[int]) -> list[int]:
        channels, *size = shape
        if any(side % self.scale or side < 2 * self.scale for side in size):
            fits = [max(2, round(side / self.scale)) * self.scale for side in size]
            told = f"task.degradation.scale={self.scale} does not divide {size[0]}x{size[1]}"
            raise ValueError(f"{told}: set data.size={fits[0] if fits[0] == fits[1] else fits}")
        return [channels, *(side // self.scale for side in size)]

    def forward(self, x: Tensor, rng: SampleRNG) -> Tensor:
        size = [side // self.scale for side in x.shape[2:]]
        small = F.interpolate(x, size, mode="bicubic", antialias=True, align_corners=False)
        return as_levels(small) / 127.5 - 1


# ---------------------------------------------------------------------------------------------------------------- holes


class Hole(Degradation):
    """A part of the image is missing: grey there. G is told where: a last channel is 1 there and -1 elsewhere, and what
    is known comes through unchanged."""

    @abstractmethod
    def mask(self, height: int, width: int, rng: SampleRNG) -> Tensor:
        """bool [N, H, W] (or of one sample, for all): what is missing."""

    def shape(self, shape: Sequence[int]) -> list[int]:
        return [shape[0] + 1, *shape[1:]]

    def forward(self, x: Tensor, rng: SampleRNG) -> Tensor:
        missing = self.mask(x.shape[2], x.shape[3], rng).to(x)[:, None].expand(len(x), -1, -1, -1)
        return torch.cat([x * (1 - missing), 2 * missing - 1], 1)

    def merged(self, inputs: Tensor, fake: Tensor) -> Tensor:
        return torch.where(inputs[:, -1:] > 0, fake, inputs[:, :-1].to(fake))

    def picture(self, inputs: Tensor) -> Tensor:
        return inputs[:, :-1]


class Center(Hole):
    """A rectangle in the middle (Pathak et al. 2016, arXiv:1604.07379, section 3.2).

    share   of each side
    """

    def __init__(self, share: float = 0.5):
        super().__init__()
        if not 0 < share < 1:
            raise ValueError(f"task.degradation.share={share}: must be above 0 and below 1")
        self.share = share

    def mask(self, height: int, width: int, rng: SampleRNG) -> Tensor:
        missing = torch.zeros(1, height, width, dtype=torch.bool)
        h, w = (max(1, round(self.share * side)) for side in (height, width))
        top, left = (height - h) // 2, (width - w) // 2
        missing[:, top : top + h, left : left + w] = True
        return missing


class Blocks(Hole):
    """Rectangles anywhere, which may lie over one another (same paper, "random block").

    pieces   how many
    share    of each side, at most and at least
    """

    def __init__(self, pieces: int = 3, share: Sequence[float] = (0.15, 0.4)):
        super().__init__()
        if pieces < 1 or len(share) != 2 or not 0 < share[0] <= share[1] < 1:
            raise ValueError(f"task.degradation: pieces={pieces}, share={list(share)}: two shares in order, below 1")
        self.pieces, self.share = pieces, tuple(share)

    def mask(self, height: int, width: int, rng: SampleRNG) -> Tensor:
        u = rng.uniform(self.pieces, 4)  # [N, pieces, 4]
        low, high = self.share
        inside = []
        for i, side in enumerate((height, width)):
            length = ((low + (high - low) * u[..., i]) * side).round().clamp(min=1)
            start = (u[..., 2 + i] * (side - length + 1)).floor()
            at = torch.arange(side, device=u.device)
            inside.append((at >= start[..., None]) & (at < (start + length)[..., None]))  # [N, pieces, side]
        return (inside[0][..., None] & inside[1][..., None, :]).any(1)


class FreeForm(Hole):
    """Strokes of a brush: each goes on from where it is in a direction that changes at random (after Yu et al. 2019,
    arXiv:1806.03589, section 3.4).

    strokes   how many
    steps     straight pieces of each
    thickness of the brush, a share of the shorter side
    """

    def __init__(self, strokes: int = 4, steps: int = 5, thickness: float = 0.1):
        super().__init__()
        if strokes < 1 or steps < 1 or not 0 < thickness < 1:
            raise ValueError(
                f"task.degradation: strokes={strokes}, steps={steps}, thickness={thickness}: at least 1, and a share"
            )
        self.strokes, self.steps, self.thickness = strokes, steps, thickness

    def mask(self, height: int, width: int, rng: SampleRNG) -> Tensor:
        start, u = rng.uniform(self.strokes, 2), rng.uniform(self.strokes, self.steps, 2)
        side, size = min(height, width), torch.tensor([height, width]).to(u)
        turns = u[..., :1] * 2 * math.pi / 3 - math.pi / 3 + math.pi * (torch.arange(self.steps) % 2).to(u)[:, None]
        angle = turns + 2 * math.pi * start[:, :, None, :1]  # there and back, as one wipes
        way = torch.cat([angle.cos(), angle.sin()], -1) * (0.1 + 0.3 * u[..., 1:]) * side
        points = torch.cat([start[:, :, None] * size, start[:, :, None] * size + way.cumsum(2)], 2)
        points = points.clamp(min=torch.zeros_like(size), max=size)  # [N, strokes, steps + 1, 2]
        grid = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), -1).to(u) + 0.5
        missing = torch.zeros(len(u), height, width, dtype=torch.bool, device=u.device)
        for a, b in zip(
            points[:, :, :-1].flatten(1, 2).unbind(1), points[:, :, 1:].flatten(1, 2).unbind(1), strict=True
        ):
            missing |= distance(grid, a, b) <= self.thickness * side / 2
        return missing


def distance(grid: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """[N, H, W]: from each point of the grid [H, W, 2] to the straight line from a to b, both [N, 2]."""
    along = (b - a)[:, None, None]
    t = ((grid - a[:, None, None]) * along).sum(-1) / along.square().sum(-1).clamp(min=1e-12)
    return (grid - a[:, None, None] - t.clamp(0, 1)[..., None] * along).norm(dim=-1)


def as_levels(x: Tensor) -> Tensor:
    """[-1, 1] -> 0 .. 255, rounded."""
    return ((x + 1) * 127.5).round().clamp(0, 255)
