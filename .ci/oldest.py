"""Prints constraints for pip: what pyproject.toml asks for at least, torch and its companions at exactly that.

The others are left to pip: their oldest versions need not go together, and nobody is held to them.
"""

import re
import tomllib
from pathlib import Path

EXACT = ("torch", "torchvision", "lightning", "pytorch-lightning", "hydra-core", "omegaconf", "torchmetrics")

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
for requirement in project["dependencies"]:
    name, least = re.match(r"([\w-]+)>=([\w.]+)", requirement).groups()
    if name in EXACT:
        print(f"{name}=={least}{'.0' * (2 - least.count('.'))}")
