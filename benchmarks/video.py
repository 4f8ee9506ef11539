"""Generators of clips beside reals: python -m benchmarks.video PICTURE RUN [RUN ...]

Scores of each run's last G_ema, and of clips that need no generator: other reals (the part for testing), and the same
at half the speed, standing still (the middle frame of each, repeated), and with their frames in disorder. All by the
same number of clips against the same reals, those that the first run was trained on. PICTURE: a PNG file of two clips
of each, frame by frame; beside it the same as a GIF.
"""

import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from ganlab.files import atomic
from ganlab.media.clips import gif, levels
from ganlab.metrics.clips import played
from ganlab.metrics.scorer import Scorer
from ganlab.pictures import save_rows
from ganlab.settings import made
from ganlab.sharing import load

CPU = torch.device("cpu")
SHOWN = 4  # clips of each in the GIF; two in the picture


def main(picture: str, *runs: str) -> None:
    configs = [yaml.safe_load((Path(run) / "config.yaml").read_text()) for run in runs]
    data, extractor = made(configs[0]["data"]), made(configs[0]["extractor"])
    extractor.prepare(data)
    others = data.split("test")
    n = min(configs[0]["metrics"]["n"], len(others))
    ways = played(others.take(torch.arange(n))["real"], torch.Generator().manual_seed(0))
    sides: list[tuple[str, Tensor, str]] = [
        (name, x, "") for name, x in zip(("other reals", "half speed", "standing still", "disorder"), ways, strict=True)
    ]
    for run, config in zip(runs, configs, strict=True):
        sampler = load(Path(run) / "checkpoints" / "last.ckpt")
        made_clips = torch.cat([sampler.generate(first, min(100, n - first)) for first in range(0, n, 100)])
        name = f"{config['generator']['_target_'].split('.')[2]} {config['seed']}, {sampler.kimg:g} kimg"
        sides.append((name, made_clips, told(Path(run), sampler)))
    scorer = Scorer(extractor, {k: made(v) for k, v in configs[0]["scores"].items()}, n)
    reals = scorer.reals(data, "train", CPU)
    print(f"{n} clips each against {reals.n} of {data.title}; {extractor.describe()}\n")
    print(f"| clips | {' | '.join(scorer.names)} | run |", f"|{'---|' * (len(scorer.names) + 2)}", sep="\n")
    for name, x, about in sides:
        values = scorer.score(
            lambda first, count, x=x: {"real": x[first : first + count]}, list(x.shape[1:]), reals, CPU
        )
        print(f"| {name} | {' | '.join(f'{v:.3g}' for v in values.values())} | {about} |", flush=True)
    show(Path(picture), [("reals", ways[0]), *((name, x) for name, x, about in sides if about)], data.facts()["fps"])


def told(run: Path, sampler: Any) -> str:
    seconds = yaml.safe_load((run / "result.json").read_text())["seconds"]
    parameters = sum(p.numel() for p in sampler.G.parameters()) / 1e6
    return f"{seconds:.0f} s, G has {parameters:.2f} million parameters"


def show(path: Path, sides: list[tuple[str, Tensor]], fps: float) -> None:
    floats = [(name, x / 127.5 - 1 if x.dtype == torch.uint8 else x) for name, x in sides]
    as_bytes = lambda x: ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    rows = [(name, as_bytes(x[:2].transpose(1, 2).flatten(0, 1))) for name, x in floats]
    save_rows(rows, path, rows[0][1].shape[0], least=32)
    walls = [x[:SHOWN].permute(1, 2, 3, 0, 4).flatten(3) for _, x in floats]  # [C, T, H, SHOWN * W]
    wall = torch.cat(walls, 2).repeat_interleave(3, 2).repeat_interleave(3, 3)
    with atomic(path.with_suffix(".gif")) as file:
        file.write(gif(levels(wall), fps))


if __name__ == "__main__":
    main(*sys.argv[1:])
