"""Generators that are told a vector of attributes, from a table beside a folder of images."""

import numpy as np
import pytest
import torch
from composing import prepared, run
from PIL import Image

from ganlab.checkpoint import Sampler
from ganlab.data.folder import CelebA, Folder
from ganlab.files import Unavailable
from ganlab.phase import Phase
from ganlab.rng import IndexedRNG
from ganlab.settings import build
from ganlab.tasks import Generate
from ganlab.terms.labels import Classify

ROWS = {"a.png": (1, 0, 1), "b.png": (0, 0, 1), "c.png": (1, 1, 1), "d.png": (0, 0, 0)}


@pytest.fixture
def faces(tmp_path, monkeypatch):
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "faces"
    folder.mkdir()
    for i, name in enumerate(ROWS):
        Image.fromarray(np.full((16, 16), 60 * i, np.uint8)).save(folder / name)
    lines = ["file,smiling,hat,young", *(f"{name},{','.join(map(str, row))}" for name, row in ROWS.items())]
    (folder / "faces.csv").write_text("\n".join(lines))
    return folder


def test_the_table_becomes_vectors(faces):
    data = Folder(root=str(faces), attributes="faces.csv")
    facts = data.facts()
    assert (facts["classes"], facts["class_names"], facts["several"]) == (3, ["smiling", "hat", "young"], True)
    assert facts["frequencies"] == [0.5, 0.25, 0.75]
    taken = data.split("train").take(torch.tensor([2, 0]))
    assert taken["label"].tolist() == [[1, 1, 1], [1, 0, 1]]
    assert taken["real"][0, 0, 0, 0] == 120
    assert Folder(root=str(faces), attributes="faces.csv", attribute_names=["hat"]).facts()["frequencies"] == [0.25]


def test_celebas_own_table(faces):
    (faces / "list.txt").write_text("4\nSmiling Hat\na.png  1 -1\nb.png -1 -1\nc.png  1  1\nd.png -1 -1\n")
    for name in ROWS:  # it is a set of .jpg
        Image.open(faces / name).save(faces / name.replace("png", "jpg"))
        (faces / name).unlink()
    (faces / "list.txt").write_text((faces / "list.txt").read_text().replace("png", "jpg"))
    data = CelebA(root=str(faces), attributes="list.txt")
    data.measure()
    assert data.split("train").take(torch.arange(3))["label"].tolist() == [[1, 0], [0, 0], [1, 1]]


def test_what_the_table_lacks_is_named(faces):
    for arguments, message in (
        ({"attributes": "nothing.csv"}, "there is no such file"),
        ({"attributes": "faces.csv", "attribute_names": ["beard"]}, "has no beard; there are smiling, hat, young"),
    ):
        with pytest.raises(Unavailable, match=message):
            Folder(root=str(faces), **arguments).facts()
    (faces / "faces.csv").write_text("file,hat\na.png,1\n")
    with pytest.raises(Unavailable, match=r"3 images are not in it, b\.png is the first"):
        Folder(root=str(faces), attributes="faces.csv").facts()


def test_drawn_attributes_have_the_sets_frequencies():
    task = Generate(z_dim=2, labels="data", classes=3, frequencies=[0.1, 0.5, 0.9], several=True)
    _, label = task.draw(IndexedRNG(0, range(4000)))
    assert label.mean(0).tolist() == pytest.approx([0.1, 0.5, 0.9], abs=0.03)
    assert set(label.unique().tolist()) == {0.0, 1.0}


def test_attributes_are_classified_one_by_one():
    """Binary cross entropy, averaged over the attributes, as PyTorch's own of each."""
    logits, label = torch.randn(4, 3), torch.tensor(list(ROWS.values())).float()
    phase = Phase.__new__(Phase)
    vars(phase).update(player="G", batch=type("B", (), {"cond": label, "told_with_real": label}))
    vars(phase)["on_fake"] = type("O", (), {"aux": logits})
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    expected = [sum(bce(logits[i, j], label[i, j]) for j in range(3)).item() / 3 for i in range(4)]
    assert Classify(player="G")(phase).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("model", ["cgan", "cgan_pd", "acgan"])
def test_conditional_models_play_with_attributes(model, faces, tmp_path):
    small = ("experiment=tiny", "data=folder", f"data.root={faces}", "data.attributes=faces.csv", "task.labels=data")
    run(tmp_path / model, f"model={model}", *small, "data.batch_size=50", "max_kimg=0.25")
    sampler = Sampler.load(tmp_path / model / "checkpoints/last.ckpt")
    told = [sampler.generate(0, 1, cond=torch.tensor([v])) for v in ([0.0, 0, 0], [1.0, 0, 1])]
    assert not torch.equal(*told)


def test_one_hot_attributes_are_labels():
    """A vector with a single 1 is told as that label."""
    for model in ("cgan", "cgan_pd", "r3gan"):
        extra = ["generator.classes=10", "discriminator.classes=10", "task.labels=data"] if model == "r3gan" else []
        gan = build(prepared(f"model={model}", "experiment=tiny", *extra))
        z, label = torch.randn(3, gan.task.z_dim), torch.tensor([0, 3, 9])
        vector = torch.nn.functional.one_hot(label, 10).float()
        gan.eval()
        assert torch.allclose(gan.G(z, label), gan.G(z, vector), atol=1e-6)
        x = gan.G(z, label)
        assert torch.allclose(gan.D(x, label), gan.D(x, vector), atol=1e-5)
