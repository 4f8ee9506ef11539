"""Two sets of the same classes: a source, whose labels are learned from, and a target, whose labels are only tested."""

from collections.abc import Iterator
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ganlab.data.pairs import Sides
from ganlab.data.rounds import DataModule, Samples, Zipped
from ganlab.data.sets import Digits
from ganlab.files import Unavailable
from ganlab.rng import seed_of


class Both(Sides):
    """{"inputs": images of the target, "real": images of the source, "label": theirs}. With `partners` both are the
    same images, as to test on."""

    def take(self, indices: Tensor) -> dict[str, Tensor]:
        real = self.parts["real"]
        return {**super().take(indices), "label": real.take(indices % len(real))["label"]}


class Served(Zipped):
    """The same in rounds."""

    def __iter__(self) -> Iterator[list[dict[str, Tensor]]]:
        for sources, targets in zip(self.parts["real"], self.parts["inputs"], strict=True):
            yield [{**x, "inputs": y["real"]} for x, y in zip(sources, targets, strict=True)]


class Domains(DataModule):
    """A source and a target, two sets of the same classes and of images of one size. What is learned from: the source's
    training part with its labels, and images of the target's, without. What is tested: the target's test part.

    source, target   the sets
    test             one whose training part is tested on, where the target has no test part, as a folder has none
    batch_size       samples per round of each
    """

    def __init__(
        self, source: DataModule, target: DataModule, test: DataModule | None = None, batch_size: int = 64,
        memory: float = 4.0, rounds: int = 8, seed: int = 0,
    ):  # fmt: skip
        super().__init__(batch_size, rounds, seed, memory=memory)
        self.source, self.target, self.test = source, target, test

    @property
    def title(self) -> str:
        return f"{self.source.title} to {self.target.title}"

    def facts(self) -> dict[str, Any]:
        """Of what G makes, a number for each class; and inputs, the shape of the images.

        Raises:
            ValueError: the two do not go together
        """
        sets = {"source": self.source, "target": self.target, "test": self.test or self.target}
        known = {key: part.facts() for key, part in sets.items()}  # type: ignore[attr-defined]
        a = known["source"]
        for key, facts in known.items():
            if len(facts["shape"]) != 3 or not facts["classes"] or facts.get("several"):
                raise ValueError(f"data.{key}: images of one class each are needed, and these have none: use another")
            for fact, fix in (
                ("shape", f"set data.source.size and data.{key}.size"),
                ("classes", "they must be alike"),
            ):
                if a[fact] != facts[fact]:
                    raise ValueError(f"data.source has {fact} {a[fact]}, and data.{key} {facts[fact]}: {fix}")
        facts = {"shape": [a["classes"]], "inputs": list(a["shape"]), "maps": False, "partners": False}
        return facts | {"classes": a["classes"], "class_names": a["class_names"], "frequencies": None, "several": False}

    def load(self, split: str) -> Both:
        if split == "train":
            return Both({"inputs": self.target.split("train"), "real": self.source.split("train")}, partners=False)
        test = self.target.split("test") if self.test is None else self.test.split("train")
        return Both({"inputs": test, "real": test})

    def held_out(self) -> Both | None:
        """Both test parts, to which training compares what it is shown: images of the source beside some of the
        target."""
        try:
            return Both({**self.split("test").parts, "real": self.source.split("test")}, partners=False)  # type: ignore[attr-defined]
        except Unavailable:
            return None

    def train_dataloader(self) -> Served:
        parts: dict[str, Samples] = self.split("train").parts  # type: ignore[attr-defined]
        return Served({name: self.served(part, seed_of(self.seed, name)) for name, part in parts.items()})


class ShiftedDigits(Digits):
    """scikit-learn's digits, moved down and to the right by one of their eight pixels; what comes in is black."""

    def read(self, split: str) -> tuple[Tensor, Tensor]:
        images, label = super().read(split)
        return F.pad(images, (1, -1, 1, -1)), label
