"""Each penalty equals its closed form on functions whose gradient is known, and so does its gradient to D's weights."""

import pytest
import torch
from play import Copy, LinearD, QuadraticD, game, phase
from torch import nn

from ganlab.phase import GeneratorOutput
from ganlab.rng import BatchRNG
from ganlab.terms.likelihood import ELBO
from ganlab.terms.penalties import DRAGAN, R1, R2, GradientPenalty
from ganlab.terms.weights import History

A = torch.tensor([3.0, -4.0, 12.0], dtype=torch.float64)  # |A| = 13
torch.manual_seed(0)
REAL, FAKE = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)


def value_and_gradient(term, D, **kwargs):
    values = term(phase(real=REAL, fake=FAKE, D=D, **kwargs))
    assert values.shape == (5,)
    values.mean().backward()
    return values.detach(), D.a.grad


@pytest.mark.parametrize("term", [R1(), R2(), R1(precision=32), R2(precision=32)])
def test_r1_r2_linear(term):
    """D(x) = a.x: 1/2 |a|^2, whose gradient to a is a."""
    values, gradient = value_and_gradient(term, LinearD(A))
    assert torch.allclose(values, torch.full((5,), 169 / 2, dtype=torch.float64), rtol=1e-12)
    assert torch.allclose(gradient, A, rtol=1e-12)


@pytest.mark.parametrize(("term", "x"), [(R1(), REAL), (R2(), FAKE)])
def test_r1_r2_quadratic(term, x):
    """D(x) = 1/2 sum a x^2: 1/2 |a x|^2, whose gradient to a is the mean of a x^2."""
    values, gradient = value_and_gradient(term, QuadraticD(A))
    assert torch.allclose(values, (A * x).square().sum(1) / 2, rtol=1e-12)
    assert torch.allclose(gradient, (A * x.square()).mean(0), rtol=1e-12)


@pytest.mark.parametrize(
    ("a", "one_sided", "expected"), [(A, False, 144.0), (A, True, 144.0), (A / 130, False, 0.81), (A / 130, True, 0.0)]
)
@pytest.mark.parametrize("kind", [GradientPenalty, DRAGAN])
def test_gradient_penalty_linear(kind, a, one_sided, expected):
    """D(x) = a.x: (|a| - 1)^2, nothing below 1 if one-sided; gradient 2 (|a| - 1) a / |a|."""
    values, gradient = value_and_gradient(kind(one_sided=one_sided), LinearD(a))
    assert torch.allclose(values, torch.full((5,), expected, dtype=torch.float64), rtol=1e-10, atol=1e-14)
    excess = 0.0 if one_sided and a.norm() < 1 else a.norm() - 1
    assert torch.allclose(gradient, 2 * excess * a / a.norm(), rtol=1e-10, atol=1e-14)


def test_gradient_penalty_points():
    """The points lie between the real and the fake of the same row, at one alpha per sample, drawn from the phase."""
    values, _ = value_and_gradient(GradientPenalty(target=0.0), QuadraticD(A), seed=7)
    alpha = BatchRNG(7, 5, slice(0, 5)).uniform().double()[:, None]
    assert torch.allclose(values, (A * (alpha * REAL + (1 - alpha) * FAKE)).square().sum(1), rtol=1e-6)
    assert alpha.unique().numel() == 5


def test_dragan_points():
    """The noise has the given share of each sample's own deviation."""
    real = torch.randn(2000, 50, dtype=torch.float64) * torch.linspace(0.1, 3, 2000, dtype=torch.float64)[:, None]
    term = DRAGAN(noise=0.5)
    noise = term.points(phase(real=real, fake=real, D=LinearD(A))) - real
    share = noise.std(dim=1) / real.std(dim=1)
    assert share.mean().item() == pytest.approx(0.5, rel=0.01)


def test_gradient_penalty_is_finite_where_the_gradient_is_zero():
    D = LinearD(torch.zeros(3))
    values, gradient = value_and_gradient(GradientPenalty(), D)
    assert torch.allclose(values, torch.ones(5, dtype=torch.float64))
    assert gradient.isfinite().all()


def test_images_and_tuples():
    """The norm runs over all dimensions but the first, and over all tensors of a tuple."""
    image, a = torch.randn(4, 2, 3, 3, dtype=torch.float64), torch.randn(2, 3, 3, dtype=torch.float64)
    p = phase(real=image, fake=image.flip(0), D=LinearD(a))
    assert torch.allclose(R1()(p), (a.square().sum() / 2).expand(4), rtol=1e-12)
    D, points = LinearD(A), (REAL, FAKE)
    two = phase(real=points, fake=points, D=lambda x: [D(x[0]), 2 * D(x[1])], n=5)
    assert torch.allclose(R1()(two), torch.full((5,), 169 * 5 / 2, dtype=torch.float64), rtol=1e-12)
    assert torch.allclose(
        GradientPenalty()(two), torch.full((5,), (13 * 5**0.5 - 1) ** 2, dtype=torch.float64), rtol=1e-12
    )


def test_gradient_is_taken_at_the_image_before_augmentation():
    """D sees 2x: by the chain rule the norm doubles."""
    p = phase(real=REAL, fake=FAKE, D=LinearD(A))
    p.augments = [lambda x, rng: 2 * x]
    assert torch.allclose(R1()(p), torch.full((5,), 4 * 169 / 2, dtype=torch.float64), rtol=1e-12)


@pytest.mark.parametrize(("kind", "bound"), [(R1, 0.02), (R2, 0.02), (GradientPenalty, 0.02), (DRAGAN, 0.02)])
def test_bfloat16_error_is_bounded(kind, bound):
    """Under bf16 autocast a penalty is within 2 % of float32, and its reduction is float32."""
    torch.manual_seed(1)
    convolutions = [nn.Conv2d(3, 32, 3, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(32, 64, 3, 2, 1), nn.LeakyReLU(0.2)]
    D = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(64 * 16, 1))
    real, fake = torch.randn(16, 3, 16, 16), torch.randn(16, 3, 16, 16)
    exact = kind()(phase(real=real, fake=fake, D=D)).mean()
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        rough = kind()(phase(real=real, fake=fake, D=D))
        again = kind(precision=32)(phase(real=real, fake=fake, D=D)).mean()
    assert rough.dtype == torch.float32
    assert rough.mean().item() == pytest.approx(exact.item(), rel=bound)
    assert again.item() == pytest.approx(exact.item(), rel=1e-6)


def test_elbo_closed_form():
    """Squares over 2 sigma^2, and the KL divergence of N(m, s^2) from N(0, 1): (m^2 + s^2 - log s^2 - 1) / 2."""
    m, log_variance = torch.tensor([[0.3, -1.0]]), torch.tensor([[0.5, -0.7]])
    real, fake = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.5, 2.0, 1.0]])
    aux = lambda x, cond=None: GeneratorOutput(x, (m, log_variance))
    p = phase("G", real=real, fake=fake, D=None, G=aux)
    normal = torch.distributions.Normal
    kl = torch.distributions.kl_divergence(normal(m, (log_variance / 2).exp()), normal(0.0, 1.0)).sum()
    assert ELBO(sigma=0.5, beta=2.0)(p).item() == pytest.approx(4.25 / 0.5 + 2 * kl.item(), rel=1e-6)
    with pytest.raises(ValueError, match="sigma=0"):
        ELBO(sigma=0)


def test_historical_averaging_is_the_distance_to_the_mean_of_the_past():
    """Three moves of known weights."""
    D = LinearD([1.0, 2.0])
    gan = game(discriminator=D, generator=Copy(2), terms={"history": History(weight=0.5)})
    term, past = gan.terms["history"], []
    for values in ([3.0, 2.0], [5.0, -1.0], [0.0, 0.0]):
        with torch.no_grad():
            D.a.copy_(torch.tensor(values))
            term.after_move(phase("D", real=torch.ones(2, 2), fake=torch.ones(2, 2), D=D))
        past.append(values)
        now = torch.tensor([1.0, -4.0], dtype=torch.float64)
        with torch.no_grad():
            D.a.copy_(now)
        mean = torch.tensor(past, dtype=torch.float64).mean(0)
        p = phase("D", real=torch.ones(2, 2), fake=torch.ones(2, 2), D=D)
        assert term(p).item() == pytest.approx((now - mean).square().sum().item())
    assert {"terms.history.mean0", "terms.history.moves"} <= gan.state_dict().keys()
