"""Scores of clips: what a clip network and a frame network see, and how what is bright moves.

Neither network is known elsewhere: they are trained on the set itself, so that these numbers compare generators of one
set, and are no FVD (Unterthiner et al. 2018, arXiv:1812.01717), which looks through a network of Kinetics.
"""

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ganlab.files import Unavailable, atomic, cache_folder
from ganlab.metrics.extractors import Extractor, convolutional, weights_hash
from ganlab.metrics.fit import as_floats, fit_classifier
from ganlab.metrics.frechet import FID, frechet_distance
from ganlab.metrics.scores import Kept, Score
from ganlab.rng import reseed, seed_of

MOST = 2500  # clips that the networks are trained on
WAYS = 4  # in which a clip is played, and a frame turned


class ClipNet(Extractor):
    """Two small networks, trained once on the set and kept. The one sees clips, and learns to tell their label, where
    there are labels, and how they are played: as they are, at half the speed, standing still, or with their frames in
    disorder. The other sees single frames, and learns to tell the label, and whether they are as they are, upside down,
    mirrored, or both (after Gidaris et al. 2018, arXiv:1803.07728). Clips [N, C, T, H, W] ->

    features   [N, features], of the clip network's last layer but one
    frames     [N, T, features], of the frame network's, for each frame
    centres    [N, T, 2], the centre of mass of the brightness: (row, column) in pixels

    steps      of each network's training
    seed       of it
    """

    name = "clipnet"

    def __init__(self, features: int = 64, steps: int = 600, seed: int = 0):
        super().__init__()
        self.features, self.steps, self.seed = features, steps, seed
        self.nets = nn.ModuleDict()  # "clips" and "frames", each body and head: made by `prepare`
        self.right: dict[str, float] = {}  # shares of what they tell of held-out clips
        self.hash = ""

    def check(self, facts: dict[str, Any]) -> None:
        if len(facts["shape"]) != 4 or facts.get("several"):
            raise ValueError(
                f"extractor=clipnet looks at clips of one label at most, and the data's samples have the shape "
                f"{list(facts['shape'])}: use another one"
            )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = as_floats(x if x.dtype == torch.uint8 else ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8))
        frames = self.nets["frames"][0](x.transpose(1, 2).flatten(0, 1))  # type: ignore[index]
        features = self.nets["clips"][0](x)  # type: ignore[index]
        return {"features": features, "frames": frames.unflatten(0, (len(x), x.shape[2])), "centres": centres(x)}

    def prepare(self, data: Any = None) -> None:
        if self.hash:
            return
        facts = data.facts()
        labels = facts["classes"] or 1
        recipe = (self.features, self.steps, self.seed, facts["shape"], data.fingerprint("train"))
        name = hashlib.blake2b(repr(("clipnet", 1, *recipe)).encode(), digest_size=12).hexdigest()
        path = cache_folder("classifiers") / f"{name}.pt"
        with torch.random.fork_rng(devices=[]):
            reseed(self.seed, torch.device("cpu"))
            self.nets["clips"] = of_clips(facts["shape"], self.features, labels * WAYS)
            self.nets["frames"] = convolutional(facts["shape"][0], self.features, labels * WAYS)
            if not path.exists():
                self.learn(data)
                with atomic(path) as file:
                    torch.save({"nets": self.nets.state_dict(), "right": self.right}, file)
        stored = torch.load(path, weights_only=True)
        self.nets.load_state_dict(stored["nets"])
        self.right, self.hash = stored["right"], weights_hash(self.nets)
        self.eval().requires_grad_(False)

    def learn(self, data: Any) -> None:
        shown, held = halves(data, self.seed)
        for name, ways in (("clips", played), ("frames", turned)):
            net, (x, y) = self.nets[name], altered(*shown, ways, self.seed)
            fit_classifier(net, x, y, epochs=max(1, round(self.steps * 128 / len(x))), seed=self.seed)
            x, y = altered(*held, ways, self.seed)
            with torch.no_grad():
                told = torch.cat([net(as_floats(part)).argmax(1) for part in x.split(500)])
            self.right[f"{name} ways"] = (told % WAYS == y % WAYS).double().mean().item()
            if data.facts()["classes"]:
                self.right[f"{name} labels"] = (told // WAYS == y // WAYS).double().mean().item()

    def describe(self) -> str:
        told = ", ".join(f"{name} {share:.1%}" for name, share in self.right.items())
        return f"networks right on held-out clips: {told}; weights {self.hash}, {self.features} features"


def of_clips(shape: Any, features: int, classes: int) -> nn.Sequential:
    """(body, head): clips in [-1, 1] -> features -> logits."""

    def layer(have: int, out: int) -> list[nn.Module]:
        return [nn.Conv3d(have, out, 3, 2, 1, bias=False), nn.BatchNorm3d(out), nn.ReLU()]

    maps = [*layer(shape[0], 16), *layer(16, 32), *layer(32, 64), nn.AdaptiveAvgPool3d((1, 2, 2)), nn.Flatten()]
    return nn.Sequential(nn.Sequential(*maps, nn.Linear(64 * 4, features), nn.ReLU()), nn.Linear(features, classes))


Labelled = tuple[Tensor, Tensor]


def halves(data: Any, seed: int) -> tuple[Labelled, Labelled]:
    """(clips to train on, clips held out), with labels, 0 where there are none: the test part, or of a set without one
    the last tenth of the training part, whose clips lie in the order of their files."""
    train = data.split("train")
    own = torch.arange(len(train))
    try:
        held_of, held = data.split("test"), None
    except Unavailable:
        edge = max(1, len(train) - max(1, len(train) // 10))
        held_of, held, own = train, own[edge:], own[:edge]
    held = torch.arange(len(held_of)) if held is None else held

    def taken(samples: Any, rows: Tensor, most: int) -> Labelled:
        generator = torch.Generator().manual_seed(seed_of("clipnet", seed))
        rows = rows[torch.randperm(len(rows), generator=generator)[:most].sort().values]
        x = samples.take(rows)
        return x["real"], x.get("label", torch.zeros(len(rows), dtype=torch.int64))

    return taken(train, own, MOST), taken(held_of, held, MOST // 4)


def altered(x: Tensor, label: Tensor, ways: Callable[[Tensor, torch.Generator], list[Tensor]], seed: int) -> Labelled:
    """Clips in all ways, labelled label * WAYS + way."""
    made = ways(x, torch.Generator().manual_seed(seed_of("clipnet", "ways", seed)))
    return torch.cat(made), torch.cat([label * WAYS + way for way in range(len(made))])


def played(x: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Clips [N, C, T, H, W] as they are, at half the speed, standing still, and with their frames in disorder."""
    n, frames = len(x), x.shape[2]
    slow, still = torch.arange(frames) // 2, torch.full((frames,), frames // 2)
    order = torch.rand(n, frames, generator=generator).argsort(1)
    order = torch.where((order.diff() == 1).all(1)[:, None], order.flip(1), order)
    mixed = x.gather(2, order.view(n, 1, frames, 1, 1).expand_as(x))
    return [x, x[:, :, slow], x[:, :, still], mixed]


def turned(x: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Of each clip a frame [N, C, H, W], as it is, upside down, mirrored, and both."""
    at = torch.randint(x.shape[2], (len(x),), generator=generator)
    frames = x[torch.arange(len(x)), :, at]
    return [frames, frames.flip(2), frames.flip(3), frames.flip(2, 3)]


def centres(x: Tensor) -> Tensor:
    """[N, T, 2]: of clips in [-1, 1], where the centre of mass of the brightness is, in (row, column); the middle of
    frames that are black."""
    light = (x.float() + 1).mean(1)  # [N, T, H, W]
    height, width = light.shape[2:]
    mass = light.sum((2, 3))
    rows = torch.arange(height, dtype=light.dtype, device=x.device)
    columns = torch.arange(width, dtype=light.dtype, device=x.device)
    at = torch.stack([(light.sum(3) * rows).sum(2), (light.sum(2) * columns).sum(2)], 2)
    middle = torch.tensor([(height - 1) / 2, (width - 1) / 2], device=x.device)
    return torch.where((mass > 1e-3)[..., None], at / mass.clamp_min(1e-6)[..., None], middle)


class FCD(FID):
    """Frechet clip distance: FID's formula on what a clip network sees, here one that was trained on the set itself."""

    keys = ("fcd",)


class FrameFID(Score):
    """FID's formula on what a frame network sees of every single frame of all clips: blind to motion."""

    keys, reads = ("frame_fid",), {"frames": "rows"}

    def __call__(self, real: Kept, fake: Kept) -> dict[str, float]:
        sides = [side.rows("frames").flatten(0, -2).double() for side in (real, fake)]
        (mean1, covariance1), (mean2, covariance2) = [(x.mean(0), x.T.cov()) for x in sides]
        return {"frame_fid": frechet_distance(mean1, covariance1, mean2, covariance2).item()}


class Motion(Score):
    """Whether the brightness moves as the reals' does, for a bright thing on black: the distances (Wasserstein-1)
    between the laws of

    speed   how far its centre moves from one frame to the next, in pixels
    turn    by how much that movement changes from one frame to the next, in pixels
    """

    keys, reads = ("speed", "turn"), {"centres": "rows"}

    def __call__(self, real: Kept, fake: Kept) -> dict[str, float]:
        from scipy.stats import wasserstein_distance

        paths = [side.rows("centres").double().cpu() for side in (real, fake)]
        laws = {"speed": [path.diff(dim=1) for path in paths], "turn": [path.diff(n=2, dim=1) for path in paths]}
        return {key: float(wasserstein_distance(*(x.norm(dim=2).flatten().numpy() for x in laws[key]))) for key in laws}
