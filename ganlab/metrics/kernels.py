"""Scores from kernels: the maximum mean discrepancy between reals and fakes."""

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch_fidelity.metric_kid import kid_features_to_metric

from ganlab.metrics.pairs import Block, PairScore
from ganlab.metrics.scores import Given, Kept, Score


class KID(Score):
    """Kernel Inception distance: unbiased squared MMD, over random subsets (Binkowski et al. 2018, arXiv:1801.01401,
    section 4), computed by torch-fidelity. The subsets come from a generator of their own.

    subsets, subset_size   how many, and of how many samples
    kernel                 "poly": (x.y / d + 1)^3, the paper's; "rbf": exp(-|x - y|^2 / (2 sigma^2))
    """

    keys = ("kid", "kid_std")

    def __init__(
        self,
        subsets: int = 100,
        subset_size: int = 1000,
        kernel: Literal["poly", "rbf"] = "poly",
        sigma: float = 10.0,
        seed: int = 2020,
    ):
        if kernel not in ("poly", "rbf"):
            raise ValueError(f"scores.kid.kernel={kernel!r}: must be poly or rbf")
        self.subsets, self.subset_size, self.kernel, self.sigma, self.seed = (
            subsets,
            subset_size,
            kernel,
            float(sigma),
            seed,
        )
        if kernel == "rbf":
            self.keys = ("kid_rbf", "kid_rbf_std")

    def settings(self) -> dict[str, Any]:
        used = {"subsets": self.subsets, "subset_size": self.subset_size, "kernel": self.kernel, "seed": self.seed}
        return used | ({"sigma": self.sigma} if self.kernel == "rbf" else {})

    def check(self, given: Given) -> None:
        for side, n in (("reals", given.n_real), ("fakes", given.n_fake)):
            if n is not None and n < self.subset_size:
                raise ValueError(
                    f"scores.{self.keys[0]}.subset_size={self.subset_size}, and there are only {n} {side}: "
                    f"use {n} or less, or more {side}"
                )

    def __call__(self, real: Kept, fake: Kept) -> dict[str, float]:
        result = kid_features_to_metric(
            fake.rows().float(), real.rows().float(), kid_subsets=self.subsets, kid_subset_size=self.subset_size,
            kid_kernel=self.kernel, kid_kernel_rbf_sigma=self.sigma, rng_seed=self.seed, verbose=False,
        )  # fmt: skip
        return dict(zip(self.keys, result.values(), strict=True))


class CMMD(PairScore, Score):
    """1000 times the squared MMD with a Gaussian kernel between normalised features, biased, over all pairs; with
    CLIP's features the CMMD of Jayasumana et al. 2024, arXiv:2401.09603, section 4.

    sigma   width of the kernel
    """

    keys = ("cmmd",)
    standard = 30_000  # as in the paper

    def __init__(self, sigma: float = 10.0):
        self.sigma = float(sigma)

    def begin(self, real: Tensor, fake: Tensor) -> None:
        self._sums = {side: torch.zeros((), dtype=torch.float64, device=real.device) for side in ("real", "fake", "")}

    def kernel(self, block: Block) -> Tensor:
        """Sum over a block of the kernel minus 1, which keeps the digits that the sums of nearly equal numbers lose."""
        return torch.expm1((block.cosines - 1) / self.sigma**2).sum(dtype=torch.float64)

    def within(self, side: str, block: Block) -> None:
        self._sums[side] += self.kernel(block) * (1 if block.i == block.j else 2)

    def between(self, block: Block) -> None:
        self._sums[""] += self.kernel(block)

    def __call__(self, real: Kept, fake: Kept) -> dict[str, float]:
        rr, ff, rf = (self._sums[k].item() for k in ("real", "fake", ""))
        value = rr / real.n**2 + ff / fake.n**2 - 2 * rf / (real.n * fake.n)
        return {"cmmd": 1000 * value if math.isfinite(value) else math.nan}
