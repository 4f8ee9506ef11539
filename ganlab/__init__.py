"""ganlab: an experiment framework for generative adversarial networks.

Importing `ganlab` is instant: torch and Lightning are loaded when a name is first used, so that the command line
answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ganlab.gan import GAN as GAN
    from ganlab.sharing import load as load

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "GAN":
        return import_module("ganlab.gan").GAN
    if name == "load":
        return import_module("ganlab.sharing").load
    raise AttributeError(f"module 'ganlab' has no attribute {name!r}")
