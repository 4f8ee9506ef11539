"""How right a translator of digits to inverted digits is, and back: python benchmarks/cyclegan_mnist.py RUN [ROOT]

RUN is a run of experiment=cyclegan_mnist, ROOT the folder of MNIST's files (default: data/mnist). Of the 10,000 test
digits: how many are still the same digit by a classifier that was trained on the training digits, once they are
inverted again, and the mean absolute difference from the known answer in [-1, 1], beside that of a G that changes
nothing. Seconds are those of training.
"""

import json
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from ganlab.checkpoint import Sampler, find, load
from ganlab.data.sets import MNIST
from ganlab.metrics.extractors import Classifier
from ganlab.metrics.fit import as_batch


@torch.no_grad()
def main(run: Path, root: str) -> None:
    path = find(str(run)) or ""
    sampler, size = Sampler.load(path), load(path)["ganlab"]["config"]["data"]["size"]
    data, classifier = MNIST(root, size=size), Classifier()
    classifier.prepare(data)
    test = data.split("test")
    digit = lambda x: classifier(x)["logits"].argmax(1)
    totals, n = torch.zeros(9, dtype=torch.float64), len(test)
    for rows in tqdm(torch.arange(n).split(250), desc="translating", leave=False, disable=None):
        batch = as_batch(test.take(rows), sampler.device)
        x, label = batch["real"], batch["label"]
        there, back = sampler((x, -x))
        again = sampler.G.back(there)
        far = lambda a, b: (a - b).abs().flatten(1).mean(1)
        totals += torch.stack(
            [
                part.double().sum()
                for part in (
                    digit(x) == label, digit(-there) == label, digit(back) == label, digit(-there) == digit(x),
                    digit(back) == digit(x), far(there, -x), far(back, x), far(x, -x), far(again, x),
                )
            ]
        )  # fmt: skip
    own, there, back, same_there, same_back, far_there, far_back, nothing, again = (totals / n).tolist()
    result = json.loads((run / "result.json").read_text())
    print(f"{sampler.kimg:g} kimg in {result.get('seconds', float('nan')):.0f} s; {classifier.describe()}\n")
    print("| | right class | same answer as of the digit | L1 to the known answer | L1 of changing nothing |")
    print("|---|---|---|---|---|")
    print(f"| digits themselves | {own:.2%} | | | |")
    print(f"| to inverted digits | {there:.2%} | {same_there:.2%} | {far_there:.4f} | {nothing:.4f} |")
    print(f"| and from inverted digits | {back:.2%} | {same_back:.2%} | {far_back:.4f} | {nothing:.4f} |")
    print(f"\nthere and back again: L1 {again:.4f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "data/mnist")
