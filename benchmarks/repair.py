"""How much better images are after than before a generator repaired them: python benchmarks/repair.py RUN [RUN ...]

Of each run's test images, or training images where there are no others, or with --root FOLDER those there: PSNR and
SSIM of what G started from, and of what G_ema made of it, beside the images as they were.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
import yaml

from ganlab.metrics.fidelity import PSNR, SSIM
from ganlab.metrics.fit import as_batch
from ganlab.settings import made
from ganlab.sharing import load

MOST = 1000  # images


@torch.no_grad()
def measured(run: Path, root: str | None) -> list[str]:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"] |= {"root": root} if root else {}
    data, sampler = made(config["data"]), load(run / "checkpoints" / "last.ckpt")
    samples = data.split(data.unseen())
    rows: dict[str, list[torch.Tensor]] = {}
    for part in torch.arange(min(MOST, len(samples))).split(100):
        x = sampler.reconstruct(as_batch(samples.take(part), torch.device("cpu")), int(part[0]))
        before = sampler.task.show_inputs(x["inputs"]).expand(-1, x["real"].shape[1], -1, -1)
        before = F.interpolate(before, x["real"].shape[2:], mode="bicubic", align_corners=False)
        for name, images in (("before", before), ("after", x["fake"])):
            for score in (PSNR(), SSIM()):
                rows.setdefault(f"{score.name} {name}", []).append(score.compare(images, x["real"], lambda y: y))
    mean = {name: torch.cat(values).mean().item() for name, values in rows.items()}
    task = config["task"].get("degradation", config["task"])["_target_"].rpartition(".")[2]
    parameters = sum(p.numel() for p in sampler.G.parameters()) / 1e6
    about = [config["generator"]["_target_"].split(".")[2], task, f"{sampler.kimg:g}", f"{parameters:.2f}"]
    return [*about, *(f"{mean[f'psnr {k}']:.2f}" for k in ("before", "after")),
            *(f"{mean[f'ssim {k}']:.3f}" for k in ("before", "after"))]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--root", metavar="FOLDER", help="images to look at, in place of the run's")
    given = parser.parse_args()
    names = ["model", "repairs", "kimg", "G, million", "PSNR before", "after", "SSIM before", "after"]
    print(f"| {' | '.join(names)} |", f"|{'---|' * len(names)}", sep="\n")
    for run in given.runs:
        print(f"| {' | '.join(measured(run, given.root))} |", flush=True)


if __name__ == "__main__":
    main()
