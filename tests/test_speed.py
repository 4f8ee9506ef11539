"""What is done for speed: it changes nothing but rounding, or it says what it changes."""

import copy

import pytest
import torch
from composing import group
from play import trainer
from test_catalogue import play, rounds, tiny, weights
from torch import nn

from ganlab.gradient import frozen
from ganlab.networks import channels_last
from ganlab.nn.minibatch import MinibatchStd
from ganlab.together import Together, judges_each_alone

SHAPE = (1, 16, 16)
TOGETHER = {"wgan_gp": True, "dcgan": False, "sngan": False, "mlp": False, "stylegan2_ada": False}  # others: as it is


def fast(model, **speed):
    return tiny(model, SHAPE, *(f"{key}={value}" for key, value in speed.items()))


@pytest.mark.parametrize("number", [5, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("model", group("model"))
def test_the_fast_path_makes_the_plain_paths_weights(model, number):
    """channels_last and, where nothing speaks against it, one look of D: to the rounding of float64."""
    off = {"together": "false", "speed.channels_last": "false"}
    plain = play(model, fast(model, **off).double(), number, SHAPE, precision="64-true")
    quick = play(model, fast(model).double(), number, SHAPE, precision="64-true")
    if model in TOGETHER:
        assert any(quick.together.found.values()) is TOGETHER[model]
    kernels = [p for p in quick.parameters() if p.dim() == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    last = [p.is_contiguous(memory_format=torch.channels_last) for p in kernels]
    assert all(last) if not model.startswith("stylegan2") else not any(last)
    for name in (*plain.players, "G_ema"):
        a, b = weights(getattr(plain, name)), weights(getattr(quick, name))
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


class Alone(nn.Module):
    def __init__(self, middle=None, dim=3):
        super().__init__()
        self.a, self.middle, self.b = nn.Linear(dim, 8), middle or nn.Tanh(), nn.Linear(8, 1)

    def forward(self, x, cond=None):
        return self.b(self.middle(self.a(x)))[:, 0]


class Spread(nn.Module):
    """Minibatch statistics behind a weight that begins at 0, as a careful layer would."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return x + self.weight * x.std(0)


class Averaged(Alone):
    """Also says one number of the whole batch."""

    def forward(self, x, cond=None):
        from ganlab.phase import DiscriminatorOutput

        return DiscriminatorOutput(super().forward(x), aux=x.mean())


def spectral(D):
    nn.utils.parametrizations.spectral_norm(D.a)
    return D


@pytest.mark.parametrize(
    ("make", "alone"),
    [
        (Alone, True), (lambda: Alone(nn.LayerNorm(8)), True), (lambda: Alone(nn.BatchNorm1d(8)), False),
        (lambda: Alone(nn.Dropout(0.5)), False), (lambda: Alone(Spread()), False), (lambda: spectral(Alone()), False),
        (Averaged, False),
    ],
)  # fmt: skip
def test_whether_d_judges_each_sample_alone_is_found_out(make, alone):
    """And finding out leaves D and the random numbers as they were."""
    from play import phase

    torch.manual_seed(0)
    D = make()
    shown = phase(real=torch.randn(6, 3), fake=torch.randn(6, 3), D=D, grad_inputs=())
    before, state = copy.deepcopy(D.state_dict()), torch.get_rng_state()
    assert judges_each_alone(shown) is alone
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in D.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("before", ["true", "false"])
def test_a_run_goes_on_in_another_memory_format(before, tmp_path):
    """What Adam keeps lies in the file as the weights lay; a fused step would take it for other weights' moments."""
    after = {"true": "false", "false": "true"}[before]
    make = lambda last: fast("dcgan", terms="[]", **{"speed.channels_last": last}).double()
    data, doubled = rounds(6, SHAPE), {"precision": "64-true"}
    loader = lambda part: torch.utils.data.DataLoader(part, batch_size=None)
    whole, first, second = make(before), make(before), make(after)
    trainer(**doubled).fit(whole, loader(data))
    half = trainer(**doubled)
    half.fit(first, loader(data[:3]))
    half.save_checkpoint(tmp_path / "half.ckpt")
    trainer(max_epochs=2, **doubled).fit(second, loader(data[3:]), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    for name in ("G", "D", "G_ema"):
        torch.testing.assert_close(weights(getattr(whole, name)), weights(getattr(second, name)), rtol=1e-6, atol=1e-8)


def test_only_what_is_two_dimensional_changes_its_format():
    net = nn.Sequential(nn.Conv3d(2, 3, 3), nn.Conv2d(2, 3, 3), nn.Linear(2, 3))
    channels_last(net)
    assert net[0].weight.is_contiguous()
    assert net[1].weight.is_contiguous(memory_format=torch.channels_last)


class Keeping(Alone):
    """Remembers what it computed, which can't be copied."""

    def forward(self, x, cond=None):
        self.kept = self.a(x)
        return self.b(self.middle(self.kept))[:, 0]


@pytest.mark.parametrize("make", [lambda: nn.Sequential(nn.utils.weight_norm(nn.Linear(2, 1))), lambda: Keeping(dim=2)])
def test_discriminators_that_can_not_be_copied_are_played_with(make):
    from play import game

    from ganlab.terms.penalties import R1

    data = [{"real": torch.randn(8, 2)} for _ in range(4)]
    gan = game(discriminator=make(), terms={"r1": R1(every=2)}, together=None, n_critic=2)
    trainer().fit(gan, torch.utils.data.DataLoader(data, batch_size=None))
    assert gan.rounds == 4


def test_batches_of_different_sizes_are_tried_each():
    """8 and 8 samples in groups of 4 are as 16; 6 and 6 are not, since a group would be of both sides."""
    from play import game

    data = [{"real": torch.randn(n, 2, dtype=torch.float64)} for n in (8, 8, 6)]
    make = lambda: nn.Sequential(nn.Linear(2, 8), MinibatchStd(4), nn.Linear(9, 1)).double()
    ends = []
    for together in (None, False):
        torch.manual_seed(0)
        gan = game(discriminator=make(), together=together).double()
        trainer(precision="64-true").fit(gan, torch.utils.data.DataLoader(data, batch_size=None))
        ends.append(weights(gan.D))
        assert gan.together.found == ({(8, 8): True, (6, 6): False} if together is None else {})
    torch.testing.assert_close(*ends, rtol=1e-6, atol=1e-9)


def test_what_somebody_froze_stays_frozen():
    still, moving = nn.Parameter(torch.ones(1), requires_grad=False), nn.Parameter(torch.ones(1))
    with frozen([still, moving]):
        assert not moving.requires_grad
    assert moving.requires_grad
    assert not still.requires_grad


def test_one_forward_serves_both_sides():
    from play import phase

    D, seen = Alone(), []
    D.register_forward_hook(lambda module, given, output: seen.append(len(given[0])))
    real, fake = torch.randn(4, 3), torch.randn(4, 3)
    both = phase(real=real, fake=fake, D=D, grad_inputs=(), together=Together(True))
    assert torch.allclose(both.on_real.logits, D(real))
    assert torch.allclose(both.on_fake.logits, D(fake))
    assert seen == [8, 4, 4]
    seen.clear()
    asked = phase(real=real, fake=fake, D=D, grad_inputs=("real",), together=Together(True))
    assert asked.on_real.logits.shape == asked.on_fake.logits.shape == (4,)
    assert seen == [4, 4]  # a gradient to the reals alone is cheaper so


@pytest.mark.parametrize(
    ("model", "terms", "compiled"),
    [("sngan", "[]", "GD"), ("sngan", "[r1]", "G"), ("wgan_gp", "[gp]", "G"), ("stylegan2", "[path_length]", "D")],
)
def test_only_what_nothing_differentiates_twice_is_compiled(model, terms, compiled):
    gan = fast(model, terms=terms, **{"speed.compile": "true"})
    found = [name for name in gan.players if getattr(gan, name)._compiled_call_impl is not None]
    assert sorted(found) == sorted(compiled)
    assert gan.G_ema._compiled_call_impl is None
    assert not any("_orig_mod" in name for name in gan.state_dict())


def test_nothing_left_to_compile_is_refused():
    with pytest.raises(ValueError, match=r"speed.compile=true"):
        fast("stylegan2", **{"speed.compile": "true", "terms": "[r1,path_length]"})


@pytest.mark.slow
@pytest.mark.parametrize("model", ["dcgan", "sngan", "wgan_gp"])
def test_compiled_networks_make_the_same_weights(model):
    plain = play(fast(model).double(), 5, SHAPE, precision="64-true")
    quick = play(fast(model, **{"speed.compile": "true"}).double(), 5, SHAPE, precision="64-true")
    for name in ("G", "D", "G_ema"):
        a, b = weights(getattr(plain, name)), weights(getattr(quick, name))
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)
