"""Pairs of images: partners stay together, and what is random in them is a function of seed and epoch alone."""

import numpy as np
import pytest
import torch
from PIL import Image

from ganlab.data.batches import as_input, cut
from ganlab.data.pairs import VOID, LabelMaps, Pairs, SideBySide, Sides, Unpaired
from ganlab.data.rounds import InMemory, Order, Rounds, Zipped
from ganlab.files import Unavailable

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))


def picture(path, value, size=(12, 8)):
    """An image whose pixels tell which it is, and where they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros((size[1], size[0], 3), np.uint8)
    array[..., 0], array[..., 1], array[..., 2] = value, np.arange(size[1])[:, None], np.arange(size[0])[None]
    Image.fromarray(array).save(path)


def folders(root, count=6, size=(12, 8), names=("source", "target")):
    for i in range(count):
        picture(root / names[0] / f"{i}.png", i, size)
        picture(root / names[1] / f"{i}.png", 100 + i, size)
    return str(root)


def loader(data, rounds=2, world=1, rank=0, start=0):
    """What its trainer would hand out to one of `world` processes."""

    class Trainer:
        strategy = type("S", (), {"root_device": CPU})
        global_rank, world_size = rank, world
        lightning_module = type("M", (), {"rounds": start})

    data.trainer = Trainer
    served, found = iter(data.train_dataloader()), []
    while len(found) < rounds:
        found += next(served)
    return found[:rounds]


def level(x):
    """Of the red channel: which image it is."""
    return ((x[:, 0, 0, 0] + 1) * 127.5).round().int()


def test_partners_stay_together_whatever_the_order(tmp_path):
    data = Pairs(folders(tmp_path), batch_size=4, flip=True, jitter=0.5)
    batches = loader(data, 9)
    for batch in batches:
        assert batch["inputs"].shape == batch["real"].shape == (4, 3, 8, 12)
        assert torch.equal(level(batch["inputs"]) + 100, level(batch["real"]))
    shown = torch.cat([level(b["inputs"]) for b in batches])
    assert all(sorted(epoch.tolist()) == list(range(6)) for epoch in shown.view(6, 6))


def test_both_partners_are_cut_and_mirrored_alike(tmp_path):
    """The green and blue channels say which pixel of the image one sees: they agree in both partners, and move."""
    first = loader(Pairs(folders(tmp_path), batch_size=6, flip=True, jitter=0.5), 2)
    for batch in first:
        assert torch.equal(batch["inputs"][:, 1:], batch["real"][:, 1:])
    corners = {tuple(x[1:, 0, 0].tolist()) for batch in first for x in batch["real"]}
    assert len(corners) > 4
    mirrored = [x[2, 0, 0] > x[2, 0, -1] for batch in first for x in batch["real"]]
    assert any(mirrored)
    assert not all(mirrored)


def test_nothing_depends_on_processes_workers_memory_or_restarts(tmp_path):
    make = lambda **kw: Pairs(folders(tmp_path), batch_size=4, flip=True, jitter=0.3, seed=7, **kw)
    whole = loader(make(), 4)
    halves = [loader(make(), 4, world=2, rank=r) for r in (0, 1)]
    later, disk, workers = loader(make(), 2, start=2), loader(make(memory=0, workers=0), 4), loader(make(memory=0), 4)
    for side in ("inputs", "real"):
        assert all(torch.equal(w[side], torch.cat([a[side], b[side]])) for w, a, b in zip(whole, *halves, strict=True))
        assert all(torch.equal(w[side], x[side]) for w, x in zip(whole[2:], later, strict=True))
        assert all(torch.equal(w[side], x[side]) for w, x in zip(whole, disk, strict=True))
        assert all(torch.equal(w[side], x[side]) for w, x in zip(whole, workers, strict=True))
    other = loader(Pairs(folders(tmp_path), batch_size=4, flip=True, jitter=0.3, seed=8), 4)
    assert not all(torch.equal(a["real"], b["real"]) for a, b in zip(whole, other, strict=True))


def test_whoever_looks_without_training_sees_whole_images(tmp_path):
    """Scores and pictures see the image itself, in its order; without jitter it is the very same that is trained on."""
    data = Pairs(folders(tmp_path), batch_size=6, jitter=0.5)
    seen = data.split("train").take(torch.arange(6))
    assert seen["inputs"].shape == (6, 3, 8, 12)
    assert seen["real"][:, 0, 0, 0].tolist() == [100, 101, 102, 103, 104, 105]
    assert torch.equal(seen["real"][0, 1:], seen["inputs"][0, 1:])
    assert seen["real"][0, 1, :, 0].tolist() == list(range(8))
    plain = loader(Pairs(folders(tmp_path), batch_size=6), 1)[0]["real"]
    assert torch.equal(plain[level(plain).argsort()], seen["real"] / 127.5 - 1)


def test_a_window_is_anywhere_and_at_the_same_place_in_proportion():
    x = torch.arange(10).view(1, 1, 1, 10).expand(3, 1, 4, 10)
    corner = torch.tensor([[0.0, 0.0], [0.5, 0.5], [0.999, 0.999]])
    assert cut(x, corner, (4, 8))[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert cut(x, corner, (2, 6))[:, 0, 0, 0].tolist() == [0, 2, 4]
    many = cut(x[:1].expand(3000, 1, 4, 10), Order(3000, 3000, 0).round(0)[2], (4, 8))[:, 0, 0, 0]
    assert torch.bincount(many).tolist() == pytest.approx([1000, 1000, 1000], rel=0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: (p / "target" / "3.png").unlink(), r"no partner in \S*target for 3 of \S*source"),
        (lambda p: [(p / "source" / f"{i}.png").unlink() for i in range(4)], r"source for 0, 1, 2 and 1 more"),
        (lambda p: picture(p / "target" / "3.png", 0, (12, 9)), r"source.3.png .12x8. and \S*target.3.png .12x9."),
        (lambda p: picture(p / "target" / "3.bmp", 0), r"3.bmp and \S*3.png: which one"),
        (lambda p: (p / "target").rename(p / "elsewhere"), r"target: there is no such folder"),
    ],
)  # fmt: skip
def test_what_does_not_match_is_named(tmp_path, change, message):
    folders(tmp_path)
    change(tmp_path)
    with pytest.raises(Unavailable, match=message):
        Pairs(str(tmp_path), size=8).split("train")


def test_what_can_not_be_read_is_left_out_with_its_partner(tmp_path, capsys):
    """Both are gone, named and counted, from training and from a list of test names; only if that was asked for, and a
    partner that was never there is still missed."""
    root = folders(tmp_path)
    (tmp_path / "source" / "1.png").write_bytes(b"")
    (tmp_path / "target" / "4.png").write_bytes((tmp_path / "target" / "4.png").read_bytes()[:-30])
    with pytest.raises(Unavailable, match=r"1.png can't be read.*data.on_bad=skip"):
        Pairs(root).split("train")
    data = Pairs(root, on_bad="skip").split("train").take(torch.arange(4))
    assert data["inputs"][:, 0, 0, 0].tolist() == [0, 2, 3, 5]
    assert data["real"][:, 0, 0, 0].tolist() == [100, 102, 103, 105]
    said = capsys.readouterr().out
    assert said.count("1 of 6 can't be read and are left out") == 2
    assert "2 whose partner can't be read are left out, too: 1, 4" in said
    (tmp_path / "test.txt").write_text("4\n5\n")
    listed = Pairs(root, on_bad="skip", test="test.txt")
    assert (len(listed.split("train")), len(listed.split("test"))) == (3, 1)
    alone = Unpaired(root, source="source", target="target", on_bad="skip").split("train")
    assert [len(part) for part in alone.parts.values()] == [5, 5]
    (tmp_path / "target" / "3.png").unlink()
    with pytest.raises(Unavailable, match=r"no partner in \S*target for 3 of"):
        Pairs(root, on_bad="skip").split("train")
    with pytest.raises(ValueError, match=r"data.on_bad='no'"):
        Pairs(root, on_bad="no").split("train")


def test_endings_may_differ_and_subfolders_count(tmp_path):
    for i in range(2):
        picture(tmp_path / "source" / "sub" / f"{i}.png", i)
        picture(tmp_path / "target" / "sub" / f"{i}.bmp", 100 + i)
    data = Pairs(str(tmp_path)).split("train").take(torch.arange(2))
    assert (data["real"][:, 0, 0, 0] - data["inputs"][:, 0, 0, 0]).tolist() == [100, 100]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "data.root is not set"),
        ({"root": ".", "source": "{split}A"}, "must be in both"),
        ({"root": ".", "jitter": 2.0}, "data.jitter=2.0"),
        ({"root": ".", "channels": 5}, "data.channels=5"),
        ({"root": ".", "size": 2}, "data.size"),
        ({"root": ".", "source": "{split}A", "target": "{split}B", "test": 3}, "data.test=3"),
    ],
)
def test_refused_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Pairs(**arguments)
    with pytest.raises(ValueError, match=r"data.source='top'"):
        SideBySide(".", source="top")
    with pytest.raises(ValueError, match=r"data.map_classes=None"):
        LabelMaps(".")
    with pytest.raises(ValueError, match=r"data.count=3"):
        Unpaired(".", count=3)


# ---------------------------------------------------------------------------------------------------------------- parts


def test_a_number_of_pairs_is_kept_for_testing(tmp_path):
    data = Pairs(folders(tmp_path), test=2)
    train, test = data.split("train"), data.split("test")
    values = [x.take(torch.arange(len(x)))["inputs"][:, 0, 0, 0].tolist() for x in (train, test)]
    assert len(values[1]) == 2
    assert sorted(values[0] + values[1]) == list(range(6))
    assert len(data.held_out()) == 2
    again = Pairs(str(tmp_path), test=2, seed=5).split("test")
    assert again.fingerprint() == test.fingerprint() != train.fingerprint()
    with pytest.raises(ValueError, match=r"data.test=5: from 1 to 4"):
        Pairs(str(tmp_path), test=5).split("train")


def test_a_list_names_what_is_kept_for_testing(tmp_path):
    root = folders(tmp_path)
    (tmp_path / "test.txt").write_text("4\n\n1.png\n")
    data = Pairs(root, test="test.txt")
    assert data.split("test").take(torch.arange(2))["inputs"][:, 0, 0, 0].tolist() == [1, 4]
    assert len(data.split("train")) == 4
    (tmp_path / "test.txt").write_text("4\n9\n")
    with pytest.raises(Unavailable, match=r"it lists 9"):
        Pairs(root, test="test.txt").split("train")
    with pytest.raises(Unavailable, match=r"there is no such file"):
        Pairs(root, test="no.txt").split("train")
    with pytest.raises(Unavailable, match=r"has no test part: set data.test"):
        Pairs(root).split("test")


def test_parts_in_folders_of_their_own(tmp_path):
    folders(tmp_path, 5, names=("trainA", "trainB"))
    folders(tmp_path, 2, names=("valA", "valB"))
    data = Pairs(str(tmp_path), "{split}A", "{split}B", test="val")
    assert (len(data.split("train")), len(data.split("test"))) == (5, 2)
    with pytest.raises(Unavailable, match="testA: there is no such folder"):
        Pairs(str(tmp_path), "{split}A", "{split}B").split("test")


def test_some_pairs_only(tmp_path):
    data = Pairs(folders(tmp_path), batch_size=3, count=3, jitter=0.1)
    assert len(data.played()) == len(data.held_out()) == 3
    shown = {int(v) for batch in loader(data, 4) for v in level(batch["inputs"])}
    assert shown == set(data.played().take(torch.arange(3))["inputs"][:, 0, 0, 0].tolist())


# ---------------------------------------------------------------------------------------------------------------- kinds


@pytest.mark.parametrize("source", ["left", "right"])
def test_side_by_side(tmp_path, source):
    """Of an image of 16x8, G is handed one half and makes the other."""
    for i in range(3):
        wide = np.zeros((8, 16, 3), np.uint8)
        wide[:, :8], wide[:, 8:] = i, 200 + i
        Image.fromarray(wide).save(tmp_path / f"{i}.png")
    data = SideBySide(str(tmp_path), source=source, batch_size=3)
    assert data.facts()["shape"] == data.facts()["inputs"] == [3, 8, 8]
    batch = data.split("train").take(torch.arange(3))
    left, right = ("inputs", "real") if source == "left" else ("real", "inputs")
    assert [batch[left][:, 0, 3, 7].tolist(), batch[right][:, 0, 3, 0].tolist()] == [[0, 1, 2], [200, 201, 202]]
    assert len({part.fingerprint() for part in data.sides("train", (8, 8)).parts.values()}) == 2
    Image.new("RGB", (15, 8)).save(tmp_path / "0.png")
    with pytest.raises(Unavailable, match=r"0.png .*15 pixels wide"):
        SideBySide(str(tmp_path), size=8).split("train")


def maps(root, mode="L"):
    """Left half of class 0, right half of 2, a corner of 3, which is none of 3 classes."""
    ids = np.zeros((8, 12), np.uint8)
    ids[:, 6:], ids[0, 0] = 2, 3
    for i in range(3):
        picture(root / "images" / f"{i}.png", i)
        (root / "labels").mkdir(exist_ok=True)
        image = Image.fromarray(ids)
        if mode == "P":
            image = Image.fromarray(ids, "P")
            image.putpalette([0, 0, 0, 9, 9, 9, 255, 0, 0, 1, 2, 3])
        if mode == "RGB":
            image = Image.fromarray(np.array([[0, 0, 0], [9, 9, 9], [255, 0, 0], [1, 2, 3]], np.uint8)[ids])
        image.save(root / "labels" / f"{i}.png")
    return {"root": str(root), "source": "images", "target": "labels", "map_classes": 3}, torch.from_numpy(ids).long()


@pytest.mark.parametrize("mode", ["L", "P", "RGB"])
def test_label_maps(tmp_path, mode):
    """Numbers, a palette's entries or colours become classes; what does not count becomes 255, everywhere."""
    given, ids = maps(tmp_path, mode)
    given |= {"void": 3} | ({"palette": [[0, 0, 0], [9, 9, 9], [255, 0, 0]]} if mode == "RGB" else {})
    data = LabelMaps(**given, batch_size=3)
    assert data.facts()["shape"] == [3, 8, 12]
    assert data.facts()["inputs"] == [3, 8, 12]
    real = loader(data, 1)[0]["real"]
    assert real.dtype == torch.int64
    assert torch.equal(real, torch.where(ids == 3, VOID, ids).expand(3, 8, 12))
    with pytest.raises(Unavailable, match=r"0.png .*(data.void=3|set data.void)"):
        LabelMaps(**{**given, "void": None}).split("train")


def test_colour_maps_need_a_palette(tmp_path):
    given, _ = maps(tmp_path, "RGB")
    with pytest.raises(Unavailable, match=r"give data\.palette"):
        LabelMaps(**given).split("train")
    with pytest.raises(ValueError, match="one for each class"):
        LabelMaps(**given, palette=[[0, 0, 0]])


def test_maps_are_cut_mirrored_and_scaled_with_their_images_and_never_mixed(tmp_path):
    """The image's right half is bright where the map says 2."""
    given, ids = maps(tmp_path)
    for i in range(3):
        Image.fromarray(((ids == 2) * 255).to(torch.uint8).numpy()).save(tmp_path / "images" / f"{i}.png")
    for size in (None, (16, 24)):
        for batch in loader(LabelMaps(**given, void=3, batch_size=3, flip=True, jitter=0.5, size=size), 4):
            bright, two = batch["inputs"][:, 0] > 0, batch["real"] == 2
            assert set(batch["real"].unique().tolist()) <= {0, 2, VOID}
            assert (bright == two).float().mean() > 0.93  # but for the smoothed edge


def test_unpaired_folders_have_orders_and_lengths_of_their_own(tmp_path):
    for i in range(5):
        picture(tmp_path / "trainA" / f"{i}.png", i)
    for i in range(3):
        picture(tmp_path / "trainB" / f"x{i}.png", 100 + i)
    data = Unpaired(str(tmp_path), source="{split}A", target="{split}B", batch_size=3)
    batches = loader(data, 10)
    a, b = (torch.cat([level(batch[side]) for batch in batches]) for side in ("inputs", "real"))
    assert all(sorted(epoch.tolist()) == [0, 1, 2, 3, 4] for epoch in a.view(6, 5))
    assert all(sorted(epoch.tolist()) == [100, 101, 102] for epoch in b.view(10, 3))
    assert len({(int(x), int(y)) for x, y in zip(a, b, strict=True)}) > 7  # no fixed partners
    assert len(data.split("train")) == 5
    assert data.split("train").take(torch.tensor([4]))["real"][0, 0, 0, 0] == 101


def test_rounds_side_by_side_end_at_the_same_events():
    samples = {name: InMemory(torch.full((n, 1, 4, 4), n, dtype=torch.uint8)) for name, n in (("a", 5), ("b", 3))}
    served = Zipped(
        {k: Rounds(v, Order(len(v), 4, 0), device=CPU, at_once=8, events=[0.02]) for k, v in samples.items()}
    )
    lists = [chunk for chunk, _ in zip(served, range(2), strict=False)]
    assert [len(chunk) for chunk in lists] == [5, 5]
    assert set(lists[0][0]) == {"a", "b"}


def test_what_is_uint8_becomes_images_or_maps():
    out = as_input({"real": torch.tensor([[[0, 7]]], dtype=torch.uint8)}, torch.tensor([True]))["real"]
    assert out.tolist() == [[[7, 0]]]
    assert out.dtype == torch.int64
    assert len(Sides({"a": InMemory(torch.zeros(3)), "b": InMemory(torch.zeros(2))})) == 3
