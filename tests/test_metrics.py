"""Scores against independent implementations and closed forms; extractors against what they stand for."""

import math

import numpy as np
import pytest
import torch
from play import game, trainer
from scipy import linalg
from torchmetrics.image.fid import FrechetInceptionDistance
from torchvision.io import decode_image
from torchvision.utils import save_image

from ganlab.callbacks.evaluate import Evaluate, as_shown, shares
from ganlab.data.sets import Digits
from ganlab.data.toy import Toy
from ganlab.files import Remote, Unavailable, digest
from ganlab.metrics.extractors import Classifier, Inception, Pixels
from ganlab.metrics.frechet import FrechetDistance, frechet_distance
from ganlab.metrics.modes import Modes


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))


def features(n, dim, seed, rank=None):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(rank or dim, dim, generator=generator)
    return torch.randn(n, rank or dim, generator=generator) @ mix + 0.3 * seed


def ours(real, fake, pieces=1):
    metric = FrechetDistance(real.shape[1])
    for part in real.chunk(pieces):
        metric.update(part, real=True)
    for part in fake.chunk(pieces):
        metric.update(part, real=False)
    return metric.compute().item()


class Identity(torch.nn.Module):
    """torchmetrics' hook for features of one's own: here the uint8 images' own numbers."""

    num_features = 12

    def forward(self, x):
        return x.flatten(1).float()


@pytest.mark.parametrize("n", [500, 8])  # fewer samples than features: singular covariances
def test_frechet_distance_equals_torchmetrics(n):
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 200 + 50 * i, (n, 3, 2, 2), generator=generator, dtype=torch.uint8) for i in (0, 1)]
    theirs = FrechetInceptionDistance(feature=Identity(), antialias=False, input_img_size=(3, 2, 2))
    for i in (0, 1):
        theirs.update(images[i], real=i == 0)
    expected = theirs.compute().item()
    assert ours(*[x.flatten(1).float() for x in images]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("n", "rank"), [(400, None), (400, 5)])
def test_frechet_distance_equals_the_formula_by_scipy(n, rank):
    a, b = features(n, 16, 1, rank).double().numpy(), features(n, 16, 2, rank).double().numpy()
    s1, s2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = linalg.sqrtm(s1 @ s2).real
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(s1 + s2 - 2 * root)
    got = ours(torch.from_numpy(a), torch.from_numpy(b), pieces=7)
    assert got == pytest.approx(expected, rel=1e-6 if rank is None else 1e-4)  # sqrtm is inexact on singular products


def test_frechet_distance_closed_forms():
    """Diagonal Gaussians: sum of (m1 - m2)^2 + (s1 - s2)^2; equal ones: 0."""
    m1, m2, s1, s2 = (torch.rand(9, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(4))
    value = frechet_distance(m1, s1.square().diag(), m2, s2.square().diag())
    assert value.item() == pytest.approx(((m1 - m2) ** 2 + (s1 - s2) ** 2).sum().item(), rel=1e-12)
    x = features(300, 9, 1)
    assert ours(x, x) == pytest.approx(0, abs=1e-8)


def test_frechet_distance_takes_published_statistics():
    real, fake = features(100, 5, 1), features(90, 5, 2)
    known = FrechetDistance(5)
    known.load_reference(real.double().mean(0), torch.cov(real.double().T), torch.tensor(100))
    known.update(fake, real=False)
    assert known.compute().item() == pytest.approx(ours(real, fake), rel=1e-9)
    with pytest.raises(ValueError, match="the reference has"):
        known.load_reference(torch.zeros(4), torch.zeros(4, 4), torch.tensor(10))
    with pytest.raises(ValueError, match="at least 2 fake"):
        ours(real, fake[:1])


def test_modes_and_good_samples():
    """Two of four centres are hit, one by 1 sample in 200; a sample 3.1 deviations off is bad."""
    centers = [[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]]
    hits = torch.tensor([[0.0, 0.0]] * 150 + [[10.0, 0.02]] * 49 + [[0.0, 10.0]] * 1 + [[0.31, 0.0]] * 50)
    metric = Modes(2, centers, deviation=0.1)
    metric.update(torch.zeros(5, 2), real=True)
    metric.update(hits, real=False)
    result = {k: float(v) for k, v in metric.compute().items()}
    assert result == pytest.approx({"modes": 2, "good": 200 / 250, "quality": 0.8 * 0.5})


def test_nothing_good_is_nothing_found():
    metric = Modes(2, [[0.0, 0.0]], deviation=0.1)
    metric.update(torch.ones(5, 2), real=False)
    assert {k: float(v) for k, v in metric.compute().items()} == {"modes": 0, "good": 0, "quality": 0}


def test_images_are_scored_as_a_viewer_sees_them(tmp_path):
    """Rounded, not cut off, and clamped: as PNG files of them."""
    x = torch.linspace(-1.2, 1.2, 3 * 16).view(1, 3, 4, 4)
    assert as_shown(torch.tensor([-1.0, 0.0, 1.0, 0.003]).view(1, 1, 2, 2)).flatten().tolist() == [0, 128, 255, 128]
    save_image((x.clamp(-1, 1) + 1) / 2, tmp_path / "x.png")
    assert (decode_image(str(tmp_path / "x.png")).int() - as_shown(x)[0].int()).abs().max() <= 1


def test_a_generator_that_broke_has_no_score_and_is_never_the_best(tmp_path):
    """NaN images would become black ones."""
    gan, evaluate = game(), Evaluate(1000, Pixels(), {"fid": FrechetDistance}, folder=str(tmp_path / "run" / "c"), n=20)
    trainer(callbacks=[evaluate], limit_train_batches=1).fit(gan, datamodule=Toy(count=50, batch_size=8))
    good = evaluate.best
    torch.nn.init.constant_(gan.G_ema[0].weight, torch.nan)
    scores = evaluate.evaluate(gan.trainer, gan)
    assert math.isnan(scores["fid_pixels"])
    evaluate.history = [{"kimg": 0, **scores}, good, {"kimg": 2, **scores}]
    assert evaluate.best is good


@pytest.mark.parametrize(("n", "world"), [(101, 1), (101, 3), (5, 8), (64, 2)])
def test_shares_cover_every_sample_once(n, world):
    pieces = [p for rank in range(world) for p in shares(n, 10, rank, world)]
    assert sorted(i for first, count in pieces for i in range(first, first + count)) == list(range(n))


# ---------------------------------------------------------------------------------------------------------- extractors


@pytest.fixture(scope="module")
def inception_weights(tmp_path_factory):
    """An Inception network of random weights, in the format of the real file."""
    from unittest import mock

    import torch_fidelity.feature_extractor_inceptionv3 as theirs

    torch.manual_seed(0)
    with (
        mock.patch.object(theirs, "load_state_dict_from_url"),
        mock.patch.object(theirs.FeatureExtractorInceptionV3, "load_state_dict"),
    ):
        net = theirs.FeatureExtractorInceptionV3("inception", ["2048"])
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(net.state_dict(), path)
    return path


def test_inception_is_torch_fidelitys(inception_weights):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    theirs = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(inception_weights))
    extractor = Inception(weights=str(inception_weights))
    extractor.prepare(None)
    x = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(extractor(x), theirs(x)[0])
    grey = x[:, :1]
    assert torch.equal(extractor(grey), theirs(grey.expand(-1, 3, -1, -1))[0])
    assert digest(inception_weights)[:8] in extractor.describe()


def test_inception_weights_that_can_not_be_had(monkeypatch):
    monkeypatch.setattr(Inception, "remote", Remote("w.pth", ("http://127.0.0.1:9/w.pth",), Inception.remote.checksum))
    with pytest.raises(Unavailable) as error:
        Inception().prepare(None)
    for part in (
        "http://127.0.0.1:9/w.pth",
        Inception.remote.checksum,
        "w.pth",
        "extractor.weights",
        "metrics.enabled",
    ):
        assert part in str(error.value)
    with pytest.raises(Unavailable, match="no such file"):
        Inception(weights="nowhere.pth").prepare(None)


@pytest.mark.parametrize(
    ("extractor", "facts", "message"),
    [
        (Inception(), {"shape": [4, 32, 32]}, "1 or 3 channels"),
        (Inception(), {"shape": [2]}, "extractor=pixels"),
        (Classifier(), {"shape": [3, 32, 32], "classes": None}, "labelled images"),
        (Classifier(), {"shape": [2], "classes": 8}, "labelled images"),
    ],
)
def test_extractors_refuse_data_they_can_not_see(extractor, facts, message):
    with pytest.raises(ValueError, match=message):
        extractor.check(facts)


def test_classifier_is_trained_once_and_kept(tmp_path):
    data = Digits(size=16)
    first, second = Classifier(epochs=4), Classifier(epochs=4)
    first.prepare(data)
    assert first.accuracy > 0.95
    (path,) = (tmp_path / "cache").rglob("*.pt")
    written = path.stat().st_mtime_ns
    state = torch.random.get_rng_state()
    second.prepare(data)
    assert path.stat().st_mtime_ns == written
    assert torch.equal(torch.random.get_rng_state(), state)  # the global generator is left alone
    x = data.split("test").take(torch.arange(7))["real"]
    assert first(x).shape == (7, 64)
    assert torch.equal(first(x), second(x))
    assert first.hash == second.hash
    assert f"{first.accuracy:.1%}" in first.describe()
    assert not any(p.requires_grad for p in first.parameters())


def test_classifiers_of_small_sets_have_few_features():
    with pytest.raises(ValueError, match="at most 128"):
        Classifier(features=129).prepare(Digits())


def test_pixels_are_the_numbers():
    points = Pixels()
    points.prepare(Toy())
    assert points.dim == 2
    x = torch.randn(3, 2)
    assert torch.equal(points(x), x)
    assert Pixels()(torch.tensor([[[[0, 255]]]], dtype=torch.uint8)).tolist() == [[-1, 1]]
