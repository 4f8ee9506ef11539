import logging
import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers share the cores; before torch is imported


@pytest.fixture(autouse=True, scope="module")
def _module_seed():
    seed()


@pytest.fixture(autouse=True)
def _seed():
    """No test depends on which others ran before it."""
    seed()


def seed():
    import torch

    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _quiet():
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
