"""A trained generator that starts from images, applied to images of any size."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ganlab.checkpoint import Sampler
from ganlab.data.decode import MOST_PIXELS
from ganlab.data.images import as_channels
from ganlab.degrade import Hole
from ganlab.metrics.fit import as_shown
from ganlab.rng import IndexedRNG
from ganlab.tasks import Segment
from ganlab.tiles import mirrored, tiled

LEAST = 16  # pixels that a network is shown: norms need more than one
VISIBLE = 1 / 255  # half a level of 256, in [-1, 1]


class Translator:
    """G_ema with its task. Images are continued by their reflection to what G takes, and cut back; larger ones than a
    tile are made in tiles that overlap. G says by `multiple` that it takes any size whose sides that divides; without,
    it is only shown tiles of the size that it was trained at.

    tile      pixels of a tile's sides, rounded down to G's multiple; None: images are translated whole. Where G makes
              images larger, pixels of what it makes, as `overlap`
    overlap   pixels that neighbouring tiles share, rounded up to it; pixels that depend on none further away than a
              quarter of that are the same as of the whole image
    degrade   images are whole, and the task's degradation is applied to them first
    seed      of what is random in that
    back      by the way back: from images like the reals to images like the inputs

    Raises:
        ValueError: G can't be applied to images, or not so
    """

    def __init__(
        self, sampler: Sampler, tile: int | None = 1024, overlap: int = 128, degrade: bool = False, seed: int = 0,
        back: bool = False,
    ):  # fmt: skip
        self.sampler, self.task, self.seed, self.noted = sampler, sampler.task, seed, False
        if not hasattr(self.task, "show_inputs"):
            noise = "starts from noise, not from images: python -m ganlab.sample shows its own"
            raise ValueError(f"this generator {noise if hasattr(self.task, 'draw') else 'makes no images of images'}")
        self.shape = sampler.arguments.get("shape")
        inputs = sampler.arguments.get("inputs") or self.shape
        if back and not hasattr(sampler.G, "back"):
            raise ValueError(
                f"back=true: {type(sampler.G).__name__} knows one way only, leave back out; model=cyclegan learns both"
            )
        self.G, inputs = (sampler.G.back, self.shape) if back else (sampler.G, inputs)
        if not isinstance(inputs, (list, tuple)) or len(inputs) != 3:
            raise ValueError(
                f"{type(sampler.G).__name__} does not say what it starts from: its arguments should be called shape "
                "and inputs, both [channels, height, width]"
            )
        self.degradation = getattr(self.task, "degradation", None) if degrade else None
        if degrade and self.degradation is None:
            raise ValueError(f"degrade=true: {type(self.task).__name__} has no degradation, leave degrade out")
        self.fills = isinstance(getattr(self.task, "degradation", None), Hole)
        self.asks = self.fills and not degrade  # for what is missing
        self.makes = ("classes", "colors") if isinstance(self.task, Segment) else ("",)  # keys of `pictures`
        self.channels, *trained = inputs
        self.multiple = getattr(sampler.G, "multiple", None)
        self.tile: tuple[int, int] | None = None if self.multiple else (trained[0], trained[1])
        size = self.padded(1, 1)
        try:
            made = self.made(torch.zeros(self.channels, *size))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise ValueError(
                f"{type(sampler.G).__name__} can't be applied to an image of {size[0]}x{size[1]}: {str(error)[:300]}"
            ) from None
        self.scale = made.shape[1] // size[0]
        if list(made.shape[1:]) != [self.scale * side for side in size] or self.scale < 1:
            raise ValueError(
                f"{type(sampler.G).__name__} makes {list(made.shape[1:])} of {list(size)}: sizes must be the same, or "
                "a multiple"
            )

        step = self.multiple or 1
        self.overlap = min(overlap, *(side // 2 for side in trained))
        if self.multiple is not None:
            self.overlap = up(overlap // self.scale, step)
            side = None if tile is None else tile // self.scale // step * step
            self.tile = None if side is None else (side, side)
        if self.tile is not None and min(self.tile) < max(2 * self.overlap, 1):
            least = up(max(2 * self.overlap, LEAST), step)
            raise ValueError(
                f"tile={tile}: this G takes sides that are multiples of {step}, so overlap={overlap} becomes "
                f"{self.overlap * self.scale}, and a tile must have twice that: set tile={least * self.scale} or more, "
                "or tile=null"
            )

    # ----------------------------------------------------------------------------------------------------- what goes in

    def inputs(self, picture: Tensor, missing: Tensor | None = None, number: int = 0) -> Tensor:
        """uint8 [1 to 4, H, W] -> what G starts from, float [channels, h, w].

        missing   bool [1, H, W]: what is to be filled in; None: what is transparent
        number    which image it is, if there is something random in the degradation

        Raises:
            ValueError: nothing is missing in it, or it can't be degraded
        """
        if self.degradation is not None:
            scale = getattr(self.degradation, "scale", 1)
            real = as_floats(picture, (self.shape or [self.channels])[0])
            real = mirrored(real, [up(side, scale) for side in real.shape[1:]])
            self.degradation.shape(real.shape)
            return self.degradation(real[None], IndexedRNG(self.seed, range(number, number + 1)))[0]
        if not self.asks:
            return as_floats(picture, self.channels)
        if missing is None and len(picture) in (2, 4):
            missing = picture[-1:] < 128
        if missing is None or not missing.any():
            raise ValueError("nothing is missing in it: make pixels transparent, or give mask=FOLDER")
        if missing.shape[1:] != picture.shape[1:]:
            sizes = [f"{w}x{h}" for h, w in (missing.shape[1:], picture.shape[1:])]
            raise ValueError(f"its mask has {sizes[0]} pixels, and it has {sizes[1]}")
        hole = missing.float()
        return torch.cat([as_floats(picture, self.channels - 1) * (1 - hole), 2 * hole - 1])

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """The size that an image is continued to."""
        if self.multiple is None:
            assert self.tile is not None
            return max(height, self.tile[0]), max(width, self.tile[1])
        return up(max(height, LEAST), self.multiple), up(max(width, LEAST), self.multiple)

    def sides(self, height: int, width: int) -> tuple[int, int]:
        """Of a tile of such an image; the image's own if it is made whole."""
        size = self.padded(height, width)
        return size if self.tile is None else (min(size[0], self.tile[0]), min(size[1], self.tile[1]))

    # --------------------------------------------------------------------------------------------------- what comes out

    @torch.no_grad()
    def made(self, inputs: Tensor) -> Tensor:
        """What G makes of one image [channels, h, w] of a size that it takes: float [c, h', w'], on the CPU."""
        return self.task.made(self.G, inputs[None].to(self.sampler.device, self.sampler.dtype))[0].cpu()

    def strips(self, inputs: Tensor) -> Iterator[Tensor]:
        """What G makes of an image [channels, h, w] of any size: float, in strips from the top."""
        height, width = inputs.shape[1:]
        left, size = height * self.scale, self.padded(height, width)
        for strip in tiled(self.made, mirrored(inputs, size), self.sides(height, width), self.overlap):
            if left > 0:
                yield strip[:, :left, : width * self.scale]
            left -= strip.shape[1]

    def pictures(self, inputs: Tensor) -> dict[str, Tensor]:
        """The same as uint8 images: {"": [c, H, W]}, and of a segmentation {"classes": [1, H, W], the number of each
        pixel's class, "colors": [3, H, W]}.

        Raises:
            ValueError: they would have too many pixels to be read again
        """
        height, width = (side * self.scale for side in inputs.shape[1:])
        if height * width > MOST_PIXELS:
            raise ValueError(f"its {width}x{height} pixels would be too many, {MOST_PIXELS:,} at most")
        parts: dict[str, list[Tensor]] = {name: [] for name in self.makes}
        for strip in self.strips(inputs):
            parts[self.makes[-1]].append(as_shown(self.task.show(strip[None]).float())[0])
            if "classes" in parts:
                parts["classes"].append(strip.argmax(0, keepdim=True).to(torch.uint8))
        return {name: torch.cat(some, 1) for name, some in parts.items()}

    def translated(self, picture: Tensor, missing: Tensor | None = None, number: int = 0) -> dict[str, Tensor]:
        """From uint8 [1 to 4, H, W] to `pictures`, and "before": what G started from. An image's transparency is kept,
        scaled as the image is; G saw it laid over white, as in training. What was filled in is opaque."""
        inputs = self.inputs(picture, missing, number)
        made = self.pictures(inputs)
        if self.degradation is not None:
            made = {name: x[:, : picture.shape[1], : picture.shape[2]] for name, x in made.items()}
        filled = self.asks and missing is None
        if "" in made and len(made[""]) in (1, 3) and len(picture) in (2, 4) and not filled:
            alpha = F.interpolate(picture[None, -1:].float(), made[""].shape[1:], mode="bilinear", antialias=True)
            made[""] = torch.cat([made[""], alpha[0].round().to(torch.uint8)])
        return made | {"before": as_shown(self.task.show_inputs(inputs[None]).float())[0]}

    def note(self, height: int, width: int) -> str | None:
        """What is to be said, once, of tiles where G looks further than they allow."""
        if self.noted or self.multiple is None or self.sides(height, width) == self.padded(height, width):
            return None
        self.noted = True
        if not self.looks_far():
            return None
        return (
            f"This generator looks further than {self.overlap // 4} pixels around, so tiles can differ "
            "where they meet: tile=null makes images whole, if the memory suffices; a larger overlap helps, too"
        )

    def looks_far(self) -> bool:
        """Whether what G makes of a pixel depends visibly on others further away than tiles can show it: then they do
        not fit together everywhere."""
        assert self.tile is not None
        block = self.multiple or 1
        x = torch.rand(self.channels, *self.tile, generator=torch.Generator().manual_seed(0)) * 2 - 1
        middle, near = [], []
        for side in self.tile:
            at = side // 2 // block * block
            middle.append(slice(at * self.scale, (at + block) * self.scale))
            near.append(slice(max(0, at - self.overlap // 4), at + block + self.overlap // 4))
        other = torch.ones_like(x)
        other[:, near[0], near[1]] = x[:, near[0], near[1]]
        a, b = (self.made(image)[:, middle[0], middle[1]] for image in (x, other))
        return bool((a - b).abs().max() > VISIBLE)


def up(n: int, multiple: int) -> int:
    """n, rounded up to a multiple."""
    return -(-n // multiple) * multiple


def as_floats(picture: Tensor, channels: int) -> Tensor:
    """uint8 [1 to 4, H, W] -> [channels, H, W] in [-1, 1]."""
    return as_channels(picture[None], channels)[0].float() / 127.5 - 1
