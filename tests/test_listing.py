"""Folders of many files: listed once, and again when a folder changes; a changed file is never overlooked."""

import os
import shutil
import time

import pytest
import torch
from PIL import Image

from ganlab.data import scan
from ganlab.data.folder import Folder
from ganlab.data.scan import images_below, listed
from ganlab.files import Unavailable


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(scan, "MANY", 4)


@pytest.fixture
def root(tmp_path):
    """6 images in a, a/deep and b, and some time ago."""
    for i, name in enumerate(("a/0", "a/1", "a/deep/2", "b/3", "b/4", "b/5")):
        path = tmp_path / "in" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (i, 0, 0)).save(path)
    settle(tmp_path / "in")
    return tmp_path / "in"


def settle(root, age=60):
    """As if the folders had not changed for a minute."""
    then = time.time_ns() - age * 10**9
    for folder, _, _ in os.walk(root):
        os.utime(folder, ns=(then, then))


@pytest.fixture
def walks(monkeypatch):
    """How often a folder's files were listed."""
    counted = []
    monkeypatch.setattr(scan, "images_below", lambda root: counted.append(root) or images_below(root))
    return counted


def names(root):
    return [p.relative_to(root).as_posix() for p in listed(root).names]


def test_a_folder_is_listed_once(root, walks):
    first = names(root)
    assert first == ["a/0.png", "a/1.png", "a/deep/2.png", "b/3.png", "b/4.png", "b/5.png"]
    assert [names(root), names(root)] == [first, first]
    assert len(walks) == 1
    assert Folder(root=str(root)).facts()["class_names"] == ["a", "b"]
    assert len(walks) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda root: Image.new("RGB", (8, 8)).save(root / "a" / "deep" / "new.png"),
        lambda root: (root / "b" / "4.png").unlink(),
        lambda root: (root / "b" / "4.png").rename(root / "b" / "44.png"),
        lambda root: shutil.rmtree(root / "a" / "deep"),
        lambda root: shutil.copytree(root / "b", root / "c"),
    ],
)
def test_it_is_listed_again_when_a_folder_changes(root, walks, change):
    names(root)
    change(root)
    now = [p.relative_to(root).as_posix() for p in images_below(root).names]
    assert names(root) == now
    assert len(walks) == 2


def test_what_may_change_unseen_is_not_kept(root, tmp_path, walks):
    """A folder that changed a moment ago may change again within its clock's tick; what links lead to, a folder's time
    does not tell; few files are listed at once anyway."""
    settle(root, age=0)
    assert len(names(root)) == len(names(root)) == 6
    assert len(walks) == 2
    (root / "a" / "link.png").symlink_to(root / "b" / "3.png")
    settle(root)
    assert len(names(root)) == len(names(root)) == 7
    assert len(walks) == 4
    (root / "a" / "link.png").unlink()
    for i in (3, 4, 5):
        (root / "b" / f"{i}.png").unlink()
    settle(root)
    assert len(names(root)) == len(names(root)) == 3
    assert len(walks) == 6


def test_a_file_that_changes_in_place_is_noticed(root):
    """Its folder's time stays as it is."""
    load = lambda: Folder(root=str(root), memory=0).split("train").take(torch.arange(6))["real"][:, 0, 0, 0].tolist()
    assert load() == [0, 1, 2, 3, 4, 5]
    with open(root / "b" / "4.png", "r+b") as file:
        Image.new("RGB", (8, 8), (77, 0, 0)).save(file, "PNG")
    assert load() == [0, 1, 2, 3, 77, 5]
    listed(root)
    os.truncate(root / "b" / "4.png", 3)
    with pytest.raises(Unavailable, match=r"4\.png can't be read"):
        load()


@pytest.mark.parametrize("change", ["size", "time"])
@pytest.mark.parametrize("number", [0, 2047, 2048, 2599])
def test_size_and_time_of_every_file_count(tmp_path, number, change):
    """They are looked up in parts of 2,048."""
    paths = [tmp_path / f"{i:04}.png" for i in range(2600)]
    for path in paths:
        path.touch()
    before = listed(tmp_path).names.stamp
    then = paths[number].stat().st_mtime_ns
    paths[number].write_bytes(b"more" if change == "size" else b"")
    os.utime(paths[number], ns=(then, then if change == "size" else then + 1000))
    assert listed(tmp_path).names.stamp != before


def test_a_file_that_is_gone_is_named(root):
    found = listed(root)
    (root / "b" / "4.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"4\.png"):
        found.names.stamp  # noqa: B018


def test_a_broken_listing_is_made_anew(root, tmp_path, walks):
    names(root)
    kept = next((tmp_path / "cache" / "folders").glob("*.npz"))
    kept.write_bytes(kept.read_bytes()[:100])
    assert len(names(root)) == 6
    assert len(walks) == 2
