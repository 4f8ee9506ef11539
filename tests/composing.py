"""The command line without a new process: what `python -m ganlab ...` composes, prepares and trains."""

from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from ganlab.conf import CONF
from ganlab.settings import prepare
from ganlab.train import train


def composed(*overrides, folder="unused", name="train"):
    """The config of a command line, as main() is handed it."""
    with initialize_config_dir(version_base="1.3", config_dir=CONF):
        cfg = compose(name, [*overrides, f"hydra.run.dir={folder}"], return_hydra_config=True)
    cfg.hydra.runtime.output_dir = str(folder)
    HydraConfig.instance().set_config(cfg)
    job = OmegaConf.create({k: v for k, v in OmegaConf.to_container(cfg).items() if k != "hydra"})
    OmegaConf.set_struct(job, True)
    return job


def prepared(*overrides, **kwargs):
    return prepare(composed(*overrides, **kwargs))


def run(folder, *overrides):
    """Trains; returns the objective."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    return train(prepared(*overrides, folder=folder), str(folder), {"command": "a test", "overrides": []})


def group(name):
    return sorted(path.stem for path in (Path(CONF) / name).glob("*.yaml"))


GROUPS = sorted(path.name for path in Path(CONF).iterdir() if path.is_dir() and path.name not in ("hydra", "search"))
TRAIN = yaml.safe_load((Path(CONF) / "train.yaml").read_text())
