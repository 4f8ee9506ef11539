"""python -m ganlab.analyze checkpoint=FILE data=NAME: what a trained GAN has learnt, and what it repeats."""

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from ganlab.conf import CONF, cache
from ganlab.limits import ANALYZE, check_values

OmegaConf.register_new_resolver("ganlab.cache", cache, replace=True)


@hydra.main(version_base="1.3", config_path=CONF, config_name="analyze")
def main(cfg: DictConfig) -> None:
    from ganlab.evaluate import resolved
    from ganlab.files import Unavailable

    if OmegaConf.is_missing(cfg, "checkpoint"):
        sys.exit("error: checkpoint is not set: say which one, as in checkpoint=outputs/.../checkpoints/best.ckpt")
    try:
        analyze(resolved(cfg, ANALYZE))
    except (ValueError, Unavailable) as error:
        sys.exit(f"error: {error}")


def analyze(settings: dict[str, Any]) -> Path:
    """Runs the parts that are asked for; one that can't be done says why, and the others go on.

    Raises:
        ValueError: the checkpoint can't be used, or a setting can't be
    """
    from ganlab.checkpoint import Sampler
    from ganlab.checks import check_targets
    from ganlab.files import Unavailable
    from ganlab.settings import made
    from ganlab.sharing import place_beside

    check_values(settings, ANALYZE, hydra.utils.get_object)
    parts = settings["parts"]
    if not parts or set(parts) - PARTS.keys():
        raise ValueError(f"parts={parts}: must be some of [{','.join(PARTS)}]")
    check_targets("extractor", settings["extractor"], hydra.utils.get_object)
    sampler = Sampler.load(settings["checkpoint"], settings["trust"]).at(settings["device"])
    classes = getattr(sampler.task, "classes", None)
    if classes and not 0 <= settings["label"] < classes:
        raise ValueError(f"label={settings['label']}: this generator has labels 0 to {classes - 1}")
    data = made(settings["data"])
    shape = list(sampler.generate(0, 1).shape[1:])
    if len(shape) != 3:
        raise ValueError(f"checkpoint={settings['checkpoint']}: its generator makes samples of {shape}, not images")
    if data is not None and list(data.facts()["shape"]) != shape:
        have = data.facts()["shape"]
        fix = f"data.size=[{shape[1]},{shape[2]}] data.channels={shape[0]}"
        raise ValueError(f"the generator makes images of {shape} and the data are of {have}: set {fix}")
    output = settings["output"]
    folder = Path(output) if output else place_beside(settings["checkpoint"]) / "analysis"
    subject = Subject(settings, sampler, data, made(settings["extractor"]), folder)
    for part in PARTS:
        if part in parts:
            try:
                print(f"{part:<12} {PARTS[part](subject)}")
            except (ValueError, Unavailable) as error:
                print(f"{part:<12} skipped: {' '.join(str(error).split())}")
    print(f"pictures     {folder}")
    return folder


@dataclass
class Subject:
    """What is looked at, and what the parts share."""

    settings: dict[str, Any]
    sampler: Any
    data: Any
    extractor: Any
    folder: Path

    @cached_property
    def reals(self) -> tuple[Any, Any, Any]:
        """Of the training images that are compared with: (uint8 [N, C, H, W], labels or None, numbers in the set)."""
        from ganlab.metrics.scorer import chosen_of

        if self.data is None:
            raise ValueError("it needs the training images: give data=NAME")
        samples = self.data.split("train")
        rows = chosen_of(len(samples), self.settings["n_real"])
        taken = samples.take(rows)
        return taken["real"], taken.get("label"), rows

    @cached_property
    def fakes(self) -> Any:
        """uint8 [n, C, H, W], as a viewer sees them: samples 0 .. n - 1, of classes as the task draws them."""
        return self.made(self.settings["n"])

    def made(self, n: int, label: Any = None) -> Any:
        """n samples; label: [n], None: as the task draws them."""
        import torch
        from tqdm import tqdm

        from ganlab.metrics.fit import as_shown

        size, images = self.settings["batch_size"], []
        for first in tqdm(range(0, n, size), desc="samples", leave=False, disable=None):
            count = min(size, n - first)
            cond = None if label is None else label[first : first + count].to(self.sampler.device)
            images.append(as_shown(self.sampler.generate(first, count, self.settings["seed"], cond)).cpu())
        return torch.cat(images)

    @cached_property
    def net(self) -> Any:
        """The extractor, ready."""
        facts = {"classes": None} | (self.data.facts() if self.data is not None else {})
        self.extractor.check(facts | {"shape": list(self.fakes.shape[1:])})
        self.extractor.prepare(self.data)
        return self.extractor.to(self.sampler.device).eval().requires_grad_(False)

    def seen(self, images: Any, name: str = "features", net: Any = None) -> Any:
        """[N, d]: one output of the extractor, or of another network."""
        import torch
        from tqdm import tqdm

        from ganlab.metrics.scorer import named

        net, rows = self.net if net is None else net, []
        with torch.no_grad():
            for part in tqdm(images.split(self.settings["batch_size"]), desc="looking", leave=False, disable=None):
                outputs = named(net(part.to(self.sampler.device)))
                if name not in outputs:
                    raise ValueError(f"the extractor gives {', '.join(outputs)}, and no {name}: use another one")
                rows.append(outputs[name].flatten(1).float().cpu())
        return torch.cat(rows)

    @property
    def classes(self) -> int | None:
        return getattr(self.sampler.task, "classes", None)


def look_at_neighbours(subject: Subject) -> str:
    """The training images nearest to each sample, by features and by pixels."""
    import torch

    from ganlab.analysis.neighbours import neighbours
    from ganlab.files import Unavailable, write_text
    from ganlab.metrics.fit import as_floats
    from ganlab.pictures import save_sheet
    from ganlab.tables import as_csv

    (reals, _, numbers), fakes = subject.reals, subject.fakes
    k, rows = subject.settings["k"], min(subject.settings["rows"], len(fakes))
    device = subject.sampler.device
    near_of = lambda real, fake: neighbours(real.to(device), fake.to(device), k)
    found = {"pixels": near_of(reals.flatten(1), fakes.flatten(1))}
    missing = ""
    if subject.extractor.name != "pixels":
        try:
            found[subject.extractor.name] = near_of(subject.seen(reals), subject.seen(fakes))
        except (ValueError, Unavailable) as error:
            missing = f"\n             by {subject.extractor.name} skipped: {' '.join(str(error).split())}"
    for name, near in found.items():
        first = near.distance[:, 0].argsort()[:rows]  # the likest come first
        pictures = torch.cat([fakes[first][:, None], reals[near.index[first]]], 1).flatten(0, 1)
        save_sheet(as_floats(pictures), subject.folder / f"neighbours_{name}.png", k + 1)
        table = [
            {"sample": i, "real": numbers[near.index[i, 0]].item(), "distance": near.distance[i, 0].item(),
             "its_own_nearest": near.own[i].item()}
            | {f"distance_{j + 1}": near.distance[i, j].item() for j in range(1, k)}
            for i in range(len(fakes))
        ]  # fmt: skip
        write_text(subject.folder / f"neighbours_{name}.csv", as_csv(table))
    return "\n             ".join(
        f"by {name} {near.copies:.1%} of {len(fakes):,} samples are nearer to a training image than its own nearest "
        f"neighbour is; of the {len(reals):,} training images, left out one by one, {near.expected:.1%} are"
        for name, near in found.items()
    ) + missing  # fmt: skip


def look_along_directions(subject: Subject) -> str:
    """Walks along the directions of SeFa and of PCA."""
    import numpy as np
    import torch

    from ganlab.analysis.directions import Latents, pca, sefa, walked
    from ganlab.files import atomic
    from ganlab.pictures import save_sheet
    from ganlab.rng import IndexedRNG

    settings, sampler = subject.settings, subject.sampler
    latents = Latents(sampler, settings["label"] if subject.classes else None)
    rng = IndexedRNG(settings["seed"], range(max(1000, settings["samples"])), sampler.device, sampler.dtype)
    z, _ = sampler.task.draw(rng)
    if not isinstance(z, torch.Tensor) or z.dim() != 2:
        raise ValueError(f"{type(sampler.task).__name__} does not start from one latent vector")
    latent = torch.cat([latents.of(part) for part in z.split(settings["batch_size"])])
    count, kept, said = settings["directions"], {}, []
    for name, find in (("sefa", lambda: sefa(latents, latent.shape[1])), ("pca", lambda: pca(latents, latent, count))):
        try:
            kept[name] = find()[:count]
        except ValueError as error:
            said.append(f"{name} skipped: {error}")
            continue
        unit = (latent @ kept[name].T).std(0)
        images = walked(
            latents, kept[name], latent[: settings["samples"]], unit, settings["reach"], settings["columns"]
        )
        save_sheet(images, subject.folder / f"directions_{name}.png", settings["columns"])
        said.append(f"{len(kept[name])} of {name}")
    arrays: dict[str, Any] = {name: value.cpu().numpy() for name, value in kept.items()}
    with atomic(subject.folder / "directions.npz") as file:
        np.savez(file, **arrays)
    reach = f"{settings['reach']:g} deviations each way, {settings['samples']} samples each"
    return f"in {latents.name}: {', '.join(said)}; {reach}"


def probe_discriminator(subject: Subject) -> str:
    """How much a linear classifier can tell from D's features."""
    from ganlab.analysis.probe import Features, linear_accuracy
    from ganlab.checkpoint import discriminator
    from ganlab.files import write_text
    from ganlab.metrics.fit import as_floats
    from ganlab.metrics.scorer import chosen_of
    from ganlab.tables import as_csv

    reals, labels, _ = subject.reals
    if labels is None or labels.dim() != 1:
        raise ValueError("the data have no classes to tell apart")
    rows = chosen_of(len(reals), subject.settings["labelled"])
    x, y = reals[rows], labels[rows]
    trained, fresh = discriminator(subject.settings["checkpoint"], subject.settings["trust"])
    told, held = 0 if subject.classes else None, round(0.2 * len(y))
    see = lambda D: subject.seen(x, net=lambda part: Features(D, told)(as_floats(part)))
    features = {"D": see(trained.to(subject.sampler.device)), "untrained D": see(fresh.to(subject.sampler.device))}
    features["pixels"] = as_floats(x).flatten(1)
    found = {name: linear_accuracy(value, y) for name, value in features.items()}
    table = [{"features": name, "accuracy": v, "columns": features[name].shape[1]} for name, v in found.items()]
    write_text(subject.folder / "probe.csv", as_csv(table))
    return (
        f"classes told apart linearly from D's features {found['D']:.1%}, from those of an untrained D "
        f"{found['untrained D']:.1%}, from pixels {found['pixels']:.1%} ({len(y) - held:,} images to learn from, "
        f"{held:,} held out)"
    )


def look_for_confusion(subject: Subject) -> str:
    """Which class the extractor recognises in samples of each class."""
    import torch

    from ganlab.analysis.confusion import confusion, save_matrix
    from ganlab.files import write_text
    from ganlab.tables import aligned, as_csv

    classes = subject.classes
    if not classes or getattr(subject.sampler.task, "several", False):
        raise ValueError("the generator is told no class")
    if subject.data is None:
        raise ValueError("it needs a classifier of the set: give data=NAME extractor=classifier")
    facts = subject.data.facts()
    asked = torch.arange(subject.settings["n"]) * classes // subject.settings["n"]  # equally many of each
    logits = subject.seen(subject.made(len(asked), asked), "logits")
    if facts["classes"] != classes or logits.shape[1] != classes:
        raise ValueError(
            f"the generator is told {classes} classes, the data have {facts['classes']} and the extractor tells "
            f"{logits.shape[1]} apart: use extractor=classifier with the generator's own data"
        )
    counts = confusion(asked, logits.argmax(1), classes)
    names = [str(name) for name in facts["class_names"] or range(classes)]
    lines = [{"asked": name} | dict(zip(names, row, strict=True)) for name, row in zip(names, counts.tolist())]
    write_text(subject.folder / "confusion.csv", as_csv(lines))
    save_matrix(counts, subject.folder / "confusion.png")
    right = (counts.diagonal() / counts.sum(1).clamp(min=1)).tolist()
    table = aligned([{"class": name, "recognised": share} for name, share in zip(names, right, strict=True)])
    whole = counts.diagonal().sum().item() / len(asked)
    by = subject.net.describe()
    return f"{whole:.1%} of {len(asked):,} samples are recognised as what was asked for, by {by}\n{table}"


PARTS = {
    "neighbours": look_at_neighbours, "directions": look_along_directions, "probe": probe_discriminator,
    "confusion": look_for_confusion,
}  # fmt: skip


if __name__ == "__main__":
    main()
