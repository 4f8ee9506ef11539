"""python -m ganlab.balance checkpoint=FILE data=folder data.root=LABELLED output=FOLDER: rare classes filled up."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

from ganlab.conf import CONF, cache
from ganlab.limits import BALANCE, check_values

if TYPE_CHECKING:
    from torch import Tensor

OmegaConf.register_new_resolver("ganlab.cache", cache, replace=True)
EXAMPLES = {"checkpoint": "outputs/.../checkpoints/best.ckpt", "output": "balanced"}
ABOUT = "balance.json"  # in the folder: what it was made of


@hydra.main(version_base="1.3", config_path=CONF, config_name="balance")
def main(cfg: DictConfig) -> None:
    from ganlab.evaluate import resolved
    from ganlab.files import Unavailable

    for key, example in EXAMPLES.items():
        if OmegaConf.is_missing(cfg, key):
            sys.exit(f"error: {key} is not set: say which one, as in {key}={example}")
    try:
        balance(resolved(cfg, BALANCE))
    except (ValueError, Unavailable) as error:
        sys.exit(f"error: {error}")


def balance(settings: dict[str, Any]) -> Path:
    """Writes the balanced folder and a sheet beside it, and with `report` what the samples are good for.

    Raises:
        ValueError: the checkpoint's generator is told no class, or other ones; the folder holds something else
        Unavailable: nothing can be written
    """
    import torch

    from ganlab.checkpoint import Sampler
    from ganlab.files import Unavailable, write_text
    from ganlab.pictures import save_sheet
    from ganlab.settings import made

    check_values(settings, BALANCE, hydra.utils.get_object)
    sampler = Sampler.load(settings["checkpoint"], settings["trust"]).at(settings["device"])
    data = made(settings["data"])
    facts = data.facts()
    check(settings, sampler, facts)
    samples, folder = data.played(), Path(settings["output"]).expanduser()
    names = [str(name) for name in facts["class_names"] or range(facts["classes"])]
    counts = torch.bincount(data.label_of(samples), minlength=facts["classes"]).tolist()
    most = max(counts)
    about = {"checkpoint": Path(settings["checkpoint"]).name, "generator": weights_of(sampler.G),
             "seed": settings["seed"], "data": samples.fingerprint(), "originals": counts,
             "made": [most - count for count in counts]}  # fmt: skip
    claim(folder, about)
    held = held_out(settings, data, facts) if settings["report"] else None
    try:
        originals = write_originals(samples, folder, names)
        made_of = write_samples(sampler, about["made"], most, folder, names, settings)
    except OSError as error:
        raise Unavailable(f"output={folder} can't be written to: {error.strerror}") from None
    sheet, half = beside(folder, "sheet.png"), settings["columns"] // 2
    save_sheet(pictures(samples, sampler, most, len(names), half, settings["seed"]), sheet, 2 * half)
    print(f"{originals:,} originals and {made_of:,} samples were written to {folder}: {most:,} of each class")
    print(f"originals | samples, a row for each class, in {sheet}")
    if held is not None:
        from ganlab.metrics.additions import report

        text = report(samples, sampler, about["made"], most, *held, settings)
        write_text(beside(folder, "report.md"), text + "\n")
        print(f"\n{text}")
    return folder


def check(settings: dict[str, Any], sampler: Any, facts: dict[str, Any]) -> None:
    """Raises ValueError where this generator can't make samples of these classes."""
    told, path = getattr(sampler.task, "classes", None), settings["checkpoint"]
    if not told or getattr(sampler.task, "several", False) or not hasattr(sampler.task, "draw"):
        raise ValueError(
            f"checkpoint={path}: its generator is told no class, and can't make one that is rare: train a model that "
            "is, as model=acgan"
        )
    if not facts["classes"] or facts.get("several"):
        raise ValueError(
            "data: there are no classes to balance: each subfolder of data.root is one, as in data.root/cat/1.png"
        )
    known = class_names(path)
    if told != facts["classes"] or (known and facts["class_names"] and known != list(facts["class_names"])):
        of = lambda names, count: f"{count} ({', '.join(map(str, names))[:200]})" if names else str(count)
        raise ValueError(
            f"checkpoint={path} knows the classes {of(known, told)}, and the data have "
            f"{of(facts['class_names'], facts['classes'])}: they must be the same"
        )
    shape = list(sampler.generate(0, 1).shape[1:])
    if shape != list(facts["shape"]):
        fix = f": set data.size=[{shape[1]},{shape[2]}] data.channels={shape[0]}" if len(shape) == 3 else ""
        raise ValueError(f"the generator makes images of {shape} and the data are of {facts['shape']}{fix}")


def class_names(path: str) -> list[str] | None:
    """Names of the classes that a checkpoint's generator was trained on, where that is known."""
    from ganlab import sharing
    from ganlab.checkpoint import load

    if sharing.folder_of(path) is not None:
        return sharing.stored(path)[0].get("class_names")
    return ((load(path)["ganlab"]["config"] or {}).get("data") or {}).get("class_names")


def claim(folder: Path, about: dict[str, Any]) -> None:
    """Makes the folder this command's; one that was begun with the same settings is gone on with.

    Raises:
        ValueError: it holds something else
        Unavailable: it can't be made
    """
    from ganlab.files import Unavailable, write_text

    path = folder / ABOUT
    try:
        if path.is_file() and json.loads(path.read_text()) == about:
            return
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(f"output={folder} holds something else already: choose another folder, or remove it")
        write_text(path, json.dumps(about, indent=1))
    except json.JSONDecodeError:
        raise ValueError(f"output={folder}: {ABOUT} in it is damaged: remove the folder") from None
    except OSError as error:
        raise Unavailable(f"output={folder} can't be written to: {error.strerror}") from None


def beside(folder: Path, name: str) -> Path:
    """In the folder itself, a picture would be one of the set."""
    return folder.parent / f"{folder.name}_{name}"


def write_originals(samples: Any, folder: Path, names: Sequence[str]) -> int:
    """The images as the set serves them, size and channels; returns how many were not there yet."""
    import torch
    from tqdm import tqdm

    label, new = samples.label.tolist(), 0
    paths = [folder / names[c] / f"original_{i:06d}.png" for i, c in enumerate(label)]
    missing = [i for i, path in enumerate(paths) if not path.exists()]
    for rows in tqdm(torch.tensor(missing, dtype=torch.long).split(256), desc="originals", disable=None):
        for i, x in zip(rows.tolist(), samples.take(rows)["real"], strict=True):
            new += write(x, paths[i])
    return new


def write_samples(
    sampler: Any, wanted: Sequence[int], most: int, folder: Path, names: Sequence[str], settings: dict[str, Any]
) -> int:
    """Samples of each class: number i of class c is made from (seed, c * most + i). Returns how many were not there
    yet."""
    from tqdm import tqdm

    from ganlab.metrics.additions import made_of
    from ganlab.metrics.fit import as_shown

    new = 0
    with tqdm(total=sum(wanted), desc="samples", unit="image", disable=None) as bar:
        for label, count in enumerate(wanted):
            for first in range(0, count, settings["batch_size"]):
                n = min(settings["batch_size"], count - first)
                paths = [folder / names[label] / f"made_{first + i:06d}.png" for i in range(n)]
                if not all(path.exists() for path in paths):
                    x = as_shown(made_of(sampler, label, first, n, most, settings["seed"])).cpu()
                    new += sum(write(image, path) for image, path in zip(x, paths, strict=True) if not path.exists())
                bar.update(n)
    return new


def write(x: "Tensor", path: Path) -> int:
    from ganlab.files import atomic
    from ganlab.translate import encoded

    with atomic(path) as file:
        file.write(encoded(x, "png"))
    return 1


def pictures(samples: Any, sampler: Any, most: int, classes: int, half: int, seed: int) -> "Tensor":
    """A row for each class: `half` originals, then as many samples; [classes * 2 * half, C, H, W] in [-1, 1]."""
    import torch

    from ganlab.metrics.additions import made_of
    from ganlab.metrics.fit import as_floats

    rows = []
    for label in range(classes):
        chosen = (samples.label == label).nonzero()[:half, 0]
        real = as_floats(samples.take(chosen)["real"]) if len(chosen) else torch.zeros(0)
        x = made_of(sampler, label, 0, half, most, seed).cpu().clamp(-1, 1)
        rows += [*real, *([torch.ones_like(x[0])] * (half - len(real))), *x]
    return torch.stack(rows)


def weights_of(net: Any) -> str:
    from ganlab.metrics.extractors import weights_hash

    return weights_hash(net)


def held_out(settings: dict[str, Any], data: Any, facts: dict[str, Any]) -> tuple[Any, str]:
    """(labelled samples to judge by, or None: a part of the data; what they are, in words).

    Raises:
        ValueError: `test` has other classes
    """
    from ganlab.data.folder import Folder
    from ganlab.files import Unavailable

    if settings["test"] is None:
        try:
            return data.split("test"), f"the test part of {data.title}"
        except Unavailable:
            return None, "every fifth image of each class, which the classifiers do not learn from but G did"
    shape = facts["shape"]
    folder = Folder(settings["test"], size=shape[1:], channels=shape[0], memory=data.memory)
    names = folder.facts()["class_names"]
    if names != facts["class_names"]:
        raise ValueError(f"test={settings['test']}: its classes are {names}, and the data's {facts['class_names']}")
    return folder.split("train"), f"the folder {folder.root.name if folder.root else ''}"


if __name__ == "__main__":
    main()
