"""What the watchdog costs, as a share of training time: python benchmarks/watchdog.py [overrides ...]

The default run, or the one that the overrides describe, for 20 kimg, without scores and pictures.
"""

import sys
import tempfile
import time

import lightning as L
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

import ganlab.train  # noqa: F401  (resolvers of the config)
from ganlab.callbacks.clock import Budget
from ganlab.conf import CONF
from ganlab.settings import build, made, prepare

KIMG = 20


class Clock(L.Callback):
    def on_train_start(self, *_) -> None:
        self.began = time.perf_counter()

    def on_train_end(self, *_) -> None:
        self.took = time.perf_counter() - self.began


def main(overrides: list[str]) -> None:
    with initialize_config_dir(version_base="1.3", config_dir=CONF):
        cfg = compose("train", ["metrics.enabled=false", *overrides, "hydra.run.dir=unused"], return_hydra_config=True)
    cfg.hydra.runtime.output_dir = tempfile.mkdtemp()
    HydraConfig.instance().set_config(cfg)
    settings = prepare(OmegaConf.create({k: v for k, v in OmegaConf.to_container(cfg).items() if k != "hydra"}))
    gan, data = build(settings), made(settings["data"])
    curves, watchdog = (made(settings["callbacks"][name]) for name in ("curves", "watchdog"))
    data.events, clock = [curves.every], Clock()
    trainer = L.Trainer(
        max_epochs=-1, callbacks=[clock, curves, watchdog, Budget(KIMG)], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(gan, datamodule=data)
    print(f"{watchdog.seconds:.2f} s of {clock.took:.1f} s: {watchdog.seconds / clock.took:.1%}")


if __name__ == "__main__":
    main(sys.argv[1:])
