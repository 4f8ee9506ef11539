"""What the first runs promise to learn: minutes long, run by hand with `pytest -m slow`."""

import json

import pytest
import torch
from composing import prepared, run
from made import SHARED, scored

from ganlab.checkpoint import Sampler
from ganlab.metrics.fit import as_shown
from ganlab.metrics.frechet import FID
from ganlab.settings import made

pytestmark = pytest.mark.slow


def history(folder):
    return json.loads((folder / "scores.json").read_text())["history"]


def test_digits_become_digits(tmp_path):
    """The default run ends at most at 1/5 of its score at 5 kimg and at 15 times that of half of the reals against the
    other half."""
    run(tmp_path, "metrics.every=5")
    settings = prepared()
    data, extractor = made(settings["data"]), made(settings["extractor"])
    extractor.prepare(data)
    reals = data.split("train")
    order = torch.randperm(len(reals), generator=torch.Generator().manual_seed(0))
    halves = [extractor(reals.take(rows)["real"])["features"] for rows in order.chunk(2)]
    scores = {entry["kimg"]: entry["fid10k_classifier"] for entry in history(tmp_path)}
    first, last = scores[min(scores)], scores[max(scores)]
    assert 5 <= min(scores) < 5.1
    assert last <= first / 5
    assert last <= 15 * scored(FID(), *halves)["fid"]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_all_modes_of_the_ring_are_found(tmp_path, seed):
    run(tmp_path, "experiment=ring", f"seed={seed}")
    last = history(tmp_path)[-1]
    assert last["modes_pixels"] == 8
    assert last["good_pixels"] >= 0.9


@pytest.mark.skipif(not (SHARED / "mnist").exists(), reason=f"MNIST is not at {SHARED / 'mnist'}")
@pytest.mark.parametrize(
    "overrides",
    [
        ["model=dcgan", "max_kimg=300"],
        ["model=wgan_gp", "max_kimg=320", "data.batch_size=32", "generator.width=32", "discriminator.width=32"],
    ],
    ids=lambda o: o[0],
)
def test_no_digit_is_missing_or_too_frequent(tmp_path, overrides):
    """Of 10,000 samples each digit is 4 to 20 %, says a classifier that is right in 98 %."""
    settings = prepared("data=mnist", f"data.root={SHARED / 'mnist'}")
    data, extractor = made(settings["data"]), made(settings["extractor"])
    extractor.prepare(data)
    assert extractor.accuracy >= 0.98
    run(tmp_path, "data=mnist", f"data.root={SHARED / 'mnist'}", "metrics.enabled=false", *overrides)
    sampler = Sampler.load(tmp_path / "checkpoints" / "last.ckpt")
    counts = torch.zeros(10)
    for first in range(0, 10_000, 500):
        labels = extractor(as_shown(sampler.generate(first, 500)))["logits"].argmax(1)
        counts += torch.bincount(labels, minlength=10)
    assert counts.min() >= 400
    assert counts.max() <= 2000
