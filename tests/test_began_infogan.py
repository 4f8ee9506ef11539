"""BEGAN's balance and InfoGAN's codes, by hand."""

import math
from functools import partial

import pytest
import torch
from play import LinearD, batches, game, mlp, phase, play
from torch import nn

from ganlab.losses import Equilibrium
from ganlab.models import began, infogan
from ganlab.phase import DiscriminatorOutput
from ganlab.rng import BatchRNG, IndexedRNG
from ganlab.tasks import Codes
from ganlab.terms.information import Information


def count(net):
    return sum(p.numel() for p in net.parameters())


def errors(values):
    """Samples whose error under D(x) = -x is the given one."""
    return torch.tensor(values, dtype=torch.float64)[:, None]


def test_equilibrium_and_its_balance_by_hand():
    """L(x) - k L(G(z)) and L(G(z)); k steps by lambda (gamma L(x) - L(G(z))) after D's moves alone, within [0, 1]."""
    loss, D = Equilibrium(gamma=0.5, lambda_k=0.1).double(), LinearD([-1.0])
    at = lambda player, real, fake: phase(player, real=errors(real), fake=errors(fake), D=D)
    first = at("D", [2.0, 4.0], [0.2, 0.6])  # L(x) = 3, L(G(z)) = 0.4
    assert loss(first).item() == pytest.approx(3.0)
    with torch.no_grad():
        loss.after_move(first)
    assert loss.k.item() == pytest.approx(0.1 * (0.5 * 3 - 0.4))  # 0.11
    assert loss(first).item() == pytest.approx(3 - 0.11 * 0.4)
    assert loss(at("G", [2.0, 4.0], [0.2, 0.6])).item() == pytest.approx(0.4)
    with torch.no_grad():
        loss.after_move(at("G", [2.0, 4.0], [0.2, 0.6]))
        assert loss.k.item() == pytest.approx(0.11)
        loss.after_move(at("D", [0.2, 0.2], [0.6, 0.4]))
        assert loss.k.item() == pytest.approx(0.11 + 0.1 * (0.1 - 0.5))
        loss.after_move(at("D", [0.0, 0.0], [5.0, 5.0]))
        assert loss.k.item() == 0
        loss.after_move(at("D", [90.0, 10.0], [0.0, 0.0]))
        assert loss.k.item() == 1


def test_the_balance_is_kept_in_checkpoints_and_moves_once_per_round():
    class Error(nn.Sequential):
        is_autoencoder = True

        def forward(self, x):
            return -(x - super().forward(x)).abs().mean(1)

    gan = play(game(discriminator=Error(nn.Linear(2, 2)), loss=Equilibrium(gamma=1.0, lambda_k=0.5)), batches(1))
    assert 0 < gan.state_dict()["loss.k"] < 1


@pytest.mark.parametrize(("key", "value"), [("gamma", 0.0), ("gamma", 1.5), ("lambda_k", 0.0)])
def test_an_impossible_balance_is_refused(key, value):
    with pytest.raises(ValueError, match=rf"loss\.{key}={value}"):
        Equilibrium(**{key: value})
    with pytest.raises(ValueError, match="needs a D that is an autoencoder"):
        game(loss=Equilibrium())


def test_began_32_has_the_layers_of_the_paper():
    """Counted by hand: maps of 32, 16 and 8, two convolutions at each; D's channels n, 2n, 3n, the decoder's all n."""
    conv = lambda a, b: a * b * 9 + b
    n, code = 128, 64
    decoder = (code + 1) * n * 64 + 6 * conv(n, n) + conv(n, 3)
    halves = conv(n, 2 * n) + conv(2 * n, 3 * n)
    encoder = (
        conv(3, n) + halves + 2 * (conv(n, n) + conv(2 * n, 2 * n) + conv(3 * n, 3 * n)) + 3 * n * 64 * code + code
    )
    assert count(began.Generator([3, 32, 32])) == decoder
    assert count(began.Discriminator([3, 32, 32])) == encoder + decoder


def test_began_judges_by_the_error_of_its_reconstruction():
    D = began.Discriminator([1, 8, 12], width=8)
    x = torch.randn(3, 1, 8, 12)
    rebuilt = D.decoder(D.encoder(x))
    assert rebuilt.shape == x.shape
    for logit, one, other in zip(D(x), x, rebuilt, strict=True):
        assert logit.item() == pytest.approx(
            -sum(abs(a - b) for a, b in zip(one.flatten().tolist(), other.flatten().tolist(), strict=True)) / 96,
            rel=1e-5,
        )


class Net(nn.Module):
    """G copies its input, D says 0 and reads the given numbers."""

    def __init__(self, z_dim, codes, told=None):
        super().__init__()
        self.z_dim, self.codes, self.told = z_dim, codes, told
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return x if self.told is None else DiscriminatorOutput(x.sum(1) * self.weight, aux=self.told)


def coded(told=None, codes=6, z_dim=8, **kwargs):
    return game(
        Net(z_dim, None), Net(None, codes, told), task=Codes(categories=(2, 3), continuous=1),
        terms={"information": Information(**kwargs), "information_g": Information(player="G")},
    )  # fmt: skip


def test_codes_lie_behind_the_noise():
    """[noise, one-hot of each category, continuous]: each code with its own law, and the noise with its own."""
    n = 3000
    task = Codes(z_dim=9, z="normal", categories=(2, 3), continuous=2)
    z, cond = task.draw(BatchRNG(0, n, slice(0, n)))
    assert z.shape == (n, 9)
    assert cond is None
    noise, two, three, continuous = z.split([2, 2, 3, 2], 1)
    assert noise.std().item() == pytest.approx(1, rel=0.05)
    for one_hot, values in ((two, 2), (three, 3)):
        assert set(one_hot.unique().tolist()) == {0, 1}
        assert torch.equal(one_hot.sum(1), torch.ones(n))
        assert torch.allclose(one_hot.mean(0), torch.tensor(1 / values), atol=0.04)
    assert -1 <= continuous.min() < -0.99 < 0.99 < continuous.max() <= 1
    assert continuous.std().item() == pytest.approx(3**-0.5, rel=0.05)
    covariance = torch.cov(torch.cat([noise, two[:, :1], three[:, :2], continuous], 1).T)
    assert covariance[:3, 3:].abs().max() < 0.06  # drawn on their own
    again, _ = task.draw(IndexedRNG(3, range(5, 7)))
    assert torch.equal(again, task.draw(IndexedRNG(3, range(7)))[0][5:])


@pytest.mark.parametrize("player", ["D", "G"])
def test_information_by_hand(player):
    """Cross entropy of each category and half the squared error of each continuous code, both from D's head."""
    told = torch.tensor([[0.3, -0.2, 1.0, 0.0, -1.0, 0.4], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    inputs = torch.tensor([[9.0, 9.0, 0, 1, 1, 0, 0, -0.5], [9.0, 9.0, 1, 0, 0, 0, 1, 1.0]])
    term = coded(told, continuous_weight=0.1).terms["information"]
    term.player = player
    values = term(phase(player, real=inputs, fake=inputs, D=Net(None, 6, told)))
    first = math.log(1 + math.exp(0.5)) + math.log(1 + math.exp(-1) + math.exp(-2)) + 0.1 * 0.9**2 / 2
    assert values.tolist() == pytest.approx([first, math.log(2) + math.log(3) + 0.1 / 2], rel=1e-6)


def test_codes_that_can_not_be_read_are_refused():
    with pytest.raises(ValueError, match=r"discriminator\.codes=6"):
        coded(codes=5)
    with pytest.raises(ValueError, match="z_dim=5 is all"):
        coded(z_dim=5)
    with pytest.raises(ValueError, match="task=codes"):
        game(terms={"information": Information()})
    with pytest.raises(ValueError, match="must be a code"):
        Codes(categories=(), continuous=0)
    with pytest.raises(ValueError, match="at least 2"):
        Codes(categories=(1,))


def test_infogan_28_has_the_layers_of_the_paper():
    """Counted by hand from the appendix's table for MNIST."""
    conv = lambda a, b: a * b * 16 + b
    full = lambda a, b: (a + 1) * b
    norm = lambda c: 2 * c
    ups = conv(128, 64) + norm(64) + conv(64, 1)
    G = full(74, 1024) + norm(1024) + full(1024, 6272) + norm(6272) + ups
    assert count(infogan.Generator([1, 28, 28])) == G
    body = conv(1, 64) + conv(64, 128) + norm(128) + full(6272, 1024) + norm(1024)
    heads = full(1024, 1) + full(1024, 128) + norm(128) + full(128, 12)
    assert count(infogan.Discriminator([1, 28, 28])) == body + heads


def test_codes_are_learned():
    """In a tiny game with the term alone, a head that starts at chance soon reads the code."""
    torch.manual_seed(0)
    G = mlp(6, 8, 2)
    G.z_dim = 6

    class Reader(nn.Module):
        codes = 2

        def __init__(self):
            super().__init__()
            self.net = mlp(2, 32, 3)

        def forward(self, x):
            out = self.net(x)
            return DiscriminatorOutput(out[:, 0], aux=out[:, 1:])

    gan = game(
        G, Reader(), task=Codes(categories=(2,), continuous=0), optimizer=partial(torch.optim.Adam, lr=1e-2),
        terms={"information": Information(), "information_g": Information(player="G")},
    )  # fmt: skip
    play(gan, batches(60, n=64))
    z, _ = gan.task.draw(BatchRNG(1, 500, slice(0, 500)))
    assert (gan.D(gan.G(z)).aux.argmax(1) == z[:, 4:].argmax(1)).float().mean() > 0.95
