"""Changes to any network: initialisation, spectral norm, dropout, frozen layers, weights of an earlier run."""

import numpy as np
import pytest
import torch
from composing import prepared, run
from play import game, mlp, play
from torch import nn

from ganlab.checkpoint import Sampler
from ganlab.networks import alter, take_over
from ganlab.settings import build


def convolutions():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(8 * 16, 1))


def test_orthogonal_weights():
    """Rows of W are orthonormal, for convolutions over all of a filter's numbers, under spectral norm too."""
    for net in (convolutions(), nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(9, 4)))):
        alter(net, init="orthogonal")
        for layer in net:
            if hasattr(layer, "weight"):
                rows = layer.weight.detach().flatten(1).double()
                assert torch.allclose(rows @ rows.T, torch.eye(len(rows), dtype=torch.float64), atol=1e-4)


def test_the_spectral_norm_is_that_of_the_svd():
    net = convolutions()
    before = [layer.weight.detach().clone() for layer in net if hasattr(layer, "weight")]
    alter(net, spectral=True)
    for _ in range(300):  # power iterations, one in each training forward
        net(torch.randn(2, 3, 4, 4))
    after = [layer.weight.detach() for layer in net.eval() if hasattr(layer, "weight")]
    for old, new in zip(before, after, strict=True):
        sigma = np.linalg.svd(old.flatten(1).numpy(), compute_uv=False)[0]
        assert np.allclose(new.numpy(), old.numpy() / sigma, atol=1e-4)
    names = set(net.state_dict())
    alter(net, spectral=True)
    assert set(net.state_dict()) == names  # not twice


def test_dropout_drops_in_training_only_and_never_the_logits():
    net = convolutions()
    handed = {}
    net.insert(1, nn.Conv2d(8, 8, 1))
    for layer in net:
        if hasattr(layer, "weight"):
            nn.init.ones_(layer.weight)
            nn.init.ones_(layer.bias)
    x = torch.ones(64, 3, 4, 4)
    plain = net(x)
    alter(net, dropout=0.5)
    assert torch.equal(net.eval()(x), plain)
    torch.manual_seed(0)
    for i in (0, 1, 4):
        net[i].register_forward_hook(lambda module, inputs, output, i=i: handed.update({i: inputs[0] == 0}))
    logits = net.train()(x)
    assert not handed[0].any()  # the images are seen whole
    lost = handed[1].flatten(2)
    assert torch.equal(lost.any(2), lost.all(2))  # whole channels
    assert lost.any(2).float().mean() == pytest.approx(0.5, abs=0.1)
    assert handed[4].float().mean() == pytest.approx(0.5, abs=0.1)
    assert (logits != 0).all()
    twice = nn.Sequential(nn.ConvTranspose2d(4, 8, 4), nn.ConvTranspose2d(8, 8, 4))
    alter(twice, dropout=0.5)
    assert [len(layer._forward_pre_hooks) for layer in twice] == [0, 1]  # by what goes in, not by what comes out


def test_frozen_layers_do_not_move_and_unknown_ones_are_named():
    D = mlp(2, 16, 16, 1)
    alter(D, freeze=["0"])
    gan = game(discriminator=D)
    before = {k: v.clone() for k, v in gan.D.state_dict().items()}
    play(gan, 3)
    moved = {k for k, v in gan.D.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {"2.weight", "2.bias", "4.weight", "4.bias"}
    with pytest.raises(ValueError, match="begins with stem; there are 0, 2, 4"):
        alter(D, freeze=["stem"])


@pytest.mark.parametrize("changes", [{"init": "zeros"}, {"dropout": 1.0}])
def test_bad_values_are_refused(changes):
    with pytest.raises(ValueError, match=f"networks.*{next(iter(changes))}"):
        alter(mlp(2, 4, 1), **changes)


def test_what_does_not_fit_begins_anew_and_is_named():
    """A game of another width: the layers that have changed are listed with both shapes, the rest is taken over."""
    old, new = game(discriminator=mlp(2, 16, 16, 1)), game(discriminator=mlp(2, 16, 8, 1), seed=1)
    lines = take_over(new, old.state_dict())
    assert lines == [
        "D.2.weight was [16, 16] and is [8, 16]: begins anew",
        "D.2.bias was [16] and is [8]: begins anew",
        "D.4.weight was [1, 16] and is [1, 8]: begins anew",
        "7 of 10 tensors were taken over",
    ]
    assert torch.equal(new.D[0].weight, old.D[0].weight)
    assert all(torch.equal(a, b) for a, b in zip(new.G_ema.parameters(), old.G_ema.parameters(), strict=True))


def test_fine_tuning_from_the_command_line(tmp_path, capsys):
    """To another size and with D's first layer frozen: taken over, named, and G sampled from the new checkpoint."""
    small = ("experiment=tiny", "data=digits")
    run(tmp_path / "first", *small, "networks.G.spectral=true", "networks.D.init=orthogonal")
    first = torch.load(tmp_path / "first/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    more = (*small, "data.size=32", "networks.D.freeze=[0]", "networks.G.spectral=true", f"finetune={tmp_path}/first")
    run(tmp_path / "second", *more)
    told = capsys.readouterr().out
    assert "finetune: D.8.weight is new: begins anew" in told
    assert "tensors were taken over" in told
    assert "finetune: D.0" not in told
    second = torch.load(tmp_path / "second/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(first["D.0.weight"], second["D.0.weight"])
    assert not torch.equal(first["D.2.weight"], second["D.2.weight"])
    assert Sampler.load(tmp_path / "second/checkpoints/last.ckpt").generate(0, 2).shape == (2, 1, 32, 32)


def test_unknown_changes_are_refused():
    with pytest.raises(ValueError, match=r"networks.D.freezing: there is no such key; did you mean networks.D.freeze"):
        build(prepared("+networks.D.freezing=[0]"))


def test_a_network_that_must_be_told_labels_is_refused_where_none_are_told():
    """Projection without labels, told before training."""
    for model, overrides, message in (
        ("cgan_pd", ["task.labels=null"], r"generator.classes=10 and task.labels=None, of no labels: both players"),
        ("cgan_pd", ["discriminator.classes=7"], r"discriminator.classes=7 and task.labels=uniform, of 10 labels"),
        ("r3gan", ["generator.classes=10", "task.labels=data"], r"discriminator.classes=None and task.labels=data"),
    ):
        with pytest.raises(ValueError, match=message):
            build(prepared(f"model={model}", *overrides, "experiment=tiny"))


def test_networks_that_can_not_be_changed_are_refused():
    """Weights that are scaled as they are used, layers of zeros, a player that is not there, nothing left to move."""
    for model, change, message in (
        ("stylegan2", "networks.G.init=normal", r"networks.G.init=normal: this network scales its weights"),
        ("progan", "networks.D.spectral=true", r"networks.D.spectral=True: this network scales its weights"),
        ("r3gan", "networks.G.spectral=true", r"networks.G.spectral=true: stages.0.0.out begins with zeros"),
        ("vae", "networks.D.dropout=0.1", r"networks.D: this model has no discriminator"),
        ("dcgan", "networks.D.freeze=[0,2,3,5]", r"networks.D.freeze=.*: nothing is left that could move"),
        ("dcgan", "networks.D.spectral=abc", r"networks.D.spectral='abc': must be true or false"),
    ):
        with pytest.raises(ValueError, match=message):
            build(prepared(f"model={model}", change, "experiment=tiny"))
    assert (
        build(prepared("model=cgan_pd", "networks.G.spectral=true", "experiment=tiny")).generate(0, 2).isfinite().all()
    )


def test_fine_tuning_passes_spectral_norm_by_and_refuses_another_model():
    old, new = game(discriminator=mlp(2, 16, 1)), game(discriminator=mlp(2, 16, 1), seed=1)
    alter(new.D, spectral=True)
    take_over(new, old.state_dict())
    assert torch.equal(new.D[0].parametrizations.weight.original, old.D[0].weight)
    with pytest.raises(ValueError, match="nothing of that run's networks fits"):
        take_over(new, {"G.other": torch.zeros(3, 3)})
