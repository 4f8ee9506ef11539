"""How a number was made: stored beside it, and asked before two numbers stand in one table."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

PACKAGES = ("torch", "torchvision", "torchmetrics", "torch-fidelity", "scipy", "numpy")


@dataclass(frozen=True)
class Protocol:
    """Everything that a score depends on besides the generator.

    reals        what was compared with, with its fingerprint; None: no score needed any
    n_real       how many of them
    fakes        "G_ema" or "G" with its label rule, or where the images lie
    n_fake       how many
    extractor    its name, weights and resize
    scores       {score: its settings: neighbours, subsets, splits, ...}
    truncation   of the generator; None: none
    seed         of the fakes
    kimg         how long the generator was trained
    versions     of the libraries
    """

    reals: str | None
    n_real: int | None
    fakes: str
    n_fake: int
    extractor: str
    scores: Mapping[str, Mapping[str, Any]]
    truncation: float | None = None
    seed: int = 0
    kimg: float | None = None
    versions: Mapping[str, str] = field(default_factory=lambda: {p: version(p) for p in PACKAGES})

    def id(self, score: str) -> str:
        """8 hex digits of all that must agree before two values of this score are compared: neither the seed, nor how
        long was trained, nor the libraries' versions."""
        agreed = [self.reals, self.n_real, self.n_fake, self.extractor, self.truncation, self.scores.get(score)]
        if self.fakes in ("G", "G_ema"):
            agreed.append(self.fakes)
        return hashlib.blake2b(json.dumps(agreed, sort_keys=True).encode(), digest_size=4).hexdigest()

    def text(self) -> str:
        """In one line."""
        generator = self.fakes in ("G", "G_ema")
        fakes = f"{self.n_fake:,} {'samples' if generator else 'images'} of {self.fakes}"
        fakes += f", truncation {self.truncation:g}" if self.truncation is not None else ""
        fakes += f", seed {self.seed}" if generator else ""
        against = f", against {f'{self.n_real:,} of ' if self.n_real else ''}{self.reals}" if self.reals else ""
        return f"{fakes}{against}; {self.extractor}"

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> "Protocol":
        return cls(**stored)
