"""python -m ganlab.baseline kind=gmm data=NAME: a density that is no network, in a run's folder beside the GANs'."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from ganlab.conf import CONF, cache, free_folder
from ganlab.limits import BASELINE, check_values

OmegaConf.register_new_resolver("ganlab.free", free_folder, replace=True, use_cache=True)
OmegaConf.register_new_resolver("ganlab.cache", cache, replace=True)


@hydra.main(version_base="1.3", config_path=CONF, config_name="baseline")
def main(cfg: DictConfig) -> None:
    from ganlab.evaluate import resolved
    from ganlab.files import Unavailable
    from ganlab.report import claim, story

    job = HydraConfig.get()
    try:
        settings = resolved(cfg, BASELINE)
        check(settings)
        overrides = [o for o in job.overrides.task if not o.startswith("kind=")]  # it stands where a model's name does
        told = story(overrides, {**job.runtime.choices, "model": settings["kind"]})
        claim(job.runtime.output_dir, None, told | {"seed": settings["seed"]})
        baseline(settings, Path(job.runtime.output_dir), overrides)
    except (ValueError, Unavailable) as error:
        sys.exit(f"error: {error}")


def check(settings: dict[str, Any]) -> None:
    """Raises ValueError for what can't work, before anything is read."""
    from ganlab.checks import check_targets

    check_values(settings, BASELINE, hydra.utils.get_object)
    for group in ("extractor", "scores"):
        check_targets(group, settings[group], hydra.utils.get_object)
    for key in ("components", "bandwidths"):
        if settings[key] == []:
            raise ValueError(f"{key}=[]: give one number or several")
    if not settings["metrics"]["enabled"] or not settings["scores"]:
        raise ValueError("a baseline is there to be scored: name a score, and leave metrics.enabled=true")
    pca = settings["pca"]
    if pca is not None and not (isinstance(pca, int) or 0 < pca < 1):
        raise ValueError(f"pca={pca}: a number of components, or a share of the variance above 0 and below 1, or null")


def baseline(settings: dict[str, Any], folder: Path, overrides: list[str]) -> dict[str, Any]:
    """Fits, draws, scores; writes what a run of training leaves behind, but for checkpoints; returns the result.

    Raises:
        ValueError: the data are no pictures or points, or a setting does not go with them
    """
    import torch
    import yaml

    from ganlab.files import write_text
    from ganlab.metrics.fit import as_floats
    from ganlab.metrics.scorer import Scorer
    from ganlab.mixture import NAMES, fit, widths
    from ganlab.pictures import save_sheet
    from ganlab.settings import made

    data, extractor, metrics = made(settings["data"]), made(settings["extractor"]), settings["metrics"]
    facts, device = data.facts(), torch.device("cpu")
    extractor.check(facts)
    train = data.played()
    real = train.take(torch.arange(len(train)))["real"]
    if not (real.dtype == torch.uint8 and real.dim() == 4) and not (real.is_floating_point() and real.dim() == 2):
        raise ValueError(
            f"data: samples are {real.dtype} {facts['shape']}; a baseline is fitted to images or to points"
        )
    if isinstance(settings["pca"], int) and settings["pca"] > (most := min(len(real), real[0].numel())):
        raise ValueError(f"pca={settings['pca']}: {len(real):,} samples of {facts['shape']} have {most} components")
    sizes = settings["components" if settings["kind"] == "gmm" else "bandwidths"] or widths(as_floats(real))
    sizes = sizes if isinstance(sizes, list) else [sizes]
    if settings["kind"] == "gmm" and max(sizes) > (most := len(real) * 9 // 10):
        raise ValueError(f"components={max(sizes)}: {len(real):,} samples, of which a tenth is held out, make {most:,}")
    extractor.prepare(data)
    scores = {name: made(node) for name, node in settings["scores"].items() if node}
    scorer = Scorer(extractor, scores, *(metrics[key] for key in ("n", "n_real", "batch_size", "seed")))
    key = metrics["monitor"] or next(iter(scorer.names))
    if key not in scorer.names:
        raise ValueError(f"metrics.monitor={key}: must be one of the scores, here {', '.join(scorer.names)}")
    scorer.check(facts["shape"], device, len(data.split("train")), labels=False)
    start, x = time.perf_counter(), as_floats(real)
    mixture, likelihood = fit(
        x, settings["kind"], sizes, pca=settings["pca"], floor=settings["floor"], seed=settings["seed"]
    )
    seconds = time.perf_counter() - start
    reference = scorer.reals(data, "train", device) if scorer.needs_reals else None
    look = lambda first, count: {"real": mixture.generate(first, count, metrics["seed"])}
    values = scorer.score(look, facts["shape"], reference, device)
    about = f"{data.title} train", data.fingerprint("train"), reference.n if reference else None
    protocol, name = scorer.protocol(NAMES[settings["kind"]], *about), scorer.name(key)
    owner, value, kimg = scorer.owner(key), values[name], len(train) / 1000
    result: dict[str, Any] = {
        "status": "done", "overrides": overrides, "kimg": kimg, "seconds": seconds, "score": name,
        "best": value, "best_kimg": kimg, "final": value, "scores": values, "protocol": protocol.plain(),
        "protocol_id": protocol.id(owner), "lower_is_better": not scores[owner].higher_is_better,
        "best_checkpoint": None, "held_out": {f"{size:g}": v for size, v in likelihood.items() if len(likelihood) > 1},
        "dimensions": mixture.means.shape[1], "parts": len(mixture.means),
    }  # fmt: skip
    config = {**settings, "trainer": {"precision": "64-true"}}  # as the libraries fit
    n = settings["rows"] * settings["columns"]
    pictures = made(settings["task"]).show(mixture.generate(0, n if len(facts["shape"]) == 3 else 10_000))
    save_sheet(pictures, folder / "samples" / f"fakes_{round(kimg):06d}.png", settings["columns"])
    write_text(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    write_text(folder / "result.json", json.dumps(result, indent=1))
    chosen = max(likelihood, key=lambda size: likelihood[size])
    word = "components" if settings["kind"] == "gmm" else "bandwidth"
    print(f"score     {name} {value:.4g}", f"protocol  {protocol.text()}", sep="\n")
    print(f"fitted    {word} {chosen:.4g}, {mixture.means.shape[1]} dimensions, {seconds:.0f} s")
    print(f"pictures  {folder / 'samples'}")
    return result


if __name__ == "__main__":
    main()
