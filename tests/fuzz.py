"""Broken and hostile files, by the thousand: python tests/fuzz.py --cases 10000

Each case is a pure function of (seed, loader, number): a good file of the corpus, which is made below, is mutated and
loaded in a process of its own. Loading must succeed or end in one of the documented errors, within a time and a memory,
and must start no program, open no socket, write nothing outside its folder and import nothing that is not known. A
finding is written to a file, is named in the output, and makes the exit code 1. A new loader is one line in LOADERS.
"""

import argparse
import hashlib
import io
import json
import os
import pickle
import random
import resource
import selectors
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

SECONDS, MIB = 20.0, 1280  # that a case may take: Pillow holds an animation of the most pixels four times, as RGBA
ROOT = Path(__file__).parent.parent


# -------------------------------------------------------------------------------------------------------------- corpus


@cache
def images() -> dict[str, bytes]:
    """Small images in all formats that are read, and in some that must not be."""
    import numpy as np
    from PIL import Image, PngImagePlugin

    noise = np.random.default_rng(0).integers(0, 256, (24, 20, 4), np.uint8)
    rgba, rgb, grey = (Image.fromarray(x) for x in (noise, noise[..., :3].copy(), noise[..., 0].copy()))
    deep = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "turned"
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "x" * 500, zip=True)
    frames = [Image.new("RGB", (20, 24), (40 * i, 9, 9)) for i in range(3)]
    more: dict[str, Any] = {"save_all": True, "append_images": frames}
    made = {
        "rgb.png": (rgb, {"exif": exif, "pnginfo": text, "icc_profile": b"\0" * 200}),
        "palette.png": (rgb.quantize(7), {"transparency": 0}),
        "deep.png": (deep, {}),
        "bit.png": (grey.convert("1"), {}),
        "alpha.png": (rgba, {}),
        "la.png": (grey.convert("LA"), {}),
        "rgb.jpg": (rgb, {"exif": exif}),
        "cmyk.jpg": (rgb.convert("CMYK"), {}),
        "slow.jpg": (grey, {"progressive": True}),
        "still.webp": (rgba, {"lossless": True}),
        "moving.webp": (frames[0], more),
        "moving.gif": (frames[0], more),
        "bits.bmp": (rgb, {}),
        "palette.bmp": (rgb.quantize(7), {}),
        "lzw.tif": (rgb, {"compression": "tiff_lzw"}),
        "zip.tif": (rgba, {"compression": "tiff_adobe_deflate"}),
        "pages.tif": (frames[0], more),
        "deep.tif": (deep, {}),
        "float.tif": (grey.convert("F"), {}),
        "cmyk.tif": (rgb.convert("CMYK"), {}),
        "turned.tif": (rgb, {"exif": exif}),
        "rgb.ppm": (rgb, {}),
        "grey.pgm": (grey, {}),
        "eps.png": (rgb, {"format": "EPS"}),
        "ico.png": (rgb, {"format": "ICO"}),
        "tga.gif": (rgb, {"format": "TGA"}),
        "jp2.jpg": (rgb, {"format": "PCX"}),
    }
    files = {}
    for name, (image, options) in made.items():
        file = io.BytesIO()
        kind = {"jpg": "JPEG", "tif": "TIFF", "pgm": "PPM"}.get(name[-3:], name.rpartition(".")[2].upper())
        image.save(file, **{"format": kind, **options})
        files[name] = file.getvalue()
    huge = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    files["bomb.png"] = png((b"IHDR", huge), (b"IDAT", zlib.compress(bytes(10**6))), (b"IEND", b""))
    strip = struct.pack(">IIBBBBB", 60_000, 1, 8, 0, 0, 0, 0)
    files["strip.png"] = png((b"IHDR", strip), (b"IDAT", zlib.compress(bytes(60_001))), (b"IEND", b""))
    bomb = b"note\0\0" + zlib.compress(bytes(20_000_000))
    small = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    dot = (b"IDAT", zlib.compress(b"\0\0"))
    files["text.png"] = png((b"IHDR", small), *[(b"zTXt", bomb)] * 3, dot, (b"IEND", b""))
    files["icc.png"] = png((b"IHDR", small), (b"iCCP", bomb), dot, (b"IEND", b""))
    return files


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    whole = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(whole)


class Evil:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@cache
def evils() -> list[bytes]:
    """Pickles that would run something."""
    import importlib

    import numpy as np
    import torch

    command = "echo CANARY > canary"
    calls = [
        Evil(os.system, command),
        Evil(eval, f"__import__('os').system({command!r})"),
        Evil(exec, "CANARY = 1"),
        Evil(subprocess.Popen, command, -1, None, None, None, None, None, True, True),
        Evil(importlib.import_module, "antigravity"),
        Evil(torch.hub.load, "canary/canary", "canary"),
        Evil(torch.load, "/etc/passwd"),
        Evil(open, "canary", "w"),
        Evil(getattr, "x", "upper"),
        Evil(np.array([None, os.system], object).__reduce__()[0], np.ndarray, (0,), b"b"),
        Evil(torch.serialization.load, "/etc/passwd"),
        Evil(pickle.loads, b"cos\nsystem\n."),
        Evil(bytearray, 1 << 40),
        Evil(os.putenv, "CANARY", "1"),
        Evil(torch._utils._rebuild_tensor_v2, None, 0, (1 << 40,), (0,), False, {}),
    ]
    raw = [
        b"cos\nsystem\n(S'echo CANARY > canary'\ntR.",
        b"c__builtin__\ngetattr\n(cos\nsystem\nS'__call__'\ntR.",
        b"\x80\x04J\xff\xff\xff\x7f\x94r\xff\xff\xff\x0f.",
    ]
    return raw + [
        pickle.dumps(value, 2) for call in calls for value in (call, {"state_dict": {"w": call}}, {"ganlab": call})
    ]


@cache
def checkpoint() -> dict[str, Any]:
    """The content of one, of a small multilayer perceptron."""
    import torch

    from ganlab.checkpoint import build

    G = {"_target_": "ganlab.models.mlp.Generator", "shape": [2], "z_dim": 2, "width": 4, "depth": 1}
    D = {"_target_": "ganlab.models.mlp.Discriminator", "shape": [2], "width": 4, "depth": 1}
    task = {"_target_": "ganlab.tasks.Generate", "extent": 1.0}
    torch.manual_seed(0)
    nets = {
        "G": build(G, ("ganlab.models",), ""),
        "G_ema": build(G, ("ganlab.models",), ""),
        "D": build(D, ("ganlab.models",), ""),
    }
    state = {f"{name}.{key}": value for name, net in nets.items() for key, value in net.state_dict().items()}
    config = {"generator": G, "discriminator": D, "task": task, "networks": {"G": {"spectral": False}}, "seed": 0}
    return {
        "ganlab": {"format": 1, "version": "0.1.0", "config": config},
        "state_dict": state,
        "clock": {"seen": 64, "rounds": 1},
    }


def saved(value: Any, **options: Any) -> bytes:
    import torch

    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return file.getvalue()


def replaced(archive: bytes, ending: str, content: bytes) -> bytes:
    """A zip with another content of the member whose name ends so."""
    with zipfile.ZipFile(io.BytesIO(archive)) as old:
        return zipped(**{name: content if name.endswith(ending) else old.read(name) for name in old.namelist()})


@cache
def pickled() -> dict[str, bytes]:
    """Checkpoints, in both formats of torch.save, and hostile ones."""
    import torch

    torch.manual_seed(0)
    good = {
        "linear": saved(torch.nn.Linear(4, 2).state_dict()),
        "new": saved(checkpoint()),
        "old": saved(checkpoint(), _use_new_zipfile_serialization=False),
    }
    hostile = {f"evil{i}": replaced(good["new"], "data.pkl", evil) for i, evil in enumerate(evils())}
    return (
        good
        | hostile
        | {f"raw{i}": evil for i, evil in enumerate(evils())}
        | {"bomb": zipped(**{"a/data.pkl": bytes(64 << 20)})}
    )


@cache
def scripts() -> dict[str, bytes]:
    """TorchScript archives, from which weights are read without running them."""
    import torch

    file = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(4, 2)), file)
    good = file.getvalue()
    return {"good": good} | {f"evil{i}": replaced(good, "/data.pkl", evil) for i, evil in enumerate(evils())}


@cache
def tensors() -> dict[str, bytes]:
    import torch
    from safetensors.torch import save

    header = json.dumps({"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    return {
        "good": save({"weight": torch.ones(2, 4), "bias": torch.zeros(2)}),
        "huge": struct.pack("<Q", len(header)) + header,
        "endless": struct.pack("<Q", 1 << 60) + b"{}",
    }


@cache
def arrays() -> dict[str, bytes]:
    import numpy as np

    file, objects = io.BytesIO(), io.BytesIO()
    np.savez(file, mu=np.zeros(4), sigma=np.eye(4), n=np.array(10), extractor=np.array("raw values"))
    np.savez(objects, mu=np.array([Evil(os.system, "echo CANARY > canary")], object), sigma=np.eye(4))
    pictures = io.BytesIO()
    np.savez_compressed(pictures, arr_0=np.zeros((3, 4, 4, 3), np.uint8))
    head = (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '<f8', 'fortran_order': False, 'shape': (1073741824,), }".ljust(117)
        + b"\n"
    )
    return {
        "statistics": file.getvalue(),
        "objects": objects.getvalue(),
        "images": pictures.getvalue(),
        "bomb": zipped(**{"mu.npy": head + bytes(32 << 20), "sigma.npy": head}),
    }


@cache
def archives() -> dict[str, bytes]:
    """Good ones, and those with names, links and sizes that must not be unpacked."""
    files = {"set/a.png": images()["rgb.png"], "set/b.png": images()["alpha.png"]}
    found = {"good.zip": zipped(**files)}
    for i, name in enumerate(
        ("../out", "/tmp/canary-out", "a/../../out", "C:\\out", "..\\out", "set/a.png/x", "x" * 400, "a\0b")
    ):
        found[f"name{i}.zip"] = zipped(**{**files, name: b"CANARY"})
    found["bomb.zip"] = zipped(zeros=bytes(128 << 20))
    link = tarfile.TarInfo("set/link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc"
    through, device, hard = tarfile.TarInfo("set/link/out"), tarfile.TarInfo("null"), tarfile.TarInfo("hard")
    device.type, hard.type, hard.linkname = tarfile.CHRTYPE, tarfile.LNKTYPE, "/etc/passwd"
    vast = tarfile.TarInfo("vast")
    vast.size = 1 << 50
    for name, extra in {
        "good": [],
        "link": [link, through],
        "device": [device],
        "hard": [hard],
        "up": [tarfile.TarInfo("../out")],
        "absolute": [tarfile.TarInfo("/tmp/canary-out")],
        "twice": [tarfile.TarInfo("set/a.png")],
        "vast": [vast],
    }.items():
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w:gz") as tar:
            for member, content in files.items():
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            for info in extra:
                tar.addfile(info, None)
        found[f"{name}.tar.gz"] = file.getvalue()
    return found


@cache
def configs() -> list[dict[str, Any]]:
    """Composed settings of some runs, unresolved."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from ganlab.conf import CONF

    asked = [
        [],
        ["model=mlp", "data=toy"],
        ["model=stylegan2_ada"],
        ["data=folder", "optimizer=sgd"],
        ["loss=unrolled", "augment=noise"],
    ]
    with initialize_config_dir(version_base="1.3", config_dir=CONF):
        return [OmegaConf.to_container(compose("train", overrides)) for overrides in asked]  # type: ignore[misc]


TABLES = {
    "a.csv": b"file,smiling,old\na.png,1,0\nb.png,0,1\n",
    "b.txt": b"2\nsmiling old\na.jpg 1 -1\nb.jpg -1 1\n",
    "c.csv": b'file,"a,b",c\n"x\ny.png",1,0\n',
}

# ------------------------------------------------------------------------------------------------------------ mutations

ODD = [0, 1, -1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**40]
VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    0.5,
    -0.5,
    1e30,
    10**30,
    float("nan"),
    float("inf"),
    "",
    "abc",
    "../../x",
    "${x}",
    "x" * 10_000,
    [],
    {},
    [1],
    [[]],
    {"a": 1},
    {"_target_": "os.system", "command": "echo CANARY"},
    {"_target_": "ganlab.models.mlp.Generator"},
    b"bytes",
    2**62,
    {"_target_": "builtins.eval"},
    {"_target_": 3},
    "ganlab.models.mlp.Discriminator",
    "torch.hub.load",
    ["abc", None],
]


def mutated(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """The bytes with one to six changes."""
    x = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        at = rng.randrange(len(x) + 1)
        if rng.random() < 0.4:  # headers are at the beginning
            at = min(at, rng.randrange(64))
        width = rng.choice((1, 2, 4, 8))
        match rng.randrange(9):
            case 0 if x:
                x[min(at, len(x) - 1)] ^= 1 << rng.randrange(8)
            case 1:
                x[at : at + width] = (rng.choice(ODD) % (1 << 8 * width)).to_bytes(width, rng.choice(("big", "little")))
            case 2:
                del x[at:]
            case 3:
                del x[at : at + rng.randrange(1, 64)]
            case 4:
                x[at:at] = rng.randbytes(rng.randrange(1, 64))
            case 5:
                other = rng.choice(others)
                start = rng.randrange(len(other) + 1)
                x[at : at + rng.randrange(64)] = other[start : start + rng.randrange(1, 256)]
            case 6:
                x[at:at] = x[at : at + rng.randrange(1, 256)] * rng.randrange(1, 20)
            case 7:
                a, b = sorted((at, rng.randrange(len(x) + 1)))
                size = rng.randrange(1, 64)
                x[a : a + size], x[b : b + size] = x[b : b + size], x[a : a + size]
            case 8:
                x += rng.randbytes(rng.randrange(64))
    return bytes(x)


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(place for key, child in children for place in places(child, (*path, key)))]


def changed(tree: Any, rng: random.Random, values: list[Any]) -> Any:
    """A copy of the tree with one to three places removed, renamed, doubled or given another value."""
    tree = copied(tree)
    for _ in range(rng.choice((1, 1, 2, 3))):
        path = rng.choice(places(tree))
        if not path:
            continue
        parent = tree
        for key in path[:-1]:
            parent = parent[key]
        match rng.randrange(6):
            case 0:
                del parent[path[-1]]
            case 1 if isinstance(parent, dict):
                parent[rng.choice((f"{path[-1]}x", 7, "", "_target_", "a.b"))] = parent.pop(path[-1])
            case 2:
                parent[path[-1]] = copied(parent)
            case _:
                parent[path[-1]] = copied(rng.choice(values))
    return tree


def copied(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {k: copied(v) for k, v in tree.items()}
    return [copied(v) for v in tree] if isinstance(tree, list) else tree


@cache
def odd_tensors() -> list[Any]:
    import torch

    one = torch.ones(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.quantize_per_tensor(torch.ones(4, 2), 0.1, 0, torch.qint8)
    return [
        one,
        one.expand(1 << 40),
        torch.ones(2, 2).to_sparse(),
        torch.ones(3, dtype=torch.int64),
        torch.full((4, 2), torch.nan),
        torch.ones(0),
        torch.empty(1 << 40, device="meta"),
        torch.ones(4, 2, dtype=torch.float64),
        torch.ones(2, 2, dtype=torch.complex64),
        torch.nn.Parameter(one),
        quantised,
        torch.Size([3]),
    ]


# -------------------------------------------------------------------------------------------------------------- loaders


@dataclass
class Loader:
    """make: rng -> (ending of the file's name, its content); load: what is done with the file; share: of the cases."""

    make: Callable[[random.Random], tuple[str, bytes]]
    load: Callable[[Path], Any]
    share: int = 1


def from_files(files: Callable[[], dict[str, bytes]], ending: str = "") -> Callable[[random.Random], tuple[str, bytes]]:
    """Files of the corpus: as they are now and then, else mutated."""

    def make(rng: random.Random) -> tuple[str, bytes]:
        names = sorted(files())
        honest = [name for name in names if not name.startswith(("evil", "raw"))]
        name = rng.choice(honest if rng.random() < 0.6 else names)
        content = files()[name]
        return ending or f"-{name}", content if rng.random() < 0.1 else mutated(content, list(files().values()), rng)

    return make


def changed_checkpoint(rng: random.Random) -> tuple[str, bytes]:
    kind = rng.random() < 0.8
    return ".ckpt", saved(changed(checkpoint(), rng, VALUES + odd_tensors()), _use_new_zipfile_serialization=kind)


SPLIT = b"--- weights ---"  # an exported model is a folder; a case, one file


def exported(rng: random.Random) -> tuple[str, bytes]:
    """A card and weights, one of them changed."""
    from safetensors.torch import save

    content = checkpoint()
    config, state = content["ganlab"]["config"], content["state_dict"]
    weights = save({key[2:]: value for key, value in state.items() if key.startswith("G.")})
    card = {"format": 1, "ganlab": "0.1.0", "generator": config["generator"], "task": config["task"], "kimg": 1.5}
    card |= {"networks": {"spectral": False}, "files": {"safetensors": {"sha256": ""}}}
    text = json.dumps(card).encode()
    match rng.randrange(3):
        case 0:
            weights = mutated(weights, list(tensors().values()), rng)
        case 1:
            text = mutated(text, [text], rng)
        case 2:
            text = json.dumps(changed(card, rng, [v for v in VALUES if not isinstance(v, bytes)])).encode()
    return ".exported", text + SPLIT + weights


def load_exported(path: Path) -> None:
    """The card is given the right sum, so that more than that is looked at."""
    from ganlab.sharing import load

    text, _, weights = path.read_bytes().partition(SPLIT)
    folder = path.parent / "unpacked"
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(weights)
    sha256 = hashlib.sha256(weights).hexdigest().encode()
    (folder / "card.json").write_bytes(text.replace(b'"sha256": ""', b'"sha256": "' + sha256 + b'"'))
    load(folder).generate(0, 1)


def changed_weights(rng: random.Random) -> tuple[str, bytes]:
    import torch

    return ".pth", saved(changed({"state_dict": dict(torch.nn.Linear(4, 2).state_dict())}, rng, VALUES + odd_tensors()))


def changed_arrays(rng: random.Random) -> tuple[str, bytes]:
    import numpy as np

    good: dict[str, Any] = {
        "mu": np.zeros(4),
        "sigma": np.eye(4),
        "n": 10,
        "extractor": "raw values",
        "arr_0": np.zeros((2, 4, 4, 3), np.uint8),
    }
    odd = [
        np.zeros(0),
        np.zeros((2, 0, 0, 3), np.uint8),
        np.full(4, np.nan),
        np.zeros((4, 4), np.complex64),
        np.array(["a"]),
        np.array("2020", "datetime64[Y]"),
        np.zeros(3, [("a", "f8")]),
        np.zeros((4, 5)),
        -3,
        np.zeros((3, 4, 4, 9), np.uint8),
    ]
    for name in rng.sample(sorted(good), rng.randrange(1, 4)):
        good[name] = rng.choice(odd)
        if rng.random() < 0.3:
            del good[name]
    file = io.BytesIO()
    np.savez(file, **good)
    return ".npz", file.getvalue()


def changed_config(rng: random.Random) -> tuple[str, bytes]:
    tree = changed(rng.choice(configs()), rng, [v for v in VALUES if not isinstance(v, bytes)])
    return ".json", json.dumps(tree).encode()


def load_image(path: Path) -> None:
    from ganlab.data.decode import decode, header

    header(path)
    assert list(decode(path, [3, 16, 16]).shape) == [3, 16, 16]


def load_checkpoint(path: Path) -> None:
    from ganlab.checkpoint import Sampler, discriminator

    Sampler.load(path).generate(0, 1)
    discriminator(path)


def load_weights(path: Path) -> None:
    import torch

    from ganlab.weights import load_into, read

    load_into(torch.nn.Linear(4, 2), read(path))


def load_arrays(path: Path) -> None:
    from ganlab.data.places import images_at
    from ganlab.files import Unavailable
    from ganlab.metrics.frechet import FID
    from ganlab.metrics.scorer import load_statistics
    from ganlab.metrics.scores import Scores

    try:
        images_at(path).facts()
    except Unavailable:
        Scores({"fid": FID()}, {"features": 4}).load_reference(load_statistics(path, "raw values"))


def load_archive(path: Path) -> None:
    from ganlab.files import unpack

    (path.parent / "unpacked").mkdir(exist_ok=True)
    unpack(path, path.parent / "unpacked")


def load_table(path: Path) -> None:
    from ganlab.data.attributes import read_table

    read_table(path, None)


def load_idx(path: Path) -> None:
    from ganlab.data.sets import MNIST

    MNIST(root=str(path.parent)).idx(path.name.removesuffix(".gz"))


def load_config(path: Path) -> None:
    import lightning as L
    from hydra.utils import get_object

    from ganlab import checks, limits
    from ganlab.conf import known_keys

    given = json.loads(path.read_text())
    known = known_keys(given)
    known["trainer"] |= checks.arguments_of(L.Trainer) or set()
    checks.check_keys(given, known, get_object)
    limits.check_values(given, limits.TRAIN, get_object)


def idx_files() -> dict[str, bytes]:
    good = bytes([0, 0, 8, 3]) + struct.pack(">III", 2, 28, 28) + bytes(2 * 28 * 28)
    return {"idx": good, "flat": bytes([0, 0, 8, 1]) + struct.pack(">I", 5) + bytes(5)}


LOADERS = {
    "image": Loader(from_files(images), load_image, 8),
    "checkpoint bytes": Loader(from_files(pickled, ".ckpt"), load_checkpoint, 3),
    "checkpoint content": Loader(changed_checkpoint, load_checkpoint, 3),
    "exported model": Loader(exported, load_exported, 2),
    "weights bytes": Loader(from_files(pickled, ".pth"), load_weights),
    "weights content": Loader(changed_weights, load_weights),
    "weights script": Loader(from_files(scripts, ".pt"), load_weights),
    "safetensors": Loader(from_files(tensors, ".safetensors"), load_weights, 2),
    "npz bytes": Loader(from_files(arrays, ".npz"), load_arrays, 2),
    "npz content": Loader(changed_arrays, load_arrays),
    "archive": Loader(from_files(archives), load_archive, 2),
    "table": Loader(from_files(lambda: TABLES), load_table),
    "idx": Loader(from_files(idx_files, "-ubyte"), load_idx),
    "config": Loader(changed_config, load_config, 3),
}


def documented(error: BaseException) -> bool:
    """Whether a user can be shown it as it is."""
    from ganlab.data.decode import Bad
    from ganlab.files import Unavailable

    return type(error) in (ValueError, Unavailable, Bad) and 0 < len(str(error)) < 2000


# --------------------------------------------------------------------------------------------------------------- worker


def watch(folder: str, seen: list[str]) -> None:
    """Notes in `seen` what a loader must not do."""
    known = (
        "PIL",
        "sympy",
        "mpmath",
        "torchvision",
        "safetensors",
        "scipy",
        "torchgen",
        "triton",
        "networkx",
        "tensorboard",
    )
    allowed = {name.partition(".")[0] for name in (*sys.modules, *sys.stdlib_module_names, *known)} - {
        "antigravity",
        "this",
    }
    programs = (
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.spawn",
        "os.fork",
        "subprocess.Popen",
        "os.startfile",
        "pty.spawn",
        "socket.connect",
        "socket.bind",
        "socket.getaddrinfo",
        "os.putenv",
        "urllib.Request",
        "webbrowser.open",
    )
    inside = lambda path: os.path.abspath(os.fsdecode(path)).startswith((folder, "/dev/null", "/proc/self"))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and not isinstance(arguments[0], int):
            mode, flags = arguments[1], arguments[2] or 0
            writes = any(c in "wax+" for c in mode or "") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and not inside(arguments[0]) and "__pycache__" not in os.fsdecode(arguments[0]):
                seen.append(f"writes {arguments[0]!r}")
        elif event in ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "shutil.rmtree"):
            if not inside(arguments[0]):
                seen.append(f"{event} {arguments[0]!r}")
        elif event.startswith(programs):
            seen.append(f"{event} {arguments!r}"[:200])
        elif event == "import" and arguments[0].partition(".")[0] not in allowed:
            seen.append(f"imports {arguments[0]}")
        elif event in ("exec", "compile") and "CANARY" in repr(arguments)[:500]:
            seen.append(f"runs {arguments!r}"[:200])

    sys.addaudithook(hook)


def peak() -> int:
    """MiB of memory at the highest since the last call."""
    status = Path("/proc/self/status").read_text()
    highest = int(status.partition("VmHWM:")[2].split()[0]) >> 10
    Path("/proc/self/clear_refs").write_text("5")
    return highest


def made(loader: str, seed: int, number: int) -> tuple[str, bytes]:
    return LOADERS[loader].make(random.Random(f"{seed}/{loader}/{number}"))


def work(cases: list[tuple[str, int]], seed: int) -> None:
    """Loads each case; says its result on the real stdout, a line each."""
    import torch

    warnings.simplefilter("ignore")
    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    torch.set_num_threads(1)
    for loader in dict.fromkeys(name for name, _ in cases):
        made(loader, seed, 0)  # the corpus, before anything is watched
    have = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (have + (6 << 30),) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30,) * 2)
    seen: list[str] = []
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        os.environ["GANLAB_CACHE"] = f"{folder}/cache"
        tempfile.tempdir = folder
        os.chdir(folder)
        watched = False
        for loader, number in [*dict.fromkeys((name, -1) for name, _ in cases), *cases]:
            warm = number < 0  # first imports and caches are nobody's fault
            ending, content = made(loader, seed, number)
            path = Path(folder) / f"case{ending}"
            path.write_bytes(content)
            if not warm and not watched:
                watch(folder, seen)
                watched = True
            seen.clear()
            peak()
            begin = time.monotonic()
            base = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
            result = "loaded"
            found = ""
            try:
                LOADERS[loader].load(path)
            except Exception as error:
                result = type(error).__name__
                if not documented(error):
                    found = f"{result}: {error}"[:500]
            seconds, mib = time.monotonic() - begin, max(0, peak() - base)
            if seen:
                found = "; ".join(seen[:3])
            elif mib > MIB:
                found = f"{mib} MiB"
            elif (Path(folder) / "canary").exists():
                found = "canary"
            for rest in Path(folder).iterdir():
                if rest.name.startswith("case") or rest.name in ("unpacked", "canary"):
                    remove(rest)
            if not warm:
                out.write(json.dumps([loader, number, result, seconds, mib, found]) + "\n")
                out.flush()


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


# --------------------------------------------------------------------------------------------------------------- parent


@dataclass
class Tally:
    results: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    peak: int = 0


def shared_out(cases: int, only: str | None) -> list[tuple[str, int]]:
    chosen = {name: loader for name, loader in LOADERS.items() if only is None or only in name}
    whole = sum(loader.share for loader in chosen.values())
    return [(name, i) for name, loader in chosen.items() for i in range(-(-cases * loader.share // whole))]


def fuzz(cases: list[tuple[str, int]], seed: int, folder: Path) -> tuple[dict[str, Tally], list[str]]:
    """(what happened by loader, findings); the files of these are in `folder`."""
    tallies: dict[str, Tally] = defaultdict(Tally)
    findings, left = [], list(cases)
    while left:
        command = [sys.executable, __file__, "--worker", "--seed", str(seed)]
        env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        errors = tempfile.TemporaryFile()  # noqa: SIM115
        worker = subprocess.Popen(
            command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        )
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(json.dumps(left).encode())
        worker.stdin.close()
        waiting = selectors.DefaultSelector()
        waiting.register(worker.stdout, selectors.EVENT_READ)
        patience = 120.0  # for imports and the corpus
        while left:
            if not waiting.select(patience):
                found, result = f"no end after {patience:.0f} s", "hang"
            elif line := worker.stdout.readline():
                loader, number, result, seconds, mib, found = json.loads(line)
                assert (loader, number) == left[0], (line, left[0])
                tallies[loader].slowest = max(tallies[loader].slowest, seconds)
                tallies[loader].peak = max(tallies[loader].peak, mib)
                patience = SECONDS
            else:
                worker.wait()
                errors.seek(0)
                tail = errors.read()[-300:].decode(errors="replace")
                found, result = f"the process ended with {worker.returncode}: {tail}", "crash"
            loader, number = left.pop(0)
            tallies[loader].results[result] += 1
            if found:
                ending, content = made(loader, seed, number)
                path = folder / f"{loader.replace(' ', '_')}-{number}{ending}"
                path.write_bytes(content)
                findings.append(f"{loader} {number}: {found}\n  {path}")
            if result in ("hang", "crash"):
                assert patience == SECONDS, f"nothing was loaded at all: {found}"
                break
        worker.kill()
        worker.wait()
    return tallies, findings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="a part of a loader's name")
    parser.add_argument("--case", type=int, help="this one alone, of the loader that --only names")
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"), help="folder for files of findings")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work([tuple(case) for case in json.load(sys.stdin)], arguments.seed)
        return 0
    cases = shared_out(arguments.cases, arguments.only)
    if arguments.case is not None:
        cases = [(cases[0][0], arguments.case)]
    arguments.out.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    tallies, findings = fuzz(cases, arguments.seed, arguments.out)
    print(f"{'loader':<20}{'cases':>7}{'loaded':>8}{'slowest':>10}{'memory':>10}  refused")
    for name, tally in tallies.items():
        refused = ", ".join(f"{k} {n}" for k, n in tally.results.most_common() if k != "loaded")
        counts = f"{tally.results.total():>7}{tally.results['loaded']:>8}"
        print(f"{name:<20}{counts}{tally.slowest:>8.2f} s{tally.peak:>6} MiB  {refused}")
    total = sum(tally.results.total() for tally in tallies.values())
    print(f"{total} cases in {time.monotonic() - begin:.0f} s, seed {arguments.seed}, {len(findings)} findings")
    print(*findings, sep="\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
