"""What the small commands share: a config becomes a function's arguments, and what it can't do becomes a message."""

import sys
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf


def run(cfg: DictConfig, function: Callable[..., Any], **examples: str) -> None:
    """Calls function(**cfg); ends the process with what is wrong, if anything is.

    examples   {a key that must be given: how one may look}
    """
    from ganlab.files import Unavailable

    for key, example in examples.items():
        if OmegaConf.is_missing(cfg, key):
            sys.exit(f"error: {key} is not set: say which one, as in {key}={example}")
    try:
        settings: Any = OmegaConf.to_container(cfg, resolve=True)
        function(**settings)
    except (ValueError, Unavailable, ModuleNotFoundError) as error:
        sys.exit(f"error: {error}")
