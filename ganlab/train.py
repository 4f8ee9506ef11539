"""python -m ganlab: compose, check, train, score. Nothing heavy is imported before the config is composed."""

import logging
import math
import sys
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from ganlab.conf import CONF, known_keys, options

log = logging.getLogger("ganlab")
OmegaConf.register_new_resolver("ganlab.options", options, replace=True)


@hydra.main(version_base="1.3", config_path=CONF, config_name="train")
def main(cfg: DictConfig) -> float:
    """Trains, and returns the best monitored score (nan where there is none)."""
    from ganlab import launch, report

    folder, sweeping = HydraConfig.get().runtime.output_dir, HydraConfig.get().mode == RunMode.MULTIRUN
    try:
        settings = prepare(cfg)
        story = report.story(list(HydraConfig.get().overrides.task))
        processes = launch.processes(settings["trainer"])
        if launch.started_by_others() or (processes == 1 and not sweeping):
            return train(settings, folder, story)
        return launch.run(train, settings, folder, story, processes=processes)
    except Exception as error:
        if sweeping:
            log.error("this job failed: %s", error)
            report.failed(folder, error)
            return math.inf
        if isinstance(error, report.EXPECTED):
            sys.exit(f"error: {error}")
        raise


def prepare(cfg: DictConfig) -> dict[str, Any]:
    """The settings as plain values, completed with what only the data knows. What can be refused is refused here: keys
    and combinations first, before any data are read; then the data and weights are fetched that are not at hand."""
    from ganlab import checks, launch

    checks.check_keys(OmegaConf.to_container(cfg), known_keys(), hydra.utils.get_object)  # type: ignore[arg-type]
    data = made(OmegaConf.to_container(cfg.data, resolve=True))
    facts = data.facts()
    with open_dict(cfg):
        cfg.data.update(facts)
        if cfg.g_steps is not None:
            cfg.max_kimg = cfg.g_steps * cfg.n_critic * cfg.data.batch_size / 1000
            print(f"g_steps={cfg.g_steps:,} moves of G are max_kimg={cfg.max_kimg:,}")
    settings: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    processes = launch.processes(settings["trainer"])
    checks.check_run(settings, processes, launch.gpus(settings["trainer"]["accelerator"]))
    build(settings)
    if settings["metrics"]["enabled"]:
        extractor = made(settings["extractor"])
        extractor.check(facts)
        data.prepare_data()
        extractor.prepare(data)
    else:
        data.prepare_data()
    return settings


def build(settings: dict[str, Any]) -> Any:
    import torch

    from ganlab.checks import arguments_of
    from ganlab.gan import GAN

    torch.manual_seed(settings["seed"])
    return GAN(**{key: made(settings[key]) for key in sorted(arguments_of(GAN) or ()) if key in settings})


def train(settings: dict[str, Any], folder: str, story: dict[str, Any]) -> float:
    """One process's part of a run: trains and scores; returns the best monitored score."""
    import lightning as L
    from lightning.pytorch.strategies import DDPStrategy

    from ganlab import checkpoint, launch, report
    from ganlab.callbacks.saving import StoreConfig

    report.quiet(settings)
    given = {k: v for k, v in settings["trainer"].items() if v is not None}
    several = launch.processes(given) * given["num_nodes"] > 1
    if several:
        given["strategy"] = DDPStrategy(find_unused_parameters=True, broadcast_buffers=False)
    data, gan = made(settings["data"]), build(settings)
    callbacks = [made(node) for name, node in settings["callbacks"].items() if node and report.wanted(name, settings)]
    data.events = [callback.every for callback in callbacks if hasattr(callback, "every")]
    trainer = L.Trainer(
        **given, max_epochs=-1, logger=[made(node) for node in settings["logger"].values() if node],
        callbacks=[*callbacks, StoreConfig(settings)], plugins=[checkpoint.AtomicIO()], enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0,
        use_distributed_sampler=False, default_root_dir=folder,
    )  # fmt: skip
    report.begin(trainer, settings, folder, story)
    trainer.fit(gan, datamodule=data, ckpt_path=checkpoint.find(settings["resume"]), weights_only=True)
    return report.finish(trainer, gan, settings, folder)


def made(node: Any) -> Any:
    """What a config node describes. What a constructor raises comes through; facts are left out of a data node."""
    from ganlab.checks import arguments_of

    if not isinstance(node, (dict, list)):
        return node
    if isinstance(node, dict) and "_target_" in node:
        known = arguments_of(hydra.utils.get_object(node["_target_"]))
        node = {k: v for k, v in node.items() if known is None or k in known or k.startswith("_")}
    try:
        return hydra.utils.instantiate(node, _convert_="all")
    except hydra.errors.InstantiationException as error:
        raise error.__cause__ or error from None


if __name__ == "__main__":
    main()
