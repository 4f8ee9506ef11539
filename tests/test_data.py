"""Data: the order of samples, every set's file format, folders as they really come, and downloads."""

import contextlib
import errno
import gzip
import hashlib
import http.server
import io
import mmap
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ganlab import files
from ganlab.data import sets
from ganlab.data.batches import as_input
from ganlab.data.decode import decode
from ganlab.data.folder import Folder, Mapped, OnDisk
from ganlab.data.images import as_channels, conform, cover
from ganlab.data.rounds import Chosen, InMemory, Order, Rounds
from ganlab.data.toy import Toy
from ganlab.files import Remote, Unavailable, fetch

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))


# --------------------------------------------------------------------------------------------------------------- order


@pytest.mark.parametrize(("count", "batch"), [(10, 4), (10, 10), (3, 8), (1, 2)])
def test_every_sample_is_shown_once_per_epoch(count, batch):
    order = Order(count, batch, seed=1)
    shown = torch.cat([order.round(r)[0] for r in range(5 * count)])
    for epoch in shown[: len(shown) // count * count].view(-1, count):
        assert sorted(epoch.tolist()) == list(range(count))


def test_a_run_goes_on_with_as_many_samples_as_it_was_begun_with():
    """With more or fewer the same rounds would hold others."""
    began = Toy("ring", batch_size=4, count=20)
    began.load_state_dict(began.state_dict())
    with pytest.raises(ValueError, match=r"begun with 20 samples, and .* has 19 now"):
        Toy("ring", batch_size=4, count=19).load_state_dict(began.state_dict())


def test_order_is_a_function_of_seed_and_round():
    assert torch.equal(Order(100, 8, 1).round(50)[0], Order(100, 8, 1).round(50)[0])
    assert not torch.equal(Order(100, 8, 1).round(50)[0], Order(100, 8, 2).round(50)[0])
    assert not torch.equal(Order(96, 8, 1).round(0)[0], Order(96, 8, 1).round(12)[0])  # another epoch


def test_processes_share_a_batch_without_overlap():
    order = Order(100, 12, 1)
    rows = [order.round(7, slice(4 * r, 4 * r + 4))[0] for r in range(3)]
    assert torch.equal(torch.cat(rows), order.round(7)[0])


def test_half_of_the_samples_are_mirrored_and_each_by_its_own_coin():
    mirrored = Order(10_000, 10_000, 1, flip=True).round(0)[1]
    assert 0.48 < mirrored.float().mean() < 0.52
    x = torch.arange(24, dtype=torch.uint8).view(2, 1, 3, 4)
    out = as_input({"real": x}, torch.tensor([False, True]))["real"]
    assert torch.equal(out[0], x[0] / 127.5 - 1)
    assert torch.equal(out[1], (x[1] / 127.5 - 1).flip(-1))
    assert not Order(100, 100, 1).round(0)[1].any()


def test_each_image_is_mirrored_or_not_bit_for_bit():
    """By hand, one image at a time."""
    x = torch.randint(0, 256, (64, 3, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mirrored = torch.rand(64, generator=torch.Generator().manual_seed(1)) < 0.5
    out = as_input({"real": x}, mirrored)["real"]
    for image, m, one in zip(x.numpy(), mirrored.tolist(), out.numpy(), strict=True):
        assert np.array_equal(one, (image[..., ::-1] if m else image).astype(np.float32) / np.float32(127.5) - 1)


def test_values_lie_between_minus_one_and_one():
    out = as_input({"real": torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)})["real"]
    assert out.flatten().tolist() == [-1.0, 1.0]


def take(rounds, n):
    lists = []
    iterator = iter(rounds)
    while sum(map(len, lists)) < n:
        lists.append(next(iterator))
    return lists


def test_rounds_are_served_in_lists_that_end_at_events():
    """Batches of 10, events every 0.1 and 0.25 kimg: lists of at most 8 that stop in the round that passes."""
    rounds = Rounds(InMemory(torch.randn(50, 2)), Order(50, 10, 0), device=CPU, at_once=8, events=[0.1, 0.25])
    sizes = [len(x) for x in take(rounds, 50)]
    ends = np.cumsum(sizes) * 10
    assert max(sizes) == 8
    assert {100, 200, 250, 300, 400, 500} <= set(ends.tolist())


def test_rounds_do_not_depend_on_how_many_are_served_at_once_nor_on_where_one_starts():
    make = lambda **kw: Rounds(
        InMemory(torch.randn(50, 2, generator=torch.Generator().manual_seed(0))), Order(50, 7, 0), device=CPU, **kw
    )
    flat = lambda rounds, n: [b["real"] for chunk in take(rounds, n) for b in chunk][:n]
    one, many = flat(make(), 20), flat(make(at_once=6, events=[0.03]), 20)
    assert all(map(torch.equal, one, many))
    assert all(map(torch.equal, one[13:], flat(make(start=13, at_once=2), 7)))


# ---------------------------------------------------------------------------------------------------------- known sets


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_digits_need_no_files():
    data = sets.Digits(size=16)
    assert data.facts()["shape"] == [1, 16, 16]
    train, test = data.split("train"), data.split("test")
    assert (len(train), len(test)) == (1438, 359)
    assert train.real.shape == (1438, 1, 16, 16)
    assert train.real.max() == 255
    assert train.label.unique().tolist() == list(range(10))


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.mark.parametrize("packed", [True, False])
def test_mnist_format(tmp_path, packed):
    images, labels = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28), np.array([7, 2], np.uint8)
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        content, ending = (gzip.compress(idx(array)), ".gz") if packed else (idx(array), "")
        write(tmp_path / "MNIST" / "raw" / f"train-{name}-ubyte{ending}", content)
    real, label = sets.MNIST(root=str(tmp_path)).read("train")
    assert np.array_equal(real[:, 0].numpy(), images)
    assert label.tolist() == [7, 2]


def test_sets_of_one_format_are_not_taken_for_one_another(tmp_path):
    """MNIST and Fashion-MNIST have the same file names; torchvision keeps both in one root."""
    for folder, value in (("MNIST", 1), ("FashionMNIST", 2)):
        for name, array in (
            ("images-idx3", np.full((1, 28, 28), value, np.uint8)),
            ("labels-idx1", np.zeros(1, np.uint8)),
        ):
            write(tmp_path / folder / "raw" / f"train-{name}-ubyte", idx(array))
    assert sets.MNIST(root=str(tmp_path)).read("train")[0].unique().tolist() == [1]
    assert sets.FashionMNIST(root=str(tmp_path)).read("train")[0].unique().tolist() == [2]


def test_damaged_files_are_named(tmp_path):
    write(tmp_path / "train-images-idx3-ubyte", idx(np.zeros((2, 28, 28), np.uint8))[:100])
    with pytest.raises(Unavailable, match="train-images-idx3-ubyte is damaged"):
        sets.MNIST(root=str(tmp_path)).read("train")
    for name in ("train_X.bin", "unlabeled_X.bin"):
        write(tmp_path / name, b"abc")
    with pytest.raises(Unavailable, match=r"train_X.bin is damaged"):
        sets.STL10(root=str(tmp_path)).read("train")


SHARED = Path(__file__).parent.parent.parent / "shared" / "data"


@pytest.mark.parametrize("kind", [sets.Digits, sets.MNIST])
def test_label_counts_are_those_of_the_data(kind):
    root = SHARED / "mnist"
    if kind is sets.MNIST and not root.is_dir():
        pytest.skip("the real MNIST files are not at hand")
    data = kind(root=str(root))
    label = data.split("train").label
    assert torch.bincount(label).tolist() == list(kind.counts)
    assert data.facts()["frequencies"] == pytest.approx([n / len(label) for n in kind.counts])


@pytest.mark.parametrize(("kind", "head"), [(sets.CIFAR10, [3]), (sets.CIFAR100, [9, 3])])
def test_cifar_binary_format(tmp_path, kind, head):
    """One row an image: its label (CIFAR-100: coarse and fine), then red, green and blue planes."""
    planes = np.random.default_rng(0).integers(0, 256, (3, 32, 32), np.uint8)
    row = bytes(head) + planes.tobytes()
    for name in kind.files["train"]:
        write(tmp_path / kind.folder / name, row * 2)
    real, label = kind(root=str(tmp_path)).read("train")
    assert len(real) == 2 * len(kind.files["train"])
    assert np.array_equal(real[0].numpy(), planes)
    assert set(label.tolist()) == {3}


def test_cifar_from_the_archive(tmp_path, monkeypatch):
    """The archive in root is checked and unpacked; a damaged batch is named."""
    row = bytes([1]) + bytes(3072)
    with tarfile.open(tmp_path / "made.tar.gz", "w:gz") as tar:
        for name in (*sets.CIFAR10.files["train"], "test_batch.bin"):
            info = tarfile.TarInfo(f"{sets.CIFAR10.folder}/{name}")
            info.size = len(row)
            tar.addfile(info, io.BytesIO(row))
    (tmp_path / "made.tar.gz").rename(tmp_path / "cifar-10-binary.tar.gz")
    checksum = files.digest(tmp_path / "cifar-10-binary.tar.gz")
    monkeypatch.setattr(sets.CIFAR10, "archive", Remote("cifar-10-binary.tar.gz", (), f"sha256:{checksum}"))
    data = sets.CIFAR10(root=str(tmp_path))
    assert len(data.split("train")) == 5
    assert len(data.split("test")) == 1
    (tmp_path / sets.CIFAR10.folder / "data_batch_2.bin").write_bytes(b"abc")
    with pytest.raises(Unavailable, match=r"data_batch_2.bin is damaged"):
        sets.CIFAR10(root=str(tmp_path)).split("train")


def test_svhn_format(tmp_path, monkeypatch):
    from scipy.io import savemat

    images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 4), np.uint8)
    savemat(tmp_path / "train_32x32.mat", {"X": images, "y": np.array([[10], [1], [2], [9]], np.uint8)})
    monkeypatch.setitem(sets.SVHN.checksums, "train", files.digest(tmp_path / "train_32x32.mat", "md5"))
    real, label = sets.SVHN(root=str(tmp_path)).read("train")
    assert np.array_equal(real[2].permute(1, 2, 0).numpy(), images[..., 2])
    assert label.tolist() == [0, 1, 2, 9]


def test_stl10_format(tmp_path):
    """Images are stored plane by plane, each column by column; labelled and unlabelled ones train together."""
    image = np.random.default_rng(0).integers(0, 256, (3, 96, 96), np.uint8)
    for name, n in (("train_X.bin", 1), ("unlabeled_X.bin", 2)):
        write(tmp_path / "stl10_binary" / name, image.transpose(0, 2, 1).tobytes() * n)
    real, label = sets.STL10(root=str(tmp_path)).read("train")
    assert real.shape == (3, 3, 96, 96)
    assert label is None
    assert np.array_equal(real[1].numpy(), image)


# ------------------------------------------------------------------------------------------------------ sizes, channels


def test_grey_colour_and_alpha():
    colour = torch.tensor([255, 0, 0, 128], dtype=torch.uint8).view(1, 4, 1, 1)
    assert as_channels(colour[:, :3], 1).item() == 76  # 0.299 * 255
    assert as_channels(colour, 3).flatten().tolist() == [255, 127, 127]  # half over white
    assert as_channels(colour[:, :1], 3).flatten().tolist() == [255, 255, 255]
    assert as_channels(colour[:, :3], 4).flatten().tolist() == [255, 0, 0, 255]
    assert as_channels(colour[:, :1], 2).flatten().tolist() == [255, 255]


def test_images_cover_the_size_and_keep_their_proportions():
    stripe = torch.zeros(1, 1, 10, 30, dtype=torch.uint8)
    stripe[..., 10:20] = 255  # the middle third is white
    assert cover(stripe, (10, 10)).float().mean() == 255
    assert cover(stripe, (20, 60)).shape == (1, 1, 20, 60)
    assert conform(stripe, [3, 8, 16]).shape == (1, 3, 8, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 5}, "data.channels=5"),
        ({"channels": 4}, "can become 1 or 3"),
        ({"size": 2}, "data.size"),
        ({"size": [8, 8, 8]}, "data.size"),
        ({"batch_size": 0}, "data.batch_size=0"),
        ({"batch_size": 1.5}, "data.batch_size=1.5"),
    ],
)
def test_refused_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        sets.Digits(**arguments)


# -------------------------------------------------------------------------------------------------------------- folders


def picture(path, mode="RGB", size=(12, 8), color=None, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color if color is not None else (200 if mode in ("L", "I;16") else None) or 0).save(
        path, **kwargs
    )


def test_folder_of_class_folders(tmp_path):
    for i in range(3):
        picture(tmp_path / "cat" / f"{i}.png", color=(i, 0, 0))
    picture(tmp_path / "dog" / "deep" / "0.jpg", color=(9, 9, 9))
    (tmp_path / "dog" / "notes.txt").write_text("not an image")
    data = Folder(root=str(tmp_path), size=8)
    facts = data.facts()
    assert facts["shape"] == [3, 8, 8]
    assert facts["class_names"] == ["cat", "dog"]
    assert facts["frequencies"] == [0.75, 0.25]
    batch = data.split("train").take(torch.arange(4))
    assert batch["label"].tolist() == [0, 0, 0, 1]
    assert batch["real"][2, 0].unique().tolist() == [2]


def test_folder_without_classes_and_images_in_it(tmp_path):
    picture(tmp_path / "a.png", "L")
    picture(tmp_path / "sub" / "b.png", "L")
    facts = Folder(root=str(tmp_path)).facts()
    assert facts == {"shape": [1, 8, 12], "classes": None, "class_names": None, "frequencies": None, "several": False}


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("RGB", (10, 20, 30), [10, 20, 30]),
        ("RGBA", (0, 0, 0, 0), [255, 255, 255]),
        ("LA", (0, 0), [255, 255, 255]),
        ("L", 77, [77, 77, 77]),
        ("1", 1, [255, 255, 255]),
        ("I;16", 257 * 50, [50, 50, 50]),
    ],
)
def test_modes_become_colour(tmp_path, mode, color, expected):
    picture(tmp_path / "a.png", mode, color=color)
    picture(tmp_path / "b.png", "RGB")
    x = Folder(root=str(tmp_path), size=8).split("train").take(torch.tensor([0]))["real"][0]
    assert x[:, 4, 4].tolist() == expected


def test_palette_cmyk_animation_and_orientation(tmp_path):
    Image.new("RGB", (8, 8), (0, 0, 255)).quantize(4).save(tmp_path / "a.png")
    Image.new("CMYK", (8, 8), (0, 0, 0, 255)).save(tmp_path / "b.jpg")
    frames = [Image.new("RGB", (8, 8), c) for c in ((255, 0, 0), (0, 255, 0))]
    frames[0].save(tmp_path / "c.gif", save_all=True, append_images=frames[1:])
    wide = Image.new("RGB", (16, 8), (0, 0, 0))
    wide.paste((255, 255, 255), (0, 0, 8, 8))  # the left half is white
    exif = wide.getexif()
    exif[0x0112] = 6  # turned by a quarter: left becomes top
    wide.save(tmp_path / "d.png", exif=exif)
    x = Folder(root=str(tmp_path), size=8).split("train").take(torch.arange(4))["real"]
    assert x[0, :, 4, 4].tolist() == [0, 0, 255]
    assert x[1, :, 4, 4].max() < 5
    assert x[2, :, 4, 4].tolist() == [255, 0, 0]
    assert (x[3, 0, 0, 4], x[3, 0, 7, 4]) == (255, 0)


def test_alpha_is_kept_when_asked_for(tmp_path):
    picture(tmp_path / "a.png", "RGBA", color=(1, 2, 3, 4))
    picture(tmp_path / "b.png", "RGB", color=(1, 2, 3))
    x = Folder(root=str(tmp_path), channels=4).split("train").take(torch.arange(2))["real"]
    assert x[:, :, 0, 0].tolist() == [[1, 2, 3, 4], [1, 2, 3, 255]]


def pictures(root, n, size=(8, 8)):
    for i in range(n):
        path, pixels = root / "ab"[i % 2] / f"{i}.png", np.random.default_rng(i).integers(0, 256, (*size, 3), np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return str(root)


IN_MEMORY, IN_CACHE, IN_FILES = {}, {"memory": 0}, {"memory": 0, "disk": 0}


def test_memory_cache_and_files_serve_the_same(tmp_path):
    """Order, pixels, flips and labels do not depend on where the images are, nor on who reads them."""
    root = pictures(tmp_path / "in", 6)
    make = lambda where, **kw: Folder(root=root, **where, **kw).played()
    kinds = [type(make(where)) for where in (IN_MEMORY, IN_CACHE, IN_FILES)]
    assert kinds == [InMemory, Mapped, OnDisk]
    for count in (None, 5):  # all, and some of them
        order, served = Order(count or 6, 4, 0, flip=True), []
        for where, workers in ((IN_MEMORY, 0), (IN_CACHE, 0), (IN_CACHE, 2), (IN_FILES, 0), (IN_FILES, 2)):
            rounds = Rounds(make(where, count=count), order, device=CPU, start=3, at_once=2, workers=workers)
            served.append([b for chunk in take(rounds, 10) for b in chunk])
        files = [decode(Path(root) / "ab"[i % 2] / f"{i}.png", (3, 8, 8)) for i in (0, 2, 4, 1, 3, 5)]
        if count is None:
            indices, mirrored, _ = order.round(3)
            by_hand = [files[i].flip(-1) if m else files[i] for i, m in zip(indices, mirrored, strict=True)]
            assert torch.equal(served[0][0]["real"], torch.stack(by_hand).float() / 127.5 - 1)
            assert served[0][0]["label"].tolist() == [int(i > 2) for i in indices]
        for others in zip(*served, strict=True):
            assert all(torch.equal(b[key], others[0][key]) for b in others for key in ("real", "label"))


@pytest.mark.skipif(not hasattr(mmap, "MADV_WILLNEED"), reason="this system takes no advice")
def test_the_disk_is_told_of_all_samples_before_the_first_is_read(tmp_path, monkeypatch):
    """Each byte of theirs lies in a page that was announced, and few others do."""
    images = np.random.default_rng(0).integers(0, 256, (200, 3, 32, 32), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    samples, asked, size = Mapped(tmp_path / "images.npy", None), torch.tensor([199, 0, 7, 7, 100]), 3 * 32 * 32
    calls = []

    class File:
        def madvise(self, advice, start, length):
            calls.append((advice, start, length))

    monkeypatch.setattr(samples, "file", File())
    assert np.array_equal(samples.take(asked)["real"].numpy(), images[asked.numpy()])
    begin = (tmp_path / "images.npy").stat().st_size - images.nbytes
    for i, (advice, start, length) in zip(asked.tolist(), calls, strict=True):
        assert advice == mmap.MADV_WILLNEED
        assert start % mmap.PAGESIZE == 0
        assert start <= begin + i * size < begin + (i + 1) * size <= start + length
        assert length <= size + mmap.PAGESIZE
    monkeypatch.undo()
    assert np.array_equal(samples.take(asked)["real"].numpy(), images[asked.numpy()])  # and the system takes it


def test_what_is_read_from_the_cache_is_not_held(tmp_path):
    """Only the rows that are asked for are copied, and to another process goes the file's name."""
    samples = Folder(root=pictures(tmp_path / "in", 40, (64, 64)), memory=0).split("train")
    taken = samples.take(torch.tensor([3, 1]))["real"]
    assert taken.untyped_storage().nbytes() == 2 * 3 * 64 * 64
    taken.zero_()  # a copy: the file stays as it is
    sent = pickle.dumps(samples)
    assert len(sent) < 4000
    again = pickle.loads(sent)
    assert torch.equal(again.take(torch.arange(40))["real"], samples.take(torch.arange(40))["real"])
    assert again.take(torch.tensor([3]))["real"].any()
    assert again.label.tolist() == [0] * 20 + [1] * 20
    assert again.fingerprint() == samples.fingerprint() == OnDisk(*from_files(tmp_path / "in")).fingerprint()


def from_files(root):
    files = Folder(root=str(root), memory=0, disk=0).split("train")
    return files.paths, files.label, files.shape


def test_decoding_takes_the_memory_of_some_images(tmp_path):
    """400 images of 48 KiB are 19 MiB; numpy and what decodes are counted."""
    root = pictures(tmp_path / "in", 400, (128, 128))
    folder = Folder(root=root, memory=0)
    folder.facts()
    tracemalloc.start()
    samples = folder.split("train")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert samples.images.nbytes == 400 * 3 * 128 * 128
    assert most < samples.images.nbytes / 2


def test_decoded_folders_are_kept_until_a_file_changes(tmp_path):
    picture(tmp_path / "in" / "a.png", color=(1, 1, 1))
    picture(tmp_path / "in" / "b.png", color=(2, 2, 2))
    load = lambda **kw: Folder(root=str(tmp_path / "in"), **kw).split("train").take(torch.arange(2))["real"][:, 0, 0, 0]
    assert load().tolist() == load().tolist() == load(memory=0).tolist() == [1, 2]
    assert len(list((tmp_path / "cache" / "decoded").glob("*.npy"))) == 1
    picture(tmp_path / "in" / "b.png", color=(3, 3, 3))
    assert load(memory=0).tolist() == [1, 3]


def test_a_kill_while_decoding_leaves_nothing_half(tmp_path):
    """The next run decodes anew, and removes what the killed one had written."""
    root, cache = pictures(tmp_path / "in", 40), tmp_path / "cache" / "decoded"
    code = (
        "import os, ganlab.data.folder as f\n"
        "decode, left = f.decode, list(range(20))\n"
        "f.decode = lambda *a: decode(*a) if left and (left.pop() or True) else os.kill(os.getpid(), 9)\n"
        f"f.Folder(root={root!r}, memory=0).split('train')"
    )
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == -9
    assert len(list(cache.glob("*.npy"))) == 0
    assert len(list(cache.glob(".*.tmp"))) == 1
    mapped, files = (Folder(root=root, **where).split("train") for where in (IN_CACHE, IN_FILES))
    assert torch.equal(*(samples.take(torch.arange(40))["real"] for samples in (mapped, files)))
    assert len(list(cache.glob("*.npy"))) == 1
    assert not list(cache.glob(".*.tmp"))


@pytest.mark.parametrize("full", ["before", "meanwhile"])
def test_a_full_disk_is_told_and_the_files_are_read(tmp_path, monkeypatch, capsys, full):
    root = pictures(tmp_path / "in", 4)
    if full == "before":
        monkeypatch.setattr("ganlab.data.folder.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))
    else:

        class Full(io.BytesIO):
            def write(self, _):
                raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("ganlab.data.folder.atomic", lambda _: contextlib.nullcontext(Full()))
    assert isinstance(Folder(root=root, memory=0).split("train"), OnDisk)
    said = capsys.readouterr().out
    assert "decoded again in each epoch" in said
    assert ("0.0 free" if full == "before" else "No space left on device") in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda p: None, "there is no such folder"),
        (lambda p: p.mkdir(), "0 images found"),
        (lambda p: picture(p / "a.png"), "1 images found"),
        (lambda p: (picture(p / "a.png"), write(p / "b.png", b"no image")), "b.png can't be read"),
        (lambda p: (picture(p / "a.png"), write(p / "b.png", b"")), "b.png can't be read"),
    ],
)
def test_unusable_folders_are_named(tmp_path, prepare, message):
    prepare(tmp_path / "in")
    with pytest.raises(Unavailable, match=message):
        Folder(root=str(tmp_path / "in")).facts()


def test_truncated_image_is_named(tmp_path):
    picture(tmp_path / "a.png", size=(64, 64))
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "b.png")
    content = (tmp_path / "b.png").read_bytes()
    (tmp_path / "b.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(Unavailable, match=r"b.png can't be read"):
        Folder(root=str(tmp_path), size=8).split("train")


def test_mixed_sizes_ask_for_one(tmp_path):
    picture(tmp_path / "a.png", size=(8, 8))
    picture(tmp_path / "b.png", size=(9, 8))
    with pytest.raises(ValueError, match=r"2 different sizes.*data.size=64"):
        Folder(root=str(tmp_path)).facts()
    with pytest.raises(ValueError, match=r"data.root is not set"):
        Folder()


def test_fingerprint_changes_with_the_data(tmp_path):
    prints = {sets.Digits(size=s).fingerprint("train") for s in (8, 16)} | {sets.Digits().fingerprint("test")}
    assert len(prints) == 3
    assert sets.Digits().fingerprint("test") in prints
    real = torch.zeros(20_000, 1, 2, 2, dtype=torch.uint8)
    before = InMemory(real).fingerprint()
    real[12_345, 0, 1, 1] = 1  # one number of one image
    assert InMemory(real).fingerprint() != before


# ------------------------------------------------------------------------------------------------------------------ toy


def test_toy_ring_and_grid():
    ring = Toy().split("train").real
    assert ring.shape == (50_000, 2)
    assert ring.norm(dim=1).mean().item() == pytest.approx(1, abs=1e-3)
    assert torch.equal(Toy(seed=7).split("train").real, ring)  # a set is the same in runs of every seed
    grid = Toy(layout="grid", modes=25, scale=2.0, deviation=0.05)
    assert grid.facts()["shape"] == [2]
    assert sorted({x for x, _ in grid.facts()["centers"]}) == [-4, -2, 0, 2, 4]
    with pytest.raises(ValueError, match="square"):
        Toy(layout="grid", modes=8)
    with pytest.raises(ValueError, match="layout"):
        Toy(layout="spiral")


# ------------------------------------------------------------------------------------------------------------ downloads

CONTENT = bytes(range(256)) * 20_000  # 5 MB


class Server(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT at /good, breaks off in the middle at /broken, serves something else at /other."""

    requests: list[str] = []

    def do_GET(self):
        start = int((self.headers.get("Range") or "bytes=0-").split("=")[1].split("-")[0])
        self.requests.append(f"{self.path} {start}")
        if self.path == "/gone":
            return self.send_error(404)
        body = b"other" if self.path == "/other" else CONTENT
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        stop = len(body) // 2 if self.path == "/broken" and not start else len(body)
        self.wfile.write(body[start:stop])
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    Server.requests.clear()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()


def remote(*urls):
    return Remote("file.bin", urls, f"sha256:{hashlib.sha256(CONTENT).hexdigest()}")


def test_download_checks_and_happens_once(server, tmp_path):
    path = fetch(remote(f"{server}/good"), tmp_path)
    assert path.read_bytes() == CONTENT
    assert fetch(remote(f"{server}/good"), tmp_path) == path
    assert len(Server.requests) == 1


def test_broken_download_is_continued(server, tmp_path):
    with pytest.raises(Unavailable, match="connection ended"):
        fetch(remote(f"{server}/broken"), tmp_path)
    assert not (tmp_path / "file.bin").exists()
    assert fetch(remote(f"{server}/broken"), tmp_path).read_bytes() == CONTENT
    assert Server.requests == ["/broken 0", f"/broken {len(CONTENT) // 2}"]


def test_several_processes_download_once(server, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: fetch(remote(f"{server}/good"), tmp_path), range(4)))
    assert all(path.read_bytes() == CONTENT for path in paths)
    assert len(Server.requests) == 1


def test_mirrors_are_tried_in_turn_and_wrong_files_refused(server, tmp_path):
    assert fetch(remote(f"{server}/gone", f"{server}/other", f"{server}/good"), tmp_path).read_bytes() == CONTENT
    assert [r.split()[0] for r in Server.requests] == ["/gone", "/other", "/good"]


def test_offline_error_says_all_that_is_needed(tmp_path):
    url = "http://127.0.0.1:9/file.bin"
    with pytest.raises(Unavailable) as error:
        fetch(remote(url), tmp_path, "Or do without.")
    text = str(error.value)
    for part in (url, remote().checksum, str(tmp_path / "file.bin"), "Or do without."):
        assert part in text


def test_atomic_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    files.write_text(path, "old")

    def write_half():
        with files.atomic(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


# --------------------------------------------------------------------------------------------------------- few samples


def test_a_run_may_train_on_a_few_images_and_is_scored_against_all(tmp_path):
    import lightning as L

    make = lambda **kwargs: sets.Digits(size=16, batch_size=50, **kwargs)
    few, other, whole = make(count=100), make(count=100, seed=5), make()
    served = []
    for data in (few, other):
        data.trainer = L.Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
        loader = iter(data.train_dataloader())
        images = torch.cat([batch["real"] for _ in range(4) for batch in next(loader)])
        served.append({image.numpy().tobytes() for image in images})
        assert len(served[-1]) <= 100
    assert served[0] == served[1]  # whatever the seed
    assert few.fingerprint("train") == whole.fingerprint("train")
    assert len(few.split("train")) == 1438
    on_disk = Chosen(whole.split("train"), torch.tensor([3, 8, 9]))
    assert torch.equal(
        on_disk.take(torch.tensor([2, 0]))["real"], whole.split("train").take(torch.tensor([9, 3]))["real"]
    )
    assert len(on_disk) == 3
    with pytest.raises(ValueError, match=r"data\.count=0"):
        make(count=0)


def test_rounds_on_a_cpu_are_announced_some_time_before_they_are_read(tmp_path):
    """Each of them, in order, and they are what they would be without it."""
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 256, (50, 1, 4, 4), dtype=np.uint8))
    said, samples = [], Mapped(tmp_path / "images.npy", None)

    class Noting(Mapped):
        def announce(self, indices):
            said.append(indices)

        def take(self, indices):
            assert any(torch.equal(indices, one) for one in said[:-1])
            return samples.take(indices)

    order = Order(50, 8, 0, flip=True)
    rounds = Rounds(Noting(tmp_path / "images.npy", None), order, device=CPU, start=3)
    served = [batch["real"] for chunk in take(rounds, 12) for batch in chunk]
    assert all(torch.equal(one, order.round(3 + i)[0]) for i, one in enumerate(said))
    expected = Rounds(InMemory(torch.from_numpy(samples.images.copy())), order, device=CPU, start=3)
    assert all(torch.equal(a, b["real"]) for a, (b,) in zip(served, take(expected, 12), strict=True))
    said.clear()  # of some samples of the set, these
    some = Chosen(Noting(tmp_path / "images.npy", None), torch.arange(49, 9, -1))
    take(Rounds(some, Order(40, 8, 0), device=CPU), 5)
    assert torch.equal(torch.cat(said[:5]).sort().values, torch.arange(10, 50))
    assert not hasattr(Chosen(InMemory(torch.zeros(4, 1)), torch.arange(2)), "announce")
