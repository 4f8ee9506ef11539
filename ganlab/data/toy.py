"""Points in the plane whose distribution is known, so that lost modes can be counted."""

import math
from typing import Any, Literal

import torch

from ganlab.data.rounds import DataModule, InMemory
from ganlab.rng import seed_of


class Toy(DataModule):
    """A mixture of equal 2-D Gaussians.

    shape       "ring": `modes` of them on a circle of radius `scale`;
                "grid": `modes` of them (a square number), `scale` apart, centred on 0
    deviation   standard deviation of each
    count       number of points
    """

    def __init__(
        self,
        layout: Literal["ring", "grid"] = "ring",
        modes: int = 8,
        scale: float = 1.0,
        deviation: float = 0.02,
        count: int = 50_000,
        batch_size: int = 256,
        rounds: int = 8,
        seed: int = 0,
    ):
        super().__init__(batch_size, rounds, seed)
        if layout not in ("ring", "grid"):
            raise ValueError(f"data.layout={layout!r}: must be ring or grid")
        if layout == "grid" and math.isqrt(modes) ** 2 != modes:
            raise ValueError(f"data.modes={modes}: a grid needs a square number, as 25")
        self.deviation, self.points = deviation, count
        if layout == "ring":
            angle = torch.arange(modes) * (2 * math.pi / modes)
            self.centers = scale * torch.stack([angle.cos(), angle.sin()], 1)  # [modes, 2]
        else:
            side = scale * (torch.arange(math.isqrt(modes)) - (math.isqrt(modes) - 1) / 2)
            self.centers = torch.cartesian_prod(side, side)

    def facts(self) -> dict[str, Any]:
        """What networks, scores and pictures must know: the shape, the centres, and half the width of the picture."""
        extent = self.centers.abs().max().item() * 1.2 + 5 * self.deviation
        return {"shape": [2], "classes": None, "class_names": None, "frequencies": None, "several": False} | {
            "centers": self.centers.tolist(),
            "extent": extent,
        }

    def load(self, split: str) -> InMemory:
        generator = torch.Generator().manual_seed(seed_of("toy", split))  # the same set in every run
        label = torch.randint(len(self.centers), (self.points,), generator=generator)
        points = self.centers[label] + self.deviation * torch.randn(self.points, 2, generator=generator)
        return InMemory(points.to(torch.get_default_dtype()), label)
