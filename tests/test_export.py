"""Models to share: what is exported makes the run's images, and what comes from somebody else is data, never code."""

import functools
import hashlib
import json
import shutil
import struct
import sys
from types import ModuleType

import numpy as np
import pytest
import safetensors.torch
import torch
from composing import composed, group
from hydra.utils import get_object
from omegaconf import OmegaConf
from PIL import Image
from torch import nn
from torch.utils._pytree import tree_leaves

import ganlab
from ganlab import checkpoint, formats
from ganlab.checkpoint import Sampler
from ganlab.export import export
from ganlab.models import dcgan
from ganlab.phase import Batch, wrap
from ganlab.sample import sample
from ganlab.settings import build, complete, drop_settings_of_what_was_removed
from ganlab.tasks import Generate

NARROW = ["generator.z_dim=8", "generator.w_dim=8", "generator.mapping=1"]
SMALL = {"cgan": (), "sagan": (), "stylegan2_ada": NARROW}  # labels; attention, spectral norm; convolutions by style
REST = {"truncation": None, "columns": 4, "batch_size": 8, "device": "cpu", "trust": []}


def run_of(folder, model="mlp", *overrides, shape=(1, 16, 16), seen=64_000, **data):
    """A run's folder with the checkpoint of an untrained model: (path, its GAN)."""
    cfg = composed(f"model={model}", "experiment=tiny", *overrides)
    facts = {"shape": list(shape), "classes": 10, "class_names": None, "frequencies": None, "several": False}
    complete(cfg, {"inputs": list(shape)} | facts | data)
    drop_settings_of_what_was_removed(cfg, overrides)
    settings = OmegaConf.to_container(cfg, resolve=True)
    gan = build(settings)
    gan.set_clock(seen) if hasattr(gan, "set_clock") else None
    path = folder / "checkpoints" / "best.ckpt"
    path.parent.mkdir(parents=True)
    content = {
        "state_dict": gan.state_dict(),
        "clock": {"rounds": 1, "seen": seen, "curves": {}},
        "ganlab": {"format": 1, "version": "0", "config": settings},
    }
    torch.save(content, path)
    return path, gan


def starts_from_noise(model):
    return hasattr(get_object(composed(f"model={model}", "experiment=tiny").task._target_), "draw")


NOISE = [model for model in group("model") if starts_from_noise(model)]
IMAGES = [model for model in group("model") if not starts_from_noise(model)]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    path, gan = run_of(folder)
    export(str(path))
    return folder, gan


@pytest.fixture
def exported(original, tmp_path):
    """(folder of an exported model in its run's folder, the run's GAN)"""
    shutil.copytree(original[0], tmp_path / "run")
    return tmp_path / "run" / "exported" / "best", original[1]


def changed(folder, file=None, **keys):
    """Another card, and other weights with the right digest."""
    path = folder / "card.json"
    card = json.loads(path.read_text())
    if file is not None:
        (folder / "model.safetensors").write_bytes(file)
        card["files"]["safetensors"]["sha256"] = hashlib.sha256(file).hexdigest()
    path.write_text(json.dumps({k: v for k, v in (card | keys).items() if v != "absent"}))
    return folder


# ------------------------------------------------------------------------------------------------------------ the files


@pytest.mark.parametrize("model", NOISE)
def test_every_model_comes_back_bit_for_bit(tmp_path, model):
    path, gan = run_of(tmp_path, model)
    state = torch.get_rng_state()
    sampler = ganlab.load(export(str(path), preview=0))
    gan.to(memory_format=torch.contiguous_format)  # as in a file
    assert torch.equal(sampler.generate(2, 4, seed=1), gan.generate(2, 4, seed=1))
    assert torch.equal(torch.get_rng_state(), state)  # the user's own random numbers are left alone
    assert not sampler.G.training
    assert not any(p.requires_grad for p in sampler.G.parameters())


@pytest.mark.parametrize("model", IMAGES)
def test_every_model_that_starts_from_images_comes_back_bit_for_bit(tmp_path, model):
    """With what its task does to what G makes, and without a preview, for which there are no images."""
    path, gan = run_of(tmp_path, model)
    folder = export(str(path))
    batch = {"inputs": torch.rand(2, 1, 16, 16), "real": torch.rand(2, 1, 16, 16)}
    gan.to(memory_format=torch.contiguous_format)
    again, expected = (tree_leaves(x.reconstruct(batch)["fake"])[0] for x in (ganlab.load(folder), gan))
    assert torch.equal(again, expected)
    assert {file.name for file in folder.iterdir()} == {"card.json", "model.safetensors"}


FROM_IMAGES = [
    ("srresnet", ["generator.residual=true"], {}),  # begins at the enlargement
    ("pix2pix", ["task=segment", "terms=[cross_entropy]", "generator.tanh=false"], {"maps": True}),  # probabilities
]


@pytest.mark.parametrize(("model", "overrides", "data"), FROM_IMAGES, ids=lambda x: x if isinstance(x, str) else "")
def test_other_programs_make_the_same_of_an_image(tmp_path, model, overrides, data):
    check_images(tmp_path, model, *overrides, **data)


@pytest.mark.slow
@pytest.mark.parametrize("model", IMAGES)
def test_every_model_that_starts_from_images_in_every_format(tmp_path, model):
    check_images(tmp_path, model)


def check_images(folder, model, *overrides, **data):
    """As below, of what the task shows: holes are filled in what is known, scores of classes are probabilities."""
    onnxruntime = pytest.importorskip("onnxruntime")
    path, gan = run_of(folder, model, *overrides, **data)
    for kind in ("onnx", "torch_export"):
        out = export(str(path), kind)
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    program = torch.export.load(out / "model.pt2").module()
    card = json.loads((out / "card.json").read_text())
    shape = card["inputs"]["image"]["shape"][1:]
    assert card["output"]["range"] == [0 if data else -1, 1]
    for n in (1, 7):
        x = torch.rand(n, *shape, generator=torch.Generator().manual_seed(n)) * 2 - 1
        target = torch.zeros(n, 16, 16, dtype=torch.int64) if data else torch.zeros(n, 1, 16, 16)
        with torch.no_grad():
            expected = wrap(gan.task.play(gan.G_ema.eval(), Batch(x, target))[0]).fake
        (images,) = session.run(["images"], {"image": x.numpy()})
        assert list(images.shape[1:]) == card["output"]["shape"][1:]
        assert np.abs(images - expected.numpy()).max() <= 1e-4
        assert (program(x) - expected).abs().max() <= 1e-4


def check_formats(folder, model, *overrides, **data):
    """ONNX as onnxruntime runs it and the program as torch.export runs it, against the run's GAN, in other batches than
    were compared at export, on other samples."""
    onnxruntime = pytest.importorskip("onnxruntime")
    path, gan = run_of(folder, model, *overrides, **data)
    for kind in ("onnx", "torch_export"):
        out = export(str(path), kind, preview=0)
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    program = torch.export.load(out / "model.pt2").module()
    card = json.loads((out / "card.json").read_text())
    assert list(card["inputs"]) == [i.name for i in session.get_inputs()]
    for n in (1, 7):
        z, label = gan.task.draw(ganlab.rng.IndexedRNG(5, range(n)))
        inputs = {"z": z} | ({} if label is None else {"label": label})
        expected = gan.generate(0, n, seed=5)
        (images,) = session.run(["images"], {k: v.numpy() for k, v in inputs.items()})
        scale = expected.abs().max().clamp(min=1)
        assert np.abs(images - expected.numpy()).max() <= 1e-4 * scale
        assert (program(*inputs.values()) - expected).abs().max() <= 1e-4 * scale
    for kind in ("onnx", "torch_export"):
        assert 0 <= card["files"][kind]["check"]["largest_difference"] <= 1e-4
    for file in out.iterdir():  # nothing of this machine is in what is handed on
        assert str(folder).encode() not in file.read_bytes()
        assert ganlab.__path__[0].encode() not in file.read_bytes()


@pytest.mark.parametrize("model", SMALL)
def test_other_programs_make_the_same_images(tmp_path, model):
    check_formats(tmp_path, model, *SMALL[model], shape=(1, 8, 8) if model == "stylegan2_ada" else (1, 16, 16))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 16, 24)], ids=str)
@pytest.mark.parametrize("model", NOISE)
def test_every_model_in_every_format(tmp_path, model, shape):
    check_formats(tmp_path, model, shape=shape)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["cgan", "biggan", "stylegan2_ada"])
def test_attributes_are_an_input_of_their_own_kind(tmp_path, model):
    told = ["generator.classes=5", "discriminator.classes=5"] if model == "stylegan2_ada" else []
    check_formats(
        tmp_path, model, "task.labels=data", "terms=[]", *told, classes=5, several=True, frequencies=[0.2] * 5
    )


def test_a_growing_generator_is_exported_as_far_grown_as_it_is(tmp_path):
    path, gan = run_of(tmp_path, "progan", "generator.stage_kimg=1", "generator.fade_kimg=1")
    gan.G_ema.set_clock(1500)  # level 1 is half faded in
    content = torch.load(path, weights_only=True)
    torch.save(content | {"state_dict": gan.state_dict()}, path)
    expected = gan.generate(0, 3)
    program = torch.export.load(export(str(path), "torch_export", preview=0) / "model.pt2").module()
    assert torch.allclose(program(gan.task.draw(ganlab.rng.IndexedRNG(0, range(3)))[0]), expected, atol=1e-5)
    gan.G_ema.set_clock(10**6)
    assert not torch.allclose(gan.generate(0, 3), expected, atol=1e-2)


def test_spectral_norm_asked_of_any_network_goes_along(tmp_path):
    path, gan = run_of(tmp_path, "mlp", "networks.G.spectral=true")
    folder = export(str(path), preview=0)
    assert torch.equal(ganlab.load(folder).generate(0, 2), gan.generate(0, 2))
    program = torch.export.load(export(str(path), "torch_export", preview=0) / "model.pt2")
    assert not any("parametrizations" in name for name in program.state_dict)
    assert torch.equal(ganlab.load(folder).generate(0, 2), gan.generate(0, 2))


def test_a_file_that_makes_other_images_is_not_written(tmp_path, monkeypatch):
    path, _ = run_of(tmp_path)
    honest = formats.traced
    monkeypatch.setattr(formats, "traced", lambda sampler, G: honest(sampler, noisy(G)))
    with pytest.raises(ValueError, match="away from PyTorch's: it was not written"):
        export(str(path), "torch_export")
    assert not (tmp_path / "exported").exists()


class Unit(nn.Module):
    """z over its length, with what keeps 0 / 0 away."""

    z_dim = 4

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, z):
        return self.scale * z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def test_small_numbers_stay_in_the_graph():
    """An exporter that takes 1e-8 for 0 makes nan of 0, and 1 of 1e-5, which is 0.0995 by hand."""
    onnxruntime = pytest.importorskip("onnxruntime")
    content, _ = formats.as_onnx(Sampler(Unit(), Generate()), Unit)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (x,) = session.run(None, {"z": np.array([[0] * 4, [1e-5] * 4], np.float32)})
    assert x.tolist() == [[0.0] * 4, pytest.approx([1e-5 / (1e-10 + 1e-8) ** 0.5] * 4, rel=1e-3)]


def noisy(G):
    with torch.no_grad():
        next(G.parameters()).add_(1e-2)
    return G


def test_onnx_says_what_is_missing(tmp_path, monkeypatch):
    import importlib.util

    path, _ = run_of(tmp_path)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name))
    with pytest.raises(ModuleNotFoundError, match=r'needs onnxruntime: pip install "ganlab\[export\]"'):
        export(str(path), "onnx")


# ------------------------------------------------------------------------------------------------------------- the card


def test_the_card_says_what_the_model_is(tmp_path):
    path, gan = run_of(tmp_path, "cgan", class_names=[str(i) for i in range(10)])
    (tmp_path / "run.json").write_text(json.dumps({"choices": {"model": "cgan"}}))
    protocol = {"reals": "Digits train", "fingerprint": "ab", "fakes": "G_ema", "kimg": 64.0}
    history = [{"kimg": 32.0, "fid": 9.0}, {"kimg": 64.0, "fid": 7.5, "bad": float("nan")}]
    content = torch.load(path, weights_only=True)
    torch.save(content | {"callbacks": {"Evaluate": {"history": history, "protocol": protocol}}}, path)
    card = json.loads((export(str(path), licence="CC0-1.0") / "card.json").read_text())
    assert (card["model"], card["kimg"], card["licence"], card["format"]) == ("cgan", 64.0, "CC0-1.0", 1)
    assert card["generator"]["_target_"] == "ganlab.models.mlp.Generator"
    assert card["generator"]["shape"] == [1, 16, 16]
    assert card["class_names"] == [str(i) for i in range(10)]
    assert card["output"] == {"shape": ["batch", 1, 16, 16], "type": "float32", "range": [-1, 1]}
    assert card["inputs"]["z"]["shape"] == ["batch", gan.task.z_dim]
    assert card["inputs"]["label"] == {"shape": ["batch"], "type": "int64", "drawn": "0 to 9"}
    assert card["scores"] == [{"scores": {"fid": 7.5, "bad": None}, "protocol": protocol}]  # those of then
    assert card["data"] == {"title": "Digits train", "fingerprint": "ab"}
    assert card["parameters"] == sum(p.numel() for p in gan.G.parameters())
    digest = hashlib.sha256((tmp_path / "exported" / "best" / "model.safetensors").read_bytes()).hexdigest()
    assert card["files"]["safetensors"]["sha256"] == digest
    with Image.open(tmp_path / "exported" / "best" / "preview.png") as picture:
        assert picture.width > 8 * 16


def test_formats_of_one_model_share_a_folder_and_another_model_does_not(tmp_path):
    path, _ = run_of(tmp_path / "a")
    folder = export(str(path), licence="CC0-1.0")
    assert export(str(path), "torch_export") == folder
    again = export(str(folder), "safetensors", str(tmp_path / "copy"))  # from the exported model itself
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    card = json.loads((folder / "card.json").read_text())
    assert list(card["files"]) == ["safetensors", "torch_export"]
    assert card["licence"] == "CC0-1.0"
    assert json.loads((again / "card.json").read_text())["licence"] == "CC0-1.0"
    assert list(json.loads((again / "card.json").read_text())["files"]) == ["safetensors"]
    before = {p: p.read_bytes() for p in folder.iterdir()}
    other, _ = run_of(tmp_path / "b", "mlp", "seed=1")
    with pytest.raises(ValueError, match=r"holds another model: give output=FOLDER"):
        export(str(other), output=str(folder))
    (folder / "card.json").unlink()
    with pytest.raises(ValueError, match=r"holds another model"):
        export(str(other), output=str(folder))
    assert all(p.read_bytes() == content for p, content in before.items() if p.exists())


def test_an_exported_model_stands_where_a_checkpoint_may(exported, tmp_path):
    """ganlab.load of folder, file, checkpoint and run; ganlab.sample; a run's folder means its best."""
    folder, gan = exported
    path = folder.parent.parent / "checkpoints" / "best.ckpt"
    for place in (folder, str(folder), folder / "model.safetensors", path, folder.parent.parent):
        assert torch.equal(ganlab.load(place).generate(1, 3), gan.generate(1, 3))
    one = sample(str(folder), n=2, start=0, seed=0, classes=None, interpolations=0, output=None, **REST)
    two = sample(str(path), n=2, start=0, seed=0, classes=None, interpolations=0, output=str(tmp_path / "x"), **REST)
    assert one == folder.parent / "generated" / "best_seed_0"
    assert (one / "000001.png").read_bytes() == (two / "000001.png").read_bytes()
    with pytest.raises(ValueError, match="holds G_ema alone"):
        Sampler.load(folder, ema=False)
    with pytest.raises(ValueError, match="has no discriminator"):
        checkpoint.discriminator(folder)


def test_evaluate_takes_an_exported_model(exported):
    from ganlab.evaluate import is_generator, opened

    folder, gan = exported
    settings = {"fakes": str(folder), "trust": [], "generator": "G_ema", "truncation": None, "standing": 0}
    assert is_generator(folder)
    fakes, shape, classes = opened(settings, None, "cpu")
    assert (shape, classes, fakes.kimg) == ([1, 16, 16], None, 64.0)
    assert torch.equal(fakes.generate(0, 2), gan.generate(0, 2))


# --------------------------------------------------------------------------------------------- files from somebody else


class Stranger(nn.Linear):
    """A user's own network."""

    z_dim = 4

    def __init__(self, shape):
        super().__init__(4, 3)


Alias, Part = nn.Linear, functools.partial(dcgan.Generator, [1, 16, 16])  # what a trusted module merely holds

TARGETS = [
    "ganlab.gan.torch.load",
    "ganlab.models.dcgan.torch.load",
    "ganlab.models.dcgan.nn.Sequential",
    "ganlab.models.dcgan.Sequence",
    "ganlab.models.dcgan.initialised",
    "ganlab.models.packed.Callable",
    "ganlab.models.dcgan.GeneratorOutput",
    "ganlab.modelsx.dcgan.Generator",
    "ganlab.models",
    "ganlab.sharing.load",
    "functools.partial",
    "hydra.utils.instantiate",
    "builtins.eval",
    "os.system",
    ".",
    "",
]


def edited(folder, part, node):
    """The same change in the card and in the checkpoint that it is of: both paths."""
    path = folder.parent.parent / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    content["ganlab"]["config"][part] = node
    torch.save(content, path)
    return changed(folder, **{part: node}), path


@pytest.mark.parametrize("part", ["generator", "task"])
@pytest.mark.parametrize("target", TARGETS)
def test_only_a_class_of_ganlabs_own_is_built(exported, target, part):
    """Neither what its modules import (by whatever name), nor its functions, nor a partial."""
    for path in edited(exported[0], part, {"_target_": target}):
        with pytest.raises(ValueError, match=r"not ganlab's own|can't be found here"):
            ganlab.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"_partial_": True},
        {"_args_": [[1, 16, 16]]},
        {"_convert_": "all"},
        {"shape": {"_target_": "os.getcwd"}},
        {"shape": [1, {"_target_": "ganlab.models.mlp.Generator"}, 16]},
        {"shape": "${oc.env:HOME}"},
        {"shape": ["${now:%Y}"]},
    ],
    ids=str,
)
def test_nested_targets_and_interpolations_are_refused(exported, change):
    node = json.loads((exported[0] / "card.json").read_text())["generator"]
    for path in edited(exported[0], "generator", node | change):
        with pytest.raises(ValueError, match="not plain values"):
            ganlab.load(path)


def test_a_config_without_a_bottom_is_refused():
    deep = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(ValueError, match="not plain values"):
        checkpoint.build({"_target_": "ganlab.models.mlp.Generator", "shape": deep}, ("ganlab.models",), "generator")


def test_trust_is_for_classes_that_are_defined_in_that_package(exported, monkeypatch):
    module = ModuleType("my_project")
    module.Mine = type("Mine", (Stranger,), {"__module__": "my_project.nets"})
    module.Alias, module.Part, module.load = Alias, Part, torch.load
    module.Borrowed = dcgan.Generator
    monkeypatch.setitem(sys.modules, "my_project", module)
    weights = safetensors.torch.save(nn.Linear(4, 3).state_dict())
    mine = {"_target_": "my_project.Mine", "shape": [3]}
    folder = changed(exported[0], weights, generator=mine, networks=None)
    with pytest.raises(ValueError, match=r"trust=\[my_project\]"):
        ganlab.load(folder)
    with pytest.raises(ValueError, match=r"trust=\[my_project\]"):
        ganlab.load(folder, trust=["my_proj"])
    card = json.loads((folder / "card.json").read_text())
    changed(folder, task=card["task"] | {"z_dim": 4})
    assert ganlab.load(folder, trust=["my_project"]).generate(0, 2).shape == (2, 3)
    for name in ("Alias", "Part", "load"):
        changed(folder, generator=mine | {"_target_": f"my_project.{name}"})
        with pytest.raises(ValueError, match="not ganlab's own"):
            ganlab.load(folder, trust=["my_project"])


def header(text):
    return struct.pack("<Q", len(text)) + text


BROKEN = {
    "cut off": lambda whole: whole[: len(whole) // 2],
    "empty": lambda whole: b"",
    "a header of many terabytes": lambda whole: struct.pack("<Q", 1 << 60) + whole[8:],
    "a header of 2 GB": lambda whole: struct.pack("<Q", 1 << 31) + whole[8:],
    "a tensor beyond the end": lambda whole: header(b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'),
    "a tensor of negative size": lambda whole: header(b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,0]}}'),
    "deep": lambda whole: header(b'{"a":' * 10_000),
    "a pickle": lambda whole: b"\x80\x04cos\nsystem\n.",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_weights_are_named(exported, kind):
    """With the right digest, so that it is the file that is read."""
    whole = (exported[0] / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"model.safetensors is no safetensors file"):
        ganlab.load(changed(exported[0], BROKEN[kind](whole)))


def test_weights_that_are_not_the_cards_are_refused(exported, tmp_path):
    folder, _ = exported
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"not the file that card.json is about"):
        ganlab.load(folder)
    state = safetensors.torch.load(whole)
    name = next(iter(state))
    for other in (
        {k: v for k, v in state.items() if k != name},
        state | {"more": torch.zeros(1)},
        state | {name: torch.zeros(2, 2)},
        {k: v.flatten() for k, v in state.items()},
    ):
        with pytest.raises(ValueError, match="its weights do not fit the generator"):
            ganlab.load(changed(folder, safetensors.torch.save(other)))
    file.unlink()
    with pytest.raises(ValueError, match=r"model.safetensors can't be opened"):
        ganlab.load(folder)


def test_a_network_that_is_larger_than_its_weights_is_not_even_made(exported):
    """A few letters in a card must not take all memory."""
    node = json.loads((exported[0] / "card.json").read_text())["generator"]
    with pytest.raises(ValueError, match=r"do not fit the generator: it has [\d,]{10,} numbers"):
        ganlab.load(changed(exported[0], generator=node | {"width": 1 << 16}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "has no format"),
        ('{"format": "1"}', "has no format"),
        ('{"format": ' + "1" * 5000 + "}", "is not JSON"),
        (" " * (1 << 20) + "{}", "larger than any card"),
        ('{"format": 1, "generator": ' + '{"a":' * 40 + "1" + "}" * 40 + "}", "more than 32 levels"),
    ],
)
def test_strange_cards_are_named(exported, text, message):
    (exported[0] / "card.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        ganlab.load(exported[0])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"format": 99, "ganlab": "9.9"}, r"format 99, written by ganlab 9.9, newer.*update ganlab"),
        ({"generator": "absent"}, "its generator is missing"),
        ({"generator": []}, "its generator is no dict"),
        ({"generator": {}}, "names no class"),
        ({"generator": {"_target_": ["os.system"]}}, "names no class"),
        ({"generator": {"_target_": "ganlab.models.mlp.Generator", "depth": 2}}, "can't be made of what is stored"),
        ({"task": "absent"}, "its task is missing"),
        ({"files": {}}, "no model; a generator is built from model.safetensors"),
        ({"files": {"../../x": {"sha256": ""}}}, "its files must be some of"),
        ({"files": {"safetensors": {"sha256": None}}}, "its files must be some of"),
        ({"networks": {"spectral": "yes"}}, "its networks must be"),
        ({"networks": [1]}, "its networks must be"),
        ({"networks": {"spectral": True}}, "do not fit the generator"),
        ({"kimg": "many"}, "its kimg must be"),
    ],
    ids=str,
)
def test_cards_that_say_something_else_are_named(exported, keys, message):
    with pytest.raises(ValueError, match=message):
        ganlab.load(changed(exported[0], **keys))


def test_other_formats_are_not_loaded_and_it_says_how_to_use_them(tmp_path):
    """torch.export.load may unpickle: it is never called on what came from outside."""
    path, _ = run_of(tmp_path)
    folder = export(str(path), "torch_export", preview=0)
    with pytest.raises(ValueError, match=r"may unpickle.*format=safetensors"):
        ganlab.load(folder / "model.pt2")
    with pytest.raises(ValueError, match=r"has model.pt2; .*export with format=safetensors"):
        ganlab.load(folder)
    (folder / "model.onnx").touch()
    with pytest.raises(ValueError, match=r"onnxruntime.InferenceSession"):
        ganlab.load(folder / "model.onnx")
    with pytest.raises(ValueError, match=r"are called model.safetensors"):
        ganlab.load(folder / "weights.safetensors")
    with pytest.raises(ValueError, match=r"card.json can't be opened"):
        ganlab.load(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="there is no such file"):
        ganlab.load(tmp_path / "nowhere")
