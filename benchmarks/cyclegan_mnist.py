"""How right a translator from digits to inverted digits is, and back: python benchmarks/cyclegan_mnist.py RUN [ROOT]

RUN is a run of experiment=cyclegan_mnist, ROOT the folder of MNIST's files (default: data/mnist). Of the 10,000 test
digits, by a classifier that was trained on the training digits: how many have the right class once they are translated
(and, in one direction, inverted again), and how many the class that the digit had before, whether right or not; the
mean absolute difference from the known answer in [-1, 1], beside that of a G that changes nothing. Seconds are those of
training.
"""

import json
import sys
from pathlib import Path

import torch

from ganlab.checkpoint import Sampler, find, load
from ganlab.data.sets import MNIST
from ganlab.metrics.extractors import Classifier
from ganlab.metrics.fit import as_batch


def main(run: Path, root: str) -> None:
    path = find(str(run)) or ""
    sampler, size = Sampler.load(path), load(path)["ganlab"]["config"]["data"]["size"]
    data, classifier = MNIST(root, size=size), Classifier()
    classifier.prepare(data)
    torch.set_grad_enabled(False)
    test = as_batch(data.split("test").take(torch.arange(len(data.split("test")))), sampler.device)
    x, label = test["real"], test["label"]
    made = [sampler((part, -part)) for part in x.split(250)]
    there, back = (torch.cat(side) for side in zip(*made, strict=True))
    again = torch.cat([sampler.G.back(part) for part in there.split(250)])
    digit = lambda x: torch.cat([classifier(part)["logits"].argmax(1) for part in x.split(250)])
    own, far = digit(x), lambda a, b: (a - b).abs().mean().item()

    def row(name: str, found: torch.Tensor, *more: str) -> None:
        cells = [f"{(found == known).double().mean().item():.2%}" for known in (label, own)]
        print(f"| {' | '.join([name, *cells, *more])} |")

    seconds = json.loads((run / "result.json").read_text()).get("seconds", float("nan"))
    print(f"{sampler.kimg:g} kimg in {seconds:.0f} s; {classifier.describe()}\n")
    print("| | right class | class kept | L1 to the known answer | L1 of changing nothing |")
    print("|---|---|---|---|---|")
    row("digits", own, "", "")
    row("made of digits, inverted again", digit(-there), f"{far(there, -x):.4f}", f"{far(x, -x):.4f}")
    row("made of inverted digits", digit(back), f"{far(back, x):.4f}", f"{far(-x, x):.4f}")
    print(f"\nL1 of digits, there and back again: {far(again, x):.4f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "data/mnist")
