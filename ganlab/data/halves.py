"""Two halves of one set, of which the one was changed: no image has a partner, and yet the right answer is known."""

from typing import Any

from torch import Tensor

from ganlab.data.pairs import Sides
from ganlab.data.rounds import InMemory, Zipped
from ganlab.data.sets import MNIST
from ganlab.rng import seed_of


class InvertedMNIST(MNIST):
    """Handwritten digits, and other digits inverted, black on white: every second image of MNIST each, 30,000 of both.
    To test on, 10,000 digits with their own inverses."""

    classes, class_names, counts = None, None, None  # type: ignore[assignment]

    def check(self) -> None:
        super().check()
        if self.count is not None:
            raise ValueError(f"data.count={self.count}: both halves are used whole: leave it out")

    def facts(self) -> dict[str, Any]:
        """Of images, and inputs, the shape of the digits; that in training the two do not go together."""
        facts = super().facts()
        return {**facts, "inputs": facts["shape"], "maps": False, "partners": False}

    def read(self, split: str) -> tuple[Tensor, None]:  # type: ignore[override]
        return super().read(split)[0], None

    def load(self, split: str) -> Sides:  # type: ignore[override]
        real = super().load(split).real
        known = split == "test"
        digits, others = (real, real) if known else (real[::2], real[1::2])
        return Sides({"inputs": InMemory(digits), "real": InMemory(255 - others)}, partners=known)

    def train_dataloader(self) -> Zipped:
        parts = self.split("train").parts  # type: ignore[attr-defined]
        return Zipped({side: self.served(part, seed_of(self.seed, side)) for side, part in parts.items()})
