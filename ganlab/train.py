"""python -m ganlab: compose, check, train, score. Nothing heavy is imported before the config is composed."""

import logging
import math
import sys
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ganlab.conf import CONF, cache, check_start, free_folder, options, places
from ganlab.resume import go_on

MULTIRUN = RunMode.MULTIRUN
log = logging.getLogger("ganlab")
OmegaConf.register_new_resolver("ganlab.options", options, replace=True)
OmegaConf.register_new_resolver("ganlab.free", free_folder, replace=True, use_cache=True)
OmegaConf.register_new_resolver("ganlab.cache", cache, replace=True)
OmegaConf.register_new_resolver("ganlab.places", places, replace=True)


def main() -> None:
    try:
        sys.argv[1:] = go_on(sys.argv[1:])
        check_start(sys.argv[1:])
        composed()
    except ValueError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


@hydra.main(version_base="1.3", config_path=CONF, config_name="train")
def composed(cfg: DictConfig) -> float:
    """Trains, and returns the best monitored score (nan where there is none)."""
    from ganlab import launch, ranks, report
    from ganlab.settings import prepare
    from ganlab.signals import Interrupted, requeue

    hydra_cfg = HydraConfig.get()
    folder, sweeping = hydra_cfg.runtime.output_dir, hydra_cfg.mode == MULTIRUN
    overrides = [o for o in hydra_cfg.overrides.task if not o.startswith("resume=")]
    own = [s.path for s in hydra_cfg.runtime.config_sources if s.provider == "command-line"]
    alone = not ranks.started_by_others()
    try:
        if sweeping and cfg.resume == "auto" and (before := report.done(folder, overrides)) is not None:
            return before
        if "joblib" in str(hydra_cfg.launcher._target_):
            launch.own_gpus(cfg.trainer)
        settings, story = prepare(cfg, overrides), report.story(overrides, hydra_cfg.runtime.choices, own)
        if ranks.rank() == 0:  # the others of a group come to nothing without it
            report.claim(folder, cfg.resume, story)
            report.inherit(folder, settings["resume"])
        processes = launch.processes(settings["trainer"])
        if not alone or (processes == 1 and not sweeping):
            return train(settings, folder, story)
        return launch.run(train, settings, folder, story, processes=processes)
    except Interrupted as interrupted:
        if ranks.rank() == 0:
            print(f"\n{interrupted}", *filter(None, [requeue(interrupted, cfg.resume)]), sep="\n", file=sys.stderr)
        sys.exit(interrupted.code)
    except Exception as error:
        if sweeping:
            log.error("this run failed, the sweep goes on: %s", error)
            report.failed(folder, overrides, error)
            return math.inf
        report.end(folder, error)
        raise


def train(settings: dict[str, Any], folder: str, story: dict[str, Any]) -> float:
    """One process's part of a run: trains and scores; returns the best monitored score."""
    from ganlab.resume import with_rollbacks

    return with_rollbacks(attempt, settings, folder, story)


def attempt(settings: dict[str, Any], folder: str, story: dict[str, Any], back: Any = None) -> float:
    """The same, to the end or to the next rollback. back: the rollback that led here"""
    from datetime import timedelta

    import lightning as L

    from ganlab import checkpoint, launch, report
    from ganlab.callbacks.saving import EndOnSignal, SaveCheckpoint, StoreConfig
    from ganlab.callbacks.watchdog import Watchdog
    from ganlab.networks import take_over
    from ganlab.settings import build, callbacks_and_loggers, made
    from ganlab.strategy import PlayersDDP

    report.quiet(settings)
    given = {k: v for k, v in settings["trainer"].items() if v is not None}
    timeout = timedelta(minutes=given.pop("timeout"))
    if launch.processes(given) * given["num_nodes"] > 1:
        given["strategy"] = PlayersDDP(timeout=timeout)
    data, gan = made(settings["data"]), build(settings)
    if settings["finetune"] and not settings["resume"]:
        take_over(gan, checkpoint.weights(settings["finetune"], "finetune"))
    callbacks, loggers = callbacks_and_loggers(settings)
    for watchdog in (callback for callback in callbacks if isinstance(callback, Watchdog)):
        watchdog.back = back
    callbacks.sort(key=lambda callback: isinstance(callback, SaveCheckpoint))  # last: it saves what the others did
    data.events = [callback.every for callback in callbacks if hasattr(callback, "every")]
    last = [StoreConfig(settings, story["overrides"]), EndOnSignal(folder)]
    trainer = L.Trainer(
        **given, max_epochs=-1, callbacks=[*callbacks, *last], logger=loggers, default_root_dir=folder,
        plugins=[checkpoint.AtomicIO()], enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0, use_distributed_sampler=False,
    )  # fmt: skip
    report.begin(trainer, settings, folder, story)
    trainer.fit(gan, datamodule=data, ckpt_path=settings["resume"], weights_only=True)
    return report.finish(trainer, gan, settings, folder, story["overrides"])


if __name__ == "__main__":
    main()
