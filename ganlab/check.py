"""python -m ganlab.check data=NAME model=NAME: what is in a data set, and what a run on it would take."""

import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

import ganlab.train  # noqa: F401  registers what its config refers to
from ganlab import limits
from ganlab.conf import CONF

NAMED = 1000  # files of each kind in check.json, at most


@hydra.main(version_base="1.3", config_path=CONF, config_name="check")
def main(cfg: DictConfig) -> None:
    from ganlab.files import Unavailable

    choices = HydraConfig.get().runtime.choices
    try:
        check(cfg, choices["model"], list(HydraConfig.get().overrides.task))
    except (ValueError, Unavailable) as error:
        sys.exit(f"error: {error}")


def check(cfg: DictConfig, model: str, overrides: list[str]) -> dict[str, Any]:
    """Prints and returns what was found, and writes it as check.json beside sheet.png.

    Raises:
        ValueError: a key can't be what it is
        Unavailable: there are no data
    """
    import json

    from ganlab.checks import check_targets
    from ganlab.files import write_text
    from ganlab.report import relative
    from ganlab.settings import complete, drop_settings_of_what_was_removed, made

    own = {key: cfg[key] for key in limits.CHECK}
    with open_dict(cfg):
        for key in limits.CHECK:
            del cfg[key]
    limits.check_values(own, limits.CHECK, hydra.utils.get_object)
    drop_settings_of_what_was_removed(cfg, overrides)
    plain: Any = OmegaConf.to_container(cfg)
    limits.check_values(plain, limits.TRAIN, hydra.utils.get_object)
    given: Any = OmegaConf.to_container(cfg.data, resolve=True)
    check_targets("data", given, hydra.utils.get_object)
    data = made(given)
    looked = look(data)
    train, root = looked["train"], looked["root"]
    told = contents(data, train, looked)
    first = told["suggested"] = suggested(train, data, given["batch_size"])
    cfg.data.batch_size = first["batch_size"]
    if root is not None and data.size is None and len(train.sizes) > 1:
        cfg.data.size = first["size"]
    facts, told["problem"] = facts_of(cfg, train, first["size"])
    facts = complete(cfg, facts)
    with open_dict(cfg):
        if cfg.g_steps is not None:
            cfg.max_kimg = cfg.g_steps * cfg.n_critic * cfg.data.batch_size / 1000
    settings: Any = OmegaConf.to_container(cfg, resolve=True)
    told["model"], told["shape"] = model, facts["shape"]
    up_to = {"kept_up_to": given.get("memory", 4), "mapped_up_to": given.get("disk", 0)}
    told["memory"] = {"data": train.count * size_of(facts["shape"])}
    told["memory"] |= {name: int(gib * 2**30) for name, gib in up_to.items()}
    told["played"] = played(settings, own["seconds"]) if own["seconds"] else None
    if (speed := told["played"]) and "bytes" in speed:
        first |= room_for(speed, first["batch_size"])
    where = Path(own["output"] or Path(settings["paths"]["outputs"]) / "checks" / data.title.replace(" ", "_"))
    told["sheet"] = sheet(data, looked, facts["shape"], own, where)
    write_text(where / "check.json", json.dumps(told, indent=1, default=str))
    print("\n" + "\n".join(f"{name:<11} {line}" for name, line in lines(told, settings, train)))
    print(f"{'pictures':<11} {relative(str(where))}/sheet.png" if told["sheet"] else f"{'pictures':<11} none")
    print(f"{'all of it':<11} {relative(str(where))}/check.json")
    return told


def look(data: Any) -> dict[str, Any]:
    """{"train", "test": what is in these parts, test None with "why_no_test", "root" of a folder of files or None}."""
    from ganlab.data.folder import Folder
    from ganlab.data.survey import survey_folder, survey_samples
    from ganlab.files import Unavailable

    if isinstance(data, Folder):
        if type(data) is not Folder:
            data.facts()  # unpacks what it comes as
        assert data.root is not None
        return {
            "train": survey_folder(data.root),
            "test": None,
            "why_no_test": "a folder has no test part",
            "root": data.root,
        }
    train, test, why = survey_samples(data.split("train"), "training part"), None, None
    try:
        test = survey_samples(data.split("test"), "test part")
    except (Unavailable, ValueError) as error:
        why = " ".join(str(error).split())
    return {"train": train, "test": test, "why_no_test": why, "root": None}


def contents(data: Any, train: Any, looked: Mapping[str, Any]) -> dict[str, Any]:
    """What is there, in plain values."""
    import numpy as np

    name = lambda i: train.names[i] if train.names else int(i)
    copies, test = train.copies(), looked["test"]
    names = train.class_names or getattr(data, "class_names", None)
    counts: dict[str, int] = {}
    torn: list[list[int]] = []
    if train.label is not None:
        of_class = np.bincount(train.label, minlength=len(names or ()))
        counts = {str(names[i]) if names else str(i): int(n) for i, n in enumerate(of_class)}
        torn = [group for group in copies if len({int(train.label[i]) for i in group}) > 1]
    told: dict[str, Any] = {
        "data": data.title, "count": train.count, "bytes": train.nbytes, "formats": dict(train.formats),
        "modes": dict(train.modes), "other_files": train.others, "seconds_to_read": train.seconds,
        "sizes": [{"height": h, "width": w, "count": n} for (h, w), n in train.sizes.most_common(NAMED)],
        "different_sizes": len(train.sizes), "classes": counts,
        "bad_files": len(train.bad), "bad": [{"file": f, "why": why} for f, why in train.bad[:NAMED]],
        "copies": sum(len(group) - 1 for group in copies),
        "copied": [[name(i) for i in group[:20]] for group in copies[:NAMED]],
        "copies_under_several_classes": [[name(i) for i in group[:20]] for group in torn[:NAMED]],
        "test": test and test.count, "why_no_test": looked["why_no_test"],
    }  # fmt: skip
    if test is not None:
        told["test_images_in_training"] = [int(i) for i in test.also_in(train)]
    if train.sizes:
        sides = train.short_sides()
        told["short_side"] = {"least": int(sides[0]), "median": int(np.median(sides)), "most": int(sides[-1])}
    return told


def suggested(train: Any, data: Any, batch_size: int) -> dict[str, Any]:
    """{"size": [height, width], "batch_size", "r1_weight"} to begin with; size and weight None without images.

    The size is data.size if that is set; the images' own if it is one that the models can make; else the largest power
    of two that half of the images reach on their shorter side, 8 at least. The weight is 0.0002 * pixels / batch size,
    with which Karras et al. 2020 (arXiv:2006.06676) begin where nothing better is known; it is R1's gamma.
    """
    import numpy as np

    from ganlab.nn.pyramid import pyramid

    batch = batch_size
    while batch > 8 and batch > train.count:
        batch //= 2
    if not train.sizes:
        return {"size": None, "batch_size": batch, "r1_weight": None}
    size = list(getattr(data, "size", None) or next(iter(train.sizes)))
    if getattr(data, "size", None) is None:
        try:
            pyramid(size[0], size[1], "")
            fits = len(train.sizes) == 1
        except ValueError:
            fits = False
        if not fits:
            size = [max(8, 1 << (int(np.median(train.short_sides())).bit_length() - 1))] * 2
    return {"size": size, "batch_size": batch, "r1_weight": 0.0002 * size[0] * size[1] / batch}


def facts_of(cfg: DictConfig, train: Any, size: list[int] | None) -> tuple[dict[str, Any], str | None]:
    """(what networks must know of the data, why a run would not begin or None)"""
    from ganlab.files import Unavailable
    from ganlab.settings import made

    given: Any = OmegaConf.to_container(cfg.data, resolve=True)
    try:
        return made(given).facts(), None
    except (ValueError, Unavailable) as error:
        grey = not any("colour" in mode for mode in train.modes)
        classes = len(train.class_names) if train.class_names else None
        of_labels = {"classes": classes, "class_names": train.class_names, "frequencies": None, "several": False}
        shape = [given["channels"] or (1 if grey else 3), *(size or ())]
        return {"shape": shape, **of_labels}, " ".join(str(error).split())


def played(settings: dict[str, Any], seconds: float) -> dict[str, Any]:
    """How fast the game is on this machine, or why it can't be played."""
    from ganlab.settings import build
    from ganlab.tryout import tried

    try:
        told = tried(build(settings), settings, seconds)
    except (ValueError, RuntimeError) as error:  # the latter: memory does not suffice
        return {"why_not": " ".join(str(error).split())[:300]}
    return {**told, "max_kimg": settings["max_kimg"], "seconds": told["sec_per_kimg"] * settings["max_kimg"]}


def room_for(speed: Mapping[str, Any], batch: int) -> dict[str, Any]:
    """{"bytes" for that batch, "bytes_free", "micro_batches" where it would not fit at once}"""
    free = free_bytes("cuda" if speed["device"].startswith("cuda") else "cpu")
    needed = lambda parts: int(speed["bytes"]["fixed"] + speed["bytes"]["per_sample"] * batch / parts)
    parts = 1
    while free is not None and needed(parts) > 0.8 * free and parts < batch:
        parts *= 2
    return {"bytes": needed(parts), "bytes_free": free, "micro_batches": parts}


def free_bytes(device: str) -> int | None:
    import torch

    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # not everywhere
        return None


def sheet(data: Any, looked: Mapping[str, Any], shape: Any, own: Mapping[str, Any], where: Path) -> bool:
    """Writes sheet.png: a row for each class, or rows of any; images as networks are shown them."""
    import numpy as np

    from ganlab.data.survey import tiles
    from ganlab.pictures import save_rows

    train = looked["train"]
    if len(shape) != 3 or not train.count:
        return False
    names, rng = train.class_names or getattr(data, "class_names", None), np.random.default_rng(0)
    rows: list[tuple[str, Any]] = []
    if train.label is not None:
        for c in np.unique(train.label)[: own["classes"]].tolist():
            rows.append((str(names[c]) if names else str(c), np.flatnonzero(train.label == c)))
    else:
        rows = [("", part) for part in np.array_split(rng.permutation(train.count), own["classes"]) if len(part)]
    pictures = []
    for name, numbers in rows:
        chosen = np.sort(rng.choice(numbers, min(len(numbers), own["columns"]), replace=False)).tolist()
        pictures.append((name, tiles(data, looked["root"], train, chosen, shape)))
    save_rows(pictures, where / "sheet.png", own["columns"])
    return True


def lines(told: Mapping[str, Any], settings: Mapping[str, Any], train: Any) -> list[tuple[str, str]]:
    """What is printed: (what it is about, what there is to say)."""
    few = lambda counts: ", ".join(f"{k} {v:,}" for k, v in sorted(counts.items(), key=lambda item: -item[1])[:10])
    kind = "images" if told["sizes"] else "samples"
    disk = f", {readable(told['bytes'])}" if told["bytes"] else ""
    test = f"; test part {told['test']:,}" if told["test"] else ""
    out = [("data", f"{told['data']}: {told['count']:,} {kind}{disk}{test}")]
    if told["formats"]:
        others = f"; {told['other_files']:,} files that are no images" if told["other_files"] else ""
        out.append(("files", f"{few(told['formats'])}; {few(told['modes'])}{others}"))
    if told["sizes"]:
        common = ", ".join(f"{s['height']}x{s['width']} ({s['count']:,})" for s in told["sizes"][:3])
        more = f" and {told['different_sizes'] - 3:,} more" if told["different_sizes"] > 3 else ""
        side = told["short_side"]
        span = (
            f"; shorter side {side['least']} to {side['most']}, median {side['median']}" if len(train.sizes) > 1 else ""
        )
        out.append(("sizes", f"{common}{more}{span}"))
    if told["classes"]:
        most, least = max(told["classes"].values()), min(told["classes"].values())
        rare = f"; the largest has {most / max(least, 1):.1f} times the smallest" if most > 1.5 * least else ""
        alone = "; is it the folder that data.root should be?" if len(told["classes"]) == 1 and told["formats"] else ""
        out.append(("classes", f"{len(told['classes'])}: {few(told['classes'])}{rare}{alone}"))
    if told["formats"]:
        out.append(("unreadable", counted(told["bad_files"], [f"{b['file']} ({b['why']})" for b in told["bad"]])))
    if told["sizes"]:
        pairs = [" = ".join(map(str, group[:3])) for group in told["copied"]]
        out.append(("copies", counted(told["copies"], pairs)))
        if torn := told["copies_under_several_classes"]:
            out.append(("", f"{len(torn):,} of them under more than one class: {' = '.join(map(str, torn[0][:3]))}"))
        if "test_images_in_training" in told:
            both = told["test_images_in_training"]
            out.append(("overlap", f"{len(both):,} test images are training images, too" if both else "none with test"))
        elif not told["formats"]:
            out.append(("overlap", f"not looked for: {told['why_no_test']}"))
    memory, first = told["memory"], told["suggested"]
    where, given = "", settings["data"]
    if memory["data"] > memory["kept_up_to"]:
        seconds, where = train.seconds / train.count, f", beyond data.memory={given.get('memory', 4):g} GiB: "
        if "disk" not in given:
            where += "not kept on a GPU"
        elif memory["data"] <= memory["mapped_up_to"]:
            where += f"decoded once, in {lasting(seconds * train.count)}, to the cache folder, and read from there"
        else:
            where += f"and data.disk={given['disk']:g}: decoded in each epoch, {1000 * seconds:.1f} s per 1,000"
    out.append(("memory", f"{readable(memory['data'])} of data at {'x'.join(map(str, told['shape']))}{where}"))
    if first["size"]:
        micro = f" micro_batches={first['micro_batches']}" if first.get("micro_batches", 1) > 1 else ""
        r1 = f"terms=[r1] terms.r1.weight={first['r1_weight']:.2g}"
        size = first["size"][0] if first["size"][0] == first["size"][1] else str(first["size"]).replace(" ", "")
        out.append(("begin with", f"data.size={size} data.batch_size={first['batch_size']}{micro} {r1}"))
    if told["problem"]:
        out.append(("but", f"a run would not begin: {told['problem']}"))
    if speed := told["played"]:
        what = f"{told['model']} at {'x'.join(map(str, told['shape'][1:] or told['shape']))}"
        if "why_not" in speed:
            out.append(("speed", f"{what} can't be played: {speed['why_not']}"))
        else:
            lasts = f"max_kimg={speed['max_kimg']:g} takes {lasting(speed['seconds'])}"
            out.append(("speed", f"{what}: {speed['sec_per_kimg']:.3g} s per kimg on {speed['device']}; {lasts}"))
            free = f" of {readable(first['bytes_free'])} free" if first["bytes_free"] else ""
            out.append(("", f"about {readable(first['bytes'])}{free} for a batch of {first['batch_size']}"))
    return out


def counted(n: int, examples: list[str]) -> str:
    if not n:
        return "none"
    return f"{n:,}: {'; '.join(examples[:3])}" + (f"; {len(examples) - 3:,} more in check.json" if n > 3 else "")


def size_of(shape: Any) -> int:
    """Bytes of a sample in memory."""
    return math.prod(shape) * (1 if len(shape) == 3 else 4)


def readable(n: float) -> str:
    for unit in ("B", "kB", "MB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} GB"


def lasting(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.2g} seconds"


if __name__ == "__main__":
    main()
