"""python -m ganlab.evaluate fakes=WHAT data=NAME: scores of a generator, or of any images."""

import hashlib
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf, open_dict

from ganlab.conf import CONF, cache

OmegaConf.register_new_resolver("ganlab.cache", cache, replace=True)


@hydra.main(version_base="1.3", config_path=CONF, config_name="evaluate")
def main(cfg: DictConfig) -> None:
    from ganlab import launch, limits, ranks
    from ganlab.files import Unavailable

    try:
        settings = resolved(cfg, limits.EVALUATE)
        if settings["self_test"]:
            print(self_test(settings))
            return
        check(settings)
        if ranks.by_slurm():
            raise ValueError(
                "ganlab.evaluate starts its processes itself, as devices= says: start it once, without srun"
            )
        processes = launch.processes(settings)
        if ranks.started_by_others() or processes == 1:
            evaluate(settings)
        else:
            launch.run(evaluate, settings, processes=processes)
    except (ValueError, Unavailable, launch.WorkerFailed) as error:
        sys.exit(f"error: {error}")


def resolved(cfg: DictConfig, kinds: dict[str, Any] | None = None) -> dict[str, Any]:
    """The settings as plain values, completed with what only the data knows.

    kinds   {key: of which kind its value must be}
    """
    from ganlab import checks, limits
    from ganlab.settings import made

    plain: Any = OmegaConf.to_container(cfg)
    limits.check_values(plain, kinds or {}, hydra.utils.get_object)
    if cfg.data is not None:
        given = OmegaConf.to_container(cfg.data, resolve=True)
        checks.check_targets("data", given, hydra.utils.get_object)
        data = made(given)
        with open_dict(cfg):
            cfg.data.update(data.facts())
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


def check(settings: dict[str, Any]) -> None:
    """Raises ValueError for what can't work, before anything is read."""
    from ganlab import checks, launch, limits

    limits.check_values(settings, limits.EVALUATE, hydra.utils.get_object)
    fakes, seeds = settings["fakes"], settings["seeds"]
    if fakes is None:
        raise ValueError("fakes is not set: a checkpoint, a run's folder, a folder of images, ...: fakes=outputs/RUN")
    part, place = fakes in ("train", "test"), Path(str(fakes)).expanduser()
    if part and place.exists():
        raise ValueError(
            f"fakes={fakes} may mean that part of the data, or ./{fakes}: write fakes=./{fakes} for the latter"
        )
    if not part and not place.exists():
        raise ValueError(f"fakes={fakes}: there is no such file or folder")
    if part and settings["data"] is None:
        raise ValueError(f"fakes={fakes} is a part of a data set: say which, as in data=cifar10")
    if not seeds:
        raise ValueError(f"seeds={seeds}: must be a list of whole numbers, as in seeds=[0,1,2]")
    if not is_generator(place) and (
        settings["truncation"] is not None or settings["standing"] or len(seeds) > 1 or settings["generator"] == "G"
    ):
        raise ValueError("truncation, standing, seeds and generator are for generators, and fakes are images")
    for group in ("extractor", "scores"):
        checks.check_targets(group, settings[group], hydra.utils.get_object)
    gpus = launch.gpus(settings)
    if settings["accelerator"] in ("gpu", "cuda") and not gpus:
        raise ValueError("accelerator=gpu, and there is no GPU here: use accelerator=cpu")
    if gpus and settings["devices"] > gpus:
        raise ValueError(f"devices={settings['devices']}, and this machine has {gpus} GPU(s): use fewer, or the CPU")
    if settings["reals"] is not None and settings["data"] is not None and not part:
        raise ValueError("reals and data are two ways to say what to compare with: give one of them")


def is_generator(path: Path) -> bool:
    from ganlab.sharing import folder_of

    return path.suffix == ".ckpt" or (path / "checkpoints").is_dir() or folder_of(path) is not None


def evaluate(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """One process's part: scores, prints the table, writes the files; returns a result for each seed."""
    import torch

    from ganlab.metrics.scorer import Scorer, place
    from ganlab.settings import made
    from ganlab.tables import aligned

    check(settings)
    device = join_group(settings)
    extractor, data = made(settings["extractor"]), made(settings["data"])
    scores = {name: made(node) for name, node in settings["scores"].items() if node}
    fakes, shape, classes = opened(settings, data, device)
    reals, published = compared_with(settings, data)
    about: dict[str, Any] = {"classes": None} | (reals.facts() if reals is not None else {}) | {"shape": shape}
    extractor.check(about)
    if reals is not None and list(reals.facts()["shape"]) != list(shape):
        raise ValueError(different(shape, reals.facts()["shape"], settings))
    if reals is None and published is None and any(score.reals for score in scores.values()):
        raise ValueError("nothing to compare with: give data=NAME, or reals=PLACE")
    generator = hasattr(fakes, "task")
    if not generator and any(hasattr(score, "probe") for score in scores.values()):
        raise ValueError("scores.ppl asks a generator, and fakes are images")
    if settings["statistics"] and not (
        reals is not None and any("moments" in s.reads.values() for s in scores.values())
    ):
        raise ValueError(f"statistics={settings['statistics']} needs scores=[fid] and the reals themselves")
    if place()[0] == 0:
        extractor.prepare(reals)
    if place()[1] > 1:
        torch.distributed.barrier()
    extractor.prepare(reals)
    count = 50_000 if generator else len(fakes.split("all"))
    if not generator and (settings["n"] or 0) > count:
        raise ValueError(f"n={settings['n']}, and there are only {count} images")
    split = (settings["split"] or getattr(reals, "reference", "train")) if settings["reals"] is None else "all"
    if generator and not hasattr(fakes.task, "draw"):
        count = min(count, len(reals.split(split)))
        if (settings["n"] or 0) > count:
            raise ValueError(f"n={settings['n']}, and there are only {count} images for this generator to start from")
    results: list[dict[str, Any]] = []
    for seed in settings["seeds"]:
        scorer = Scorer(extractor, scores, settings["n"] or count, settings["n_real"], settings["batch_size"], seed)
        n_real = len(reals.split(split)) if reals is not None else None
        scorer.check(shape, device, n_real, classes is not None, classes)
        reference: Any = None
        told: tuple[Any, Any, Any] = (None, None, None)
        if reals is not None:
            kept = scorer.reals(reals, split, device) if scorer.needs_reals else None
            reference, told = kept, (f"{reals.title} {split}", reals.fingerprint(split), kept.n if kept else None)
        elif published is not None and scorer.needs_reals:
            reference, told = published[0](extractor.describe()), (published[1], published[2], None)
        starts = reals.split(split) if reals is not None else None
        look = scorer.looking_at(fakes, starts) if generator else looking(fakes, scorer.n)
        values = scorer.score(look, shape, reference, device, classes is not None)
        if any(math.isnan(v) for v in values.values()):
            raise ValueError(
                "the scores are not finite: the generator's samples are not, or a class has too few of them"
            )
        standing = [settings["standing"], settings["batch_size"]] if settings["standing"] else None
        more = {"truncation": settings["truncation"], "standing": standing, "kimg": getattr(fakes, "kimg", None)}
        protocol = scorer.protocol(settings["generator"] if generator else fakes.title, *told, **more)
        results.append({"fakes": str(settings["fakes"]), "seed": seed, "scores": values, "protocol": protocol.plain()})
    if place()[0] == 0:
        others = f" (and seeds {', '.join(map(str, settings['seeds'][:-1]))})" if len(results) > 1 else ""
        print(f"\n{aligned([row(key, results) for key in values])}\n\nprotocol  {protocol.text()}{others}")
        if settings["statistics"]:
            keep_statistics(settings["statistics"], reference, extractor.describe())
        write(settings, results)
    return results


def row(key: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """A line of the table: one score, over the seeds."""
    from ganlab.tables import mean, spread

    values = [result["scores"][key] for result in results]
    if len(values) == 1:
        return {"score": key, "value": values[0]}
    seeds = {f"seed {result['seed']}": value for result, value in zip(results, values, strict=True)}
    return {"score": key, "mean": mean(values), "spread": spread(values), **seeds}


def join_group(settings: dict[str, Any]) -> Any:
    """This process's device; several processes find each other."""
    import torch

    from ganlab import launch, ranks

    cuda = launch.gpus(settings) > 0
    device = torch.device("cuda", ranks.local_rank()) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if cuda else "gloo")
    return device


def opened(settings: dict[str, Any], data: Any, device: Any) -> tuple[Any, list[int], int | None]:
    """(a generator or a set of images, the shape of one, the number of their classes)"""
    from ganlab.checkpoint import Sampler
    from ganlab.data.places import Place, images_at
    from ganlab.sharing import located

    what = str(settings["fakes"])
    path = Path(what).expanduser()
    if what in ("train", "test"):
        facts = data.facts()
        classes = None if facts.get("several") else facts["classes"]
        return Place(f"{data.title} {what}", data.split(what), facts["shape"]), facts["shape"], classes
    if not is_generator(path):
        found = images_at(path)
        return found, found.facts()["shape"], found.facts()["classes"]
    sampler = Sampler.load(located(path), settings["trust"], ema=settings["generator"] == "G_ema").to(device)
    if settings["truncation"] is not None:
        sampler.truncate(settings["truncation"])
    if settings["standing"]:
        sampler.standing(settings["standing"], settings["batch_size"])
    if data is not None and hasattr(sampler.task, "facts"):
        sampler.task.facts(data.facts())  # refuses what this generator can't start from, or be compared with
    classes = None if getattr(sampler.task, "several", False) else getattr(sampler.task, "classes", None)
    if not hasattr(sampler.task, "draw"):
        if data is None:
            raise ValueError(f"fakes={what} starts from images: say which, as in data=side_by_side split=test")
        return sampler, data.facts()["shape"], None
    return sampler, list(sampler.generate(0, 1).shape[1:]), classes


def compared_with(settings: dict[str, Any], data: Any) -> tuple[Any, Any]:
    """(the set of reals or None, published statistics or None: how to load them, their name, their digest)"""
    from ganlab.data.places import images_at, is_statistics
    from ganlab.files import digest
    from ganlab.metrics.scorer import load_statistics

    if settings["reals"] is None:
        return data, None
    path = Path(settings["reals"]).expanduser()
    if is_statistics(path):
        return None, (lambda about: load_statistics(path, about), path.name, digest(path)[:16])
    return images_at(path), None


def looking(images: Any, n: int) -> Any:
    """(first, count) -> images of a set."""
    from ganlab.metrics.scorer import chosen_of

    samples = images.split("all")
    chosen = chosen_of(len(samples), n)
    return lambda first, count: samples.take(chosen[first : first + count])


def different(fakes: Any, reals: Any, settings: dict[str, Any]) -> str:
    kind = lambda x: f"{x[0]} channel(s) of {'x'.join(map(str, x[1:]))}" if len(x) > 2 else f"of the shape {x}"
    size = f"[{fakes[1]},{fakes[2]}]" if len(fakes) == 3 else None
    own = settings["reals"] is None and size is not None
    fix = f": make them alike, as with data.size={size} data.channels={fakes[0]}" if own else ""
    return f"the fakes are {kind(list(fakes))} and the reals {kind(list(reals))}{fix}"


def keep_statistics(path: str, kept: Any, about: str) -> None:
    from ganlab.metrics.scorer import PUBLISHED, save_statistics
    from ganlab.metrics.scores import Kept

    save_statistics(path, Kept(kept.n, {k: v for k, v in kept.arrays.items() if k in PUBLISHED}), about)
    print(f"statistics of the reals: {path}")


def write(settings: dict[str, Any], results: list[dict[str, Any]]) -> None:
    """The results as JSON, where they are asked for, or beside the run that the checkpoint is of."""
    from ganlab.files import write_text

    path = Path(settings["output"]) if settings["output"] else None
    place = Path(str(settings["fakes"])).expanduser()
    run = place.parent.parent if place.suffix == ".ckpt" else place
    if path is None and (run / "checkpoints").is_dir():
        asked = json.dumps([[r["fakes"], r["seed"], r["protocol"]] for r in results], sort_keys=True)
        name = f"{place.stem}-" if place.suffix == ".ckpt" else ""
        kind = hashlib.blake2b(asked.encode(), digest_size=4).hexdigest()
        path = run / "evaluations" / f"{name}{'-'.join(results[0]['protocol']['scores'])[:60]}-{kind}.json"
    if path is not None:
        write_text(path, json.dumps(results, indent=1))
        print(f"results   {path}")


KNOWN = {"fid": 3.15, "is": 11.24}  # CIFAR-10 through Inception: test against train, and train (50,000 images)


def self_test(settings: dict[str, Any]) -> str:
    """Whether FID and Inception Score are what they are known to be on real images. Says why where it can't tell.

    Raises:
        ValueError: they are not, or other data or another extractor was asked for
    """
    from ganlab.files import Unavailable

    data = settings["data"] or {"_target_": "ganlab.data.sets.CIFAR10", "root": f"{settings['paths']['data']}/cifar10"}
    extractor = settings["extractor"]
    if data["_target_"] != "ganlab.data.sets.CIFAR10" or not extractor["_target_"].endswith(".Inception"):
        raise ValueError("the self-test is of CIFAR-10 through Inception: leave data and extractor away, but for paths")
    common = {"reals": None, "n": None, "n_real": None, "seeds": [0], "truncation": None, "standing": 0, "output": None,
              "statistics": None, "generator": "G_ema", "split": "train", "data": data,
              "extractor": {**extractor, "resize": "tf1"}}  # fmt: skip
    asked = {
        "fid": {"fakes": "test", "scores": {"fid": {"_target_": "ganlab.metrics.frechet.FID"}}},
        "is": {"fakes": "train", "scores": {"is": {"_target_": "ganlab.metrics.diversity.InceptionScore"}}},
    }
    found: dict[str, float] = {}
    try:
        for name, what in asked.items():
            found[name] = next(iter(evaluate({**settings, **common, **what})[0]["scores"].values()))
    except Unavailable as error:
        return f"skipped: {error}"
    text = ", ".join(f"{k} {v:.3f} (known: {KNOWN[k]})" for k, v in found.items())
    if any(abs(v - KNOWN[k]) > 0.005 * KNOWN[k] + 0.005 for k, v in found.items()):
        raise ValueError(f"self-test failed: {text}")
    return f"self-test passed: {text}"


if __name__ == "__main__":
    main()
