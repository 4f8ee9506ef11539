"""What is said of a data set is what was put into it, and a run's speed is that of rounds that were played."""

import csv
import json

import numpy as np
import pytest
import torch
from composing import composed
from PIL import Image
from torch import nn

from ganlab.check import check, lasting, readable
from ganlab.data.rounds import InMemory
from ganlab.data.sets import Digits
from ganlab.data.survey import Found, digest, survey_folder, survey_samples
from ganlab.tryout import Graph


def picture(path, size, seed, mode="RGB", **kwargs):
    """Low-pass noise: photographs, as far as files are concerned."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (4, 4, 3), np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    small.resize(size[::-1], Image.Resampling.BICUBIC).convert(mode).save(path, **kwargs)
    return path


@pytest.fixture
def pictures(tmp_path):
    """8 images of 40x60 and 3 of 20x20 in two classes; two copies, one of them under the other class and as another
    format; three files that are none, one that does not claim to be."""
    root = tmp_path / "pictures"
    for i in range(8):
        picture(root / "a" / f"{i}.png", (40, 60), i, "L" if i == 0 else "RGBA" if i == 1 else "RGB")
    for i in range(3):
        picture(root / "b" / f"{i}.png", (20, 20), 10 + i)
    (root / "a" / "again.png").write_bytes((root / "a" / "3.png").read_bytes())
    Image.open(root / "a" / "4.png").save(root / "b" / "other.bmp")
    (root / "a" / "half.png").write_bytes((root / "a" / "5.png").read_bytes()[:-60])
    (root / "b" / "empty.jpg").touch()
    (root / "b" / "text.png").write_text("no image")
    (root / "notes.txt").write_text("none at all")
    return root


def checked(*overrides, folder, seconds=0):
    """(what was found, what was printed)"""
    cfg = composed(*overrides, f"output={folder}", f"seconds={seconds}", name="check")
    return check(cfg, "dcgan", list(overrides))


def test_a_folder_is_what_was_put_there(pictures, tmp_path, capsys):
    told = checked("data=folder", f"data.root={pictures}", "data.batch_size=64", folder=tmp_path / "out")
    assert told["count"] == 13
    assert told["classes"] == {"a": 9, "b": 4}
    assert told["other_files"] == 1
    assert {b["file"] for b in told["bad"]} == {"a/half.png", "b/empty.jpg", "b/text.png"}
    assert all(b["why"] and str(tmp_path) not in b["why"] for b in told["bad"])
    assert told["formats"] == {"PNG": 12, "BMP": 1}
    assert told["modes"] == {"colour": 11, "grey": 1, "colour and alpha": 1}
    assert told["sizes"] == [
        {"height": 40, "width": 60, "count": 10},
        {"height": 20, "width": 20, "count": 3},
    ]
    assert told["short_side"] == {"least": 20, "median": 40, "most": 40}
    assert told["copied"] == [["a/3.png", "a/again.png"], ["a/4.png", "b/other.bmp"]]
    assert told["copies_under_several_classes"] == [["a/4.png", "b/other.bmp"]]
    assert told["suggested"] == {"size": [32, 32], "batch_size": 8, "r1_weight": pytest.approx(0.0002 * 32 * 32 / 8)}
    assert told["shape"] == [3, 32, 32]
    assert told["memory"]["data"] == 13 * 3 * 32 * 32
    assert told["problem"]  # a file can't be read: a run would say so, and so does this
    assert json.loads((tmp_path / "out" / "check.json").read_text())["count"] == 13
    text = capsys.readouterr().out
    for words in ("13 images", "shorter side 20 to 40", "a 9, b 4; the largest has 2.2 times", "a/3.png = a/again.png",
                  "1 of them under more than one class", "data.size=32 data.batch_size=8 terms=[r1]",
                  "a run would not begin"):  # fmt: skip
        assert words in text


def test_where_the_images_will_be_is_told(tmp_path, capsys):
    """In memory, in the cache folder, or in their files: as data.memory and data.disk say."""
    for i in range(3):
        picture(tmp_path / "in" / f"{i}.png", (16, 16), i)
    said = []
    for keys in ((), ("data.memory=0",), ("data.memory=0", "data.disk=0")):
        checked("data=folder", f"data.root={tmp_path / 'in'}", *keys, folder=tmp_path / "out")
        said.append(next(line for line in capsys.readouterr().out.splitlines() if line.startswith("memory")))
    assert said[0].endswith("of data at 3x16x16")
    assert "beyond data.memory=0 GiB: decoded once, in" in said[1]
    assert "and data.disk=0: decoded in each epoch" in said[2]


def test_the_sheet_has_a_row_for_each_class_and_only_its_images(tmp_path):
    for i in range(5):
        picture(tmp_path / "in" / "dark" / f"{i}.png", (16, 16), i)
        path = picture(tmp_path / "in" / "light" / f"{i}.png", (16, 16), i)
        Image.new("RGB", (16, 16), (255, 255, 250 + i)).save(path)
    checked("data=folder", f"data.root={tmp_path / 'in'}", "columns=4", folder=tmp_path / "out")
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        pixels = np.asarray(sheet)
    rows = pixels[: len(pixels) // 2, -4 * 50 :], pixels[len(pixels) // 2 :, -4 * 50 :]
    assert np.median(rows[1]) >= 250
    assert np.median(rows[0]) < 250
    assert pixels.shape[0] == 2 * 50  # 16 pixels three times enlarged, and a border


def test_equal_images_have_equal_digests_and_others_have_not():
    x = torch.randint(0, 256, (1, 6, 5), dtype=torch.uint8)
    colour = x.expand(3, -1, -1)
    assert digest(x) == digest(colour) == digest(torch.cat([colour, torch.full_like(x, 255)]))
    near = colour.clone()
    near[0, 0, 0] ^= 1
    assert digest(near) != digest(colour)
    assert digest(torch.zeros(1, 2, 8, dtype=torch.uint8)) != digest(torch.zeros(1, 4, 4, dtype=torch.uint8))


def test_copies_and_overlap_are_counted_by_hand(monkeypatch):
    monkeypatch.setattr("ganlab.data.survey.AT_ONCE", 2)  # they are found across parts, too
    x = torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(6, 1, 8, 8)
    train = survey_samples(InMemory(x[[0, 1, 2, 1, 3, 1, 0]], torch.arange(7)), "")
    test = survey_samples(InMemory(x[[4, 3, 5, 0]]), "")
    assert train.copies() == [[1, 3, 5], [0, 6]]
    assert test.also_in(train).tolist() == [1, 3]
    assert test.copies() == []
    assert train.sizes == {(8, 8): 7}
    assert Found().copies() == []


def test_a_test_part_that_leaks_into_training_is_found(tmp_path, monkeypatch, capsys):
    """Test image 1 is training image 2."""

    def read(self, split):
        seeds = [0, 1, 2, 3] if split == "train" else [4, 2]
        draw = lambda seed: torch.randint(0, 256, (1, 8, 8), generator=torch.Generator().manual_seed(seed))
        return torch.stack([draw(seed) for seed in seeds]).to(torch.uint8), torch.tensor(seeds)

    monkeypatch.setattr(Digits, "read", read)
    told = checked("data=digits", folder=tmp_path)
    assert told["test_images_in_training"] == [1]
    assert "1 test images are training images, too" in capsys.readouterr().out


def test_points_have_no_size_and_no_sheet(tmp_path, capsys):
    told = checked("data=toy", "model=mlp", folder=tmp_path)
    assert (told["sizes"], told["suggested"]["size"], told["sheet"]) == ([], None, False)
    assert told["shape"] == [2]
    assert "begin with" not in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["check.json"]


def test_known_sets_are_looked_at_as_a_run_is_shown_them(tmp_path, capsys):
    told = checked("data=digits", folder=tmp_path)
    assert (told["count"], told["test"], told["shape"]) == (1438, 359, [1, 16, 16])
    assert told["classes"]["3"] == 131
    assert sum(told["classes"].values()) == 1438
    assert told["bad"] == told["copied"] == []
    assert told["suggested"]["size"] == [16, 16]
    assert told["suggested"]["r1_weight"] == pytest.approx(0.0002 * 256 / 64)
    assert "1,438 images; test part 359" in capsys.readouterr().out


def test_attributes_are_taken_from_their_table(tmp_path):
    for i in range(4):
        picture(tmp_path / "in" / f"{i}.png", (16, 16), i)
    with open(tmp_path / "in" / "table.csv", "w", newline="") as file:
        csv.writer(file).writerows([["file", "x", "y"], *([f"{i}.png", i % 2, 1] for i in range(4))])
    told = checked(
        "data=folder", f"data.root={tmp_path / 'in'}", "data.attributes=table.csv", "model=cgan", "generator.width=8",
        "discriminator.width=8", folder=tmp_path / "out", seconds=0.01,
    )  # fmt: skip
    assert told["problem"] is None
    assert told["played"]["sec_per_kimg"] > 0


# ---------------------------------------------------------------------------------------------------------------- speed


def test_rounds_are_really_played(tmp_path, monkeypatch, capsys):
    """As many as the clock says, and the time to the budget is theirs; lazy terms and n_critic included."""
    from ganlab.gan import GAN

    moves, move = [], GAN.move
    monkeypatch.setattr(GAN, "move", lambda self, player, *rest: (moves.append(player), move(self, player, *rest))[1])
    small = ["generator.width=8", "discriminator.width=8", "data.batch_size=8", "n_critic=3", "max_kimg=7"]
    told = checked("data=digits", "model=mlp", *small, folder=tmp_path, seconds=0.05)
    played = told["played"]
    assert played["rounds"] % 3 == 0
    assert moves.count("D") == played["rounds"] + 3  # those in which memory was looked at
    assert moves.count("G") * 3 == moves.count("D")
    assert played["seconds"] == pytest.approx(7 * played["sec_per_kimg"])
    assert played["sec_per_kimg"] * played["rounds"] * 8 / 1000 >= 0.05
    assert "s per kimg on cpu" in capsys.readouterr().out


def test_what_can_not_be_played_says_why(tmp_path, capsys):
    told = checked("data=digits", "data.size=9", folder=tmp_path, seconds=1)
    assert "9x9 can't be reached, 8x8 can" in told["played"]["why_not"]
    assert "can't be played" in capsys.readouterr().out


def test_memory_of_a_graph_is_what_it_keeps():
    """y = exp(exp(x)): each exp keeps its result, 400 bytes; a linear layer keeps its input. Nothing is left after."""
    x = torch.zeros(100, requires_grad=True)
    graph = Graph(iter([]))
    with graph.hooks():
        y = x.exp().exp()
        assert graph.now == graph.most == 2 * 400
        y.sum().backward()
        del y
    assert graph.most == 800
    assert graph.now == 0
    layer = nn.Linear(50, 50)
    graph = Graph(layer.parameters())
    with graph.hooks():
        out = layer(torch.zeros(4, 50))
        assert graph.now == 4 * 50 * 4  # the weight is there anyway
        del out
    assert graph.now == 0


def test_a_batch_that_does_not_fit_is_played_in_parts(monkeypatch):
    from ganlab import check as module

    speed = {"device": "cpu", "bytes": {"fixed": 100, "per_sample": 10}}
    monkeypatch.setattr(module, "free_bytes", lambda device: 900)
    assert module.room_for(speed, 64) == {"bytes": 420, "bytes_free": 900, "micro_batches": 2}
    assert module.room_for(speed, 16)["micro_batches"] == 1
    monkeypatch.setattr(module, "free_bytes", lambda device: None)
    assert module.room_for(speed, 64)["micro_batches"] == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=folder"], "data.root is not set"),
        (["data=folder", "data.root=nowhere"], "there is no such folder"),
        (["columns=0"], "columns=0"),
        (["data.size=2"], "data.size"),
    ],
)
def test_what_can_not_be_checked_is_refused(tmp_path, overrides, message):
    from ganlab.files import Unavailable

    with pytest.raises((ValueError, Unavailable), match=message):
        checked(*overrides, folder=tmp_path)


def test_an_empty_folder_is_named(tmp_path):
    from ganlab.files import Unavailable

    (tmp_path / "a.png").touch()
    with pytest.raises(Unavailable, match="none of its 1 files can be read"):
        survey_folder(tmp_path)


def test_numbers_are_easy_to_read():
    assert [readable(n) for n in (12, 34_500, 2_000_000, 7.25e9)] == ["12 B", "34.5 kB", "2 MB", "7.25 GB"]
    assert [lasting(s) for s in (3, 200, 9000, 200_000)] == ["3 seconds", "3.33 minutes", "2.5 hours", "2.31 days"]
