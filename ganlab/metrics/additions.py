"""What samples of rare classes are good for: the same small classifier, trained with and without them."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ganlab.metrics.extractors import convolutional
from ganlab.metrics.fit import as_floats, as_shown, fit_classifier
from ganlab.rng import reseed

BATCH = 128
PLAIN, REPEATED, WEIGHTED, FILLED = "originals", "rare ones repeated", "classes weighted", "samples added"


def made_of(sampler: Any, label: int, first: int, n: int, most: int, seed: int) -> Tensor:
    """Samples first .. first + n - 1 of a class, [n, C, H, W]; each class starts from noise of its own."""
    cond = torch.full((n,), label, device=sampler.device)
    return sampler.generate(label * most + first, n, seed, cond)


def trained(
    x: Tensor, y: Tensor, classes: int, steps: int, seed: int, weight: Tensor | None = None
) -> torch.nn.Module:  # fmt: skip
    """The small classifier after about so many steps on images x with labels y."""
    with torch.random.fork_rng(devices=[]):
        reseed(seed, torch.device("cpu"))
        net = convolutional(x.shape[1], 64, classes)
        epochs = max(1, round(steps / max(1, len(x) // BATCH)))
        return fit_classifier(net, x, y, epochs=epochs, batch_size=min(BATCH, len(x)), seed=seed, weight=weight)


@torch.no_grad()
def recalls(net: torch.nn.Module, x: Tensor, y: Tensor, classes: int) -> Tensor:
    """[classes]: share of each class's images that are recognised; nan where there are none."""
    said = torch.cat([net(as_floats(part)).argmax(1) for part in x.split(500)])
    return torch.stack([(said[y == c] == c).float().mean() for c in range(classes)])


def repeated(y: Tensor, most: int) -> Tensor:
    """Rows in which each class occurs `most` times, its samples again and again."""
    rows = [(y == c).nonzero()[:, 0] for c in y.unique().tolist()]
    return torch.cat([own[torch.arange(most) % len(own)] for own in rows])


def report(
    samples: Any, sampler: Any, wanted: Sequence[int], most: int, test: Any, where: str, settings: dict[str, Any]
) -> str:
    """A table, and one sentence on what it says, in Markdown.

    wanted   samples of each class to add
    test     labelled samples to judge by; None: every fifth image of each class, taken from `samples`
    where    what these are, in words
    """
    content = samples.take(torch.arange(len(samples)))
    x, y, classes = content["real"], content["label"], len(wanted)
    if test is None:
        kept = torch.ones(len(y), dtype=torch.bool)
        for c in range(classes):
            kept[(y == c).nonzero()[4::5, 0]] = False
        x, y, test_x, test_y = x[kept], y[kept], x[~kept], y[~kept]
    else:
        shown = test.take(torch.arange(len(test)))
        test_x, test_y = shown["real"], shown["label"]
    counts = torch.bincount(y, minlength=classes)
    some = [(c, n) for c, n in enumerate(wanted) if n]
    made = [as_shown(made_of(sampler, c, i, 1, most, settings["seed"])).cpu() for c, n in some for i in range(n)]
    labels = torch.tensor([c for c, n in some for _ in range(n)], dtype=torch.long)
    rows = repeated(y, int(counts.max()))
    weight = torch.where(counts > 0, len(y) / (classes * counts.clamp(min=1)), 0.0)
    arms: dict[str, Any] = {
        PLAIN: (x, y, None), REPEATED: (x[rows], y[rows], None), WEIGHTED: (x, y, weight),
        FILLED: (torch.cat([x, *made]), torch.cat([y, labels]), None),
    }  # fmt: skip
    there, seeds = torch.bincount(test_y, minlength=classes) > 0, settings["seeds"]
    rare = there & (counts < counts.max() / 4)
    found: dict[str, Tensor] = {}
    with tqdm(total=len(arms) * len(seeds), desc="classifiers", disable=None) as bar:
        for name, (images, classes_of, weights) in arms.items():
            values: list[list[Tensor]] = []
            for seed in seeds:
                net = trained(images, classes_of, classes, settings["steps"], seed, weights)
                own = recalls(net, test_x, test_y, classes)
                share = torch.bincount(test_y, minlength=classes) / len(test_y)
                values.append([own[there].mean(), (own[there] * share[there]).sum(), own[rare].mean()])
                bar.update()
            found[name] = 100 * torch.tensor(values)  # [seeds, 3]
    lines = ["| trained on | images | balanced accuracy, % | accuracy, % | rare classes, % |", "|---|---|---|---|---|"]
    for name, of_seeds in found.items():
        cells = [f"{v.mean():.1f} ({v.std():.1f})" if len(v) > 1 else f"{v.mean():.1f}" for v in of_seeds.T]
        lines.append(f"| {name} | {len(arms[name][0]):,} | {' | '.join(cells)} |")
    about = (
        f"Mean (standard deviation) of {len(seeds)} classifiers of about {settings['steps']} steps, on {len(test_y):,} "
        f"images: {where}. Rare: of which there are fewer than a quarter of the most frequent."
    )
    return "\n".join([*lines, "", about, verdict({name: v[:, 0].tolist() for name, v in found.items()})])


def verdict(found: dict[str, list[float]]) -> str:
    """Whether the samples help: their balanced accuracy against the best of the other ways, seed by seed."""
    mean = lambda values: sum(values) / len(values)
    other = max((name for name in found if name != FILLED), key=lambda name: mean(found[name]))
    gaps = [a - b for a, b in zip(found[FILLED], found[other], strict=True)]
    gap, n = mean(gaps), len(gaps)
    error = math.sqrt(sum((g - gap) ** 2 for g in gaps) / max(1, n - 1) / n)
    told = f"{abs(gap):.1f} points {'above' if gap > 0 else 'below'} the best other way ({other}), standard error "
    told += f"{error:.1f}" if n > 1 else "unknown with one seed"
    if n > 1 and abs(gap) > 2 * error:
        return f"The samples {'help' if gap > 0 else 'do not help'}: {told}."
    return f"The samples make no clear difference: {told}."
