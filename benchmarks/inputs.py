"""What input costs: peers' loaders against ganlab's three ways, and the same step on sets of 1,000 to 1,000,000 images.

python -m benchmarks input sizes. All images are made here.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from benchmarks.race import Gate, race
from ganlab.data.folder import Folder, Mapped
from ganlab.data.images import Images
from ganlab.data.rounds import InMemory, Order, Rounds, Samples
from ganlab.files import Unavailable

BATCH = 64


def made(count: int) -> Tensor:
    """uint8 [count, 3, 32, 32]: smooth, so that they compress as photographs do."""
    small = torch.randint(0, 256, (min(count, 10_000), 3, 8, 8), generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(small.float(), size=32, mode="bilinear").round().to(torch.uint8)
    return images.repeat(-(-count // len(images)), 1, 1, 1)[:count]


class Made(Images):
    """So many of them as a set, in memory or in a file."""

    native = (3, 32, 32)

    def __init__(self, images: int, file: str | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.images, self.file = images, file

    def load(self, split: str) -> Samples:
        if split == "test":
            raise Unavailable("it has no test part")
        return Mapped(Path(self.file), None) if self.file else InMemory(made(self.images))


class Pictures(Dataset):
    """Arrays that become PIL images one by one, as in torchvision's CIFAR10."""

    def __init__(self, images: Tensor, transform: Callable[[Any], Tensor]):
        self.images, self.transform = images.permute(0, 2, 3, 1).contiguous().numpy(), transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[i])), 0


HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
PLAIN = transforms.Compose(
    [transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize(*HALF)],
)
NEWER = v2.Compose(
    [v2.RandomHorizontalFlip(), v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(*HALF)],
)


def loader(data: Dataset, workers: int) -> Iterator[int]:
    """As peers do it, epoch after epoch."""
    batches = DataLoader(
        data, BATCH, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0
    )  # fmt: skip
    while True:
        for _ in batches:
            yield 1


def rounds(samples: Samples, workers: int = 0) -> Iterator[int]:
    order = Order(len(samples), BATCH, seed=0, flip=True)
    for served in Rounds(samples, order, device=torch.device("cpu"), at_once=8, workers=workers):
        yield len(served)


SUBJECTS: dict[str, Callable[[str, int], Iterator[int]]] = {
    "torchvision transforms, workers=0": lambda root, n: loader(Pictures(made(n), PLAIN), 0),
    "torchvision transforms, workers=2": lambda root, n: loader(Pictures(made(n), PLAIN), 2),
    "torchvision transforms.v2, workers=0": lambda root, n: loader(Pictures(made(n), NEWER), 0),
    "torchvision ImageFolder of PNG, workers=2": lambda root, n: loader(ImageFolder(root, PLAIN), 2),
    "ganlab from PNG, workers=2": lambda root, n: rounds(Folder(root, memory=0, disk=0).split("train"), 2),
    "ganlab from a mapped file": lambda root, n: rounds(Folder(root, memory=0).split("train")),
    "ganlab in memory": lambda root, n: rounds(InMemory(made(n), torch.zeros(n, dtype=torch.long))),
}


def input_(folder: str, turns: int, peers: dict[str, str], count: int = 50_000, a_turn: int = 512) -> dict[str, Any]:
    """(4): 64 images with flips, from peers' loaders and ganlab's."""
    root = Path(folder) / "pictures" / "class"
    root.mkdir(parents=True)
    for i, image in enumerate(made(count).permute(0, 2, 3, 1).numpy()):
        Image.fromarray(image).save(root / f"{i:06}.png")
    arguments = ["-m", "benchmarks.inputs", str(root.parent), str(count)]
    subjects = {name: [*arguments, name] for name in SUBJECTS}
    return {f"Input, {count:,} images 32x32, batch {BATCH}": race(subjects, a_turn, turns, pause=0.5, images=BATCH)}


def sizes(
    folder: str, turns: int, peers: dict[str, str], counts: tuple[int, ...] = (1_000, 100_000, 1_000_000),
    a_turn: int = 64,
) -> dict[str, Any]:  # fmt: skip
    """(7), of the set: the same round on more and more images, everything on but scores."""
    file, most = Path(folder) / "images.npy", max(counts)
    np.save(file, made(most).numpy())
    play = [
        "-m", "ganlab", "model=dcgan", "data=digits", "data._target_=benchmarks.inputs.Made", "data.size=32",
        "data.channels=3", "data.flip=true", f"data.batch_size={BATCH}", "generator.width=16", "discriminator.width=16",
        "metrics.enabled=false", "max_kimg=1e9", "lr_schedule=constant",
        "+callbacks.gate={_target_: benchmarks.gate.GateCallback}",
    ]  # fmt: skip
    run = lambda n, *keys: [*play, f"+data.images={n}", f"hydra.run.dir={tempfile.mkdtemp(dir=folder)}/run", *keys]
    subjects = {f"{n:,} images": run(n) for n in counts} | {f"{most:,} images, mapped": run(most, f"+data.file={file}")}
    return {f"DCGAN 32x32, width 16, batch {BATCH}, by images in the set": race(subjects, a_turn, turns)}


PARTS = {"input": input_, "sizes": sizes}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("count", type=int)
    parser.add_argument("subject", choices=SUBJECTS)
    given = parser.parse_args()
    sys.stdout = sys.stderr
    os.environ["GANLAB_CACHE"] = f"{given.root}-cache"
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    gate = Gate()
    for served in SUBJECTS[given.subject](given.root, given.count):
        gate.passed(served)
