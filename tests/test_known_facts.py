"""Scores do what is known of them, on real images: handwritten digits through a classifier of them."""

import pytest
import torch
from made import scored
from torchvision.transforms.v2.functional import gaussian_blur

from ganlab.data.sets import Digits
from ganlab.metrics.extractors import Classifier
from ganlab.metrics.frechet import FID
from ganlab.metrics.kernels import CMMD, KID
from ganlab.metrics.neighbours import PRDC, Memorization


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(images -> features, half of the digits, the other half, its labels)"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        data, extractor = Digits(size=16), Classifier(epochs=10)
        extractor.prepare(data)
    everything = data.split("train").take(torch.randperm(1438, generator=torch.Generator().manual_seed(0)))
    see = lambda x: extractor(x)["features"]
    return see, everything["real"][:700], everything["real"][700:1400], everything["label"][700:1400]


def noisy(x, level):
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    return (x + level * noise).round().clamp(0, 255).to(torch.uint8)


DISTANCES = {"fid": FID(), "kid": KID(20, 120), "kid_rbf": KID(20, 120, "rbf"), "cmmd": CMMD()}


@pytest.mark.parametrize("name", DISTANCES)
def test_distances_grow_with_blur_noise_and_lost_classes(world, name):
    see, real, fake, labels = world
    distance = lambda x: scored(DISTANCES[name], see(real), see(x))[name]
    blurred = [distance(gaussian_blur(fake, [9, 9], [sigma]) if sigma else fake) for sigma in (0, 1, 1.5, 3)]
    assert blurred == sorted(blurred)
    with_noise = [distance(noisy(fake, level)) for level in (0, 30, 60, 120)]
    assert with_noise == sorted(with_noise)
    lost = [distance(fake[labels >= n]) for n in (0, 2, 4, 6, 8)]  # classes are left out one by one
    assert lost == sorted(lost)
    assert blurred[-1] > 10 * abs(blurred[0])
    assert lost[-1] > 10 * abs(lost[0])


def test_lost_classes_cost_recall_and_coverage_but_not_precision(world):
    see, real, fake, labels = world
    whole, few = (scored(PRDC(), see(real), see(x)) for x in (fake, fake[labels >= 7]))
    assert few["recall"] < 0.6 * whole["recall"]
    assert few["coverage"] < 0.6 * whole["coverage"]
    assert few["precision"] > 0.9 * whole["precision"]
    worse = scored(PRDC(), see(real), see(noisy(fake, 120)))
    assert worse["precision"] < 0.6 * whole["precision"]


def test_the_distance_of_two_halves_falls_with_their_size(world):
    """The bias of the Frechet distance between samples of one law is about c / n."""
    see, real, fake, _ = world
    sizes = (87, 175, 350, 700)
    values = [scored(FID(), see(real)[:n], see(fake)[:n])["fid"] for n in sizes]
    assert values == sorted(values, reverse=True)
    products = [n * v for n, v in zip(sizes, values, strict=True)]
    assert max(products) < 2 * min(products)


def test_copies_of_the_reals_are_found_out(world):
    see, real, fake, _ = world
    copied = torch.cat([real[:350], fake[:350]])
    distance = lambda x: scored(Memorization(), see(real), see(x))["memorization"]
    assert distance(real) == pytest.approx(0, abs=1e-6)
    assert distance(copied) < 0.6 * distance(fake)
