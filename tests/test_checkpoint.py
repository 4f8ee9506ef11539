"""Checkpoints: a file from somebody else can't run code, a damaged or foreign one is named, a kept one stays whole."""

import copy
import pickle
from pathlib import Path
from unittest import mock

import pytest
import torch
from composing import composed, run
from omegaconf import OmegaConf, open_dict
from torch import nn

from ganlab import checkpoint
from ganlab.callbacks.saving import SaveCheckpoint
from ganlab.checkpoint import AtomicIO, Sampler, build, find, load
from ganlab.models import dcgan
from ganlab.resume import check_fit
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
    AtomicIO().save_checkpoint(content, path)
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


def test_resume_means_a_file_or_a_runs_folder(tmp_path, saved):
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.write_bytes(saved[0].read_bytes())
    assert find(str(tmp_path / "run")) == find(str(last)) == find("auto", folder=tmp_path / "run") == str(last)
    assert find(None) is None
    assert find("auto", folder=tmp_path / "new") is None
    with pytest.raises(ValueError, match="there is no checkpoint in"):
        find(str(tmp_path))
    with pytest.raises(ValueError, match="resume=nowhere: there is no such file or folder"):
        find("nowhere")


def test_a_damaged_checkpoint_is_passed_over_and_that_is_said(tmp_path, saved, capsys):
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    whole = saved[0].read_bytes()
    for name in ("last.ckpt", "last-1.ckpt", "last-2.ckpt", "best.ckpt"):
        (folder / name).write_bytes(whole)
    (folder / "last.ckpt").write_bytes(whole[:-100])
    (folder / "last-1.ckpt").write_bytes(b"")
    assert find(str(tmp_path / "run")) == str(folder / "last-2.ckpt")
    text = capsys.readouterr().out
    assert "last.ckpt can't be read" in text
    assert f"so it is {folder / 'last-2.ckpt'} that is used" in text
    for name in ("last-2.ckpt", "best.ckpt"):
        (folder / name).write_bytes(b"")
    for resume in (str(tmp_path / "run"), "auto"):
        with pytest.raises(ValueError, match=r"best.ckpt can't be read"):
            find(resume, folder=tmp_path / "run")


def test_no_changed_value_goes_unnoticed(saved):
    """Torch itself does not look at what the bytes of a weight are; the digest does."""
    path, content = saved
    whole = path.read_bytes()
    weight = next(v for v in content["state_dict"].values() if isinstance(v, torch.Tensor) and v.numel() > 100)
    at = whole.find(weight.as_strided((16,), (1,)).numpy().tobytes())  # as they lie in memory
    assert at > 0
    for bit in (0, 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << bit)]) + whole[at + 1 :])
        with pytest.raises(ValueError, match=r"does not fit its checksum|can't be read"):
            load(path)
    path.write_bytes(whole)
    load(path)


def test_the_digest_tells_values_types_and_order_apart():
    one = torch.tensor([1.0, 2.0])
    values = [
        {"a": 1}, {"a": 1.0}, {"a": True}, {"a": "1"}, {"b": 1}, {"a": [1]}, {"a": (1,)}, {"a": None}, {"a": 1, "b": 2},
        {"b": 2, "a": 1}, {"a": one}, {"a": one.double()}, {"a": one[None]}, {"a": one.flip(0)}, {"a": [[1], 2]},
        {"a": torch.ones(1, 9)[:, 3]}, {"a": torch.ones(3, 4).T}, {"a": torch.ones(0)}, {"a": torch.ones(2).bool()},
        {"a": [1, [2]]}, {"a": {}}, {"a": []}, {"a": one.bfloat16()}, {"a": torch.tensor(1.0)}, {"a": torch.tensor(1)},
    ]  # fmt: skip
    digests = [checkpoint.digest(value) for value in values]
    assert len(set(digests)) == len(values)
    assert digests == [checkpoint.digest(copy.deepcopy(value)) for value in values]
    assert checkpoint.digest(torch.arange(12.0).view(3, 4).T) == checkpoint.digest(
        torch.arange(12.0).view(3, 4).T.contiguous()
    )


def last_of(content):
    """The name of a weight."""
    return [k for k, v in content["state_dict"].items() if isinstance(v, torch.Tensor)][-1]


def test_a_file_of_the_first_format_still_makes_its_samples():
    """Written by ganlab 0.1.0 before checkpoints had a digest; these are the numbers that it gave then."""
    path = Path(__file__).parent / "old" / "format1.ckpt"
    assert load(path)["ganlab"]["format"] == 1
    expected = [[-0.123911157, -0.085731819], [-0.137600988, -0.089172810], [-0.150028109, -0.087263972]]
    assert torch.allclose(Sampler.load(path).generate(0, 3, 0), torch.tensor(expected), atol=1e-6)


@pytest.mark.parametrize("version", [0, -1, 1.5, "2", None, True])
def test_an_unknown_format_is_refused(saved, version):
    path, content = saved
    content["ganlab"]["format"] = version
    with pytest.raises(ValueError, match="unknown format"):
        load(write(path.parent, content))


def test_a_tensor_larger_than_the_file_is_refused(saved):
    """A view with stride 0 holds one number and claims a terabyte."""
    path, content = saved
    content["state_dict"] = {"G.weight": torch.zeros(1).expand(1 << 38)}
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"state_dict.G.weight claims to be larger than the file"):
        load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["state_dict"].pop(last_of(c)), "lacks"),
        (lambda c: c["state_dict"].update(more=torch.zeros(1)), "has, besides what belongs there, more"),
        (lambda c: c["state_dict"].update({last_of(c): torch.zeros(1)}), "has other shapes"),
        (lambda c: c["state_dict"].update({last_of(c): "text"}), "has other shapes"),
        (lambda c: c.update(state_dict=[1]), "has no weights"),
        (lambda c: c.update(optimizer_states=[{}]), "has not the 2 optimizers"),
        (lambda c: c.update(clock={"rounds": -1, "seen": 0, "curves": {}}), "has no clock"),
        (lambda c: c.pop("clock"), "has no clock"),
    ],
)
def test_a_checkpoint_of_another_game_is_named(saved, change, message):
    _, content = saved
    content["optimizer_states"] = [{}, {}]
    gan = build_gan(content["ganlab"]["config"])
    check_fit(gan, content, "it")
    change(content)
    with pytest.raises(ValueError, match=f"resume=it {message}"):
        check_fit(gan, content, "it")


def test_the_last_ones_are_kept_and_the_last_is_always_there(tmp_path):
    saving = SaveCheckpoint(1, str(tmp_path), keep=3)
    for i in range(5):
        (tmp_path / "next.ckpt").write_text(str(i))
        saving.rotate()
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        "last.ckpt": "4", "last-1.ckpt": "3", "last-2.ckpt": "2",
    }  # fmt: skip


def test_without_hard_links_too(tmp_path, monkeypatch):
    monkeypatch.setattr("os.link", mock.Mock(side_effect=OSError))
    test_the_last_ones_are_kept_and_the_last_is_always_there(tmp_path)


def test_truncation_where_the_generator_has_it():
    class Truncated(dcgan.Generator):
        def forward(self, z, truncation=1.0):
            return super().forward(truncation * z)

    from ganlab.tasks import Generate

    sampler = Sampler(Truncated([1, 16, 16], width=8), Generate(z_dim=100))
    plain = sampler.generate(0, 2)
    sampler.truncate(0.5)
    assert not torch.equal(plain, sampler.generate(0, 2))


def test_the_last_checkpoint_holds_the_last_scores(tmp_path):
    """Also where a run ends between two scores, at a kimg at which a checkpoint is due."""
    small = [
        "generator.width=8",
        "discriminator.width=8",
        "data.batch_size=100",
        "metrics.n=100",
        "callbacks.samples=null",
    ]
    run(tmp_path, "experiment=ring", *small, "max_kimg=3", "metrics.every=2", "callbacks.checkpoint.every=1.5")
    last, before = (load(tmp_path / "checkpoints" / f"{name}.ckpt") for name in ("last", "last-1"))
    assert [entry["kimg"] for entry in last["callbacks"]["Evaluate"]["history"]] == [2.0, 3.0]
    assert (last["clock"]["seen"], before["clock"]["seen"]) == (3000, 1500)
