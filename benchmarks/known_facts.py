"""Whether scores do what is known of them: python benchmarks/known_facts.py --root FOLDER [--weights FILE]

On CIFAR-10's training images (`root`: the set's binary batches) through SqueezeNet (`weights`; None: downloaded):
- the Frechet distance of two halves falls with their size n as theory says: for equal laws its bias is about c / n;
- distances grow with blur, with noise and with each class that is left out of the fakes; recall and coverage fall.

Draws docs/known_facts.png (needs matplotlib) and prints the numbers.
"""

import argparse
from pathlib import Path

import torch
from torchvision.transforms.v2.functional import gaussian_blur
from tqdm import tqdm

from ganlab.data.sets import CIFAR10
from ganlab.metrics.frechet import FID
from ganlab.metrics.kernels import CMMD, KID
from ganlab.metrics.neighbours import PRDC
from ganlab.metrics.networks import Torchvision
from ganlab.metrics.scores import Scores


def main(root: str, weights: str | None, n: int, figure: str) -> None:
    data = CIFAR10(root=root).split("train").take(torch.arange(50_000))
    images, labels = data["real"], data["label"]
    extractor = Torchvision("squeezenet1_1", "features", size=64, name="squeezenet", weights=weights)
    extractor.prepare()
    print(f"CIFAR-10, {extractor.describe()}")
    order = torch.randperm(50_000, generator=torch.Generator().manual_seed(0))

    @torch.no_grad()
    def see(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([extractor(part)["features"] for part in tqdm(x.split(250), leave=False)])

    def scores(real: torch.Tensor, fake: torch.Tensor) -> dict[str, float]:
        metric = Scores({"fid": FID(), "kid": KID(50, 500), "cmmd": CMMD(), "prdc": PRDC()}, {"features": 512})
        metric.update({"features": real}, real=True)
        metric.update({"features": fake}, real=False)
        return metric.compute()

    everything = see(images[order[: 4 * n]])
    a, b = everything[: 2 * n], everything[2 * n :]
    sizes = [2 * n // 2**i for i in range(4)][::-1]
    halves = {m: scores(a[:m], b[:m])["fid"] for m in sizes}
    print("halves:", ", ".join(f"n {m}: {v:.3f} (n x distance {m * v:,.0f})" for m, v in halves.items()))

    real, sources = a[:n], order[2 * n : 3 * n]
    x = images[sources]
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    curves: dict[str, dict[float, dict[str, float]]] = {
        "blur (pixels)": {},
        "noise (grey levels)": {},
        "classes lost": {},
    }
    for sigma in (0.0, 0.5, 1.0, 2.0):
        fake = gaussian_blur(x, [9, 9], [sigma]) if sigma else x
        curves["blur (pixels)"][sigma] = scores(real, see(fake))
    for sigma in (0, 10, 25, 50):
        fake = (x + sigma * noise).round().clamp(0, 255).to(torch.uint8)
        curves["noise (grey levels)"][sigma] = scores(real, see(fake))
    rest = order[2 * n :]
    pool, pool_labels = see(images[rest]), labels[rest]
    for lost in range(9):  # as many fakes, of fewer classes; the mean over 10 orders of leaving them out
        runs = []
        for i in range(10):
            left = torch.randperm(10, generator=torch.Generator().manual_seed(i))[lost:]
            rows = torch.isin(pool_labels, left).nonzero()[:n, 0]
            assert len(rows) == n, "too few images are left: choose a smaller --n"
            runs.append(scores(real, pool[rows]))
        curves["classes lost"][lost] = {key: sum(run[key] for run in runs) / len(runs) for key in runs[0]}
    for what, points in curves.items():
        for level, values in points.items():
            print(f"{what:<20} {level:<5} " + "  ".join(f"{k} {v:.4g}" for k, v in values.items()))
    draw(halves, curves, figure)


def draw(halves: dict[int, float], curves: dict[str, dict[float, dict[str, float]]], figure: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plots, axes = plt.subplots(1, 4, figsize=(13, 3), layout="constrained")
    sizes = list(halves)
    axes[0].loglog(sizes, list(halves.values()), "o-", label="measured")
    axes[0].loglog(sizes, [halves[sizes[0]] * sizes[0] / m for m in sizes], "k--", lw=1, label="c / n")
    axes[0].set(title="Frechet distance of two halves", xlabel="images in each half")
    axes[0].set_xticks(sizes, [f"{m:,}" for m in sizes])
    axes[0].minorticks_off()
    axes[0].legend()
    for axis, (what, points) in zip(axes[1:], curves.items(), strict=True):
        for key in ("fid", "kid", "cmmd"):
            worst = max(abs(values[key]) for values in points.values())
            axis.plot(list(points), [values[key] / worst for values in points.values()], "o-", label=key)
        for key in ("precision", "recall", "coverage"):
            axis.plot(list(points), [values[key] for values in points.values()], "s--", lw=1, label=key)
        axis.set(title=what, ylim=(-0.05, 1.05))
    axes[1].legend(fontsize=7)
    Path(figure).parent.mkdir(parents=True, exist_ok=True)
    plots.savefig(figure, dpi=80)
    print(f"drawn: {figure}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder with CIFAR-10's binary batches")
    parser.add_argument("--weights", help="SqueezeNet 1.1's state dict")
    parser.add_argument("--n", type=int, default=5000, help="images on each side")
    parser.add_argument("--figure", default="docs/known_facts.png")
    given = parser.parse_args()
    main(given.root, given.weights, given.n, given.figure)
