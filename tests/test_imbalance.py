"""Class imbalance: the profile, the same choice in every run, balanced rounds, and what the rest is told of it."""

import lightning as L
import pytest
import torch
from composing import composed, group, prepared
from PIL import Image

from ganlab.data import sets
from ganlab.data.folder import Folder
from ganlab.data.imbalance import Balanced, imbalanced, profile
from ganlab.data.rounds import Chosen, InMemory, Order
from ganlab.settings import build


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))


def test_the_profile_of_the_long_tailed_sets():
    """CIFAR-10 at 1 to 100, counts as published for it: 5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50, rounded
    here instead of cut."""
    label = torch.arange(10).repeat(5000)
    counts = torch.bincount(label[imbalanced(label, 0.01)]).tolist()
    published = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert all(0 <= n - m <= 1 for n, m in zip(counts, published, strict=True))
    assert profile(10, 0.01) == pytest.approx([n / sum(counts) for n in counts], abs=1e-4)
    assert profile(3, 0.25) == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    assert profile(4, 1.0) == [0.25] * 4
    assert profile(1, 0.1) == [1.0]


def test_unequal_classes_get_the_profile_too():
    """Class 1 has too few for the first class to keep all: 40, 20, 10."""
    label = torch.tensor([0] * 90 + [1] * 20 + [2] * 50)[
        torch.randperm(160, generator=torch.Generator().manual_seed(0))
    ]
    rows = imbalanced(label, 0.25)
    assert torch.bincount(label[rows]).tolist() == [40, 20, 10]
    assert torch.equal(rows, rows.unique())
    assert torch.equal(rows, imbalanced(label, 0.25))
    assert torch.bincount(label[imbalanced(label, 1e-9)])[2] == 1  # at least one of each


def test_balanced_epochs():
    """Each class as often as the most frequent; of a class no sample twice before all were shown once."""
    label = torch.tensor([0] * 7 + [1] * 3 + [3] * 1)
    order = Order(11, 6, seed=1, balanced=Balanced(label))
    assert order.count == 21
    shown = torch.cat([order.round(r)[0] for r in range(7)])  # two epochs
    for epoch in (shown[:21], shown[21:]):
        assert torch.bincount(label[epoch]).tolist() == [7, 7, 0, 7]
        times = torch.bincount(epoch, minlength=11)
        assert times[:7].tolist() == [1] * 7
        assert sorted(times[7:10].tolist()) == [2, 2, 3]
        assert times[10] == 7
    assert not torch.equal(shown[:21], shown[21:])
    assert len(set(label[shown[:6]].tolist())) > 1  # classes are mixed


def test_balanced_order_is_a_function_of_seed_and_round():
    label = torch.arange(50) % 7
    make = lambda seed: Order(50, 8, seed, flip=True, balanced=Balanced(label))
    walked = make(3)
    for r in range(20):
        walked.round(r)
    for a, b in zip(walked.round(20), make(3).round(20), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(make(3).round(20)[0], make(4).round(20)[0])
    halves = [make(3).round(20, slice(4 * i, 4 * i + 4))[0] for i in range(2)]
    assert torch.equal(torch.cat(halves), make(3).round(20)[0])


def served(data, rounds):
    data.trainer = L.Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    loader = iter(data.train_dataloader())
    return [batch for _ in range(rounds) for batch in next(loader)]


def test_digits_in_all_combinations():
    make = lambda **kwargs: sets.Digits(size=8, batch_size=50, rounds=1, **kwargs)
    rare = make(imbalance=0.1)
    counts = torch.bincount(rare.played().label)
    assert counts[0] / counts[9] == pytest.approx(10, rel=0.05)
    assert torch.equal(rare.played().real, make(imbalance=0.1, seed=5).played().real)
    assert rare.fingerprint("train") == make().fingerprint("train")  # scores compare with all
    assert len(rare.split("train")) == 1438
    assert len(make(imbalance=0.1, count=60).played()) == 60
    assert rare.facts()["frequencies"] == pytest.approx((counts / counts.sum()).tolist(), abs=2e-3)

    both = make(imbalance=0.1, balanced=True)
    assert both.facts()["frequencies"] is None
    assert make(balanced=True).facts()["frequencies"] is None
    epoch = 10 * int(counts.max())
    label = torch.cat([batch["label"] for batch in served(both, epoch // 50)])[: epoch // 50 * 50]
    shares = torch.bincount(label, minlength=10) / len(label)
    assert (shares - 0.1).abs().max() < 0.01


def test_folders_in_memory_and_on_disk(tmp_path):
    for name, n in (("a", 8), ("b", 8), ("c", 8)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(n):
            Image.new("L", (8, 8), 10 * i).save(tmp_path / "set" / name / f"{i}.png")
    for memory, disk in ((1.0, 1.0), (0.0, 1.0), (0.0, 0.0)):
        make = lambda memory=memory, disk=disk, **kw: Folder(
            str(tmp_path / "set"), workers=0, memory=memory, disk=disk, batch_size=12, rounds=1, **kw
        )
        data = make(imbalance=0.25)
        assert isinstance(data.played(), InMemory if memory else Chosen)
        assert torch.bincount(data.played().label).tolist() == [8, 4, 2]
        assert data.facts()["frequencies"] == pytest.approx([4 / 7, 2 / 7, 1 / 7])
        assert torch.bincount(torch.cat([b["label"] for b in served(data, 7)])).tolist() == [48, 24, 12]  # six epochs
        even = make(imbalance=0.25, balanced=True)
        assert torch.bincount(torch.cat([b["label"] for b in served(even, 2)])).tolist() == [8, 8, 8]


def test_the_fakes_labels_follow():
    small = ("model=cgan", "data=digits", "generator.width=8", "discriminator.width=8", "metrics.enabled=false")
    assert build(prepared(*small, "data.imbalance=0.01")).task.frequencies == pytest.approx(profile(10, 0.01))
    assert build(prepared(*small, "data.imbalance=0.01", "data.balanced=true")).task.frequencies is None


def test_refused_with_the_fix(tmp_path):
    for i in range(2):
        Image.new("L", (8, 8), i).save(tmp_path / f"{i}.png")
    for kwargs, match in (
        ({"imbalance": 0.1}, r"data\.imbalance=0\.1 needs"),
        ({"balanced": True}, r"data\.balanced=true"),
    ):
        with pytest.raises(ValueError, match=match):
            Folder(str(tmp_path), **kwargs).facts()
        with pytest.raises(ValueError, match=match):
            sets.STL10(**kwargs).facts()
    for ratio in (0, 1.5, -1):
        with pytest.raises(ValueError, match=r"data\.imbalance"):
            sets.Digits(imbalance=ratio)


UNLABELLED = ("toy", "pairs", "side_by_side", "label_maps", "unpaired", "mnist_inverted", "sentences", "text")
SETS = [name for name in group("data") if name not in UNLABELLED]


@pytest.mark.parametrize("data", SETS)
def test_every_image_set_has_the_keys(data):
    cfg = composed(f"data={data}")
    assert cfg.data.imbalance is None
    assert cfg.data.balanced is False
