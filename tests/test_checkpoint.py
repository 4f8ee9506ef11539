"""Checkpoints: a file from somebody else can't run code, a damaged or foreign one is named, a kept one stays whole."""

import copy
import pickle

import pytest
import torch
from composing import composed
from omegaconf import OmegaConf, open_dict
from torch import nn

from ganlab import checkpoint
from ganlab.checkpoint import AtomicIO, Sampler, build, find, load
from ganlab.models import dcgan
from ganlab.settings import build as build_gan


@pytest.fixture
def saved(tmp_path):
    """A checkpoint as a run writes it: (path, content)."""
    cfg = composed("generator.width=8", "discriminator.width=8", "terms=[]")
    with open_dict(cfg):
        cfg.data.update({"shape": [1, 16, 16], "classes": 10, "class_names": None, "frequencies": None})
    settings = OmegaConf.to_container(cfg, resolve=True)
    gan = build_gan(settings)
    content = {
        "state_dict": gan.state_dict(),
        "clock": {"rounds": 1, "seen": 64, "curves": {}},
        "ganlab": {"format": checkpoint.FORMAT, "version": "0", "config": settings},
    }
    return write(tmp_path, content), content


def write(folder, content):
    path = folder / "file.ckpt"
    torch.save(content, path)
    return path


def test_a_generator_from_a_file_makes_the_runs_samples(saved):
    path, content = saved
    sampler = Sampler.load(path)
    gan = build_gan(content["ganlab"]["config"])
    gan.load_state_dict(content["state_dict"])
    assert torch.allclose(sampler.generate(3, 4, seed=1), gan.generate(3, 4, seed=1), atol=1e-6)
    assert not any(p.requires_grad for p in sampler.G.parameters())
    assert not sampler.G.training


MINE = nn.Linear  # a class that is imported here, but defined elsewhere


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.Popen",
        "ganlab.gan.torch.load",
        "ganlab.models.dcgan.nn.Linear",
        "ganlab.models.dcgan.initialised",
        "ganlab.models.mlp.torch.hub.load",
        "ganlab.checkpoint.load",
        "ganlab.models",
        "torch.nn.Linear",
        "test_checkpoint.MINE",
    ],
)
def test_only_ganlabs_own_networks_are_built(saved, target):
    """Comparing the text is not enough: a module holds what it imports, too."""
    path, content = saved
    evil = copy.deepcopy(content)
    evil["ganlab"]["config"]["generator"] = {"_target_": target}
    with pytest.raises(ValueError, match=r"not ganlab's own|can't be found here"):
        Sampler.load(write(path.parent, evil))
    evil["ganlab"]["config"] = content["ganlab"]["config"] | {"task": {"_target_": target}}
    with pytest.raises(ValueError, match=r"the checkpoint's task is|not ganlab's own"):
        Sampler.load(write(path.parent, evil))


@pytest.mark.parametrize(
    "change",
    [
        {"shape": {"_target_": "os.getcwd"}},
        {"shape": [1, {"_target_": "os.getcwd"}, 16]},
        {"width": "${oc.env:HOME}"},
        {"_partial_": True},
        {"_args_": [1]},
        {"_recursive_": True},
    ],
)
def test_arguments_of_a_stored_target_are_plain_values(saved, change):
    path, content = saved
    evil = copy.deepcopy(content)
    evil["ganlab"]["config"]["generator"] |= change
    with pytest.raises(ValueError, match="not plain values"):
        Sampler.load(write(path.parent, evil))


def test_trust_is_given_by_package_name():
    config = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3}
    with pytest.raises(ValueError, match=r"trust=\[torch\]"):
        build(config, ("ganlab.models",), "generator")
    assert isinstance(build(config, ("ganlab.models", "torch"), "generator"), nn.Linear)
    with pytest.raises(ValueError, match=r"trust=\[torchvision\]"):  # not by a name's beginning
        build({"_target_": "torchvision.models.AlexNet"}, ("torch",), "generator")


class Evil:
    def __reduce__(self):
        return (open, ("stolen.txt", "w"))


def test_a_pickle_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.ckpt").write_bytes(pickle.dumps({"ganlab": Evil()}))
    torch.save({"ganlab": Evil(), "clock": {}}, tmp_path / "evil2.ckpt")
    for name in ("evil.ckpt", "evil2.ckpt"):
        with pytest.raises(ValueError, match="can't be read"):
            load(name)
    assert not (tmp_path / "stolen.txt").exists()


def test_files_that_are_no_checkpoint_are_named(tmp_path, saved):
    path, content = saved
    with pytest.raises(ValueError, match="there is no such file"):
        load(tmp_path / "nowhere.ckpt")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="can't be read"):
        load(path)
    with pytest.raises(ValueError, match="not written by ganlab"):
        load(write(tmp_path, {"state_dict": {}}))
    newer = content | {"ganlab": content["ganlab"] | {"format": 99, "version": "9.9"}}
    with pytest.raises(ValueError, match=r"written by ganlab 9.9, newer"):
        load(write(tmp_path, newer))


def test_weights_that_do_not_fit_are_named(saved):
    path, content = saved
    content["ganlab"]["config"]["generator"]["width"] = 16
    with pytest.raises(ValueError, match=r"file.ckpt: its weights do not fit"):
        Sampler.load(write(path.parent, content))


def test_a_failed_save_leaves_the_last_checkpoint(saved, monkeypatch):
    path, _ = saved
    before = path.read_bytes()

    def fail_half_way(content, file):
        file.write(b"half of it")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail_half_way)
    with pytest.raises(OSError, match="disk full"):
        AtomicIO().save_checkpoint({}, path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["file.ckpt"]


def test_resume_means_a_file_or_a_runs_folder(tmp_path):
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.touch()
    assert find(str(tmp_path / "run")) == find(str(last)) == str(last)
    assert find(None) is None
    with pytest.raises(ValueError, match="there is no checkpoint at"):
        find(str(tmp_path))


def test_truncation_where_the_generator_has_it():
    class Truncated(dcgan.Generator):
        def forward(self, z, truncation=1.0):
            return super().forward(truncation * z)

    from ganlab.tasks import Generate

    sampler = Sampler(Truncated([1, 16, 16], width=8), Generate(z_dim=100))
    plain = sampler.generate(0, 2)
    sampler.truncate(0.5)
    assert not torch.equal(plain, sampler.generate(0, 2))
