"""Hostile and broken input: each ends in one clear line, before anything is damaged, in bounded memory."""

import hashlib
import http.server
import io
import json
import math
import os
import re
import shutil
import struct
import sys
import tarfile
import threading
import zipfile
import zlib
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from composing import composed, prepared
from fuzz import evils, fuzz, png, replaced, saved, shared_out
from hydra.utils import get_object
from omegaconf import OmegaConf
from PIL import Image

from ganlab import limits
from ganlab.data import sets
from ganlab.data.attributes import read_table
from ganlab.data.decode import MOST_PIXELS, Bad, decode, header, orientation
from ganlab.data.folder import Folder
from ganlab.data.images import cover
from ganlab.data.places import images_at
from ganlab.data.rounds import Order, Rounds
from ganlab.data.scan import Names, images_below
from ganlab.files import Remote, Unavailable, arrays_in, fetch, unpack
from ganlab.metrics.scorer import load_statistics
from ganlab.weights import read

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))


def picture(path, size=(8, 8), color=7, mode="L", **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path, **kwargs)


def folder(path, good=3, bad=0):
    for i in range(good):
        picture(path / f"{i}.png", color=i)
    for i in range(bad):
        (path / f"x{i}.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken" if i else b"")
    return str(path)


def claiming(width, height, *chunks):
    """A PNG that says it has this size."""
    return png((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), *chunks, (b"IEND", b""))


# --------------------------------------------------------------------------------------------------------------- images


def test_an_image_bomb_is_refused_by_its_header(tmp_path):
    """A file of some bytes that claims 60,000x60,000 pixels is never decoded."""
    (tmp_path / "a.png").write_bytes(claiming(60_000, 60_000, (b"IDAT", zlib.compress(bytes(100)))))
    with (
        mock.patch.object(Image.Image, "load", side_effect=AssertionError("decoded")),
        pytest.raises(Bad, match=f"a.png can't be read.*pixels are too many, {MOST_PIXELS:,} at most"),
    ):
        header(tmp_path / "a.png")


@pytest.mark.parametrize("chunk", [b"zTXt", b"iCCP"])
def test_bombs_beside_the_pixels_take_no_memory(tmp_path, chunk):
    """100 MB of zeros, packed into 100 kB of a PNG's text or colour profile."""
    import tracemalloc

    bomb = (chunk, b"note\0\0" + zlib.compress(bytes(10**8)))
    path = tmp_path / "a.png"
    path.write_bytes(claiming(1, 1, bomb, (b"IDAT", zlib.compress(b"\0\7"))))
    tracemalloc.start()
    try:
        decode(path, [1, 4, 4])
    except Bad:
        pass
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert most < 10**7


def test_a_strip_is_scaled_without_a_giant_between(tmp_path):
    """1x60,000 pixels to 64x64: all of it, scaled, would be 64x3,840,000."""
    strip = torch.arange(60_000).div(60_000 / 255).to(torch.uint8).view(1, 1, 1, -1)
    sizes = []
    with mock.patch(
        "ganlab.data.images.T.resize", side_effect=lambda x, size, **_: sizes.append(size) or x.expand(1, 1, 64, -1)
    ):
        cover(strip, (64, 64))
    assert math.prod(sizes[0]) <= 8 * 64 * 64
    assert cover(strip, (64, 64)).float().mean() == pytest.approx(127, abs=1)  # its middle


def test_what_a_file_is_counts_not_what_it_is_called(tmp_path):
    """A PNG called .jpg is read; PostScript, for which Pillow would start a program, is not."""
    picture(tmp_path / "a.jpg", format="PNG")
    assert header(tmp_path / "a.jpg") == (8, 8, True)
    picture(tmp_path / "b.png", mode="RGB", color=(1, 2, 3), format="EPS")
    with pytest.raises(Bad, match=r"b.png can't be read as an image .it is none of PNG, JPEG"):
        header(tmp_path / "b.png")


def test_a_damaged_orientation_leaves_the_image_as_it_is(tmp_path):
    picture(tmp_path / "a.jpg", size=(8, 4), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40)
    assert header(tmp_path / "a.jpg")[:2] == (4, 8)
    assert decode(tmp_path / "a.jpg", [1, 4, 8]).shape == (1, 4, 8)
    with Image.open(tmp_path / "a.jpg") as image:
        assert orientation(image) == 1


@pytest.mark.parametrize("turn", range(1, 9))
def test_every_orientation_is_pillows(tmp_path, turn):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert header(tmp_path / "a.png")[:2] == expected.shape
    assert np.array_equal(decode(tmp_path / "a.png", [1, *expected.shape])[0].numpy(), expected)


def test_float_images_are_refused_since_their_white_is_not_known(tmp_path):
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(Bad, match="floats"):
        decode(tmp_path / "a.tif", [1, 8, 8])


def test_truncated_empty_and_foreign_files_are_named(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    for content, reason in (
        (whole[:5000], "truncated"),
        (b"", "it is empty"),
        (b"GIF", "it is none of"),
        (whole[:20], ""),
    ):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(Bad, match=f"a.png can't be read as an image.*{reason}"):
            decode(tmp_path / "a.png", [3, 8, 8])


# -------------------------------------------------------------------------------------------------------------- folders


def test_bad_files_are_refused_with_their_count(tmp_path):
    with pytest.raises(
        Bad, match=r"x0.png can't be read as an image .it is empty, nor can 2 others of 6.*data.on_bad=skip"
    ):
        Folder(root=folder(tmp_path / "in", 3, 3)).facts()


def test_bad_files_are_left_out_counted_and_listed(tmp_path, capsys):
    """One of them has a good header: only decoding tells. The second look reads none again."""
    root = folder(tmp_path / "in", 3, 2)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)).save(tmp_path / "in" / "half.png")
    whole = (tmp_path / "in" / "half.png").read_bytes()
    (tmp_path / "in" / "half.png").write_bytes(whole[:60])
    data = Folder(root=root, on_bad="skip")
    assert data.split("train").real[:, 0, 0, 0].tolist() == [0, 1, 2]
    said = capsys.readouterr().out
    assert "data.on_bad=skip: 3 of 6 can't be read and are left out" in said
    listed = json.loads(Path(said.split("listed in ")[1].splitlines()[0]).read_text())
    assert sorted(listed["bad"]) == ["half.png", "x0.png", "x1.png"]
    with mock.patch("ganlab.data.folder.whole", side_effect=AssertionError("decoded again")):
        again = Folder(root=root, on_bad="skip", memory=0, disk=0).split("train")
    assert [p.name for p in again.paths] == ["0.png", "1.png", "2.png"]
    picture(tmp_path / "in" / "x0.png", color=9)  # repaired
    assert len(Folder(root=root, on_bad="skip").split("train")) == 4


def test_a_bad_class_folder_is_no_class(tmp_path):
    folder(tmp_path / "in" / "cat")
    folder(tmp_path / "in" / "dog", 0, 0) if (tmp_path / "in" / "dog").mkdir() else None
    (tmp_path / "in" / "dog" / "a.png").write_bytes(b"")
    assert Folder(root=str(tmp_path / "in"), on_bad="skip").facts()["class_names"] == ["cat"]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_goes_while_training_is_named_in_one_line(tmp_path, workers):
    samples = Folder(root=folder(tmp_path / "in"), memory=0, disk=0, workers=workers).split("train")
    rounds = iter(Rounds(samples, Order(3, 3, 0), device=torch.device("cpu"), workers=workers))
    (tmp_path / "in" / "1.png").unlink()
    with pytest.raises(Unavailable) as error:
        [next(rounds) for _ in range(10)]
    assert "1.png can't be read as an image (No such file or directory)" in str(error.value)
    assert "\n" not in str(error.value)


def test_links_that_lead_out_are_not_followed(tmp_path, capsys):
    root = Path(folder(tmp_path / "in"))
    picture(tmp_path / "secret" / "s.png")
    (root / "out.png").symlink_to(tmp_path / "secret" / "s.png")
    (root / "gone.png").symlink_to(root / "nowhere.png")
    (root / "folder").symlink_to(tmp_path / "secret")
    (root / "loop").symlink_to(root)
    (root / "in.png").symlink_to(root / "0.png")
    (tmp_path / "root").symlink_to(root)
    data = Folder(root=str(tmp_path / "root"))
    assert data.facts()["shape"] == [1, 8, 8]
    assert [p.name for p in data.paths] == ["0.png", "1.png", "2.png", "in.png"]
    assert "4 links lead out of it, to a folder or nowhere, not followed: folder" in capsys.readouterr().out.replace(
        "gone.png", "folder"
    )
    shutil.rmtree(root)
    root.mkdir()
    (root / "class").symlink_to(tmp_path / "secret")
    with pytest.raises(Unavailable, match=r"0 images found.*1 link leads out of it.*class"):
        Folder(root=str(root)).facts()


def test_folders_that_can_not_be_read_are_named(tmp_path):
    root, scan = folder(tmp_path / "in"), os.scandir
    picture(tmp_path / "in" / "locked" / "a.png")
    refused = lambda path: (
        (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
        if b"locked" in os.fsencode(path)
        else scan(path)
    )
    with mock.patch("ganlab.data.scan.os.scandir", refused):
        with pytest.raises(Bad, match=r"locked/? can't be read.*Permission denied"):
            Folder(root=root).facts()
        assert len(Folder(root=root, on_bad="skip").split("train")) == 3


def test_names_are_in_the_order_of_paths_and_take_little_memory(tmp_path):
    import tracemalloc

    for name in ("b.png", "a.b/c.png", "a/z.png", "a/d/e.PNG", "a!.jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"x")
    expected = sorted(p for p in tmp_path.rglob("*") if p.suffix.lower() in (".png", ".jpg"))
    names = images_below(tmp_path).names
    assert list(names) == expected
    assert list(names.but({"a/z.png"})) == [p for p in expected if p.name != "z.png"]
    assert list(names[1:3]) == expected[1:3]
    tracemalloc.start()
    many = Names(tmp_path, (b"%012d.png" % i for i in range(100_000)))
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert many[99_999].name == "000000099999.png"
    assert held < 100_000 * (16 + 8 + 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"file,a\nx.png,2\n", "'x.png,2'"),
        (b"file,a,a\nx.png,1,1\n", "more than one column is called a"),
        (b"\xff\xfe\0", "can't be read as a table"),
        (b'file,a\n"x', "can't be read as a table"),
        (b"file,a\nx.png,1," + b"1" * 200_000 + b"\n", "can't be read as a table|expected"),
    ],
)
def test_broken_tables_are_named(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(Unavailable, match=message):
        read_table(tmp_path / "t.csv", None)


def test_labels_beyond_the_classes_and_sets_beyond_the_memory_are_refused(tmp_path):
    for name in sets.CIFAR10.files["train"]:
        (tmp_path / name).write_bytes(bytes([10]) + bytes(3072))
    with pytest.raises(Unavailable, match="labels beyond its 10 classes"):
        sets.CIFAR10(root=str(tmp_path)).split("train")
    with (
        mock.patch("ganlab.data.sets.memory", return_value=10**8),
        pytest.raises(ValueError, match=r"data.size=.512, 512."),
    ):
        sets.Digits(size=512).split("train")


# ------------------------------------------------------------------------------------------------- archives, downloads


def tar(path, *members):
    with tarfile.open(path, "w:gz") as packed:
        for name, kind, link, size in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, link, size
            packed.addfile(info, io.BytesIO(bytes(size)) if size else None)
    return path


FILE, LINK, HARD, DEVICE = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("../out", FILE, "", 3)], "lies outside"),
        ([("/tmp/hostile-out", FILE, "", 3)], "lies outside"),
        ([("a/link", LINK, "/etc", 0), ("a/link/out", FILE, "", 3)], "neither a file nor a folder"),
        ([("hard", HARD, "/etc/passwd", 0)], "neither a file nor a folder"),
        ([("null", DEVICE, "", 0)], "neither a file nor a folder"),
        ([("a", FILE, "", 3), ("A", FILE, "", 4)], "is in it twice"),
        ([("zeros", FILE, "", 200 << 20)], "which are too many"),
    ],
)
def test_archives_that_reach_out_or_are_too_large_leave_nothing(tmp_path, members, message):
    target = tmp_path / "target"
    target.mkdir()
    (target / "a").write_text("mine")
    archive = tar(tmp_path / "x.tar.gz", ("good", FILE, "", 3), *members)
    with pytest.raises(Unavailable, match=rf"x.tar.gz can't be unpacked: .*{message}"):
        unpack(archive, target)
    assert [p.name for p in target.iterdir()] == ["a"]
    assert (target / "a").read_text() == "mine"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../out", "/tmp/hostile-out", "..\\out", "C:\\out", "a/../../out"])
def test_zips_likewise(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as packed:
        packed.writestr("good.png", "x")
        packed.writestr(name, "x")
    (tmp_path / "target").mkdir()
    with pytest.raises(Unavailable, match="lies outside"):
        unpack(tmp_path / "x.zip", tmp_path / "target")
    assert not list((tmp_path / "target").iterdir())
    content = bytearray((tmp_path / "x.zip").read_bytes())
    (tmp_path / "x.zip").write_bytes(content[:-30])
    with pytest.raises(Unavailable, match="can't be unpacked"):
        images_at(tmp_path / "x.zip")


class Server(http.server.BaseHTTPRequestHandler):
    """Answers that no honest server gives."""

    def do_GET(self):
        match self.path:
            case "/file":
                self.send_response(302)
                self.send_header("Location", "file:///etc/passwd")
                self.end_headers()
                return
            case "/long":  # more than announced
                self.send_response(200)
                self.send_header("Content-Length", "5")
            case "/vast":
                self.send_response(200)
                self.send_header("Content-Length", str(1 << 50))
            case "/what":
                self.send_response(200)
                self.send_header("Content-Length", "many")
            case _:
                self.send_response(200)
        self.end_headers()
        with mock.patch.object(self, "wfile", self.wfile):
            try:
                for _ in range(40):
                    self.wfile.write(bytes(1 << 16))
            except OSError:
                pass

    def log_message(self, *_):
        pass


def test_downloads_that_do_not_end_lie_or_lead_elsewhere(tmp_path, monkeypatch):
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    home = f"http://127.0.0.1:{httpd.server_port}"
    monkeypatch.setattr("ganlab.files.LARGEST", 1 << 20)
    urls = (
        f"{home}/file",
        f"{home}/long",
        f"{home}/vast",
        f"{home}/what",
        f"{home}/endless",
        "file:///etc/passwd",
        "nonsense",
    )
    with pytest.raises(Unavailable) as error:
        fetch(Remote("x.bin", urls, f"sha256:{hashlib.sha256(b'x').hexdigest()}"), tmp_path)
    httpd.shutdown()
    for part in (
        "Redirection to url 'file:",
        "another file than expected",
        "are announced",
        "invalid literal",
        "did not end",
        "not an address",
    ):
        assert part in str(error.value), part
    assert not (tmp_path / "x.bin").exists()
    assert sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()) <= 1 << 20


# ------------------------------------------------------------------------------------------------------ arrays, weights


def test_arrays_that_are_larger_than_their_file_says_are_refused(tmp_path):
    """A header that claims 8 TB, and objects in place of numbers."""
    np.savez(tmp_path / "objects.npz", mu=np.array([print], object))
    head = (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,), }".ljust(117)
        + b"\n"
    )
    with zipfile.ZipFile(tmp_path / "vast.npz", "w") as packed:
        packed.writestr("mu.npy", head)
    for name in ("objects", "vast"):
        with pytest.raises(Unavailable, match=f"{name}.npz can't be read as an .npz of arrays"):
            arrays_in(tmp_path / f"{name}.npz")
    np.savez(tmp_path / "small.npz", mu=np.zeros(100))
    with pytest.raises(Unavailable):
        arrays_in(tmp_path / "small.npz", most=100)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": np.full(4, np.nan)}, r"mu .* is not made of finite numbers"),
        ({"mu": np.array(["a"])}, "mu .* is not made of finite numbers"),
        ({"n": np.zeros(3)}, "n is float64"),
    ],
)
def test_statistics_of_something_else_are_named(tmp_path, arrays, message):
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load_statistics(tmp_path / "s.npz")


def test_weights_that_would_run_something_or_fill_the_memory_are_refused(tmp_path):
    net = torch.nn.Linear(4, 2).state_dict()
    good, path = saved(net), tmp_path / "w.pth"
    files = [replaced(good, "data.pkl", evil) for evil in evils()] + evils()
    files.append(saved({"w": torch.ones(1).expand(1 << 40)}))  # one number, as 4 TB
    files.append(saved({"w": torch.empty(1 << 40, device="meta")}))
    files.append(saved({7: torch.ones(1)}))
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("a/data.pkl", bytes(50 << 20))
        files.append(file.getvalue())
    with mock.patch("os.system", side_effect=AssertionError("run")):
        for content in files:
            path.write_bytes(content)
            with pytest.raises(Unavailable, match=r"w\.pth (can't be read as weights|holds no weights)"):
                read(path)
    path.write_bytes(good)
    assert set(read(path)) == set(net)


# -------------------------------------------------------------------------------------------------------------- configs

HOSTILE = {
    "text": "abc", "negative": -1, "nan": math.nan, "inf": math.inf, "vast": 10**30, "list": [1, "a"], "dict": {"a": 1},
}  # fmt: skip
# what is right for some keys: text where text is asked for, entries of a group, and what other checks look at
TEXT = {
    "resume", "finetune", "monitor", "folder", "path", "save_dir", "name", "version", "outputs", "output", "data",
    "strategy", "precision", "devices", "policy", "net", "layer", "weights", "checksum", "root", "attributes", "action",
    "source", "target", "test", "held_out", "label", "charset", "separator",
}  # fmt: skip
GROUPS = {"terms", "augment", "scores", "callbacks", "logger"}
NODES = {"adam", "start", "stop", "networks", "G", "D", "speed", "optimizer", "metrics", "data", "trainer", "paths"}
ELSEWHERE = {"max_steps", "max_epochs", "accumulate_grad_batches", "gradient_clip_val"}  # refused whatever they are
SIGNED = {"limit", "begin", "end", "margin", "a", "b", "c", "devices", "precision"}


def fine(path, name):
    """Whether such a value can be right for that key, or is another check's."""
    last = path[-1]
    return (
        (name == "text" and last in TEXT)
        or (name == "dict" and last in NODES)
        or (name == "dict" and last == "weight")  # losses tell themselves which players they have
        or (name == "dict" and path[0] in GROUPS and len(path) == 2)  # check_keys tells
        or (name == "negative" and last in SIGNED)
        or (name == "list" and last == "freeze")  # numbers and names of layers
        or (name == "dict" and path[-2:-1] == ("rules",))  # the watchdog tells
        or (name in ("negative", "vast") and last in ("version", "precision"))
    )


def leaves(node, path=()):
    if isinstance(node, dict):
        for key, child in node.items():
            yield (*path, key)
            yield from leaves(child, (*path, key))


def put(node, path, value):
    return {k: (put(v, path[1:], value) if path[1:] else value) if k == path[0] else v for k, v in node.items()}


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["data=folder", "model=stylegan2_ada", "optimizer=sgd"],
        ["data=toy", "model=mlp", "loss=unrolled", "augment=noise", "lr_schedule=cosine", "optimizer=rmsprop"],
        ["data=label_maps", "model=pix2pix", "scores=[psnr,ssim,lpips,segmentation]"],
        ["model=pix2pix", "task=inpaint_free"],
        ["data=mnist_inverted", "model=cyclegan"],
        ["data=folder", "model=esrgan"],
        ["data=sounds", "model=cwavegan"],
        ["model=gain", "data=table"],
        ["model=ctgan"],
        [
            "model=infogan",
            "+terms=[gp,cr,lecam,path_length]",
            "scores=[kid,prdc,cmmd,is,ppl,cas]",
            "extractor=resnet50",
        ],
    ],
)
def test_every_key_refuses_what_it_can_not_be(overrides):
    """Text, numbers out of its range, nan, lists and dictionaries: each is told in a line with key and value."""
    given = OmegaConf.to_container(composed(*overrides))
    tried = 0
    for path in leaves(given):
        for name, value in HOSTILE.items():
            if "_target_" in path or path[-1] in ELSEWHERE or fine(path, name):
                continue
            tried += 1
            key = ".".join(path)
            with pytest.raises(ValueError, match=f"^{re.escape(key)}") as error:
                limits.check_values(put(given, path, value), limits.TRAIN, get_object)
            text = str(error.value)
            assert ": must be " in text
            assert "\n" not in text
            assert len(text) < 300
    assert tried > 300


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("max_kimg", "abc", "max_kimg='abc': must be a number above 0"),
        ("n_critic", 0, "n_critic=0: must be a whole number from 1 to 10000"),
        ("adam.betas", [0.5], r"adam.betas=\[0.5\]: must be a list of a number at least 0 and below 1, 2 of them"),
        ("start.D", None, "start.D=null: must be a number at least 0"),
        ("share_fake", 3, "share_fake=3: must be true or false"),
        ("networks.G.init", "best", "networks.G.init='best': must be orthogonal or normal or xavier or null"),
        ("ema", {"a": 1}, "ema={'a': 1}: must be an object with a _target_"),
        ("loss.weight", {"D": 1, "G": "x"}, "loss.weight.G='x': must be a number at least 0"),
    ],
)
def test_what_is_allowed_is_said(key, value, told):
    given = OmegaConf.to_container(composed())
    with pytest.raises(ValueError, match=told):
        limits.check_values(put(given, key.split("."), value), limits.TRAIN, get_object)


def test_networks_and_batches_beyond_the_memory_are_refused_before_it_is_taken():
    with pytest.raises(ValueError, match=r"generator: .*width=65536.* parameters.* GiB, and this machine has"):
        prepared("generator.width=65536", "metrics.enabled=false")
    with (
        mock.patch.object(limits, "memory", return_value=1 << 20),
        pytest.raises(ValueError, match=r"data.batch_size=4096: so many"),
    ):
        prepared("data.batch_size=4096", "metrics.enabled=false")


@pytest.mark.parametrize(
    ("module", "arguments", "told"),
    [
        ("sample", ["n=abc"], "n='abc': must be a whole number"),
        ("sample", ["truncation=[1]"], "truncation=[1]: must be a number"),
        ("evaluate", ["fakes=test", "batch_size=-1"], "batch_size=-1: must be a whole number"),
        ("project", ["input=x.png", "lr=nan"], "lr=nan: must be a number"),
        ("analyze", ["reach=abc"], "reach='abc': must be a number"),
    ],
)
def test_commands_refuse_in_one_line(module, arguments, told, capsys):
    import importlib

    entry = importlib.import_module(f"ganlab.{module}")
    checkpoint = [] if module == "evaluate" else ["checkpoint=x.ckpt"]
    with mock.patch.object(sys, "argv", ["ganlab", *checkpoint, *arguments]), pytest.raises(SystemExit) as error:
        entry.main()
    assert str(error.value).startswith(f"error: {told}")
    assert "\n" not in str(error.value)


# ----------------------------------------------------------------------------------------------------------------- fuzz


def test_a_few_hundred_mutated_files_end_as_documented(tmp_path):
    """The first cases of what `python tests/fuzz.py` runs by the thousand."""
    tallies, findings = fuzz(shared_out(250, None), 0, tmp_path)
    assert not findings
    assert sum(tally.results.total() for tally in tallies.values()) >= 250
    loaded = sum(tally.results["loaded"] for tally in tallies.values())
    assert 25 < loaded < 200  # mutations neither spare everything nor break everything
