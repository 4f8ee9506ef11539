"""Shards: each image exactly once per epoch whoever reads, in an order that can be gone on with; damage is named."""

import json
import multiprocessing
import os
import signal
import sys
import tarfile
from itertools import pairwise
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import yaml
from composing import CONF, composed, run
from PIL import Image
from test_data import CPU, take
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ganlab import limits
from ganlab.checkpoint import load
from ganlab.data.folder import Folder
from ganlab.data.images import cover
from ganlab.data.order import InGroups
from ganlab.data.rounds import Rounds
from ganlab.data.sets import Digits
from ganlab.data.shards import Held, Packed, Shards
from ganlab.data.toy import Toy
from ganlab.files import Unavailable, digest
from ganlab.pack import as_it_is, pack

N, EACH = 23, 5  # 23 images in shards of 5, 5, 5, 5 and 3


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Image i has the grey level 10 i at its first pixel, and noise elsewhere; its class is a or b."""
    root = tmp_path_factory.mktemp("in")
    for i in range(N):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
        pixels[0, 0] = 10 * i
        path = root / ("a" if i < 8 else "b") / f"{i:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    return root


@pytest.fixture
def packed(pictures, tmp_path):
    pack(Folder(root=str(pictures)), str(tmp_path / "shards"), shard=EACH)
    return tmp_path / "shards"


def shards(folder, memory=0.0, **kwargs):
    return Shards(root=str(folder), memory=memory, near=2, **kwargs)


def numbers(real):
    """Which image each is, from its first pixel: uint8, or as networks see it."""
    x = real[:, 0, 0, 0]
    return ((x + 1) * 12.75 if x.is_floating_point() else x / 10).round().long().tolist()


def rounds(data, batch, n, start=0, rank=0, world=1, workers=0):
    """The n rounds from `start` on that one process is served."""
    data.batch_size, samples = batch, data.played()
    served = Rounds(
        samples, data.order(samples, 0), device=CPU, rank=rank, world=world, start=start, at_once=4, workers=workers
    )
    return [batch for part in take(served, n) for batch in part][:n]


# ---------------------------------------------------------------------------------------------------------------- what


@pytest.mark.parametrize("format", [None, "png", "webp", "npy"])
def test_what_is_packed_comes_back_bit_for_bit(pictures, tmp_path, format):
    pack(Folder(root=str(pictures)), str(tmp_path / "shards"), shard=EACH, format=format)
    files = {i: np.asarray(Image.open(path)) for i, path in enumerate(sorted(pictures.rglob("*.png")))}
    for memory in (0.0, 4.0):
        samples = shards(tmp_path / "shards", memory).split("train")
        assert type(samples) is (Held if memory else Packed)
        taken = samples.take(torch.arange(N))
        assert sorted(numbers(taken["real"])) == list(range(N))
        assert numbers(taken["real"]) != list(range(N))  # classes are not packed one after the other
        for i, x, label in zip(numbers(taken["real"]), taken["real"].numpy(), taken["label"].tolist(), strict=True):
            assert np.array_equal(x.transpose(1, 2, 0), files[i])
            assert label == (i >= 8)


def test_what_the_networks_must_know_comes_from_the_index(packed, pictures):
    facts = shards(packed).facts()
    assert facts == Folder(root=str(pictures)).facts()
    assert facts["shape"] == [3, 8, 8]
    assert facts["class_names"] == ["a", "b"]
    assert facts["frequencies"] == [8 / 23, 15 / 23]
    assert len(list(packed.glob("*.tar"))) == 5


def test_webdataset_reads_them(packed):
    """The files are what others expect: a name, an image, a class."""
    import webdataset

    urls = sorted(map(str, packed.glob("*.tar")))
    read = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8").to_tuple("__key__", "png", "cls"))
    assert [key for key, _, _ in read] == [f"{i:09}" for i in range(N)]
    ours = shards(packed).split("train").take(torch.arange(N))
    assert np.array_equal(np.stack([x for _, x, _ in read]).transpose(0, 3, 1, 2), ours["real"].numpy())
    assert [label for _, _, label in read] == ours["label"].tolist()


@pytest.mark.parametrize("format", [None, "webp"])
def test_a_set_that_is_no_folder_is_packed(tmp_path, format):
    """Grey images, from memory."""
    digits = Digits()
    pack(digits, str(tmp_path / "shards"), shard=500, format=format)
    data = shards(tmp_path / "shards")
    assert data.facts() == digits.facts()
    rows = lambda samples: {
        (x.numpy().tobytes(), int(label)) for x, label in zip(*samples.take(torch.arange(len(samples))).values())
    }
    assert rows(data.split("train")) == rows(digits.split("train"))
    assert data.split("train").counts == [500, 500, 438]


def test_attributes_are_packed(pictures, tmp_path):
    table = "image,red,old\n" + "".join(f"{i:02}.png,{i % 2},{i // 20}\n" for i in range(N))
    (tmp_path / "table.csv").write_text(table)
    pack(Folder(root=str(pictures), attributes=str(tmp_path / "table.csv")), str(tmp_path / "shards"), shard=EACH)
    data = shards(tmp_path / "shards")
    assert data.facts()["several"]
    assert data.facts()["class_names"] == ["red", "old"]
    taken = data.split("train").take(torch.tensor([3, 20]))
    assert taken["label"].tolist() == [[i % 2, i // 20] for i in numbers(taken["real"])]


@pytest.mark.parametrize("format", ["png", "npy"])
def test_another_size_is_scaled_to(pictures, tmp_path, format):
    pack(Folder(root=str(pictures)), str(tmp_path / "shards"), shard=EACH, format=format)
    full = shards(tmp_path / "shards").split("train").take(torch.arange(N))["real"]
    small = shards(tmp_path / "shards", size=4).split("train").take(torch.arange(N))["real"]
    assert torch.equal(small, torch.stack([cover(x[None], (4, 4))[0] for x in full]))


@pytest.mark.parametrize("format", [None, "png"])
def test_files_of_another_size_are_packed_in_the_size_that_is_asked_for(pictures, tmp_path, format):
    pack(Folder(root=str(pictures), size=4), str(tmp_path / "shards"), shard=EACH, format=format)
    with tarfile.open(next((tmp_path / "shards").glob("*.tar"))) as tar:
        images = [Image.open(tar.extractfile(member)) for member in tar if member.name.endswith(".png")]
        assert {image.size for image in images} == {(4, 4)}


def test_the_seed_decides_the_order_in_shards(pictures, packed, tmp_path):
    pack(Folder(root=str(pictures)), str(tmp_path / "other"), shard=EACH, seed=1)
    orders = [numbers(shards(f).split("train").take(torch.arange(N))["real"]) for f in (packed, tmp_path / "other")]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_near_is_how_many_shards_are_shuffled_together(packed):
    """data.near=1: an epoch goes through one shard after the other."""
    data = Shards(root=str(packed), memory=0, near=1)
    where = {n: i // EACH for i, n in enumerate(numbers(data.split("train").take(torch.arange(N))["real"]))}
    shown = [where[n] for batch in rounds(data, 1, N) for n in numbers(batch["real"])]
    assert len([1 for a, b in pairwise(shown) if a != b]) == len(set(shown)) - 1


# --------------------------------------------------------------------------------------------------------------- order


def test_every_image_once_per_epoch_over_2_ranks_with_2_workers(packed):
    """4 epochs of 23 images are 23 rounds of 4: each process serves its half of each."""
    parts = [rounds(shards(packed), 4, N, rank=rank, world=2, workers=2) for rank in range(2)]
    shown = torch.tensor([numbers(torch.cat([a["real"], b["real"]])) for a, b in zip(*parts, strict=True)])
    together = torch.tensor([numbers(b["real"]) for b in rounds(shards(packed), 4, N)])
    assert torch.equal(shown, together)  # one process would have been served the same batches
    epochs = shown.view(4, N)
    assert epochs.sort(1).values.tolist() == [list(range(N))] * 4
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 4


@pytest.mark.parametrize("workers", [0, 2])
def test_the_order_comes_again_and_goes_on_mid_epoch(packed, workers):
    """Images, labels and flips, bit for bit; from memory, too."""
    whole = rounds(shards(packed, flip=True), 4, 14)
    assert whole[0]["label"].tolist() == [int(i >= 8) for i in numbers(unflipped(whole[0]["real"]))]
    for memory in (0.0, 4.0):
        again = rounds(shards(packed, memory, flip=True), 4, 9, start=5, workers=workers)
        for a, b in zip(again, whole[5:], strict=True):
            assert torch.equal(a["real"], b["real"])
            assert torch.equal(a["label"], b["label"])
    order = shards(packed).order(shards(packed).played(), 1)
    assert order.round(0)[0].tolist() != shards(packed).order(shards(packed).played(), 0).round(0)[0].tolist()


def unflipped(real):
    """The first pixel is grey, and noise is not."""
    grey = (real[:, :, 0, 0] == real[:, :1, 0, 0]).all(1)
    return torch.where(grey[:, None, None, None], real, real.flip(-1))


@pytest.mark.parametrize(("counts", "near"), [([5, 5, 5, 5, 3], 2), ([1, 9, 4], 1), ([2, 0, 3], 8), ([4], 3)])
def test_an_epoch_reads_a_few_shards_at_a_time(counts, near):
    """It ends one group of shards before it begins the next, and every epoch has other groups, shuffled anew."""
    order, total = InGroups(counts, near, 3, seed=0), sum(counts)
    shown = torch.cat([order.round(r)[0] for r in range(8 * total // 3 + 3)])[: 8 * total].view(8, total)
    of = np.repeat(range(len(counts)), counts)
    for epoch in shown.tolist():
        assert sorted(epoch) == list(range(total))
        left = list(of[epoch])
        while left:
            size = next(n for n in range(1, len(left) + 1) if set(left[:n]).isdisjoint(left[n:]))
            assert len(set(left[:size])) <= near
            left = left[size:]
    other = torch.cat([InGroups(counts, near, 7, 0).round(r)[0] for r in range(total)])  # in batches of another size
    assert torch.equal(other, shown.flatten()[: 7 * total])
    if total > 5:
        assert len({tuple(epoch) for epoch in shown.tolist()}) > 6


def test_every_epoch_has_groups_and_an_order_within_each_of_its_own():
    order, size = InGroups([4] * 6, 2, 8, seed=0, flip=True), 8  # a round is a group
    groups = [order.round(r) for r in range(60)]
    assert len({frozenset((rows // 4).tolist()) for rows, _, _ in groups}) > 10  # of 15 pairs of shards
    within = {tuple((rows % 4).tolist()) for rows, _, _ in groups}
    assert len(within) > 50
    places = [tuple(where[:, 0].tolist()) for _, _, where in groups]
    assert len(set(places)) == 60  # what is drawn for one group is not drawn for another
    mirrored = torch.cat([flips for _, flips, _ in groups])
    assert 0.4 < mirrored.float().mean() < 0.6
    assert len(mirrored) == 60 * size


def test_a_part_of_the_set_is_gone_through_in_the_same_way(packed):
    for keys in ({"count": 7}, {"imbalance": 0.5}, {"count": 4, "imbalance": 0.5}):
        whole = [numbers(b["real"]) for b in rounds(shards(packed, **keys), 1, 40)]
        held = [numbers(b["real"]) for b in rounds(shards(packed, 4.0, **keys), 1, 40)]
        assert whole == held
        count = len(shards(packed, **keys).played())
        assert sum(shards(packed, **keys).played().counts) == count < N
        epochs = torch.tensor(whole).flatten()[: 40 // count * count].view(-1, count).sort(1).values
        assert (epochs == epochs[0]).all()
        assert len(set(epochs[0].tolist())) == count
        prints = {shards(packed, memory, **keys).played().fingerprint() for memory in (0.0, 4.0)}
        assert len(prints | {shards(packed).played().fingerprint()}) == 2


def test_balance_draws_from_all_shards(packed):
    labels = torch.cat([b["label"] for b in rounds(shards(packed, balanced=True), 5, 6)])
    assert labels.bincount().tolist() == [15, 15]


# ------------------------------------------------------------------------------------------------------------ training


def test_a_run_goes_on_as_if_it_had_not_been_stopped(packed, pictures, tmp_path):
    given = [
        "model=mlp", "experiment=tiny", "data=shards", f"data.root={packed}", "data.memory=0", "data.near=2",
        "data.workers=1", "data.batch_size=8", "metrics.enabled=false", "callbacks.samples=null", "log_every=1",
        "lr_schedule=constant", "trainer.accelerator=cpu",
    ]  # fmt: skip
    run(tmp_path / "whole", *given, "max_kimg=0.12")
    run(tmp_path / "parts", *given, "max_kimg=0.056")  # 7 rounds: in the middle of the third epoch
    run(tmp_path / "parts", *given, "max_kimg=0.12", f"resume={tmp_path / 'parts'}")
    one, other = (load(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "parts"))
    for key in ("state_dict", "optimizer_states"):
        for a, b in zip(tree_leaves(one[key]), tree_leaves(other[key]), strict=True):
            assert (
                torch.equal(torch.as_tensor(a), torch.as_tensor(b)) if isinstance(a, Tensor | int | float) else a == b
            )
    pack(Folder(root=str(pictures)), str(tmp_path / "others"), shard=EACH, seed=1)
    with pytest.raises(ValueError, match="begun with other shards than those in"):
        run(tmp_path / "parts", *given, f"data.root={tmp_path / 'others'}", f"resume={tmp_path / 'parts'}")


# -------------------------------------------------------------------------------------------------------------- damage


def change(path, at, content=b"\xff"):
    data = bytearray(path.read_bytes())
    data[at : at + len(content)] = content if data[at : at + len(content)] != content else b"\0" * len(content)
    path.write_bytes(data)


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-600])


DAMAGE = {
    "truncated": (lambda f: cut_off(f / "shard-000002.tar"), r"shard-000002\.tar is truncated: it has [\d,]+ bytes"),
    "longer": (lambda f: os.truncate(f / "shard-000002.tar", 99999), r"shard-000002\.tar was changed: it has 99,999"),
    "missing": (lambda f: (f / "shard-000004.tar").unlink(), r"shard-000004\.tar is not there"),
    "a bit": (lambda f: change(f / "shard-000001.tar", 1600), r"shard-000001\.tar was changed: its checksum"),
    "places": (lambda f: change(f / "members.npy", 200), r"members\.npy was changed: its checksum"),
    "labels": (lambda f: change(f / "labels.npy", 140), r"labels\.npy was changed: its checksum"),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_file_is_named(packed, what):
    shards(packed).split("train")  # it was right once
    damage, message = DAMAGE[what]
    damage(packed)
    with pytest.raises(Unavailable, match=message):
        shards(packed).split("train")


@pytest.mark.parametrize("workers", [0, 2])
def test_damage_that_comes_later_is_named_when_the_image_is_read(packed, workers):
    """Also without verify, and out of another process."""
    data = shards(packed, verify=False)
    data.split("train")
    change(packed / "shard-000003.tar", 1600)
    message = r"shard-000003\.tar: image 000000015 in it can't be read \(it was changed, its checksum is another\)"
    with pytest.raises(Unavailable, match=message):
        rounds(data, 4, 6, workers=workers)
    cut_off(packed / "shard-000004.tar")
    os.truncate(packed / "shard-000004.tar", 700)
    with pytest.raises(Unavailable, match=r"shard-000004\.tar: image 000000021 .*the shard is truncated"):
        data.split("train").take(torch.tensor([21]))


def test_an_image_lies_where_the_index_can_say(packed):
    """Nothing is read from elsewhere, and no memory is taken that a shard has not."""
    places = np.load(packed / "members.npy")
    for column, value in ((0, -5), (0, 1 << 60), (1, -1), (1, 1 << 60), (1, 0)):
        wrong = places.copy()
        wrong[4, column] = value
        np.save(packed / "members.npy", wrong)
        with pytest.raises(
            Unavailable, match=r"shard-000000\.tar: image 000000004 .*members\.npy says that it lies outside"
        ):
            shards(packed, verify=False).split("train").take(torch.tensor([4]))


def index(folder, **changes):
    told = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(told | changes))


def first_shard(folder, **changes):
    told = json.loads((folder / "index.json").read_text())["shards"]
    index(folder, shards=[told[0] | changes, *told[1:]])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: index(f, version=2), r"index\.json has version 2, and this ganlab reads 1: pack the set again"),
        (lambda f: (f / "index.json").write_text("{"), r"index\.json can't be read as an index of shards"),
        (lambda f: (f / "index.json").write_text("[" * 99999), r"index\.json can't be read as an index of shards"),
        (lambda f: (f / "index.json").unlink(), r"no index\.json in it: was it packed by ganlab\.pack\?"),
        (lambda f: [p.unlink() for p in f.iterdir()], r"no index\.json in it"),
        (lambda f: index(f, shape=[3, 8]), r"index\.json is damaged"),
        (lambda f: index(f, shards=[]), r"index\.json is damaged"),
        (lambda f: index(f, classes="2"), r"index\.json is damaged"),
        (lambda f: index(f, class_names=["a"]), r"index\.json is damaged"),
        (lambda f: index(f, frequencies=[None, 1]), r"index\.json is damaged"),
        (lambda f: index(f, files=[]), r"index\.json is damaged"),
        (lambda f: first_shard(f, name="../../secret.tar"), r"index\.json is damaged"),
        (lambda f: first_shard(f, count=-1), r"index\.json is damaged"),
        (lambda f: first_shard(f, count=6), r"labels\.npy is damaged: it holds int64 \(23,\)"),
        (
            lambda f: index(f, classes=1, class_names=["a"], frequencies=None),
            r"labels\.npy is damaged: labels go beyond 1 classes",
        ),
    ],
)
def test_an_index_that_can_not_be_used_is_named(packed, spoil, message):
    spoil(packed)
    with pytest.raises(Unavailable, match=message):
        shards(packed).split("train")


def test_no_folder_and_no_test_part(packed, tmp_path):
    with pytest.raises(Unavailable, match="there is no such folder"):
        shards(tmp_path / "nowhere").facts()
    with pytest.raises(ValueError, match=r"data\.root is not set"):
        Shards()
    with pytest.raises(Unavailable, match="no test part"):
        shards(packed).split("test")


def test_checksums_are_compared_once_and_again_when_a_file_changes(packed, monkeypatch):
    read = []
    monkeypatch.setattr("ganlab.data.shards.digest", lambda path: read.append(path.name) or digest(path))
    shards(packed).split("train")
    assert len(read) == 7
    shards(packed).split("train")
    assert len(read) == 7
    os.utime(packed / "shard-000000.tar", (1, 1))
    shards(packed).split("train")
    assert len(read) == 14


# ------------------------------------------------------------------------------------------------------------- packing


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_killed_packing_looks_unfinished_and_goes_on(pictures, packed, tmp_path):
    """The result is the same, byte for byte, as if it had not been killed."""
    left = list(range(12))

    def die(*given):
        return as_it_is(*given) if left and (left.pop() or True) else os.kill(os.getpid(), signal.SIGKILL)

    def packing():
        with mock.patch("ganlab.pack.as_it_is", die):
            pack(Folder(root=str(pictures)), str(tmp_path / "killed"), shard=EACH)

    process = multiprocessing.get_context("fork").Process(target=packing)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(list((tmp_path / "killed").glob("*.tar"))) == 2
    with pytest.raises(Unavailable, match="packed in part: give the same command again"):
        shards(tmp_path / "killed").facts()
    with pytest.raises(ValueError, match=r"holds other shards \(seed not the same\): remove them"):
        pack(Folder(root=str(pictures)), str(tmp_path / "killed"), shard=EACH, seed=1)
    whole = [path.stat().st_ino for path in sorted((tmp_path / "killed").glob("*.tar"))]
    pack(Folder(root=str(pictures)), str(tmp_path / "killed"), shard=EACH)
    assert contents(tmp_path / "killed") == contents(packed)
    again = [path.stat().st_ino for path in sorted((tmp_path / "killed").glob("*.tar"))]
    assert again[:2] == whole  # what was whole is not written again


def test_what_is_there_is_not_packed_again_nor_written_over(pictures, packed, tmp_path, capsys):
    before = contents(packed)
    pack(Folder(root=str(pictures)), str(packed), shard=EACH)
    assert "holds these 23 images already" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"holds other shards \(format not the same\)"):
        pack(Folder(root=str(pictures)), str(packed), shard=EACH, format="npy")
    assert contents(packed) == before
    with pytest.raises(ValueError, match="is not empty: give a new folder"):
        pack(Folder(root=str(pictures)), str(pictures))


@pytest.mark.parametrize(
    ("data", "keys", "message"),
    [
        (lambda root: Toy("ring"), {}, "has other samples than images"),
        (lambda root: Folder(root=root, count=5), {}, r"data\.count=5: all images are packed"),
        (lambda root: Folder(root=root, size=4, crop="random"), {}, r"set data\.crop=center"),
        (
            lambda root: Folder(root=root, channels=4),
            {"format": "jpg"},
            "format=jpg would not keep what is transparent",
        ),
    ],
)
def test_what_can_not_be_packed_is_refused(pictures, tmp_path, data, keys, message):
    with pytest.raises(ValueError, match=message):
        pack(data(str(pictures)), str(tmp_path / "shards"), **keys)
    assert not (tmp_path / "shards").exists()


def test_without_webdataset_what_to_install_is_said(pictures, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(ValueError, match=r'pip install "ganlab\[shards\]"'):
        pack(Folder(root=str(pictures)), str(tmp_path / "shards"))


def test_a_file_that_can_not_be_read_is_named_and_nothing_looks_complete(tmp_path):
    for i in range(4):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path / f"in/{i}.png")
    content = (tmp_path / "in/2.png").read_bytes()
    (tmp_path / "in/2.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(Unavailable, match=r"2\.png can't be read as an image"):
        pack(Folder(root=str(tmp_path / "in")), str(tmp_path / "shards"))
    with pytest.raises(Unavailable, match="packed in part"):
        shards(tmp_path / "shards").facts()


def test_every_key_of_the_command_has_a_kind():
    own = set(yaml.safe_load((Path(CONF) / "pack.yaml").read_text()))
    held = {"metrics", "task", "terms", "scores", "extractor", "paths", "speed", "hydra", "defaults"}
    assert own - held == set(limits.PACK)
    given = {"output": "there", "format": "bmp"}
    with pytest.raises(ValueError, match="format='bmp': must be png or webp or jpg or npy or null"):
        limits.check_values(given, limits.PACK, lambda name: None)
    assert composed("output=there", "data.root=here", name="pack").data.root == "here"
