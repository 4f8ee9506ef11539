"""python -m ganlab.sample checkpoint=FILE: samples of a trained generator."""

from functools import partial
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from ganlab.conf import CONF
from ganlab.entry import run
from ganlab.limits import check_arguments


@hydra.main(version_base="1.3", config_path=CONF, config_name="sample")
def main(cfg: DictConfig) -> None:
    run(cfg, sample, checkpoint="outputs/.../checkpoints/best.ckpt")


def sample(
    checkpoint: str, n: int, start: int, seed: int, classes: list[int | str | list[int]] | int | str | None,
    truncation: float | None, interpolations: int, columns: int, output: str | None, batch_size: int, device: str,
    trust: list[str],
    standing: int = 0, interpolation: str = "slerp", styles: int = 0, scale: str = "coarse",
) -> Path:  # fmt: skip
    """Writes the samples of a checkpoint's G_ema as files, PNG where they are images, with a sheet of them; with images
    comes one of interpolations.

    Raises:
        ValueError: the checkpoint can't be used, or it can't do what is asked
    """
    check_arguments("", locals(), sample)
    import numpy as np
    import torch
    from tqdm import tqdm

    from ganlab.checkpoint import Sampler
    from ganlab.files import atomic
    from ganlab.pictures import WALKS, interpolated, save_sheet
    from ganlab.sharing import name_of, place_beside
    from ganlab.styles import check, mixed

    if interpolation not in WALKS:
        raise ValueError(f"interpolation={interpolation}: must be {' or '.join(WALKS)}")
    classes = [classes] if isinstance(classes, (int, str)) else classes
    sampler = Sampler.load(checkpoint, trust).at(device)
    if truncation is not None:
        sampler.truncate(truncation)
    known = getattr(sampler.task, "classes", None)
    several = getattr(sampler.task, "several", False)
    names = getattr(sampler.task, "names", [])  # of its labels, where they have any
    if unknown := [label for label in classes or () if isinstance(label, str) and label not in names]:
        raise ValueError(
            f"classes={unknown[0]}: this generator has {', '.join(names)[:1000] or 'numbers in place of names'}"
        )
    classes = [names.index(label) if isinstance(label, str) else label for label in classes] if classes else None
    for label in classes or ():
        numbers = label if isinstance(label, list) and several else [label]
        if not known or not all(isinstance(c, int) and 0 <= c < known for c in numbers):
            has = f"labels 0 to {known - 1}" + (", and lists of them" * several) if known else "no labels"
            raise ValueError(f"classes={classes}: this generator has {has}")
    if styles:
        check(sampler.G, f"styles={styles}", scale)
    if standing:
        sampler.standing(standing, batch_size)
    name = f"{name_of(checkpoint)}_seed_{seed}" + (f"_truncation_{truncation:g}" if truncation is not None else "")
    name += f"_standing_{standing}" if standing else ""
    folder = Path(output) if output else place_beside(checkpoint) / "generated" / name
    wanted: list[tuple[str, Any]] = [("", None)]
    if classes:
        wanted = [(f"class_{c}_".replace(", ", "-").replace("[", "").replace("]", ""), c) for c in classes]
    for prefix, label in wanted:
        told = partial(labels, label, known, sampler.device)
        made = []
        for first in tqdm(range(start, start + n, batch_size), desc=f"samples {prefix}".strip("_ "), disable=None):
            count = min(batch_size, start + n - first)
            made.append(sampler.generate(first, count, seed, told(count)).cpu())
        fakes = torch.cat(made)
        pictures = sampler.task.show(fakes)
        if pictures is fakes:
            for i, picture in enumerate(fakes):
                save_sheet(picture[None], folder / f"{prefix}{start + i:06d}.png", 1, padding=0)
            if interpolations:
                walks = interpolated(
                    sampler, interpolations, columns, seed, told(2 * interpolations), WALKS[interpolation]
                )
                save_sheet(walks, folder / f"{prefix}interpolation.png", columns)
            if styles:
                table = mixed(sampler, styles, columns, seed, told(styles + columns), scale)
                save_sheet(table, folder / f"{prefix}styles.png", columns + 1)
        elif sampler.task.medium is not None:
            sampler.task.medium.write(fakes, folder, start, prefix)
        else:
            with atomic(folder / f"{prefix}samples.npy") as file:
                np.save(file, fakes.numpy())
        save_sheet(pictures, folder / f"{prefix}sheet.png", columns)
    print(f"{n * len(wanted)} samples in {folder}")
    return folder


def labels(label: Any, known: Any, device: Any, n: int) -> Any:
    """What a generator is told of n samples: a number, or a vector of the attributes in a list; None: nothing."""
    import torch

    if isinstance(label, list):
        return torch.zeros(known, device=device).index_fill_(0, torch.tensor(label, device=device), 1).expand(n, -1)
    return None if label is None else torch.full((n,), label, device=device)


if __name__ == "__main__":
    main()
