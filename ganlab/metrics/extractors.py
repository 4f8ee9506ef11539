"""Feature extractors: what a score sees of an image. A score carries its extractor's name."""

import contextlib
import hashlib
import inspect
import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from ganlab.files import Remote, Unavailable, atomic, cache_folder
from ganlab.metrics.fit import accuracy, as_floats, fit_classifier
from ganlab.rng import reseed
from ganlab.weights import load_into, obtain


class Extractor(nn.Module, ABC):
    """Images [N, C, H, W], uint8 or float in [-1, 1], -> features [N, d], or {"features": ..., another name: ...}.

    name   part of every score's name
    """

    name: str

    def check(self, facts: dict[str, Any]) -> None:
        """Refuses data that it can't look at, before anything is loaded; facts: the data's."""

    def prepare(self, data: Any = None) -> None:
        """Gets the weights, trained or downloaded. `data`: a DataModule. Cheap when called again, in any process."""

    @abstractmethod
    def describe(self) -> str:
        """What stands in a score's protocol: enough to know whether two scores may be compared."""


class Pixels(Extractor):
    """The numbers themselves, images scaled to [-1, 1]."""

    def __init__(self, name: str = "pixels"):
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return as_floats(x).flatten(1)

    def describe(self) -> str:
        return "raw values"


class Own(Extractor):
    """A network of the user's.

    net       images [N, C, H, W], float in [-1, 1] -> features [N, d], or a dictionary of several
    weights   a state dict for it: safetensors, or what torch.save writes
    """

    def __init__(self, net: nn.Module, name: str, weights: str | None = None, checksum: str | None = None):
        super().__init__()
        self.net, self.name, self.weights, self.checksum = net.eval().requires_grad_(False), name, weights, checksum
        self.hash = ""

    def prepare(self, data: Any = None) -> None:
        if not self.hash:
            if self.weights is not None:
                state, _ = obtain(Remote("", (), ""), self.weights, self.checksum)
                load_into(self.net, state, self.weights)
            self.hash = network_hash(self.net)

    def forward(self, x: Tensor) -> Any:
        return self.net(as_floats(x))

    def describe(self) -> str:
        return f"{type(self.net).__module__}.{type(self.net).__qualname__}, {self.hash}"


class Classifier(Extractor):
    """A small convolutional network, trained once on the set's own labels and kept: for sets that Inception has never
    seen the like of. It looks through its last layer but one.

    features   how many
    epochs     None: what makes about 1,500 steps
    seed       of its training
    front      what makes images [N, C, H, W] of samples that are none, as `ganlab.spectra.LogMel`; None: they are some
    """

    def __init__(
        self, features: int = 64, epochs: int | None = None, seed: int = 0, front: nn.Module | None = None,
        name: str = "classifier",
    ):  # fmt: skip
        super().__init__()
        self.features, self.epochs, self.seed, self.name = features, epochs, seed, name
        self.front = front or nn.Identity()
        self.net = nn.Sequential()  # body, head: made by `prepare`
        self.accuracy, self.hash = math.nan, ""

    def check(self, facts: dict[str, Any]) -> None:
        if len(self.image(facts["shape"])) != 3 or not facts["classes"] or facts.get("several"):
            what = "images" if isinstance(self.front, nn.Identity) else "samples"
            raise ValueError(
                f"extractor={self.name} learns from {what} of one class each, which the data has not: use another one, "
                "or set metrics.enabled=false"
            )

    def image(self, shape: list[int]) -> list[int]:
        """[C, H, W] of what the network looks at."""
        return list(self.front(torch.zeros(1, *shape)).shape[1:])

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.net[0](self.front(as_floats(x)))
        return {"features": features, "logits": self.net[1](features)}

    def prepare(self, data: Any = None) -> None:
        if self.hash:
            return
        facts, n = data.facts(), len(data.split("train"))
        if n < 10_000 and self.features > 128:
            raise ValueError(
                f"extractor.features={self.features}: at most 128 for a set of {n:,} images, fewer than 10,000"
            )
        epochs = self.epochs or max(2, min(40, 1500 * 128 // n))
        recipe = repr(
            ("classifier", 1, self.features, epochs, self.seed, facts["shape"], data.fingerprint("train"))
            + (() if isinstance(self.front, nn.Identity) else (network_hash(self.front),))
        )
        path = cache_folder("classifiers") / f"{hashlib.blake2b(recipe.encode(), digest_size=12).hexdigest()}.pt"
        with torch.random.fork_rng(devices=[]):
            reseed(self.seed, torch.device("cpu"))
            self.net = convolutional(self.image(facts["shape"])[0], self.features, facts["classes"])
            if not path.exists():
                self.learn(data, epochs)
                with atomic(path) as file:
                    torch.save({"net": self.net.state_dict(), "accuracy": self.accuracy}, file)
        stored = torch.load(path, weights_only=True)
        self.net.load_state_dict(stored["net"])
        self.accuracy, self.hash = stored["accuracy"], weights_hash(self.net)
        self.eval().requires_grad_(False)

    def learn(self, data: Any, epochs: int) -> None:
        train = data.split("train")
        kept = torch.ones(len(train), dtype=torch.bool)
        try:
            test = data.split("test")
            held = test.take(torch.arange(len(test)))
        except Unavailable:  # no test part: every tenth sample is held out
            kept[::10] = False
            held = train.take((~kept).nonzero()[:, 0])
        shown = train.take(kept.nonzero()[:, 0])
        see = lambda x: x if isinstance(self.front, nn.Identity) else self.front(as_floats(x))
        fit_classifier(self.net, see(shown["real"]), shown["label"], epochs=epochs, seed=self.seed)
        self.accuracy = accuracy(self.net, see(held["real"]), held["label"])

    def describe(self) -> str:
        through = "" if isinstance(self.front, nn.Identity) else f" through {type(self.front).__name__}"
        about = f"{self.accuracy:.1%} on held-out {'samples' if through else 'images'}{through}"
        return f"classifier with {about}, weights {self.hash}, {self.features} features"


def convolutional(channels: int, features: int, classes: int) -> nn.Sequential:
    """(body, head): images in [-1, 1] -> features -> logits."""

    def layer(have: int, out: int) -> list[nn.Module]:
        return [nn.Conv2d(have, out, 3, 2, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]

    maps = [*layer(channels, 32), *layer(32, 64), *layer(64, 64), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return nn.Sequential(nn.Sequential(*maps, nn.Linear(64 * 4, features), nn.ReLU()), nn.Linear(features, classes))


def weights_hash(net: nn.Module) -> str:
    content = hashlib.sha256()
    for name, value in net.state_dict().items():
        content.update(name.encode() + value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return content.hexdigest()[:8]


def network_hash(net: nn.Module) -> str:
    """Of the weights, of the plain attributes of all parts, and of the source of their classes."""
    content = hashlib.sha256(weights_hash(net).encode())
    for name, part in net.named_modules():
        plain = {
            k: v for k, v in vars(part).items() if isinstance(v, (int, float, str, bool, tuple)) and k != "training"
        }
        content.update(repr((name, type(part).__qualname__, sorted(plain.items()))).encode())
        if not type(part).__module__.startswith("torch."):
            with contextlib.suppress(OSError, TypeError):  # no source at hand
                content.update(inspect.getsource(type(part)).encode())
    return content.hexdigest()[:8]
