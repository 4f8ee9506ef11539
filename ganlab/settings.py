"""From a composed config to settings (plain values) and from settings to objects; what the entries share."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import lightning as L
import torch
from omegaconf import DictConfig, OmegaConf, open_dict

from ganlab import checkpoint, checks, launch, limits, ranks, resume
from ganlab.capture import Recorder
from ganlab.conf import groups, known_keys
from ganlab.gan import GAN
from ganlab.networks import alter, channels_last, compile_in_place, take_over


def prepare(cfg: DictConfig, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The settings as plain values, completed with what only the data knows. What can be refused is refused here: keys
    and combinations first, before any data are read; then the data and weights are fetched that are not at hand.

    overrides   of the command line
    """
    drop_settings_of_what_was_removed(cfg, overrides)
    given: Any = OmegaConf.to_container(cfg)
    known = known_keys(given)
    known["trainer"] |= checks.arguments_of(L.Trainer) or set()
    checks.check_keys(given, known, hydra.utils.get_object)
    limits.check_values(given, limits.TRAIN, hydra.utils.get_object)
    if "_target_" not in cfg.data:
        raise ValueError(f"data: no set was chosen; there are {', '.join(sorted(groups()['data']))}")
    data = made(OmegaConf.to_container(cfg.data, resolve=True))
    facts = complete(cfg, data.facts())
    with open_dict(cfg):
        if cfg.g_steps is not None:
            cfg.max_kimg = cfg.g_steps * cfg.n_critic * cfg.data.batch_size / 1000
            print(f"g_steps={cfg.g_steps:,} moves of G are max_kimg={cfg.max_kimg:,}")
    settings: Any = OmegaConf.to_container(cfg, resolve=True)
    limits.check_values(settings, limits.TRAIN, hydra.utils.get_object)
    alone, devices = not ranks.started_by_others(), launch.processes(settings["trainer"])
    ranks.check_slurm(devices, settings["trainer"]["num_nodes"])
    checks.check_run(settings, devices, launch.gpus(settings["trainer"]), ranks.world())
    resumed, begun = checkpoint.find(settings["resume"], folder=settings["paths"]["output"]), {}
    if resumed is None and settings["resume"] not in (None, "auto"):
        if (Path(settings["resume"]).expanduser() / "result.json").exists():
            raise ValueError(f"resume={settings['resume']}: the run has ended and left no checkpoint to go on from")
        print(f"resume={settings['resume']}: it has no checkpoint yet, and begins anew")
    if resumed is not None:
        begun = checkpoint.load(resumed)
        checks.check_resume(begun["ganlab"]["config"], settings)
    check_weight(settings)
    gan = build(settings)
    if resumed is not None:
        resume.check_fit(gan, begun, resumed)
        gan.load_state_dict(begun["state_dict"])
    if settings["resume"] is not None:
        settings = resume.resumed(settings, resumed, begun)
    if settings["finetune"] and not resumed:
        try:
            lines = take_over(gan, checkpoint.weights(settings["finetune"], "finetune"))
        except ValueError as error:
            raise ValueError(f"finetune={settings['finetune']}: {error}") from None
        print(*(f"finetune: {line}" for line in lines), sep="\n")
    try:
        optimizers = gan.configure_optimizers()
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"optimizer: {error}") from None
    if gan.beta2 is not None and any("betas" not in o.defaults for o in optimizers):
        raise ValueError("beta2 is Adam's, and the optimizer is another: set beta2=null, or optimizer=adam")
    extractors = [made(settings["extractor"])] if settings["metrics"]["enabled"] else []
    for extractor in extractors:
        extractor.check(facts)
    callbacks_and_loggers(settings)
    if alone:  # otherwise Lightning's hooks do it, in one process of several
        data.prepare_data()
        for term in gan.terms.values():
            getattr(term, "prepare", lambda: None)()
        for extractor in extractors:
            extractor.prepare(data)
    return settings


def complete(cfg: DictConfig, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Writes into cfg.data what the data know, and what the task makes of that; returns both."""
    told = dict(facts)
    with open_dict(cfg):
        cfg.data.update(told)
        if hasattr(hydra.utils.get_object(cfg.task._target_), "facts"):
            told |= made(OmegaConf.to_container(cfg.task, resolve=True)).facts(told)
            cfg.data.update(told)
    return told


def callbacks_and_loggers(settings: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    names = [name for name in settings["callbacks"] if name != "evaluate" or settings["metrics"]["enabled"]]
    callbacks = [made(settings["callbacks"][name]) for name in names if settings["callbacks"][name]]
    return callbacks, [made(node) for node in settings["logger"].values() if node]


def drop_settings_of_what_was_removed(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """An experiment's `terms: {r1: {weight: 0.1}}` stays behind when the command line takes r1 itself away, its
    `discriminator: {width: 16}` where the model has none, its `data: {size: 16}` where the data are no images; a
    model's `loss: {weight: ...}` where loss=none.

    Raises:
        ValueError: a term, a score, a loss or a discriminator has settings and was not chosen at all
    """
    if cfg.discriminator is not None and "_target_" not in cfg.discriminator:
        if given := [o for o in overrides if o.lstrip("+").startswith("discriminator")]:
            raise ValueError(f"{given[0]}: this model has no discriminator")
        cfg.discriminator = None
    if cfg.loss is not None and "_target_" not in cfg.loss:
        if given := [o for o in overrides if o.lstrip("+").startswith("loss.")]:
            raise ValueError(f"{given[0]}: there is no adversarial loss")
        cfg.loss = None
    known = checks.arguments_of(hydra.utils.get_object(cfg.data._target_)) if "_target_" in cfg.data else None
    if known is not None and "size" not in known and not any(o.lstrip("+").startswith("data.size") for o in overrides):
        with open_dict(cfg):
            cfg.data.pop("size", None)
    for group in ("terms", "augment", "scores"):
        removed = any(o.lstrip("~").startswith(f"{group}=") for o in overrides)
        with open_dict(cfg):
            for name in [name for name, node in cfg[group].items() if node is not None and "_target_" not in node]:
                if not removed:
                    shipped = ", ".join(sorted(groups()[group]))
                    raise ValueError(
                        f"{group}.{name} has settings, but it was not chosen: add `override /{group}: "
                        f"[{name}]` to the defaults of your yaml, or +{group}=[{name}] to the command. ganlab has "
                        f"{shipped}"
                    )
                del cfg[group][name]


def check_weight(settings: dict[str, Any]) -> None:
    """Refuses networks and batches that this machine has not the memory for, before they take it.

    Raises:
        ValueError: names the key
    """
    batch, shape = settings["data"]["batch_size"], settings["data"]["shape"]
    limits.check_memory(f"data.batch_size={batch}", 4 * batch * math.prod(shape), f"so many samples of {shape}")
    for key in ("generator", "discriminator"):
        try:
            with torch.device("meta"):  # shapes alone
                net = made(settings[key])
            parameters = sum(p.numel() for p in net.parameters()) if net is not None else 0
        except (RuntimeError, AttributeError, TypeError):  # somebody's own, which needs values: `build` will tell
            continue
        sizes = ", ".join(f"{k}={v}" for k, v in settings[key].items() if isinstance(v, int)) if settings[key] else ""
        told = f"its {parameters:,} parameters, their gradients and Adam's averages"
        limits.check_memory(f"{key}: {sizes}", 16 * parameters, told)


def build(settings: dict[str, Any]) -> Any:
    torch.manual_seed(settings["seed"])
    parts = {key: made(settings[key]) for key in sorted(checks.arguments_of(GAN) or ()) if key in settings}
    for group in ("terms", "augment"):
        parts[group] = {name: part for name, part in parts[group].items() if part is not None}
    for player, name in (("G", "generator"), ("D", "discriminator")):
        changes = settings["networks"].get(player) or {}
        checks.refuse_unknown(f"networks.{player}", changes, (checks.arguments_of(alter) or set()) - {"net", "key"})
        if parts[name] is not None:
            alter(parts[name], **changes, key=f"networks.{player}")
        elif any(changes.values()):
            raise ValueError(f"networks.{player}: this model has no {name}")
        if settings["finetune"] and changes.get("init"):
            raise ValueError(f"networks.{player}.init and finetune: the weights come from that run; leave one out")
    gan = GAN(**parts)
    speed = settings.get("speed") or {}
    if speed.get("channels_last"):
        channels_last(gan)
    if speed.get("compile"):
        compile_in_place(gan)
    if speed.get("graph"):
        gan.recorder = Recorder()
    if settings["trainer"]["precision"] == "64-true":
        gan.double()  # Lightning does it after the weights of a checkpoint were put in, which would be rounded
    return gan


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
        cause = error.__cause__ or error
        if isinstance(cause, TypeError):  # text in place of a number, say
            raise ValueError(f"{node['_target_'].rpartition('.')[2]} can't be made of {given(node)}: {cause}") from None
        raise cause from None


def given(node: dict[str, Any]) -> str:
    return ", ".join(f"{k}={v}" for k, v in node.items() if not k.startswith("_") and not isinstance(v, dict))
