"""Super-resolution's usual table: python benchmarks/super_resolution.py --data FOLDER [NAME=CHECKPOINT ...]

FOLDER holds Set5 and Set14, images in full size. They are made smaller by antialiased bicubic interpolation and rounded
to 256 levels, and enlarged whole: by bicubic interpolation, and by each checkpoint's G_ema. PSNR and SSIM are of Y of
YCbCr without a border of `scale` pixels (grey images: of their grey), the mean over images. LPIPS is by SqueezeNet, on
all of the image. Published for bicubic, twice as large: Set5 33.66 dB and 0.9299, Set14 30.24 dB and 0.8688.

--train OUTPUT trains SRResNet and SRGAN first, on FOLDER/T91, by experiment=srresnet_t91 and srgan_t91; what stands
after -- goes to both runs.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ganlab.checkpoint import Sampler
from ganlab.data.decode import whole
from ganlab.data.images import as_channels
from ganlab.degrade import Downscale
from ganlab.metrics import fidelity
from ganlab.metrics.fit import as_shown
from ganlab.metrics.networks import LPIPS
from ganlab.nn.upscaling import enlarged
from ganlab.pictures import save_sheet
from ganlab.rng import IndexedRNG

PUBLISHED = {("Set5", 2): "33.66 / 0.9299", ("Set14", 2): "30.24 / 0.8688"}
Way = Callable[[Tensor], Tensor]  # a small image [1, 3, h, w] in [-1, 1] -> a large one


def images(folder: Path, scale: int) -> list[Tensor]:
    """Each [1, C, H, W] in [-1, 1], cropped to multiples of `scale`; C is 1 where it is grey."""
    found = []
    for path in sorted(folder.iterdir()):
        x = whole(path)[None] / 127.5 - 1
        found.append(x[..., : x.shape[2] // scale * scale, : x.shape[3] // scale * scale])
    return found


@torch.no_grad()
def made(way: Way, target: Tensor, scale: int) -> Tensor:
    """What a way makes of a small version of the image, uint8 with as many channels."""
    small = Downscale(scale)(target, IndexedRNG(0, range(1)))
    return as_channels(as_shown(way(small.expand(-1, 3, -1, -1))), target.shape[1])


def scored(fakes: list[Tensor], targets: list[Tensor], scale: int, see: Way) -> list[float]:
    """Means of PSNR and SSIM on Y, and of LPIPS."""
    scores = [fidelity.PSNR(True, scale), fidelity.SSIM(True, scale), fidelity.LPIPS()]
    pairs = [(fake / 127.5 - 1, target) for fake, target in zip(fakes, targets, strict=True)]
    rows = [[score.compare(fake, target, see).item() for score in scores] for fake, target in pairs]
    return torch.tensor(rows, dtype=torch.float64).mean(0).tolist()


def by(checkpoint: str, scale: int) -> Way:
    sampler = Sampler.load(checkpoint)
    if getattr(sampler.G, "scale", scale) != scale:
        raise SystemExit(f"{checkpoint} makes images {sampler.G.scale} times as large: --scale {sampler.G.scale}")
    return sampler


def trained(data: Path, output: Path, squeezenet: str | None, more: list[str]) -> list[str]:
    """NAME=CHECKPOINT of each run."""
    for name in ("srresnet", "srgan"):
        given = [f"experiment={name}_t91", f"data.root={data / 'T91'}", f"hydra.run.dir={output / name}", *more]
        if name == "srgan" and squeezenet:
            given.append(f"terms.content.weights={squeezenet}")
        subprocess.run([sys.executable, "-m", "ganlab", *given], check=True)
    return [f"{name}={output / name / 'checkpoints' / 'last.ckpt'}" for name in ("srresnet", "srgan")]


def sheet(rows: list[tuple[Tensor, ...]], path: Path, size: int = 128) -> None:
    """The middle of each image in a row: by each way, then as it is."""
    parts = []
    for row in rows:
        top, left = ((side - size) // 2 for side in row[0].shape[2:])
        parts += [as_channels(x, 3)[..., top : top + size, left : left + size] / 127.5 - 1 for x in row]
    save_sheet(torch.cat(parts), path, len(rows[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", metavar="NAME=CHECKPOINT")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--squeezenet", help="file with its weights, in place of torchvision's")
    parser.add_argument("--train", type=Path, metavar="OUTPUT")
    parser.add_argument("--sheets", type=Path, help="folder for pictures: a row for each image, a column for each way")
    own = sys.argv[1:]
    own, more = (own[: own.index("--")], own[own.index("--") + 1 :]) if "--" in own else (own, [])
    given = parser.parse_args(own)
    checkpoints = [
        *(trained(given.data, given.train, given.squeezenet, more) if given.train else []),
        *given.checkpoints,
    ]
    extractor = LPIPS("squeeze", weights=given.squeezenet)
    extractor.prepare()
    ways: dict[str, Way] = {"bicubic": lambda x: enlarged(x, given.scale)}
    ways |= {name: by(path, given.scale) for name, _, path in (text.partition("=") for text in checkpoints)}
    print(f"{given.scale} times as large; {extractor.describe()}")
    print(f"{'':<8}{'':<12}{'PSNR, Y':>9}{'SSIM, Y':>9}{'LPIPS':>9}")
    for name in ("Set5", "Set14"):
        targets = images(given.data / name, given.scale)
        fakes = {way: [made(enlarge, x, given.scale) for x in targets] for way, enlarge in ways.items()}
        for way in ways:
            psnr, ssim, lpips = scored(fakes[way], targets, given.scale, extractor)
            known = PUBLISHED.get((name, given.scale)) if way == "bicubic" else None
            note = f"   published: {known}" if known else ""
            print(f"{name:<8}{way:<12}{psnr:>9.2f}{ssim:>9.4f}{lpips:>9.4f}{note}", flush=True)
        if given.sheets:
            sheet(list(zip(*fakes.values(), map(as_shown, targets), strict=True)), given.sheets / f"{name}.png")


if __name__ == "__main__":
    main()
