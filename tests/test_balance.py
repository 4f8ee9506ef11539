"""Rare classes filled up: what is written and when nothing is, and that the report is fair to the other ways."""

import json
import math

import numpy as np
import pytest
import torch
from composing import composed
from PIL import Image
from sklearn.metrics import recall_score
from test_analyze import conditional, stored

from ganlab import balance as module
from ganlab.balance import balance
from ganlab.checkpoint import AtomicIO, Sampler
from ganlab.data.sets import Digits
from ganlab.evaluate import resolved
from ganlab.metrics import additions
from ganlab.metrics.additions import FILLED, PLAIN, REPEATED, WEIGHTED, recalls, repeated, trained, verdict
from ganlab.translate import encoded

COUNTS = [6, 6, 5, 5, 4, 4, 3, 3, 2, 1]


def labelled(root, names="0123456789", counts=COUNTS):
    """The first test digits of each class, in subfolders."""
    samples = Digits(size=16).split("test")
    for c, (name, count) in enumerate(zip(names, counts, strict=True)):
        (root / name).mkdir(parents=True)
        for i, row in enumerate((samples.label == c).nonzero()[:count, 0].tolist()):
            (root / name / f"{i}.png").write_bytes(encoded(samples.real[row], "png"))
    return root


def settings(tmp_path, *overrides, checkpoint=None, root=None):
    checkpoint, root = checkpoint or conditional(tmp_path), root or labelled(tmp_path / "set")
    given = [f"checkpoint={checkpoint}", f"data.root={root}", f"output={tmp_path / 'out'}", "device=cpu", "columns=4"]
    return resolved(composed(*given, *overrides, name="balance"))


def knowing(folder):
    """The same checkpoint, which says what its classes are called."""
    path = conditional(folder)
    kept = torch.load(path, weights_only=True)
    kept["ganlab"]["config"]["data"]["class_names"] = list("0123456789")
    AtomicIO().save_checkpoint(kept, path)
    return path


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.png"))}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))


def test_each_class_has_as_many_as_the_most_frequent(tmp_path):
    """The originals as they are, and samples that depend on seed, class and number alone; the sheet lies outside."""
    folder = balance(given := settings(tmp_path))
    assert [len(list((folder / str(c)).iterdir())) for c in range(10)] == [6] * 10
    assert [len(list((folder / str(c)).glob("made_*"))) for c in range(10)] == [6 - n for n in COUNTS]
    originals = {Image.open(p).tobytes() for p in folder.rglob("original_*.png")}
    assert originals == {Image.open(p).tobytes() for p in (tmp_path / "set").rglob("*.png")}
    sampler = Sampler.load(given["checkpoint"])
    x = sampler.generate(9 * 6 + 3, 1, 0, torch.tensor([9]))[0, 0]
    pixels = np.asarray(Image.open(folder / "9" / "made_000003.png")).astype(int)
    assert np.abs(pixels - (x.numpy() + 1) * 127.5).max() <= 0.5 + 1e-3
    with Image.open(tmp_path / "out_sheet.png") as sheet:
        assert sheet.size == (4 * 17 + 1, 10 * 17 + 1)


def test_running_again_writes_what_is_missing_and_nothing_else(tmp_path, monkeypatch):
    folder = balance(given := settings(tmp_path))
    before = content(folder)
    (folder / "9" / "made_000002.png").unlink()
    (folder / "0" / "original_000000.png").unlink()
    written, write = [], module.write
    monkeypatch.setattr(module, "write", lambda x, path: written.append(path.name) or write(x, path))
    balance(given)
    assert sorted(written) == ["made_000002.png", "original_000000.png"]
    assert content(folder) == before
    with pytest.raises(ValueError, match="holds something else already"):
        balance(settings(tmp_path, "seed=1", root=tmp_path / "set"))
    assert content(folder) == before


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("no classes told", "its generator is told no class"),
        ("no classes had", "there are no classes to balance"),
        ("fewer", r"knows the classes 10 \(0, 1, .*\), and the data have 9 \(0, 1"),
        ("others", r"and the data have 10 \(a, b"),
        ("size", r"\[1, 16, 16\] and the data are of \[1, 20, 20\]: set data.size=\[16,16\]"),
        ("output", "out holds something else already"),
        ("damaged", "balance.json in it is damaged"),
    ],
)
def test_what_does_not_go_together_is_refused_and_nothing_is_written(case, message, tmp_path):
    out = tmp_path / "out"
    root = {"others": lambda: labelled(tmp_path / "s", "abcdefghij"),
            "fewer": lambda: labelled(tmp_path / "s", "012345678", COUNTS[:9]),
            "no classes had": lambda: labelled(tmp_path / "s") / "0"}.get(case, lambda: None)()  # fmt: skip
    if case in ("output", "damaged"):
        out.mkdir()
        (out / ("balance.json" if case == "damaged" else "mine.txt")).write_text("{")
    before = sorted(out.rglob("*"))
    more = ["data.size=20"] if case == "size" else []
    path = stored(tmp_path) if case == "no classes told" else knowing(tmp_path)
    with pytest.raises(ValueError, match=message):
        balance(settings(tmp_path, *more, checkpoint=path, root=root))
    assert sorted(out.rglob("*")) == before


# -------------------------------------------------------------------------------------------------------------- report


def test_repeating_shows_every_class_equally_often_and_every_image():
    y = torch.tensor([0, 0, 0, 0, 0, 2, 2, 1])
    rows = repeated(y, 5)
    assert torch.bincount(y[rows]).tolist() == [5, 5, 5]
    assert set(rows.tolist()) == set(range(8))


def test_recalls_are_scikit_learns():
    x, y = torch.randint(0, 256, (40, 1, 4, 4), dtype=torch.uint8), torch.randint(3, (40,))
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    said = net(x.float() / 127.5 - 1).argmax(1)
    assert recalls(net, x, y, 3).tolist() == pytest.approx(recall_score(y, said, average=None).tolist())
    assert math.isnan(recalls(net, x, y, 4)[3])


def test_a_class_of_no_weight_is_not_learned():
    """Of two kinds of images one has weight 0: all are taken for the other."""
    x = torch.cat([torch.zeros(20, 1, 16, 16), torch.full((20, 1, 16, 16), 255)]).to(torch.uint8)
    y = torch.arange(40) // 20
    assert recalls(trained(x, y, 2, 60, 0), x, y, 2).tolist() == [1, 1]
    assert recalls(trained(x, y, 2, 60, 0, torch.tensor([1.0, 0.0])), x, y, 2).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([95.0, 96.0, 95.5], "The samples help: 5.0 points above the best other way (classes weighted)"),
        ([85.0, 86.0, 85.5], "The samples do not help: 5.0 points below"),
        ([92.0, 89.0, 90.5], "The samples make no clear difference: 0.0 points"),
        ([95.0], "The samples make no clear difference: 4.5 points above"),
    ],
)
def test_the_verdict_is_against_the_best_other_way_and_in_view_of_chance(values, words):
    n = len(values)
    found = {PLAIN: [80.0] * n, REPEATED: [85.0] * n, WEIGHTED: [90.0, 91.0, 90.5][:n] if n > 1 else [90.5]}
    assert words in verdict({**found, FILLED: values})


def test_all_ways_are_trained_alike_and_on_none_of_the_images_that_judge(tmp_path, monkeypatch):
    """As many steps for each; where the set has no test part, every fifth image of a class is kept from all of them."""
    asked = []

    def learned(x, y, classes, steps, seed, weight=None):
        asked.append((x, y, steps, seed, weight))
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, classes))

    monkeypatch.setattr(additions, "trained", learned)
    balance(settings(tmp_path, "report=true", "seeds=[3,4]", "steps=7"))
    left = [n - n // 5 for n in COUNTS]
    filled = [a + 6 - b for a, b in zip(left, COUNTS, strict=True)]
    wanted = {PLAIN: left, REPEATED: [max(left)] * 10, WEIGHTED: left, FILLED: filled}
    assert [torch.bincount(y).tolist() for _, y, *_ in asked[::2]] == list(wanted.values())
    assert [(steps, seed) for *_, steps, seed, _ in asked] == [(7, 3), (7, 4)] * 4
    weights = [w for *_, w in asked if w is not None]
    assert torch.allclose(weights[0] * torch.tensor(left), torch.full((10,), sum(left) / 10))
    text = (tmp_path / "out_report.md").read_text()
    assert f"on {sum(COUNTS) - sum(left)} images: every fifth image of each class" in text
    assert text.count("\n| ") == 4
    about = json.loads((tmp_path / "out" / "balance.json").read_text())
    assert about["made"] == [6 - n for n in COUNTS]


def test_a_folder_to_judge_by_must_have_the_same_classes(tmp_path):
    other = labelled(tmp_path / "other", "abcdefghij")
    with pytest.raises(ValueError, match=r"test=.*other: its classes are"):
        balance(settings(tmp_path, "report=true", f"test={other}"))
