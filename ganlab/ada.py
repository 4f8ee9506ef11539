"""Adaptive augmentation: D sees everything changed at random, as often as keeps it from overfitting.

Training Generative Adversarial Networks with Limited Data (Karras et al. 2020), arXiv:2006.06676.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ganlab.augment import OfImages
from ganlab.nn.filters import Filter
from ganlab.phase import Phase, size
from ganlab.rng import SampleRNG
from ganlab.schedule import Schedule, at

# the wavelet low-pass filter sym6: doubling with it and halving with its mirror image gives the image back
SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466,
    0.787641141030194, 0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578,
    0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
LATE = sum(i * tap for i, tap in enumerate(SYM6)) / sum(SYM6) - 5  # its middle, after its fifth tap
# matrices of geometry lead from a place in the new image to that in the old: the paper's changes from last to first
BLIT, WARP = ("shift", "turn", "flip"), ("move", "rotate", "stretch", "rotate", "scale")
COLOR = ("brightness", "contrast", "luma", "hue", "saturation")
LETTERS = {"b": BLIT, "g": WARP, "c": COLOR}


class ADA(OfImages):
    """Each change is made to a sample with probability p, and p follows how sure D is of the reals: every `interval`
    moves of D it goes up if E[sign(D(real))] (eq. 1) is above the target, and down otherwise.

    policy     letters: b(lit), g(eometry), c(olor); or names of single changes, with commas
    target     of E[sign(D(real))]; null: p stays as it is
    kimg       in which p can go from 0 to 1
    interval   moves of D between two steps of p
    p          at first; with target null it may be a schedule

    The changes and their laws are those of appendix B. blit: flip, turn (by multiples of 90 degrees; where the sides
    differ, of 180), shift (by whole pixels, up to 1/8 of the side), each exact. Geometry: scale, rotate, stretch, move
    (by any distance), made at twice the resolution between sym6 filters; what comes in from outside is mirrored.
    Color: brightness, contrast, luma (flipped), hue, saturation, of images with 3 channels, and of grey ones as if
    they had three equal channels; 2 and 4 channels keep theirs. The paper's filtering, noise and cutout are left out.

    A change leaks into what G makes if its law can't be undone, as turns with p = 1: keep p below about 0.8.
    """

    p: Tensor
    tally: Tensor
    drawn = ("p",)

    def __init__(
        self, policy: str = "bgc", target: float | None = 0.6, kimg: float = 500.0, interval: int = 4,
        p: float | Schedule = 0.0,
    ):  # fmt: skip
        super().__init__()
        names = [name.strip() for name in policy.split(",")] if set(policy) - set(LETTERS) else list(policy)
        kinds = {kind for name in names for kind in LETTERS.get(name, (name,))}
        if not kinds or (unknown := kinds - {*BLIT, *WARP, *COLOR}):
            known = ", ".join(dict.fromkeys((*BLIT, *WARP, *COLOR)))
            wrong = ", ".join(unknown) if kinds else "nothing"
            raise ValueError(f"augment.ada.policy={policy}: {wrong} is none of b, g, c, {known}")
        if target is not None and not -1 < target < 1:
            raise ValueError(f"augment.ada.target={target}: between -1 and 1 (a mean sign), or null for a fixed p")
        if target is not None and callable(p):
            raise ValueError(f"augment.ada.target={target} and a schedule for augment.ada.p: one alone says what p is")
        if not callable(p) and not 0 <= p <= 1:
            raise ValueError(f"augment.ada.p={p}: must be between 0 and 1 (a probability)")
        if kimg <= 0:
            raise ValueError(f"augment.ada.kimg={kimg}: must be above 0 (thousands of samples)")
        if interval < 1:
            raise ValueError(f"augment.ada.interval={interval}: must be at least 1 (moves of D)")
        self.target, self.samples, self.interval, self.law = target, kimg * 1000, interval, p
        self.boundary: float | None = 0.0  # logit above which D takes a sample for real: the loss says it
        self.blit, self.warp, self.color = ([k for k in order if k in kinds] for order in (BLIT, WARP, COLOR))
        self.least = 7 if self.warp else 1  # reflected at the border
        self.finer, self.coarser = Filter(SYM6, up=2, pad=(0, -1), gain=2.0), Filter(SYM6[::-1], down=2)
        self.register_buffer("p", torch.tensor(float(at(p, 0))))
        self.register_buffer("tally", torch.zeros(3))  # since the last step of p: sum of means of signs, moves, samples

    # ------------------------------------------------------------------------------------------------------ what p is

    def check(self, gan: Any) -> None:
        super().check(gan)
        self.boundary = getattr(gan.loss, "boundary", None)
        if self.target is not None and self.boundary is None:
            raise ValueError(
                f"augment.ada.target={self.target} is for a D that takes samples for real above some logit, and with "
                "this loss there is none: set augment.ada.target=null and choose augment.ada.p, or take another loss"
            )

    def set_clock(self, seen: int) -> None:
        if callable(self.law):
            self.p.fill_(self.law(seen))

    def steady(self) -> None:
        """p is a tensor, which recorded rounds read anew."""

    def after_move(self, phase: Phase) -> None:
        if phase.player != "D" or self.target is None:
            return
        signs = torch.cat([(logits - self.boundary).sign().flatten() for logits in tree_leaves(phase.on_real.logits)])
        several = torch.distributed.is_available() and torch.distributed.is_initialized()
        world = torch.distributed.get_world_size() if several else 1
        counts = [torch.full((), count, device=signs.device) for count in (1.0, float(size(phase.real) * world))]
        self.tally += torch.stack([phase.mean(signs), *counts])
        total, moves, samples = self.tally
        due = moves >= self.interval  # a tensor: nothing waits for the device
        self.p.add_(due * (total / moves - self.target).sign() * samples / self.samples).clamp_(0, 1)
        self.tally *= ~due

    # -------------------------------------------------------------------------------------------------- what D sees

    def forward(self, x: Tensor, rng: SampleRNG) -> Tensor:
        """x: [N, C, H, W]; at p = 0 it comes back as it is."""
        with torch.autocast(x.device.type, enabled=False):
            if self.blit or self.warp:
                x = self.placed(x, rng)
            if self.color and x.shape[1] in (1, 3):
                x = self.colored(x, rng)
        return x

    def placed(self, x: Tensor, rng: SampleRNG) -> Tensor:
        height, width = x.shape[2:]
        draw = Draw(rng, x)
        exact, _ = self.composed(self.blit, draw, 3)
        places = lambda n: torch.arange(n, device=x.device, dtype=x.dtype)
        blitted = between(x, *sources(exact, places(height), places(width), x.shape[2:])) if self.blit else x
        if not self.warp:
            return blitted
        warp, warped = self.composed(self.warp, draw, 3)
        # at twice the resolution pixel i lies at (i - LATE) / 2; the filters need 5 of those beyond the image
        fine = lambda n: (places(2 * n + 10) - 5 - LATE) / 2
        rows, columns = sources(exact @ warp, fine(height), fine(width), x.shape[2:], margin=3)
        finer = self.finer(F.pad(x, (6, 6, 6, 6), mode="reflect"))  # [N, C, 2H + 12, 2W + 12]
        smooth = self.coarser(between(finer, 2 * rows + 6 + LATE, 2 * columns + 6 + LATE))
        return smooth.where(warped[:, None, None, None], blitted)

    def colored(self, x: Tensor, rng: SampleRNG) -> Tensor:
        matrix, _ = self.composed(self.color, Draw(rng, x), 4)
        mix, add = matrix[:, :3, :3], matrix[:, :3, 3]
        if x.shape[1] == 1:  # as three equal channels, and their mean
            mix, add = mix.sum(2, keepdim=True).mean(1, keepdim=True), add.mean(1, keepdim=True)
        return (mix[..., None, None] * x[:, None]).sum(2) + add[..., None, None]  # not matmul: it may round

    def composed(self, kinds: Sequence[str], draw: "Draw", k: int) -> tuple[Tensor, Tensor]:
        """(product of the changes' matrices [N, k, k], whether any was made [N])."""
        nothing = torch.eye(k, dtype=draw.x.dtype, device=draw.x.device)
        total = nothing.expand(len(draw.x), k, k)
        touched = torch.zeros_like(total[:, 0, 0], dtype=torch.bool)
        for kind in kinds:
            p = 1 - (1 - self.p).sqrt() if kind == "rotate" else self.p  # of two rotations one at least: p
            made = draw.uniform() < p
            total = getattr(draw, kind)().where(made[:, None, None], nothing) @ total
            touched = touched | made
        return total, touched


class Draw:
    """Matrices of single changes, drawn for the samples x: of places (column, row, 1) from the middle of the image in
    pixels, [N, 3, 3], and of colors (r, g, b, 1), [N, 4, 4]. Those of places are the inverses of the changes, whose
    laws are symmetric.
    """

    def __init__(self, rng: SampleRNG, x: Tensor):
        self.rng, self.x = rng, x
        self.height, self.width = x.shape[2:]

    def uniform(self) -> Tensor:
        return self.rng.uniform().to(self.x.dtype)

    def normal(self) -> Tensor:
        return self.rng.normal().to(self.x.dtype)

    def angle(self) -> Tensor:
        return (2 * self.uniform() - 1) * math.pi

    def flip(self) -> Tensor:
        return scaling(1 - 2 * self.rng.integers(2).to(self.x.dtype), 1)

    def turn(self) -> Tensor:
        quarters = self.rng.integers(4) if self.height == self.width else 2 * self.rng.integers(2)
        angle = quarters.to(self.x.dtype) * (math.pi / 2)
        return rotating(angle.cos().round(), angle.sin().round())

    def shift(self) -> Tensor:
        reach = [(2 * self.uniform() - 1) / 8 * side for side in (self.width, self.height)]
        return shifting(*[distance.round() for distance in reach])

    def scale(self) -> Tensor:
        factor = (0.2 * math.log(2) * self.normal()).exp()
        return scaling(factor, factor)

    def stretch(self) -> Tensor:
        factor = (0.2 * math.log(2) * self.normal()).exp()
        return scaling(factor, 1 / factor)

    def rotate(self) -> Tensor:
        angle = self.angle()
        return rotating(angle.cos(), angle.sin())

    def move(self) -> Tensor:
        return shifting(self.normal() / 8 * self.width, self.normal() / 8 * self.height)

    def brightness(self) -> Tensor:
        b = 0.2 * self.normal()
        return matrix((1, 0, 0, b), (0, 1, 0, b), (0, 0, 1, b), (0, 0, 0, 1))

    def contrast(self) -> Tensor:
        factor = (0.5 * math.log(2) * self.normal()).exp()
        return around_grey(along=factor, across=factor)

    def luma(self) -> Tensor:
        return around_grey(along=1 - 2 * self.rng.integers(2).to(self.x.dtype), across=1)

    def hue(self) -> Tensor:
        angle = self.angle()
        return around_grey(along=1, across=angle.cos(), turned=angle.sin())

    def saturation(self) -> Tensor:
        return around_grey(along=1, across=(math.log(2) * self.normal()).exp())


def matrix(*rows: Sequence[Any]) -> Tensor:
    """[N, k, k] from rows of numbers and tensors [N]."""
    like = next(entry for row in rows for entry in row if isinstance(entry, Tensor))
    full = lambda entry: entry if isinstance(entry, Tensor) else torch.full_like(like, entry)
    return torch.stack([torch.stack([full(entry) for entry in row], 1) for row in rows], 1)


def scaling(x: Any, y: Any) -> Tensor:
    return matrix((x, 0, 0), (0, y, 0), (0, 0, 1))


def shifting(x: Any, y: Any) -> Tensor:
    return matrix((1, 0, x), (0, 1, y), (0, 0, 1))


def rotating(cosine: Tensor, sine: Tensor) -> Tensor:
    return matrix((cosine, -sine, 0), (sine, cosine, 0), (0, 0, 1))


def around_grey(along: Any, across: Any, turned: Any = 0) -> Tensor:
    """Colors times `along` in the direction of grey, v = (1, 1, 1) / sqrt(3), and times `across` at right angles to it,
    plus `turned` times their cross product with v: along v v^T + across (1 - v v^T) + turned [v]x."""
    same, plus, minus = ((along + 2 * across) / 3, (along - across) / 3, turned / math.sqrt(3))
    return matrix(
        (same, plus - minus, plus + minus, 0),
        (plus + minus, same, plus - minus, 0),
        (plus - minus, plus + minus, same, 0),
        (0, 0, 0, 1),
    )


def sources(
    matrix: Tensor, rows: Tensor, columns: Tensor, shape: Sequence[int], margin: float = 0.0
) -> tuple[Tensor, Tensor]:
    """(rows, columns) [N, h, w] of the old image at which the new one's rows [h] and columns [w] lie, in pixels; those
    more than `margin` beyond the outermost pixels are mirrored there, as often as it takes."""
    m = matrix[..., None, None]  # [N, 3, 3, 1, 1]
    y, x = rows[:, None] - (shape[0] - 1) / 2, columns - (shape[1] - 1) / 2
    at = [m[:, i, 0] * x + m[:, i, 1] * y + m[:, i, 2] + (shape[1 - i] - 1) / 2 for i in (1, 0)]
    return mirrored(at[0], shape[0] - 1, margin), mirrored(at[1], shape[1] - 1, margin)


def mirrored(place: Tensor, last: int, margin: float) -> Tensor:
    around = place.remainder(2 * last)
    return place.where((place >= -margin) & (place <= last + margin), torch.minimum(around, 2 * last - around))


def between(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """x [N, C, H, W] at places [N, h, w] in 0 .. H - 1 and 0 .. W - 1: the four neighbours, weighed. [N, C, h, w]

    As F.grid_sample, but differentiable twice, and exact at whole pixels.
    """
    _, channels, height, width = x.shape
    top, left = rows.floor().clamp(max=height - 2), columns.floor().clamp(max=width - 2)
    down, right = (rows - top)[:, None], (columns - left)[:, None]  # [N, 1, h, w], 0 .. 1
    first = (top.long() * width + left.long()).flatten(1)[:, None].expand(-1, channels, -1)
    at = lambda offset: x.flatten(2).gather(2, first + offset).unflatten(2, rows.shape[1:])
    above = at(0) * (1 - right) + at(1) * right
    below = at(width) * (1 - right) + at(width + 1) * right
    return above * (1 - down) + below * down
