"""From a composed config to settings (plain values) and from settings to objects; what the entries share."""

from typing import Any

import hydra
import lightning as L
import torch
from omegaconf import DictConfig, OmegaConf, open_dict

from ganlab import checkpoint, checks, launch
from ganlab.conf import groups, known_keys
from ganlab.gan import GAN


def prepare(cfg: DictConfig) -> dict[str, Any]:
    """The settings as plain values, completed with what only the data knows. What can be refused is refused here: keys
    and combinations first, before any data are read; then the data and weights are fetched that are not at hand."""
    drop_settings_of_terms_not_chosen(cfg)
    known = known_keys()
    known["trainer"] |= checks.arguments_of(L.Trainer) or set()
    checks.check_keys(OmegaConf.to_container(cfg), known, hydra.utils.get_object)  # type: ignore[arg-type]
    data = made(OmegaConf.to_container(cfg.data, resolve=True))
    facts = data.facts()
    with open_dict(cfg):
        cfg.data.update(facts)
        if cfg.g_steps is not None:
            cfg.max_kimg = cfg.g_steps * cfg.n_critic * cfg.data.batch_size / 1000
            print(f"g_steps={cfg.g_steps:,} moves of G are max_kimg={cfg.max_kimg:,}")
    settings: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    processes = launch.processes(settings["trainer"])
    gpus, alone = launch.gpus(settings["trainer"]["accelerator"]), not launch.started_by_others()
    checks.check_run(settings, processes, gpus, alone)
    if (resumed := checkpoint.find(settings["resume"])) is not None:
        checks.check_resume(checkpoint.load(resumed)["ganlab"]["config"], settings)
    build(settings)
    extractors = [made(settings["extractor"])] if settings["metrics"]["enabled"] else []
    for extractor in extractors:
        extractor.check(facts)
    callbacks_and_loggers(settings)
    if alone:  # otherwise Lightning's hooks do it, in one process of several
        data.prepare_data()
        for extractor in extractors:
            extractor.prepare(data)
    return settings


def callbacks_and_loggers(settings: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    names = [name for name in settings["callbacks"] if name != "evaluate" or settings["metrics"]["enabled"]]
    callbacks = [made(settings["callbacks"][name]) for name in names if settings["callbacks"][name]]
    return callbacks, [made(node) for node in settings["logger"].values() if node]


def drop_settings_of_terms_not_chosen(cfg: DictConfig) -> None:
    """An experiment's `terms: {r1: {weight: 0.1}}` stays behind when `terms=[]` takes r1 itself away."""
    with open_dict(cfg):
        for name in [name for name, node in cfg.terms.items() if node is not None and "_target_" not in node]:
            if name not in groups()["terms"]:
                raise ValueError(
                    f"terms.{name}: there is no such term. Known here: {', '.join(sorted(groups()['terms']))}"
                )
            del cfg.terms[name]


def build(settings: dict[str, Any]) -> Any:
    torch.manual_seed(settings["seed"])
    return GAN(**{key: made(settings[key]) for key in sorted(checks.arguments_of(GAN) or ()) if key in settings})


def made(node: Any) -> Any:
    """What a config node describes. What a constructor raises comes through; facts are left out of a data node."""
    if not isinstance(node, (dict, list)):
        return node
    if isinstance(node, dict) and "_target_" in node:
        known = checks.arguments_of(hydra.utils.get_object(node["_target_"]))
        node = {k: v for k, v in node.items() if known is None or k in known or k.startswith("_")}
    try:
        return hydra.utils.instantiate(node, _convert_="all")
    except hydra.errors.InstantiationException as error:
        raise error.__cause__ or error from None
