"""What D sees everything through: (x, rng) -> x, differentiable in x."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ganlab.phase import Data, wrap
from ganlab.rng import IndexedRNG, SampleRNG
from ganlab.schedule import Schedule, at


class OfImages(nn.Module):
    """Something that can be done to images alone, of sides of at least `least` pixels."""

    least = 1

    def check(self, gan: Any) -> None:
        """Refuses a game whose D sees anything else, by playing two samples of it."""
        if getattr(gan.task, "conditional", False):
            raise ValueError(
                f"augment: {type(self).__name__} changes what G made, and D compares it with what G started "
                "from, which stays: use augment=[], augment=[noise], or task.conditional=false"
            )
        if not hasattr(gan.task, "draw"):
            return
        with torch.no_grad():
            inputs, cond = gan.task.draw(IndexedRNG(0, range(2)))
            batch = gan.task.prepare({"real": gan(inputs, cond), "label": cond}, IndexedRNG(0, range(2)))
            shown = wrap(gan.task.play(gan.G_ema, batch)[0]).fake
        if not isinstance(shown, Tensor) or shown.dim() != 4:
            what = list(shown.shape) if isinstance(shown, Tensor) else f"{len(shown)} things at once"
            raise ValueError(
                f"augment: {type(self).__name__} is for images [N, C, H, W], and D is shown {what}: use augment=[]"
            )
        if min(shown.shape[2:]) < self.least:
            raise ValueError(
                f"augment: {type(self).__name__} needs sides of {self.least} pixels, and images have "
                f"{shown.shape[2]}x{shown.shape[3]}: set data.size, or leave it out"
            )


class InstanceNoise(nn.Module):
    """Noise on all that D sees, so that the reals and the fakes overlap (Sonderby et al. 2017, arXiv:1610.04490;
    Arjovsky & Bottou 2017, arXiv:1701.04862).

    deviation   of the Gaussian, where images lie in [-1, 1]; a schedule may take it to 0
    """

    now: Tensor
    drawn = ("now",)

    def __init__(self, deviation: float | Schedule = 0.1):
        super().__init__()
        if not callable(deviation) and deviation < 0:
            raise ValueError(f"augment.noise.deviation={deviation}: must be at least 0")
        self.deviation = deviation
        self.register_buffer("now", torch.tensor(float(at(deviation, 0))), persistent=False)

    def set_clock(self, seen: int) -> None:
        self.now.fill_(at(self.deviation, seen))

    def steady(self) -> None:
        """`now` is a tensor, which recorded rounds read anew."""

    def forward(self, x: Data, rng: SampleRNG) -> Data:
        """x: one or several tensors [N, ...]."""
        return tree_map(lambda t: t + self.now * rng.normal(*t.shape[1:]).to(t.dtype), x)


class DiffAugment(OfImages):
    """Differentiable Augmentation (Zhao et al. 2020, arXiv:2006.10738): the same kinds of change for reals and fakes,
    in D's moves and in G's, drawn anew for each sample.

    policy   some of: "color" (brightness, saturation, contrast), "translation" (up to 1/8 of the image), "cutout" (a
             square of half the size becomes 0)
    """

    KINDS = ("color", "translation", "cutout")

    def __init__(self, policy: str = "color,translation,cutout"):
        super().__init__()
        self.policy = [kind.strip() for kind in policy.split(",")]
        if unknown := set(self.policy) - set(self.KINDS):
            wrong, known = ", ".join(unknown), ", ".join(self.KINDS)
            raise ValueError(f"augment.diffaugment.policy={policy}: {wrong} is none of {known}")

    def forward(self, x: Tensor, rng: SampleRNG) -> Tensor:
        """x: [N, C, H, W]."""
        for kind in self.policy:
            x = getattr(self, kind)(x, rng)
        return x

    def color(self, x: Tensor, rng: SampleRNG) -> Tensor:
        """Brightness -0.5 .. 0.5 added, saturation times 0 .. 2, contrast times 0.5 .. 1.5."""
        u = rng.uniform(3).to(x.dtype)[:, :, None, None, None]  # [N, 3, 1, 1, 1]
        x = x + (u[:, 0] - 0.5)
        grey = x.mean(1, keepdim=True)
        x = (x - grey) * (u[:, 1] * 2) + grey
        middle = x.mean((1, 2, 3), keepdim=True)
        return (x - middle) * (u[:, 2] + 0.5) + middle

    def translation(self, x: Tensor, rng: SampleRNG) -> Tensor:
        """By up to 1/8 of the height and of the width, zeros coming in."""
        n, _, height, width = x.shape
        reach = ((height + 4) // 8, (width + 4) // 8)
        shift = [rng.integers(2 * most + 1) - most for most in reach]  # [N] each
        rows = torch.arange(height, device=x.device) + shift[0][:, None]  # [N, H]
        columns = torch.arange(width, device=x.device) + shift[1][:, None]
        padded = F.pad(x, (reach[1], reach[1], reach[0], reach[0]))
        at = torch.arange(n, device=x.device)[:, None, None]
        moved = padded.permute(0, 2, 3, 1)[at, rows[:, :, None] + reach[0], columns[:, None] + reach[1]]
        return moved.permute(0, 3, 1, 2)

    def cutout(self, x: Tensor, rng: SampleRNG) -> Tensor:
        """A square of half the height and width, anywhere, partly outside too."""
        covered = []
        for size in x.shape[2:]:
            start = rng.integers(size + 1) - size // 4  # [N]: its middle lies in the image
            place = torch.arange(size, device=x.device) - start[:, None]
            covered.append((place >= 0) & (place < size // 2))
        return x * ~(covered[0][:, None, :, None] & covered[1][:, None, None, :])
