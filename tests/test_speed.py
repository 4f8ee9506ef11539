"""What is done for speed: it changes nothing but rounding, or it says what it changes."""

import copy

import pytest
import torch
from composing import group
from test_catalogue import play, tiny, weights
from torch import nn

from ganlab.together import Together, judges_each_alone

SHAPE = (1, 16, 16)


def fast(model, **speed):
    return tiny(model, SHAPE, *(f"{key}={value}" for key, value in speed.items()))


@pytest.mark.parametrize("rounds", [5, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("model", group("model"))
def test_the_fast_path_makes_the_plain_paths_weights(model, rounds):
    """channels_last and, where nothing speaks against it, one look of D: to the rounding of float64."""
    off = {"together": "false", "speed.channels_last": "false"}
    plain = play(fast(model, **off).double(), rounds, SHAPE, precision="64-true")
    quick = play(fast(model).double(), rounds, SHAPE, precision="64-true")
    for name in (*plain.players, "G_ema"):
        a, b = weights(getattr(plain, name)), weights(getattr(quick, name))
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


class Alone(nn.Module):
    def __init__(self, middle=None):
        super().__init__()
        self.a, self.middle, self.b = nn.Linear(3, 8), middle or nn.Tanh(), nn.Linear(8, 1)

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
