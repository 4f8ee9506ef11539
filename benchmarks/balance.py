"""The digits thinned out, as folders of labelled images: python -m benchmarks.balance FOLDER [SHARE]

Writes FOLDER/train, of whose last class there is SHARE (0.05) as much as of the first, and FOLDER/test, the set's own
test part. With these, docs/balance.md was made.
"""

import sys
from pathlib import Path

import torch

from ganlab.data.rounds import Samples
from ganlab.data.sets import Digits
from ganlab.files import atomic
from ganlab.translate import encoded


def write(samples: Samples, folder: Path) -> None:
    content = samples.take(torch.arange(len(samples)))
    for i, (x, label) in enumerate(zip(content["real"], content["label"].tolist(), strict=True)):
        with atomic(folder / str(label) / f"{i:05d}.png") as file:
            file.write(encoded(x, "png"))
    print(f"{folder}: {torch.bincount(content['label']).tolist()}")


def main(folder: Path, share: float = 0.05) -> None:
    data = Digits(size=16, imbalance=share)
    write(data.played(), folder / "train")
    write(data.split("test"), folder / "test")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(float, sys.argv[2:]))
