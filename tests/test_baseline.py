"""Densities to compare with: what they are, that their size is chosen rightly, and that they stand beside a GAN."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from composing import composed
from scipy.stats import gaussian_kde, multivariate_normal

from ganlab.baseline import baseline, check
from ganlab.compare import find, grouped
from ganlab.conf import CONF
from ganlab.evaluate import resolved
from ganlab.limits import BALANCE, BASELINE
from ganlab.metrics.protocol import Protocol
from ganlab.mixture import fit, widths
from ganlab.report import claim
from ganlab.rng import seed_of


def points(n=400, seed=0):
    """Correlated, away from 0."""
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))
    return x @ torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.3, 0.1], [0.0, 0.0, 2.0]]) + torch.tensor([1.0, -2.0, 3.0])


def density_of(mixture, x):
    """log p of rows x, by SciPy, for a mixture of the numbers themselves."""
    shifted = x - mixture.origin.numpy()
    covariances = [f @ f.T for f in mixture.factors.numpy()]
    parts = [
        np.log(w) + multivariate_normal(m, c).logpdf(shifted)
        for w, m, c in zip(mixture.weights.numpy(), mixture.means.numpy(), covariances, strict=True)
    ]
    return np.logaddexp.reduce(parts)


def test_one_component_is_the_gaussian_of_the_data():
    x = points()
    mixture, _ = fit(x, "gmm", [1], floor=0.0)
    assert torch.allclose(mixture.origin + mixture.means[0], x.mean(0).double(), atol=1e-6)
    assert torch.allclose(mixture.factors[0] @ mixture.factors[0].T, x.T.cov(correction=0).double(), atol=1e-5)


def test_samples_follow_the_mixture():
    """Mean and covariance of many samples are those of the fitted mixture, whichever space it was fitted in."""
    x = torch.cat([points(), points(seed=1) + 8])
    for pca in (None, 3):
        samples = fit(x, "gmm", [2], pca=pca)[0].generate(0, 20_000).double()
        assert torch.allclose(samples.mean(0), x.mean(0).double(), atol=0.15)
        assert torch.allclose(samples.T.cov(), x.T.cov().double(), rtol=0.05, atol=0.15)


def test_principal_components_are_kept_and_others_left_out():
    """Of points in a plane in space nothing is lost by two components; the variance of one alone is the largest."""
    x = points() @ torch.diag(torch.tensor([1.0, 1.0, 0.0]))
    assert fit(x, "kde", [1e-9], pca=2)[0].generate(0, 50)[:, 2].abs().max() < 1e-5
    line = fit(points(), "kde", [0.1], pca=1)[0]
    values = torch.linalg.eigh(points().T.cov()).eigenvectors[:, -1].double()
    assert (line.basis[0] @ values).abs() == pytest.approx(1, abs=1e-5)
    assert fit(points(), "kde", [0.1], pca=0.999)[0].means.shape[1] == 3


def test_a_kernel_density_is_scipys_and_its_samples_are_moved_points():
    """Bandwidth h: the likelihood is that of SciPy's estimate with covariance h^2, and with h = 0 samples are reals."""
    x, h = points(), 0.4
    one_d = x[:, :1]
    _, likelihood = fit(one_d, "kde", [h, 0.8])
    order = torch.randperm(400, generator=torch.Generator().manual_seed(seed_of(0, "held out"))).numpy()
    train, held = one_d.numpy()[order[40:], 0], one_d.numpy()[order[:40], 0]
    theirs = gaussian_kde(train, bw_method=h / train.std(ddof=1)).logpdf(held).mean()
    assert likelihood[h] == pytest.approx(theirs, abs=1e-6)
    copies = fit(x, "kde", [1e-9])[0].generate(0, 100)
    assert torch.cdist(copies.double(), x.double()).amin(1).max() < 1e-5
    away = fit(x[:1].expand(50, 3), "kde", [h])[0].generate(0, 4000) - x[0]
    assert away.std() == pytest.approx(h, rel=0.03)


def test_the_likeliest_size_is_chosen():
    """Three clusters are three components, and of a Gaussian's samples the bandwidth is near Silverman's rule."""
    clusters = torch.cat([points(200, seed) * 0.1 + 10 * seed for seed in range(3)])
    mixture, likelihood = fit(clusters, "gmm", [1, 3])
    assert len(mixture.weights) == 3
    assert likelihood[3] > likelihood[1]
    assert np.isfinite(density_of(mixture, clusters[:5].numpy())).all()
    normal = torch.randn(2000, 1, generator=torch.Generator().manual_seed(0))
    silverman = 1.06 * 2000**-0.2
    assert fit(normal, "kde", [silverman / 20, silverman, silverman * 20])[0].factors == pytest.approx(silverman)
    assert widths(normal)[0] < silverman < widths(normal)[-1]


def test_a_sample_depends_on_its_number_alone():
    for kind, size in (("gmm", 2), ("kde", 0.3)):
        mixture, _ = fit(points().view(400, 3, 1), kind, [size])
        many = mixture.generate(0, 8, seed=3)
        assert many.shape == (8, 3, 1)
        assert torch.equal(many[5:6], mixture.generate(5, 1, seed=3))
        assert not torch.equal(many, mixture.generate(0, 8, seed=4))


def test_scores_of_a_baseline_and_of_a_gan_may_be_compared_and_of_other_images_not():
    told = lambda fakes: Protocol("set", "f", 10, fakes, 100, "pixels", {"fid": {"reals": True}}).id("fid")
    assert told("a Gaussian mixture") == told("a kernel density estimate") == told("G_ema")
    assert len({told("G_ema"), told("G"), told("folder x")}) == 3


# -------------------------------------------------------------------------------------------------------- command line


def settings(*overrides):
    return resolved(composed(*overrides, name="baseline"))


def fitted(folder, *overrides):
    given = settings("hydra.run.dir=unused", *overrides)
    check(given)
    claim(str(folder), None, {"seed": given["seed"], "choices": {"model": given["kind"], "data": "toy"}})
    return baseline(given, folder, list(overrides))


@pytest.mark.parametrize("kind", ["gmm", "kde"])
def test_the_ring_is_a_mixture_of_8(kind, tmp_path):
    """All modes are found, and the run stands in the table."""
    small = ["data=toy", "data.count=1600", "metrics.n=500", "components=[4,8]", "floor=1e-5", "seed=1"]
    result = fitted(tmp_path / "run", f"kind={kind}", *small)
    assert result["scores"]["modes500_pixels"] == 8
    assert result["scores"]["good500_pixels"] > 0.8
    assert json.loads((tmp_path / "run" / "result.json").read_text())["score"] == "quality500_pixels"
    (run,), left_out = find([str(tmp_path)])
    assert not left_out
    assert grouped([run])[0][0].row()["run"] == f"{kind} toy"
    assert list((tmp_path / "run" / "samples").glob("fakes_*.png"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["kind=svm"], "kind='svm': must be gmm or kde"),
        (["components=[]"], r"components=\[\]: give one number or several"),
        (["bandwidths=[0.1,-1]", "kind=kde"], "bandwidths=.*above 0"),
        (["pca=1.5"], "pca=1.5: a number of components, or a share"),
        (["pca=7"], r"pca=7: 100 samples of \[2\] have 2 components"),
        (["metrics.enabled=false"], "a baseline is there to be scored"),
        (["metrics.monitor=kid"], "metrics.monitor=kid: must be one of"),
        (["components=[200]"], "components=200: 100 samples"),
    ],
)
def test_what_can_not_be_fitted_is_refused_with_the_reason(given, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        fitted(tmp_path / "run", "kind=gmm", "data=toy", "data.count=100", "metrics.n=50", *given)
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize(("name", "kinds"), [("baseline", BASELINE), ("balance", BALANCE)])
def test_every_key_of_the_new_commands_has_a_kind(name, kinds):
    own = yaml.safe_load((Path(CONF) / f"{name}.yaml").read_text())
    held = {"data", "metrics", "task", "terms", "scores", "extractor", "paths", "speed", "hydra", "defaults"}
    assert set(own) - held <= set(kinds)
    with pytest.raises(ValueError, match="seed='x': must be a whole number"):
        resolved(composed("seed=x", name=name), kinds)
