"""How a number was made: stored beside it, and asked before two numbers stand in one table."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

FINAL = ("G_ema", "a Gaussian mixture", "a kernel density estimate")  # a model as it is meant to be sampled from
PACKAGES = ("torch", "torchvision", "torchmetrics", "torch-fidelity", "scipy", "numpy")


@dataclass(frozen=True)
class Protocol:
    """Everything that a score depends on besides the generator.

    reals        the data: what was compared with, or what the generator was trained on; None: not known
    fingerprint  of those
    n_real       how many were compared with; None: no score needed any
    fakes        "G_ema", "G" or another model's name, or where the images lie
    n_fake       how many
    extractor    its name, weights and resize
    scores       {score: whether it compares with reals, and its settings: neighbours, subsets, splits, ...}
    truncation   of the generator; None: none
    seed         of the fakes
    kimg         how long the generator was trained
    standing     samples, and samples at once, from which batch norm's averages of G were made; None: those of training
    versions     of the libraries
    """

    reals: str | None
    fingerprint: str | None
    n_real: int | None
    fakes: str
    n_fake: int
    extractor: str
    scores: Mapping[str, Mapping[str, Any]]
    truncation: float | None = None
    seed: int = 0
    kimg: float | None = None
    standing: Sequence[int] | None = None
    versions: Mapping[str, str] = field(default_factory=lambda: {p: version(p) for p in PACKAGES})

    def id(self, score: str) -> str:
        """8 hex digits of all that must agree before two values of this score are compared: neither the seed, nor how
        long was trained, nor the libraries' versions."""
        settings = self.scores.get(score, {})
        agreed = [self.fingerprint, self.n_fake, self.extractor, self.truncation, settings]
        agreed += [self.n_real] if settings.get("reals") else []
        agreed += ["G_ema"] if self.fakes in FINAL else ["G"] if self.fakes == "G" else []
        agreed += [{"standing": list(self.standing)}] if self.standing else []
        return hashlib.blake2b(json.dumps(agreed, sort_keys=True).encode(), digest_size=4).hexdigest()

    def text(self) -> str:
        """In one line."""
        generator = self.fakes in ("G", *FINAL)
        fakes = f"{self.n_fake:,} {'samples' if generator else 'images'} of {self.fakes}"
        fakes += f", truncation {self.truncation:g}" if self.truncation is not None else ""
        fakes += f", standing statistics of {self.standing[0]:,} by {self.standing[1]}" if self.standing else ""
        fakes += f", seed {self.seed}" if generator else ""
        data = f"{self.reals} ({self.fingerprint})" if self.fingerprint else self.reals
        against = f", against {f'{self.n_real:,} of ' if self.n_real else ''}{data}" if self.compares else ""
        return f"{fakes}{against}; {self.extractor}"

    @property
    def compares(self) -> bool:
        """Whether any score needed reals."""
        return any(settings.get("reals") for settings in self.scores.values())

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return json.loads(json.dumps({k: v for k, v in asdict(self).items() if k != "standing" or v}))

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> "Protocol":
        return cls(**stored)
