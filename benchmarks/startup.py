"""Start-up: seconds from pressing Enter, each in a fresh process, in turns."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import lightning as L
from tqdm import tqdm

RUN = ["-m", "ganlab", "+callbacks.first={_target_: benchmarks.startup.FirstStep}"]
SUBJECTS: dict[str, list[str]] = {
    "import torch": ["-c", "import torch"],
    "import torch, lightning, torchmetrics, torchvision": ["-c", "import torch, lightning, torchmetrics, torchvision"],
    "ganlab --help": ["-m", "ganlab", "--help"],
    "ganlab --cfg job": ["-m", "ganlab", "--cfg", "job"],
    "Hydra's error: an unknown group": ["-m", "ganlab", "modle=dcgan"],
    "Hydra's error: an unknown key": ["-m", "ganlab", "max_kimgs=1"],
    "ganlab's error: a wrong value": ["-m", "ganlab", "data.batch_size=many"],
    "ganlab.sample --help": ["-m", "ganlab.sample", "--help"],
    "ganlab.evaluate --help": ["-m", "ganlab.evaluate", "--help"],
    "ganlab.compare --help": ["-m", "ganlab.compare", "--help"],
    "first step of the default run": RUN,
    "first step, with no scores": [*RUN, "metrics.enabled=false"],
    "first step of the first run of all": RUN,  # of an empty cache
}


class FirstStep(L.Callback):
    """Ends the process when the first rounds are done."""

    def on_train_batch_end(self, *_: Any) -> None:
        os._exit(0)


def startup(folder: str, turns: int, peers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """(6): {title: {name: [{seconds, mb}]}}"""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in SUBJECTS}
    for turn in tqdm(range(turns + 1), desc="start-up", unit="turn"):
        for name, arguments in SUBJECTS.items():
            result = timed(name, arguments, tempfile.mkdtemp(dir=folder))
            if turn:  # the first brings the files into memory
                results[name].append(result)
    return {"Start-up: from pressing Enter": results}


def timed(name: str, arguments: list[str], folder: str) -> dict[str, float]:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [os.getcwd(), *sys.path]))}
    env |= {"GANLAB_CACHE": folder} if name.endswith("of all") else {}
    own = [f"hydra.run.dir={folder}/run"] if arguments[:2] == ["-m", "ganlab"] else []
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments, *own], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    failed = process.wait() != 0
    seconds = time.perf_counter() - began
    if failed != ("error" in name):
        raise RuntimeError(f"{name} {'failed' if failed else 'did not fail'}: python {' '.join(arguments)}")
    return {"seconds": seconds}
