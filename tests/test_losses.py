"""Each adversarial loss equals its formula, computed here with plain floats."""

from dataclasses import replace

import pytest
import torch
from play import LinearD, game, phase, softplus

from ganlab import losses
from ganlab.schedule import Linear

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
    "RelativisticAverage": (
        mean([softplus(mean(FAKE) - x) for x in REAL]) + mean([softplus(y - mean(REAL)) for y in FAKE]),
        mean([softplus(x - mean(FAKE)) for x in REAL]) + mean([softplus(mean(REAL) - y) for y in FAKE]),
    ),
}
ELSEWHERE = {"Unrolled", "Cells"}  # of another loss; of tables, with which it is tested


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
    assert pairs_here == set(FORMULAS) | ELSEWHERE


def test_a_clipped_critic_has_small_weights_after_its_own_moves():
    loss, D = losses.ClippedWasserstein(clip=0.01), LinearD([1.0, -0.5, 0.004])
    with torch.no_grad():
        loss.after_move(phase("G", real=column(REAL), fake=column(FAKE), D=D))
        assert D.a.tolist() == [1.0, -0.5, 0.004]
        loss.after_move(phase("D", real=column(REAL), fake=column(FAKE), D=D))
    assert D.a.tolist() == pytest.approx([0.01, -0.01, 0.004])


def test_smooth_labels_are_cross_entropy_with_them():
    """D's reals against 1 - smooth by PyTorch's own cross entropy, fakes against 0."""
    p = phase("D", real=column(REAL), fake=column(FAKE), D=LinearD([1.0]))
    x, y = column(REAL)[:, 0], column(FAKE)[:, 0]
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    expected = bce(x, torch.full_like(x, 0.9)) + bce(y, torch.zeros_like(y))
    assert losses.NonSaturating(smooth=0.1)(p).item() == pytest.approx(expected.item(), abs=1e-12)
    with pytest.raises(ValueError, match=r"loss\.smooth=0\.6"):
        losses.Minimax(smooth=0.6)


def test_g_learns_from_its_best_fakes_only():
    """top=2/3 of three fakes: the mean over the two that D takes most for real; D's loss is over all."""
    loss, p = losses.NonSaturating(top=2 / 3), phase("G", real=column(REAL), fake=column(FAKE), D=LinearD([1.0]))
    assert loss(p).item() == pytest.approx(mean([softplus(-0.9), softplus(-0.1)]), abs=1e-12)
    of_d = phase("D", real=column(REAL), fake=column(FAKE), D=LinearD([1.0]))
    assert loss(of_d).item() == pytest.approx(FORMULAS["NonSaturating"][0], abs=1e-12)
    later = losses.Hinge(top=Linear(1.0, 0.5, stop=1))
    now = lambda seen: later(phase("G", real=column(REAL), fake=column(FAKE), D=LinearD([1.0]), seen=seen)).item()
    assert now(0) == pytest.approx(-mean(FAKE))
    assert now(1000) == pytest.approx(-mean([0.9, 0.1]))  # 1.5 of 3 are 2
    with pytest.raises(ValueError, match="compares each fake with a real"):
        game(loss=losses.Relativistic(top=0.5))


@pytest.mark.parametrize("name", ["NonSaturating", "Hinge", "Wasserstein", "LeastSquares", "Relativistic"])
def test_rare_classes_count_more(name):
    """Frequencies 1/3 and 2/3: each class has half of the weight, as if each had half of the samples."""
    label = torch.tensor([0, 1, 1])
    D = LinearD([1.0])
    loss = getattr(losses, name)(class_weights="balanced", frequencies=[1 / 3, 2 / 3])
    assert loss.class_weights == pytest.approx([1.5, 0.75])
    doubled = [0, 0, 1, 2]  # the sample of class 0 twice: two of each
    plain = getattr(losses, name)()
    rows = lambda values: column([values[i] for i in doubled])
    for player in ("D", "G"):
        weighted = loss(phase(player, real=column(REAL), fake=column(FAKE), D=D, cond=label))
        expected = plain(phase(player, real=rows(REAL), fake=rows(FAKE), D=D))
        assert weighted.item() == pytest.approx(expected.item(), abs=1e-12)


def test_fakes_with_labels_of_their_own_all_count_alike():
    loss, label = losses.Wasserstein(class_weights=[2.0, 0.5]), torch.tensor([0, 1, 1])
    p = phase("D", real=column(REAL), fake=column(FAKE), D=LinearD([1.0]), cond=torch.tensor([0, 0, 0]))
    p.batch = replace(p.batch, real_cond=label)
    expected = mean(FAKE) - mean([2 * REAL[0], 0.5 * REAL[1], 0.5 * REAL[2]])
    assert loss(p).item() == pytest.approx(expected)
    with pytest.raises(ValueError, match="the game has no labels"):
        game(loss=loss)


def test_unrolling_looks_ahead_and_learns_through_it():
    """One step ahead on a linear critic, whose gradient is mean(fake) - mean(real): by hand, and the gradient to the
    fakes against finite differences; D itself stays."""
    a, rate = 0.7, 0.3
    ahead = a - rate * (mean(FAKE) - mean(REAL))
    D, y = LinearD([a]), column(FAKE).requires_grad_()
    p = phase("G", real=column(REAL), fake=y, D=D)
    loss = losses.Unrolled(losses.Wasserstein(), steps=1, rate=rate)
    value = loss(p)
    assert value.item() == pytest.approx(-ahead * mean(FAKE), abs=1e-12)
    assert D.a.item() == a
    (gradient,) = torch.autograd.grad(value, y)
    by_hand = -(ahead - rate * mean(FAKE)) / len(FAKE)  # d/dy of -(a - rate (mean y - mean x)) mean y
    assert gradient.flatten().tolist() == pytest.approx([by_hand] * 3, abs=1e-12)
    assert torch.autograd.gradcheck(
        lambda y: losses.Unrolled(losses.NonSaturating(), steps=3)(phase("G", real=column(REAL), fake=y, D=D)), y
    )


def test_unrolling_plays_with_spectral_and_batch_norm():
    """Neither D's weights nor its buffers move in G's part."""
    norm = torch.nn.utils.parametrizations.spectral_norm
    D = torch.nn.Sequential(norm(torch.nn.Linear(2, 8)), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1))
    before = {k: v.clone() for k, v in D.state_dict().items()}
    x = torch.randn(6, 2, requires_grad=True)
    losses.Unrolled(losses.NonSaturating())(phase("G", real=torch.randn(6, 2), fake=x, D=D)).backward()
    assert x.grad.abs().sum() > 0
    assert all(torch.equal(v, before[k]) for k, v in D.state_dict().items())
