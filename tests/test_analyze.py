"""What is said of a trained GAN is what other ways of computing it say."""

import csv

import numpy as np
import pytest
import torch
from composing import composed
from omegaconf import OmegaConf, open_dict
from PIL import Image
from sklearn.neighbors import NearestNeighbors
from test_sampling import Styled
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from ganlab import checkpoint
from ganlab.analysis.confusion import confusion
from ganlab.analysis.directions import Latents, pca, principal, sefa, walked
from ganlab.analysis.neighbours import neighbours
from ganlab.analysis.probe import Features, linear_accuracy
from ganlab.analyze import analyze
from ganlab.checkpoint import AtomicIO, Sampler
from ganlab.evaluate import resolved
from ganlab.models import dcgan, resnet
from ganlab.settings import build
from ganlab.tasks import Generate


def stored(folder, *overrides, shape=(1, 16, 16)):
    """A checkpoint of untrained networks, as a run writes it."""
    cfg = composed("generator.width=16", "discriminator.width=8", *overrides)
    with open_dict(cfg):
        cfg.data.update({"shape": list(shape), "classes": 10, "class_names": None, "frequencies": None})
    settings = OmegaConf.to_container(cfg, resolve=True)
    content = {
        "state_dict": build(settings).state_dict(),
        "clock": {"rounds": 1, "seen": 64, "curves": {}},
        "ganlab": {"format": checkpoint.FORMAT, "version": "0", "config": settings},
    }
    AtomicIO().save_checkpoint(content, folder / "file.ckpt")
    return folder / "file.ckpt"


def conditional(folder):
    return stored(folder, "model=cgan_pd", "data.size=16")


def same_direction(a, b):
    a, b = a.double(), b.double()
    return a.shape == b.shape and torch.allclose((a * b).sum(1).abs(), torch.ones(len(a)).double(), atol=1e-4)


def draws(n, dim, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------------------------------------------------- directions


class Bent(nn.Module):
    """A linear layer, spectrally normalised or not, a bend, another layer."""

    z_dim = 5

    def __init__(self, wrap=lambda layer: layer):
        super().__init__()
        torch.manual_seed(0)
        self.unused = nn.Linear(5, 5)
        self.first, self.bend, self.last = wrap(nn.Linear(5, 8)), nn.Tanh(), nn.Linear(8, 16)
        self.zeros = nn.Linear(3, 2)

    def forward(self, z):
        return self.last(self.bend(self.first(z)) + self.zeros(torch.zeros(len(z), 3)).sum()).view(-1, 1, 4, 4)


@pytest.mark.parametrize("wrap", [lambda layer: layer, spectral_norm])
def test_sefa_is_the_singular_value_decomposition_of_the_first_layer(wrap):
    G = Bent(wrap).eval()
    found = sefa(Latents(Sampler(G, Generate())), 5)
    assert same_direction(found, torch.from_numpy(np.linalg.svd(G.first.weight.detach().numpy())[2]))
    assert torch.allclose(found @ found.T, torch.eye(5), atol=1e-5)


def test_sefa_of_a_transposed_convolution_is_that_of_its_matrix():
    G = dcgan.Generator([1, 8, 8], z_dim=40, width=16)
    weight = G[1].weight.detach().flatten(1).T  # what it does to a 1x1 map
    found = sefa(Latents(Sampler(G, Generate())), 40)
    assert same_direction(found[:5], torch.from_numpy(np.linalg.svd(weight.numpy())[2][:5]))


def test_sefa_with_labels_is_of_z_alone():
    G = resnet.Generator([3, 8, 8], z_dim=7, width=16, classes=3)
    found = sefa(Latents(Sampler(G, Generate(labels="uniform", classes=3)), label=1), 7)
    assert same_direction(found, torch.from_numpy(np.linalg.svd(G.linear.weight.detach().numpy())[2]))


class Three(nn.Module):
    """Two layers that are handed w, one after another, and one that is not."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b, self.c = nn.Linear(5, 3), nn.Linear(5, 4), nn.Linear(7, 2)

    def forward(self, ws):
        return self.c(torch.cat([self.a(ws[:, 0]), self.b(ws[:, 1])], 1).relu())[:, None, None]


def test_sefa_of_styles_is_of_all_layers_that_are_handed_w_together():
    G = Styled()
    G.synthesis = Three()
    found = sefa(Latents(Sampler(G, Generate())), 5)
    together = torch.cat([G.synthesis.a.weight, G.synthesis.b.weight]).detach().numpy()
    assert same_direction(found, torch.from_numpy(np.linalg.svd(together)[2]))


@pytest.mark.parametrize("shape", [(50, 6), (6, 50)])
def test_principal_components_are_numpys(shape):
    x = draws(*shape) * torch.linspace(1, 3, shape[1]) + 4
    components, variances = principal(x, 4)
    _, values, vectors = np.linalg.svd(x.double().numpy() - x.double().numpy().mean(0), full_matrices=False)
    assert same_direction(components, torch.from_numpy(vectors[:4]))
    assert variances.numpy() == pytest.approx(values[:4] ** 2 / (shape[0] - 1))


def test_pca_of_w_and_of_the_first_activation():
    """Of z: components of tanh(first(z)), by NumPy, and z fitted to them by least squares."""
    w = draws(300, 5) * torch.tensor([1.0, 5.0, 2.0, 0.5, 0.1])
    found = pca(Latents(Sampler(Styled(), Generate())), w, 2)
    vectors = np.linalg.svd(w.double().numpy() - w.double().numpy().mean(0), full_matrices=False)[2]
    assert same_direction(found, torch.from_numpy(vectors[:2]))
    G, z = Bent(), draws(300, 5)
    found = pca(Latents(Sampler(G, Generate())), z, 3)
    x = np.tanh(z.double().numpy() @ G.first.weight.double().numpy().T + G.first.bias.double().numpy())
    x -= x.mean(0)
    coordinates = x @ np.linalg.svd(x, full_matrices=False)[2][:3].T
    fitted = np.linalg.lstsq(coordinates, (z - z.mean(0)).double().numpy(), rcond=None)[0]
    expected = fitted / np.linalg.norm(fitted, axis=1, keepdims=True)
    assert same_direction(found, torch.from_numpy(expected))


def test_a_walk_goes_through_the_sample_in_equal_steps():
    class Same(nn.Module):
        z_dim = 4

        def __init__(self):
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, z):
            return z.view(-1, 1, 2, 2)

    around = draws(2, 4)
    images = walked(Latents(Sampler(Same(), Generate())), torch.eye(4)[:3], around, torch.tensor([1.0, 2.0, 3.0]), 2, 5)
    path = images.view(3, 2, 5, 4)
    assert torch.allclose(path[:, :, 2], around.expand(3, -1, -1))
    for i in range(3):
        assert torch.allclose(path[i, :, 4] - path[i, :, 0], 4 * (i + 1) * torch.eye(4)[i].expand(2, -1))


# ---------------------------------------------------------------------------------------------------------- neighbours


def test_neighbours_by_hand():
    """On a line: the reals 0, 1, 3, 10; fakes 0.2 (nearer to 0 than 1 is), 5.2 (farther from 3 than 1 is), 9."""
    real, fake = torch.tensor([[0.0], [1.0], [3.0], [10.0]]), torch.tensor([[0.2], [5.2], [9.0]])
    found = neighbours(real, fake, 2)
    assert found.index.tolist() == [[0, 1], [2, 1], [3, 2]]
    assert found.distance[:, 0].tolist() == pytest.approx([0.2, 2.2, 1.0], abs=1e-5)
    assert found.own.tolist() == pytest.approx([1, 2, 7])
    assert found.copies == pytest.approx(2 / 3)  # 0.2 < 1; 2.2 > 2; 1 < 7
    assert found.expected == pytest.approx(2 / 4)  # 0 and 1 are each other's nearest; 3's is 1, 10's is 3


@pytest.mark.parametrize("size", [7, 2048])
def test_neighbours_are_scikit_learns_however_they_are_cut(size):
    real, fake = draws(40, 6), draws(25, 6, seed=1)
    found = neighbours(real, fake, 3, size)
    distance, index = NearestNeighbors(n_neighbors=3).fit(real.numpy()).kneighbors(fake.numpy())
    assert found.distance.numpy() == pytest.approx(distance, abs=1e-5)
    assert found.index.tolist() == index.tolist()
    own, other = NearestNeighbors(n_neighbors=2).fit(real.numpy()).kneighbors(real.numpy())
    assert found.own.numpy() == pytest.approx(own[index[:, 0], 1], abs=1e-5)
    assert found.copies == pytest.approx(np.mean(distance[:, 0] < own[index[:, 0], 1]))
    left_out = [own[i, 1] <= own[other[i, 1], 1] for i in range(40)]  # nearer to its neighbour than any other is
    assert found.expected == pytest.approx(np.mean(left_out))


def test_copies_are_seen_and_samples_of_the_same_law_are_as_expected():
    real = draws(800, 8)
    assert neighbours(real, real[:50] + 1e-4, 1).copies == 1
    fresh = neighbours(real, draws(800, 8, seed=5), 1)
    assert fresh.copies == pytest.approx(fresh.expected, abs=0.08)
    assert neighbours(real, draws(800, 8, seed=5) + 20, 1).copies == 0


# --------------------------------------------------------------------------------------------------------------- probe


def test_a_linear_probe_tells_apart_what_can_be():
    x, y = draws(400, 10), torch.arange(400) % 4
    assert linear_accuracy(x, y) < 0.45  # noise: 1/4 is chance
    assert linear_accuracy(x + 6 * torch.eye(10)[y], y) > 0.98
    with pytest.raises(ValueError, match="too few to learn from"):
        linear_accuracy(x[:3], y[:3] * 0)


@pytest.mark.parametrize("spectral", [False, True])
def test_features_are_what_the_last_layer_is_handed(spectral):
    """Projection's embedding is no such layer, and the label that D is told changes nothing."""
    D, x = resnet.Discriminator([3, 8, 8], width=8, spectral=spectral, classes=4), draws(5, 192).view(5, 3, 8, 8)
    expected = D.eval().blocks(x).relu().sum((2, 3))
    assert torch.allclose(Features(D, 0)(x), expected)
    assert torch.equal(Features(D, 3)(x), Features(D, 0)(x))
    D = dcgan.Discriminator([3, 8, 8], width=8)
    assert torch.equal(Features(D)(x), nn.Sequential(*list(D)[:-2])(x).flatten(1))
    with pytest.raises(ValueError, match="does not judge single images"):
        Features(resnet.Discriminator([3, 8, 8], width=8, classes=4))(x)


def test_a_discriminator_comes_from_a_file_as_safely_as_a_generator(tmp_path):
    path = stored(tmp_path)
    content = torch.load(path, weights_only=True)
    trained, fresh = checkpoint.discriminator(path)
    assert torch.equal(trained[0].weight, content["state_dict"]["D.0.weight"])
    assert not torch.equal(trained[0].weight, fresh[0].weight)
    content["ganlab"]["config"]["discriminator"] = {"_target_": "os.getcwd"}
    AtomicIO().save_checkpoint(content, path)
    with pytest.raises(ValueError, match="not ganlab's own"):
        checkpoint.discriminator(path)
    content["ganlab"]["config"]["discriminator"] = None
    AtomicIO().save_checkpoint(content, path)
    with pytest.raises(ValueError, match="has no discriminator"):
        checkpoint.discriminator(path)


def test_confusion_is_scikit_learns():
    from sklearn.metrics import confusion_matrix

    asked, recognised = torch.randint(4, (50,)), torch.randint(4, (50,))
    assert confusion(asked, recognised, 5).tolist() == confusion_matrix(asked, recognised, labels=range(5)).tolist()


# -------------------------------------------------------------------------------------------------------- command line


def settings(*overrides):
    return resolved(composed(*overrides, name="analyze"))


SMALL = [
    "data=digits", "data.size=16", "n=30", "n_real=200", "rows=2", "k=2", "directions=2", "samples=1", "columns=3",
    "labelled=100", "device=cpu",
]  # fmt: skip


def test_all_parts_of_a_conditional_gan(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))
    given = [*SMALL, f"checkpoint={conditional(tmp_path)}", f"output={tmp_path / 'out'}", "extractor.epochs=1"]
    folder = analyze(settings(*given))
    told = capsys.readouterr().out
    assert "skipped" not in told
    for words in ("30 samples are nearer to a training image", "in z: 2 of sefa, 2 of pca", "from an", "of 30 samples"):
        assert words.replace("from an", "those of an untrained D") in told
    sizes = {
        "neighbours_pixels.png": (3, 2), "neighbours_classifier.png": (3, 2), "directions_sefa.png": (3, 2),
        "directions_pca.png": (3, 2),
    }  # fmt: skip
    for name, (columns, rows) in sizes.items():
        with Image.open(folder / name) as sheet:
            assert sheet.size == (columns * 17 + 1, rows * 17 + 1)
    with open(folder / "confusion.csv") as file:
        rows = list(csv.reader(file))[1:]
    assert [sum(map(int, row[1:])) for row in rows] == [3] * 10
    with open(folder / "neighbours_pixels.csv") as file:
        near = list(csv.DictReader(file))
    assert len(near) == 30
    assert max(int(row["real"]) for row in near) >= 200  # the number in the whole set
    with np.load(folder / "directions.npz") as kept:
        assert kept["sefa"].shape == kept["pca"].shape == (2, 128)
    assert (folder / "confusion.png").exists()
    assert (folder / "probe.csv").exists()


def test_parts_that_do_not_apply_say_why_and_the_others_go_on(tmp_path, capsys):
    given = [f"checkpoint={stored(tmp_path)}", f"output={tmp_path / 'out'}", "n=20", "columns=3", "device=cpu"]
    analyze(settings(*given))
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "neighbours   skipped: it needs the training images: give data=NAME"
    assert told[1].startswith("directions   in z")
    assert told[2].startswith("probe        skipped: it needs the training images")
    assert told[3] == "confusion    skipped: the generator is told no class"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["parts=[fid]"], r"must be some of \[neighbours,directions,probe,confusion\]"),
        (["label=12"], "label=12: this generator has labels 0 to 9"),
        (["n_real=some"], "n_real='some': must be a whole number"),
        (["k=0"], "k=0: must be a whole number from 1 to"),
        (["data=digits", "data.size=32"], r"images of \[1, 16, 16\] and the data are of \[1, 32, 32\]: set data.size"),
        (["checkpoint=nowhere.ckpt"], "there is no such file"),
    ],
)
def test_what_can_not_be_analysed_is_refused_with_the_reason(given, message, tmp_path):
    path = conditional(tmp_path) if "label=12" in given else stored(tmp_path)
    with pytest.raises(ValueError, match=message):
        analyze(settings(f"checkpoint={path}", f"output={tmp_path / 'out'}", "device=cpu", *given))
    assert not (tmp_path / "out").exists()
