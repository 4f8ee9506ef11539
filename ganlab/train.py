"""python -m ganlab: compose, check, train, score. Nothing heavy is imported before the config is composed."""

import logging
import math
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ganlab.conf import CONF, cache, free_folder, options

MULTIRUN = RunMode.MULTIRUN
log = logging.getLogger("ganlab")
OmegaConf.register_new_resolver("ganlab.options", options, replace=True)
OmegaConf.register_new_resolver("ganlab.free", free_folder, replace=True, use_cache=True)
OmegaConf.register_new_resolver("ganlab.cache", cache, replace=True)


@hydra.main(version_base="1.3", config_path=CONF, config_name="train")
def main(cfg: DictConfig) -> float:
    """Trains, and returns the best monitored score (nan where there is none)."""
    from ganlab import launch, report
    from ganlab.settings import prepare

    hydra_cfg = HydraConfig.get()
    folder, overrides, sweeping = (
        hydra_cfg.runtime.output_dir,
        list(hydra_cfg.overrides.task),
        hydra_cfg.mode == MULTIRUN,
    )
    alone = not launch.started_by_others()
    try:
        if sweeping and not alone:
            raise report.Taken("a sweep starts the processes of its runs itself: start it without torchrun or srun")
        settings, story = prepare(cfg, overrides), report.story(overrides, hydra_cfg.runtime.choices)
        if alone:
            report.claim(folder, settings["resume"], story)
        processes = launch.processes(settings["trainer"])
        if not alone or (processes == 1 and not sweeping):
            return train(settings, folder, story)
        return launch.run(train, settings, folder, story, processes=processes)
    except Exception as error:
        if sweeping:
            log.error("this run failed, the sweep goes on: %s", error)
            report.failed(folder, overrides, error)
            return math.inf
        if (code := getattr(error, "exit_code", None)) is not None:  # the watchdog stopped it
            print(f"error: {error}", file=sys.stderr)
            sys.exit(code)
        if isinstance(error, report.EXPECTED):
            sys.exit(f"error: {error}")
        raise


def train(settings: dict[str, Any], folder: str, story: dict[str, Any]) -> float:
    """One process's part of a run: trains and scores; returns the best monitored score. Where the watchdog says so, it
    goes on from the last checkpoint, or from the beginning if there is none yet."""
    from ganlab import checkpoint, report
    from ganlab.callbacks.watchdog import RollBack

    report.quiet(settings)
    resume, back = checkpoint.find(settings["resume"]), None
    while True:
        try:
            return attempt(settings, folder, story, resume, back)
        except RollBack as error:
            back = error.with_traceback(None)  # which holds the networks
        last = Path(folder) / "checkpoints" / "last.ckpt"
        resume = str(last) if last.exists() else resume


def attempt(settings: dict[str, Any], folder: str, story: dict[str, Any], resume: str | None, back: Any) -> float:
    """The same, to the end or to the next rollback.

    resume   checkpoint to go on from
    back     the rollback that led here
    """
    import lightning as L
    from lightning.pytorch.strategies import DDPStrategy

    from ganlab import checkpoint, launch, report
    from ganlab.callbacks.saving import StoreConfig
    from ganlab.callbacks.watchdog import Watchdog
    from ganlab.networks import take_over
    from ganlab.settings import build, callbacks_and_loggers, made

    given = {k: v for k, v in settings["trainer"].items() if v is not None}
    several = launch.processes(given) * given["num_nodes"] > 1
    if several:
        given["strategy"] = DDPStrategy(find_unused_parameters=True, broadcast_buffers=False)
    data, gan = made(settings["data"]), build(settings)
    if settings["finetune"] and not resume:
        take_over(gan, checkpoint.weights(settings["finetune"], "finetune"))
    callbacks, loggers = callbacks_and_loggers(settings)
    for watchdog in (callback for callback in callbacks if isinstance(callback, Watchdog)):
        watchdog.back = back
    data.events = [callback.every for callback in callbacks if hasattr(callback, "every")]
    trainer = L.Trainer(
        **given, max_epochs=-1, callbacks=[*callbacks, StoreConfig(settings)], logger=loggers, default_root_dir=folder,
        plugins=[checkpoint.AtomicIO()], enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0, use_distributed_sampler=False,
    )  # fmt: skip
    report.begin(trainer, settings, folder, story)
    trainer.fit(gan, datamodule=data, ckpt_path=resume, weights_only=True)
    return report.finish(trainer, gan, settings, folder, story["overrides"])


if __name__ == "__main__":
    main()
