"""Feature extractors: what a score sees of an image. A score carries its extractor's name."""

import hashlib
import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from ganlab.files import Remote, Unavailable, atomic, cache_folder, digest, fetch
from ganlab.metrics.fit import accuracy, as_floats, fit_classifier


class Extractor(nn.Module, ABC):
    """uint8 images [N, C, H, W] -> float32 features [N, dim].

    name   part of every score's name
    dim    number of features; known after `prepare`
    """

    name: str
    dim: int

    def check(self, facts: dict[str, Any]) -> None:
        """Refuses data that it can't look at, before anything is loaded; facts: the data's."""

    def prepare(self, data: Any) -> None:
        """Gets the weights, trained or downloaded. `data`: a DataModule. Cheap when called again, in any process."""

    @abstractmethod
    def describe(self) -> str:
        """What stands in a score's protocol: enough to know whether two scores may be compared."""


class Pixels(Extractor):
    """The numbers themselves, images scaled to [-1, 1]."""

    def __init__(self, name: str = "pixels"):
        super().__init__()
        self.name = name

    def prepare(self, data: Any) -> None:
        self.dim = math.prod(data.facts()["shape"])

    def forward(self, x: Tensor) -> Tensor:
        return as_floats(x).flatten(1)

    def describe(self) -> str:
        return f"{self.dim} raw values"


class Inception(Extractor):
    """The network of FID, torch-fidelity's conversion of the original one of December 2015, at its last pooling layer.

    Images are scaled to 299x299 as TensorFlow 1 does it, which is what published FIDs are made with.

    weights   a file to use in place of the usual ones, in torch-fidelity's format; None: those, downloaded
    """

    name, dim = "inception", 2048
    remote = Remote(
        "weights-inception-2015-12-05-6726825d.pth",
        (
            "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
            "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        ),
        "sha256:6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    )

    def __init__(self, weights: str | None = None):
        super().__init__()
        self.weights = Path(weights).expanduser() if weights else None
        self.net: nn.Module | None = None

    def check(self, facts: dict[str, Any]) -> None:
        shape = facts["shape"]
        if len(shape) != 3 or shape[0] not in (1, 3):
            raise ValueError(
                f"extractor=inception looks at images of 1 or 3 channels, not at {shape}: use extractor=pixels"
            )

    def prepare(self, data: Any) -> None:
        if self.net is not None:
            return
        if self.weights is not None and not self.weights.is_file():
            raise Unavailable(f"extractor.weights={self.weights}: there is no such file")
        hint = "Or give its path as extractor.weights=FILE; or train without scores: metrics.enabled=false"
        path = self.weights or fetch(self.remote, cache_folder("weights"), hint)
        self.hash = digest(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        import torch_fidelity.feature_extractor_inceptionv3 as theirs

        # torch-fidelity would unpickle the file without restriction: it is handed what was loaded safely
        with mock.patch.object(theirs, "load_state_dict_from_url", return_value=state):
            self.net = theirs.FeatureExtractorInceptionV3("inception", ["2048"])

    def forward(self, x: Tensor) -> Tensor:
        assert self.net is not None, "call prepare first"
        return self.net(x if x.shape[1] == 3 else x.expand(-1, 3, -1, -1))[0]

    def describe(self) -> str:
        return f"Inception 2015-12-05, weights {self.hash[:8]}, TensorFlow 1 resize to 299, 2048 features"


class Classifier(Extractor):
    """A small convolutional network, trained once on the set's own labels and kept: for sets that Inception has never
    seen the like of. It looks through its last layer but one.

    features   how many
    epochs     None: what makes about 1,500 steps
    seed       of its training
    """

    name = "classifier"

    def __init__(self, features: int = 64, epochs: int | None = None, seed: int = 0):
        super().__init__()
        self.dim, self.epochs, self.seed = features, epochs, seed
        self.net = nn.Sequential()  # body, head: made by `prepare`
        self.accuracy, self.hash = math.nan, ""

    def check(self, facts: dict[str, Any]) -> None:
        if len(facts["shape"]) != 3 or not facts["classes"]:
            raise ValueError(
                "extractor=classifier learns from labelled images, and the data has none: use another extractor"
            )

    def forward(self, x: Tensor) -> Tensor:
        return self.net[0](as_floats(x))

    def logits(self, x: Tensor) -> Tensor:
        """[N, classes]"""
        return self.net(as_floats(x))

    def prepare(self, data: Any) -> None:
        if self.hash:
            return
        facts, n = data.facts(), len(data.split("train"))
        if n < 10_000 and self.dim > 128:
            raise ValueError(f"extractor.features={self.dim}: at most 128 for a set of {n:,} images, fewer than 10,000")
        epochs = self.epochs or max(2, min(40, 1500 * 128 // n))
        recipe = repr(("classifier", 1, self.dim, epochs, self.seed, facts["shape"], data.fingerprint("train")))
        path = cache_folder("classifiers") / f"{hashlib.blake2b(recipe.encode(), digest_size=12).hexdigest()}.pt"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.net = convolutional(facts["shape"][0], self.dim, facts["classes"])
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
        fit_classifier(self.net, shown["real"], shown["label"], epochs=epochs, seed=self.seed)
        self.accuracy = accuracy(self.net, held["real"], held["label"])

    def describe(self) -> str:
        return f"classifier with {self.accuracy:.1%} on held-out images, weights {self.hash}, {self.dim} features"


def convolutional(channels: int, features: int, classes: int) -> nn.Sequential:
    """(body, head): images in [-1, 1] -> features -> logits."""

    def layer(have: int, out: int) -> list[nn.Module]:
        return [nn.Conv2d(have, out, 3, 2, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]

    maps = [*layer(channels, 32), *layer(32, 64), *layer(64, 64), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return nn.Sequential(nn.Sequential(*maps, nn.Linear(64 * 4, features), nn.ReLU()), nn.Linear(features, classes))


def weights_hash(net: nn.Module) -> str:
    content = hashlib.sha256()
    for name, value in net.state_dict().items():
        content.update(name.encode() + value.cpu().numpy().tobytes())
    return content.hexdigest()[:8]
