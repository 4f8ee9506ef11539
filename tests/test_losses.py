"""Each adversarial loss equals its formula, computed here with plain floats."""

import pytest
import torch
from play import LinearD, phase, softplus

from ganlab import losses

REAL, FAKE = [0.7, -1.3, 2.0], [-0.4, 0.9, 0.1]
mean = lambda xs: sum(xs) / len(xs)
pairs = list(zip(REAL, FAKE, strict=True))

FORMULAS = {
    "Minimax": (
        mean([softplus(-x) for x in REAL]) + mean([softplus(y) for y in FAKE]),
        -mean([softplus(y) for y in FAKE]),
    ),
    "NonSaturating": (
        mean([softplus(-x) for x in REAL]) + mean([softplus(y) for y in FAKE]),
        mean([softplus(-y) for y in FAKE]),
    ),
    "Bidirectional": (
        mean([softplus(-x) for x in REAL]) + mean([softplus(y) for y in FAKE]),
        mean([softplus(-y) for y in FAKE]) + mean([softplus(x) for x in REAL]),
    ),
    "LeastSquares": (
        mean([(x - 1) ** 2 / 2 for x in REAL]) + mean([y**2 / 2 for y in FAKE]),
        mean([(y - 1) ** 2 / 2 for y in FAKE]),
    ),
    "Hinge": (mean([max(0, 1 - x) for x in REAL]) + mean([max(0, 1 + y) for y in FAKE]), -mean(FAKE)),
    "Wasserstein": (mean(FAKE) - mean(REAL), -mean(FAKE)),
    "ClippedWasserstein": (mean(FAKE) - mean(REAL), -mean(FAKE)),
    "Equilibrium": (-mean(REAL), -mean(FAKE)),  # k starts at 0
    "Relativistic": (mean([softplus(y - x) for x, y in pairs]), mean([softplus(x - y) for x, y in pairs])),
}


def column(values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("player", ["D", "G"])
def test_value(name, player):
    value = getattr(losses, name)()(phase(player, real=column(REAL), fake=column(FAKE), D=LinearD([1.0])))
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(FORMULAS[name][player == "G"], abs=1e-12)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("player", ["D", "G"])
def test_several_discriminators_are_averaged(name, player):
    """A D that returns a list of logits (here D and -D, of different shapes) gives the mean of the losses of each."""
    D = LinearD([1.0])
    both = lambda x: [D(x), -D(x)[:, None].expand(-1, 4)]
    value = lambda d: getattr(losses, name)()(phase(player, real=column(REAL), fake=column(FAKE), D=d)).item()
    assert value(both) == pytest.approx((value(D) + value(lambda x: -D(x))) / 2, abs=1e-12)


def test_every_loss_is_covered():
    pairs_here = {k for k, v in vars(losses).items() if isinstance(v, type) and issubclass(v, losses.Loss)} - {"Loss"}
    assert pairs_here == set(FORMULAS)


def test_a_clipped_critic_has_small_weights_after_its_own_moves():
    loss, D = losses.ClippedWasserstein(clip=0.01), LinearD([1.0, -0.5, 0.004])
    with torch.no_grad():
        loss.after_move(phase("G", real=column(REAL), fake=column(FAKE), D=D))
        assert D.a.tolist() == [1.0, -0.5, 0.004]
        loss.after_move(phase("D", real=column(REAL), fake=column(FAKE), D=D))
    assert D.a.tolist() == pytest.approx([0.01, -0.01, 0.004])
