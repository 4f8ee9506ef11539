import logging
import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers share the cores; before torch is imported


@pytest.fixture(autouse=True)
def _quiet():
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
