"""python -m ganlab.evaluate fakes=WHAT data=NAME: scores of a generator, or of any images."""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from ganlab.conf import CONF, cache

OmegaConf.register_new_resolver("ganlab.cache", cache, replace=True)


@hydra.main(version_base="1.3", config_path=CONF, config_name="evaluate")
def main(cfg: DictConfig) -> None:
    from ganlab import launch
    from ganlab.files import Unavailable

    settings: Any = OmegaConf.to_container(cfg, resolve=True)
    try:
        if settings["self_test"]:
            print(self_test(settings))
            return
        processes = launch.processes(settings)
        launch.run(evaluate, settings, processes=processes) if processes > 1 else evaluate(settings)
    except (ValueError, Unavailable, launch.WorkerFailed) as error:
        sys.exit(f"error: {error}")


def check(settings: dict[str, Any]) -> None:
    """Raises ValueError for what can't work, before anything is read."""
    from ganlab import checks, launch

    if settings["fakes"] is None:
        raise ValueError(
            "fakes is not set: a checkpoint, a run's folder, a folder of images, ... as in fakes=outputs/RUN"
        )
    if settings["generator"] not in ("G_ema", "G"):
        raise ValueError(f"generator={settings['generator']}: must be G_ema or G")
    locate = hydra.utils.get_object
    for group in ("extractor", "scores", "data"):
        checks.check_targets(group, settings[group], locate)
    gpus, wanted = launch.gpus(settings), launch.processes(settings)
    if gpus and wanted > gpus:
        raise ValueError(f"devices={wanted}, and this machine has {gpus} GPU(s): use accelerator=cpu, or fewer")
    if settings["reals"] is not None and settings["data"] is not None and settings["fakes"] not in ("train", "test"):
        raise ValueError("reals and data are two ways to say what to compare with: give one of them")


def evaluate(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """One process's part: scores, prints the table, writes the files; returns a result for each seed."""
    import torch

    from ganlab.metrics.scorer import Scorer, place
    from ganlab.settings import made
    from ganlab.tables import aligned

    check(settings)
    device = join_group(settings)
    extractor = made(settings["extractor"])
    scores = {name: made(node) for name, node in settings["scores"].items() if node}
    data = made(settings["data"])
    fakes, shape, labels = opened(settings, data, device)
    reals, reference_name = compared_with(settings, data)
    if reals is None and reference_name is None and any(score.reals for score in scores.values()):
        raise ValueError("nothing to compare with: give data=NAME, or reals=PLACE")
    about = reals or data
    facts: dict[str, Any] = about.facts() if about is not None else {}
    extractor.check({"classes": None} | facts | {"shape": shape})
    if reals is not None and list(reals.facts()["shape"]) != list(shape):
        raise ValueError(different(shape, reals.facts()["shape"]))
    if place()[0] == 0:
        extractor.prepare(about)
    if place()[1] > 1:
        torch.distributed.barrier()
    extractor.prepare(about)
    extractor.to(device)
    results: list[dict[str, Any]] = []
    generator = hasattr(fakes, "task")
    for seed in settings["seeds"] if generator else [0]:
        n = settings["n"] or (50_000 if generator else len(fakes.split("fakes")))
        scorer = Scorer(extractor, scores, n, settings["n_real"], settings["batch_size"], seed)
        reference, told = None, None
        if scorer.needs_reals:
            reference, told = reference_of(settings, scorer, reals, device)
        look = scorer.looking_at(fakes) if generator else looking(fakes, settings)
        values = scorer.score(look, shape, reference, device, labels)
        name = settings["generator"] if generator else fakes.title
        more = {"truncation": settings["truncation"], "kimg": getattr(fakes, "kimg", None)}
        protocol = scorer.protocol(name, told, reference.n if reference else None, **more)
        results.append({"fakes": str(settings["fakes"]), "seed": seed, "scores": values, "protocol": protocol.plain()})
    if place()[0] == 0:
        print(f"\n{aligned([row(key, results) for key in values])}\n\nprotocol  {protocol.text()}")
        write(settings, results, f"{extractor.name}-{protocol.id(next(iter(scores)))}.json")
    return results


def row(key: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """A line of the table: one score, over the seeds."""
    values = [result["scores"][key] for result in results]
    if len(values) == 1:
        return {"score": key, "value": values[0]}
    seeds = {f"seed {result['seed']}": value for result, value in zip(results, values, strict=True)}
    return {"score": key, "mean": statistics.fmean(values), "deviation": statistics.stdev(values), **seeds}


def join_group(settings: dict[str, Any]) -> Any:
    """This process's device; with several processes, they find each other."""
    import os

    import torch

    from ganlab import launch

    cuda = launch.gpus(settings) > 0
    rank = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if launch.processes(settings) > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if cuda else "gloo")
    return device


def opened(settings: dict[str, Any], data: Any, device: Any) -> tuple[Any, list[int], bool]:
    """(a generator or a set of images, the shape of one, whether there are labels)"""
    import torch

    from ganlab.checkpoint import Sampler
    from ganlab.data.places import Place, images_at

    what = str(settings["fakes"])
    path = Path(what).expanduser()
    if what in ("train", "test"):
        if data is None:
            raise ValueError(f"fakes={what} is a part of a data set: say which, as in data=cifar10")
        facts = data.facts()
        place = Place(f"{data.title} {what} ({data.fingerprint(what)})", data.split(what), facts["shape"])
        return place, facts["shape"], bool(facts["classes"])
    if (path / "checkpoints").is_dir():
        best = path / "checkpoints" / "best.ckpt"
        path = best if best.exists() else path / "checkpoints" / "last.ckpt"
    if path.suffix != ".ckpt":
        found = images_at(path)
        return found, found.facts()["shape"], found.facts()["classes"] is not None
    sampler = Sampler.load(path, settings["trust"], ema=settings["generator"] == "G_ema").to(device)
    if settings["truncation"] is not None:
        sampler.truncate(settings["truncation"])
    shape = list(sampler.generate(0, 1).shape[1:])
    torch.manual_seed(0)
    return sampler, shape, getattr(sampler.task, "classes", None) is not None


def compared_with(settings: dict[str, Any], data: Any) -> tuple[Any, str | None]:
    """(the set of reals or None, the name of published statistics or None)"""
    from ganlab.data.places import images_at, is_statistics, short_digest

    if settings["reals"] is None:
        return data, None
    if is_statistics(settings["reals"]):
        return None, f"{Path(settings['reals']).name} ({short_digest(Path(settings['reals']).expanduser())})"
    return images_at(settings["reals"]), None


def reference_of(settings: dict[str, Any], scorer: Any, reals: Any, device: Any) -> tuple[Any, str]:
    """(what the scores read of the reals, how a protocol calls them)"""
    from ganlab.metrics.scorer import as_kept, place, read_arrays, save_arrays

    if reals is None:
        kept = as_kept(read_arrays(Path(settings["reals"]).expanduser()))
        return kept, compared_with(settings, None)[1] or ""
    split = settings["split"] if settings["reals"] is None else "all"
    kept = scorer.reals(reals, split, device)
    if settings["statistics"] is not None and place()[0] == 0:
        save_arrays(settings["statistics"], kept)
        print(f"statistics of the reals: {settings['statistics']}")
    return kept, f"{reals.title} {split} ({reals.fingerprint(split)})"


def looking(images: Any, settings: dict[str, Any]) -> Any:
    """(first, count) -> images of a set."""
    import torch

    samples = images.split("fakes")
    if (settings["n"] or 0) > len(samples):
        raise ValueError(f"n={settings['n']}, and there are only {len(samples)} images")
    return lambda first, count: samples.take(torch.arange(first, first + count))


def different(fakes: Any, reals: Any) -> str:
    kind = lambda shape: f"{shape[0]} channel(s) of {'x'.join(map(str, shape[1:]))}"
    fix = f"data.size=[{fakes[1]},{fakes[2]}] data.channels={fakes[0]}" if len(fakes) == 3 else "another data set"
    return f"the fakes are {kind(list(fakes))} and the reals {kind(list(reals))}: make them alike, as with {fix}"


def write(settings: dict[str, Any], results: list[dict[str, Any]], name: str) -> None:
    """The results as JSON, where they are asked for, or beside the run that the checkpoint is of."""
    from ganlab.files import write_text

    path = Path(settings["output"]) if settings["output"] else None
    run = Path(str(settings["fakes"])).expanduser()
    run = run.parent.parent if run.suffix == ".ckpt" else run
    if path is None and (run / "checkpoints").is_dir():
        path = run / "evaluations" / name
    if path is not None:
        write_text(path, json.dumps(results, indent=1))
        print(f"results   {path}")


KNOWN = {"fid_inception": 3.15, "is_inception": 11.24}  # CIFAR-10: test against train, and train (50,000 images)


def self_test(settings: dict[str, Any]) -> str:
    """Whether FID and Inception Score are what they are known to be on real images. Says why where it can't tell."""
    from ganlab.files import Unavailable

    common = {"reals": None, "n_real": None, "seeds": [0], "truncation": None, "output": None, "statistics": None}
    at = "ganlab.metrics."
    tests = (
        ("fid_inception", "test", {"fid": {"_target_": f"{at}frechet.FID"}}),
        ("is_inception", "train", {"is": {"_target_": f"{at}diversity.InceptionScore"}}),
    )
    data = settings["data"] or {"_target_": "ganlab.data.sets.CIFAR10", "root": f"{settings['paths']['data']}/cifar10"}
    extractor = settings["extractor"]
    found: dict[str, float] = {}
    try:
        for name, part, scores in tests:
            what = {
                **settings,
                **common,
                "fakes": part,
                "data": data,
                "extractor": extractor,
                "scores": scores,
                "n": None,
            }
            values = evaluate(what)[0]["scores"]
            found[name] = next(v for k, v in values.items() if "_std" not in k)
    except Unavailable as error:
        return f"skipped: {error}"
    wrong = {k: v for k, v in found.items() if abs(v - KNOWN[k]) > 0.005 * KNOWN[k] + 0.005}
    text = ", ".join(f"{k} {v:.3f} (known: {KNOWN[k]})" for k, v in found.items())
    if wrong:
        raise ValueError(f"self-test failed: {text}")
    return f"self-test passed: {text}"


if __name__ == "__main__":
    main()
