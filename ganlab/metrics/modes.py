"""For mixtures of Gaussians with known centres: how many modes a generator found, and how many samples are good."""

from collections.abc import Sequence

import torch

from ganlab.metrics.scores import Kept, Score


class Modes(Score):
    """A sample is good within `radius` deviations of the nearest centre; a mode is found if it holds at least `share`
    of the good samples (after Srivastava et al. 2017, arXiv:1705.07761, section 4.1, there without a share).

    modes: number found; good: share of good samples; quality: good * modes / all modes.

    centers     [k][2]
    deviation   standard deviation of each mode
    """

    reals = False
    higher_is_better = True
    keys = ("quality", "modes", "good")
    standard = 10_000

    def __init__(
        self, centers: Sequence[Sequence[float]], deviation: float, radius: float = 3.0, share: float = 0.01
    ):  # fmt: skip
        self.centers = [[float(v) for v in center] for center in centers]
        self.deviation, self.radius, self.share = float(deviation), float(radius), float(share)

    def __call__(self, real: Kept, fake: Kept) -> dict[str, float]:
        centers, points = torch.tensor(self.centers, dtype=torch.float64), fake.rows().double()
        distance, at = torch.cdist(points, centers.to(points)).min(1)
        good = torch.bincount(at[distance <= self.radius * self.deviation], minlength=len(centers)).double()
        found = ((good >= self.share * good.sum()) & (good > 0)).sum().item()
        share = good.sum().item() / len(points)
        return {"quality": share * found / len(centers), "modes": float(found), "good": share}
