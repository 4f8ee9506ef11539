"""Scores against closed forms, brute force and independent implementations."""

import math

import numpy as np
import pytest
import torch
from made import features, scored
from scipy import linalg
from torchmetrics.functional.image.lpips import _LPIPS
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.mifid import _compute_cosine_distance

import ganlab.metrics.scores
from ganlab.data.sets import Digits
from ganlab.metrics.classes import ClassificationAccuracy, IntraFID
from ganlab.metrics.diversity import Diversity, InceptionScore, PathLength, Vendi, slerp
from ganlab.metrics.frechet import FID, frechet_distance
from ganlab.metrics.kernels import CMMD, KID
from ganlab.metrics.modes import Modes
from ganlab.metrics.neighbours import PRDC, Memorization
from ganlab.metrics.pairs import sweep
from ganlab.metrics.scores import Given, Kept, Scores
from ganlab.tasks import Generate

# ------------------------------------------------------------------------------------------------------------- Frechet


def fid(real, fake, pieces=1):
    return scored(FID(), real, fake, pieces)["fid"]


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
    assert fid(*[x.flatten(1).float() for x in images]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("n", "rank"), [(400, None), (400, 5)])
def test_frechet_distance_equals_the_formula_by_scipy(n, rank):
    a, b = features(n, 16, 1, rank).double().numpy(), features(n, 16, 2, rank).double().numpy()
    s1, s2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = linalg.sqrtm(s1 @ s2).real
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(s1 + s2 - 2 * root)
    got = fid(torch.from_numpy(a), torch.from_numpy(b), pieces=7)
    assert got == pytest.approx(expected, rel=1e-6 if rank is None else 1e-4)  # sqrtm is inexact on singular products


def test_frechet_distance_closed_forms():
    """Diagonal Gaussians: sum of (m1 - m2)^2 + (s1 - s2)^2; equal ones: 0."""
    m1, m2, s1, s2 = (torch.rand(9, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(4))
    value = frechet_distance(m1, s1.square().diag(), m2, s2.square().diag())
    assert value.item() == pytest.approx(((m1 - m2) ** 2 + (s1 - s2) ** 2).sum().item(), rel=1e-12)
    x = features(300, 9, 1)
    assert fid(x, x) == pytest.approx(0, abs=1e-8)


def test_reals_known_beforehand_serve_as_well():
    real, fake = features(100, 5, 1), features(90, 5, 2)
    known = Kept(100, {"features_mu": real.double().mean(0), "features_sigma": torch.cov(real.double().T)})
    metric = Scores({"fid": FID()}, {"features": 5})
    metric.load_reference(known)
    metric.update({"features": fake}, real=False)
    assert metric.compute()["fid"] == pytest.approx(fid(real, fake), rel=1e-9)
    for mu, sigma, message in (
        (torch.zeros(4), torch.eye(4), "4 columns and the extractor's features 5"),
        (torch.zeros(5), torch.zeros(5), r"features_sigma has the shape \[5\]: it is no covariance"),
        (torch.zeros(5), torch.zeros(5, 3), r"features_sigma has the shape \[5, 3\]"),
        (torch.zeros(()), torch.eye(5), "it is no mean"),
        (torch.full((5,), math.nan), torch.eye(5), "features_mu is not finite"),
        (torch.zeros(5), -torch.eye(5), "not finite, or no covariance"),
        (torch.zeros(5), torch.eye(5).roll(1, 0), "not finite, or no covariance"),
    ):
        with pytest.raises(ValueError, match=message):
            metric.load_reference(Kept(10, {"features_mu": mu, "features_sigma": sigma}))
    with pytest.raises(ValueError, match="no features_rows, which prdc need"):
        Scores({"prdc": PRDC()}, {"features": 5}).load_reference(known)


def test_what_can_not_be_scored_is_refused():
    x = features(20, 5, 1)
    with pytest.raises(ValueError, match="at least 2 fake samples, not 1"):
        fid(x, x[:1])
    broken = x.clone()
    broken[3, 2] = math.nan
    with pytest.raises(ValueError, match="real samples have features that are not finite"):
        fid(broken, x)
    with pytest.raises(ValueError, match="fake samples have features that are not finite"):
        scored(PRDC(), x, broken)
    with pytest.raises(ValueError, match="score sfid reads spatial, and there is only features"):
        Scores({"sfid": FID("spatial")}, {"features": 5})
    for score, message in (
        (KID(subset_size=100), "scores.kid.subset_size=100, and there are only 20"),
        (PRDC(), "5 neighbours, and there are only 4"),
        (InceptionScore(), "splits=10, and there are only 4"),
        (ClassificationAccuracy(), "4 fakes are too few"),
        (FID(), "a covariance of 20,000 columns"),
        (Vendi(), "a covariance of 20,000 columns"),
        (IntraFID(), "a covariance of 20,000 columns"),
    ):
        with pytest.raises(ValueError, match=message):
            score.check(Given({"features": 20_000}, 20, 4))
    with pytest.raises(ValueError, match="4 fakes are too few for 3 classes"):
        IntraFID().check(Given({}, 200, 4, classes=3))


# ------------------------------------------------------------------------------------------------------------- kernels


def mmd(kernel, x, y):
    """Unbiased squared MMD by its definition."""
    n, m = len(x), len(y)
    xx = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(kernel(a, b) for a in x for b in y) / (n * m)


@pytest.mark.parametrize("kernel", ["poly", "rbf"])
def test_kid_is_the_unbiased_mmd(kernel):
    real, fake = features(24, 4, 1), features(24, 4, 2)
    formula = {
        "poly": lambda a, b: (a @ b / 4 + 1) ** 3,
        "rbf": lambda a, b: np.exp(-np.square(a - b).sum() / (2 * 3.0**2)),
    }[kernel]
    result = scored(KID(subsets=1, subset_size=24, kernel=kernel, sigma=3.0), real, fake)
    key = "kid" if kernel == "poly" else "kid_rbf"
    expected = mmd(formula, real.double().numpy(), fake.double().numpy())
    assert result == {key: pytest.approx(expected, rel=1e-4), f"{key}_std": 0.0}


def test_kid_draws_its_own_subsets():
    real, fake = features(60, 4, 1), features(50, 4, 2, like=1)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    first = scored(KID(subsets=5, subset_size=20), real, fake)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
    torch.manual_seed(1)
    assert scored(KID(subsets=5, subset_size=20), real, fake) == first
    assert scored(KID(subsets=5, subset_size=20, seed=1), real, fake) != first
    assert first["kid_std"] > 0


def test_cmmd_by_its_definition():
    real, fake = features(30, 6, 1), features(40, 6, 2)
    x, y = (torch.nn.functional.normalize(v.double(), dim=1) for v in (real, fake))
    k = lambda a, b: torch.exp(-torch.cdist(a, b).square() / (2 * 10.0**2)).mean()
    expected = 1000 * (k(x, x) + k(y, y) - 2 * k(x, y)).item()
    assert scored(CMMD(), real, fake)["cmmd"] == pytest.approx(expected, rel=1e-4)
    assert scored(CMMD(), real, real)["cmmd"] == pytest.approx(0, abs=1e-6)


# ---------------------------------------------------------------------------------------------------------- neighbours


def prdc_by_hand(real, fake, k, k_coverage):
    distance = lambda a, b: np.sqrt(np.square(a[:, None] - b[None]).sum(-1))
    radius = lambda x, k: np.sort(distance(x, x), axis=1)[:, k]
    cross = distance(real, fake)
    return {
        "precision": (cross <= radius(real, k)[:, None]).any(0).mean(),
        "recall": (cross <= radius(fake, k)[None]).any(1).mean(),
        "density": (cross < radius(real, k_coverage)[:, None]).sum() / (k_coverage * len(fake)),
        "coverage": (cross.min(1) < radius(real, k_coverage)).mean(),
    }


@pytest.mark.parametrize(("size", "mean"), [(2048, 0.0), (17, 0.0), (2048, 300.0)])
def test_prdc_equals_brute_force(size, mean, monkeypatch):
    """In one block or in many; and far from the origin, where float32 has few digits left for distances."""
    monkeypatch.setattr(ganlab.metrics.scores, "sweep", lambda *a: sweep(*a, size=size))
    real, fake = features(90, 5, 1) + mean, 1.3 * features(70, 5, 2, like=1) + mean
    expected = prdc_by_hand(real.double().numpy(), fake.double().numpy(), 3, 5)
    assert 0 < expected["precision"] < 1
    assert scored(PRDC(), real, fake) == pytest.approx(expected, rel=1e-12)


def test_precision_and_recall_equal_torch_fidelity():
    from torch_fidelity.metric_prc import prc_features_to_metric

    real, fake = features(500, 16, 1), 1.2 * features(400, 16, 2, like=1)
    settings = {"prc_neighborhood": 3, "prc_batch_size": 100, "save_cpu_ram": True, "verbose": False}
    theirs = prc_features_to_metric(fake, real, **settings)
    ours = scored(PRDC(), real, fake, pieces=3)
    assert 0.1 < theirs["recall"] < 1
    assert ours["precision"] == pytest.approx(theirs["precision"], rel=1e-4)
    assert ours["recall"] == pytest.approx(theirs["recall"], rel=1e-4)


def test_memorization_equals_torchmetrics():
    real, fake = features(50, 8, 1), features(40, 8, 2) + 1
    expected = _compute_cosine_distance(fake, real, cosine_distance_eps=10.0).item()
    assert expected != pytest.approx(_compute_cosine_distance(real, fake, cosine_distance_eps=10.0).item(), rel=0.05)
    by_hand = 1 - (torch.nn.functional.normalize(fake) @ torch.nn.functional.normalize(real).T).abs().amax(1)
    value = scored(Memorization(), real, fake)["memorization"]
    assert value == pytest.approx(by_hand.mean().item(), rel=1e-4)
    assert value == pytest.approx(expected, rel=1e-4)
    assert scored(Memorization(), real, real[:20])["memorization"] == pytest.approx(0, abs=1e-6)


# ----------------------------------------------------------------------------------------------------------- diversity


def test_inception_score_closed_forms():
    """One class: 1. Ten classes, each surely: 10. And the formula, unshuffled and in one part."""
    same = torch.zeros(40, 7)
    sure = 100.0 * torch.eye(10).repeat(4, 1)
    assert scored(InceptionScore(), None, same, logits=(None, same))["is"] == pytest.approx(1)
    assert scored(InceptionScore(1, False), None, sure, logits=(None, sure)) == {"is": pytest.approx(10), "is_std": 0.0}
    logits = features(60, 5, 1).double()
    p = logits.softmax(1)
    expected = (p * (p / p.mean(0)).log()).sum(1).mean().exp().item()
    assert scored(InceptionScore(1, False), None, logits, logits=(None, logits))["is"] == pytest.approx(expected)


def test_vendi_score_by_its_definition():
    x = features(30, 6, 1)
    unit = torch.nn.functional.normalize(x.double(), dim=1)
    eigenvalues = torch.linalg.eigvalsh(unit @ unit.T / 30).clamp_min(1e-300)
    expected = torch.exp(-(eigenvalues * eigenvalues.log()).sum()).item()
    assert scored(Vendi(), None, x)["vendi"] == pytest.approx(expected, rel=1e-6)
    assert scored(Vendi(), None, torch.eye(7))["vendi"] == pytest.approx(7, rel=1e-6)
    assert scored(Vendi(), None, torch.ones(7, 3))["vendi"] == pytest.approx(1, rel=1e-6)


def test_diversity_is_the_mean_over_all_pairs():
    x = features(25, 6, 1)
    expected = torch.pdist(x.double()).square().mean().item()
    assert scored(Diversity(), None, x, pieces=4)["diversity"] == pytest.approx(expected, rel=1e-9)


class Plane(torch.nn.Module):
    """G(z) = z: its paths are the arcs that the noise walks along."""

    z_dim, device, dtype = 3, torch.device("cpu"), torch.float64

    def __init__(self):
        super().__init__()
        self.task = Generate(z_dim=3)

    def forward(self, z, cond=None):
        return z


def test_path_length_of_a_plane_is_that_of_the_arc():
    """On a sphere of radius sqrt(d), a step of epsilon along an arc of angle a has length sqrt(d) a epsilon."""
    score = PathLength(discard=0.0)
    path = score.probe(Plane(), lambda x: x, first=0, count=200, seed=3)
    again = score.probe(Plane(), lambda x: x, first=50, count=5, seed=3)
    assert torch.equal(path[50:55], again)  # sample i depends on (seed, i) alone
    a, b = (torch.nn.functional.normalize(x, dim=1) for x in angles())
    expected = 3 * (a * b).sum(1).clamp(-1, 1).acos().square()
    assert torch.allclose(path[:, 0], expected, rtol=1e-4)
    assert scored(score, None, path, path=(None, path))["ppl"] == pytest.approx(path.mean().item())
    cut = scored(PathLength(discard=0.1), None, path, path=(None, path))["ppl"]
    assert cut == pytest.approx(path[:, 0].sort().values[20:180].mean().item())


def angles():
    from ganlab.rng import IndexedRNG, seed_of

    for part in "ab":
        yield IndexedRNG(seed_of(3, "path", part), range(200), dtype=torch.float64).normal(3)


def test_slerp_keeps_to_the_sphere():
    a, b, t = features(9, 5, 1), features(9, 5, 2), torch.linspace(0, 1, 9)
    x = slerp(a, b, t)
    assert torch.allclose(x.norm(dim=1), torch.full((9,), 5**0.5))
    assert torch.allclose(x[0], torch.nn.functional.normalize(a, dim=1)[0] * 5**0.5)
    assert torch.allclose(x[-1], torch.nn.functional.normalize(b, dim=1)[-1] * 5**0.5, atol=1e-6)


def test_squared_distance_of_lpips_features_is_lpips(tmp_path):
    from made import squeezenet_file

    from ganlab.metrics.networks import LPIPS

    path = squeezenet_file(tmp_path)
    ours = LPIPS("squeeze", weights=str(path))
    ours.prepare()
    theirs = _LPIPS(pretrained=True, net="squeeze", pnet_rand=True, eval_mode=True)
    own = theirs.net.state_dict()
    theirs.net.load_state_dict(dict(zip(own, torch.load(path, weights_only=True).values(), strict=False)))
    x, y = (torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(i)) * 2 - 1 for i in (1, 2))
    expected = theirs(x, y).flatten()
    assert torch.allclose((ours(x) - ours(y)).square().sum(1), expected, rtol=1e-4)
    assert expected.min() > 1e-4


# ------------------------------------------------------------------------------------------------------- classes, modes


def test_intra_fid_is_the_mean_over_classes():
    real, fake = features(90, 4, 1), features(60, 4, 2)
    labels = torch.arange(90)[:, None] % 3, torch.arange(60)[:, None] % 3
    got, each = scored(IntraFID(), real, fake, labels=labels), [fid(real[i::3], fake[i::3]) for i in range(3)]
    assert got["intra_fid"] == pytest.approx(sum(each) / 3, rel=1e-9)
    assert got["intra_fid_worst"] == pytest.approx(max(each), rel=1e-9)
    assert math.isnan(scored(IntraFID(), real, fake, labels=(labels[0], labels[1] % 2))["intra_fid"])


def test_classification_accuracy_tells_right_labels_from_wrong_ones():
    data = Digits(size=16)
    train, test = (s.take(torch.arange(len(s))) for s in (data.split("train"), data.split("test")))
    sides = {"images": (test["real"], train["real"])}
    right = {"labels": (test["label"][:, None], train["label"][:, None])}
    wrong = {"labels": (test["label"][:, None], train["label"].flip(0)[:, None])}
    values = [
        scored(ClassificationAccuracy(epochs=6), test["real"].float(), train["real"].float(), **sides, **labels)["cas"]
        for labels in (right, wrong)
    ]
    assert values[0] > 0.9
    assert values[1] < 0.4


def test_modes_and_good_samples():
    """Two of four centres are hit, one by 1 sample in 200; a sample 3.1 deviations off is bad."""
    centers = [[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]]
    hits = torch.tensor([[0.0, 0.0]] * 150 + [[10.0, 0.02]] * 49 + [[0.0, 10.0]] * 1 + [[0.31, 0.0]] * 50)
    result = scored(Modes(centers, deviation=0.1), None, hits)
    assert result == pytest.approx({"modes": 2, "good": 200 / 250, "quality": 0.8 * 0.5})


def test_nothing_good_is_nothing_found():
    result = scored(Modes([[0.0, 0.0]], deviation=0.1), None, torch.ones(5, 2))
    assert result == {"modes": 0, "good": 0, "quality": 0}
