"""Consistency terms on functions with known differences; LeCam's averages."""

from dataclasses import replace

import pytest
import torch
from composing import prepared
from play import LinearD, QuadraticD, game, phase, trainer

from ganlab.phase import DiscriminatorOutput
from ganlab.settings import build
from ganlab.terms.consistency import Consistency, LatentConsistency, LeCam
from ganlab.terms.labels import Classify

A = torch.tensor([3.0, -4.0, 12.0], dtype=torch.float64)
REAL = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
FAKE = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
SHIFT = torch.tensor([1.0, 0.5, -1.0], dtype=torch.float64)


def test_consistency_of_a_linear_d_under_a_shift():
    """D(x) - D(x + s) = -a.s, whatever x is."""
    shift = lambda x, rng: x + SHIFT
    p = phase(real=REAL, fake=FAKE, D=LinearD(A))
    expected = float(A @ SHIFT) ** 2
    assert torch.allclose(Consistency(shift)(p), torch.full((5,), expected, dtype=torch.float64))
    assert torch.allclose(Consistency(shift, fake=True)(p), torch.full((5,), 2 * expected, dtype=torch.float64))
    quadratic = Consistency(lambda x, rng: 2 * x)(phase(real=REAL, fake=FAKE, D=QuadraticD(A)))
    assert torch.allclose(quadratic, (1.5 * REAL.square() @ A).square())


def test_latent_consistency():
    """With G(z) = z and D(x) = a.x: D's term is (a.d)^2, G's is -|d|^2 / 3."""
    make = lambda player: phase(player, real=REAL, fake=FAKE, D=LinearD(A), seed=4)
    d = 0.1 * make("D").rng.normal(3).double()
    assert torch.allclose(LatentConsistency(noise=0.1, player="D")(make("D")), (d @ A).square())
    assert torch.allclose(LatentConsistency(noise=0.1, player="G")(make("G")), -d.square().mean(1))


def test_lecam_and_its_averages():
    term, D = LeCam(decay=0.75), LinearD(A)
    p = phase(real=REAL, fake=FAKE, D=D)
    real, fake = (REAL @ A).detach(), (FAKE @ A).detach()
    assert not term(p).any()  # there are no averages yet
    with torch.no_grad():
        term.after_move(p)
        term.after_move(phase("G", real=REAL, fake=FAKE, D=D))  # G's moves do not count
    assert term.on_real.item() == pytest.approx(real.mean().item(), rel=1e-5)  # the first is taken as it is
    assert term.on_fake.item() == pytest.approx(fake.mean().item(), rel=1e-5)
    with torch.no_grad():
        term.after_move(phase(real=FAKE, fake=REAL, D=D))
    assert term.on_real.item() == pytest.approx(0.75 * real.mean().item() + 0.25 * fake.mean().item(), rel=1e-5)
    expected = (real - term.on_fake.double()).square() + (fake - term.on_real.double()).square()
    assert torch.allclose(term(p), expected, rtol=1e-5)
    assert set(term.state_dict()) >= {"on_real", "on_fake"}  # they survive a checkpoint
    with pytest.raises(ValueError, match="decay=1"):
        LeCam(decay=1)


def test_they_play_together():
    terms = {"lecam": LeCam(), "cr": Consistency(lambda x, rng: x + 0.1), "zcr": LatentConsistency(player="D")}
    gan = game(terms={**terms, "zcr_g": LatentConsistency(player="G")})
    trainer().fit(gan, torch.utils.data.DataLoader([[{"real": torch.randn(8, 2)}]] * 3, batch_size=None))
    assert gan.terms["lecam"].on_real != 0
    gan = build(prepared("terms=[cr,zcr,zcr_g,lecam]", "augment=diffaugment", "metrics.enabled=false"))
    assert set(gan.terms) == {"cr", "zcr", "zcr_g", "lecam"}


class TwoHeads(torch.nn.Module):
    """Class logits are the sample itself."""

    def forward(self, x, cond=None):
        return DiscriminatorOutput(x.sum(1), aux=x)


def test_classify_is_the_cross_entropy_of_the_right_labels():
    label, real_label = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([2, 2, 1, 0, 0])
    nll = lambda x, y: -x.log_softmax(1)[torch.arange(5), y]

    def at(player, term):
        p = phase(player, real=REAL, fake=FAKE, D=TwoHeads(), cond=label)
        p.batch = replace(p.batch, real_cond=real_label)
        return term(p).double()

    assert torch.allclose(at("D", Classify()), nll(REAL, real_label) + nll(FAKE, label), atol=1e-5)
    assert torch.allclose(at("D", Classify(fake=False)), nll(REAL, real_label), atol=1e-5)
    assert torch.allclose(at("G", Classify(player="G")), nll(FAKE, label), atol=1e-5)
    with pytest.raises(ValueError, match="leave nothing"):
        Classify(real=False, fake=False)
    with pytest.raises(ValueError, match="needs labels"):
        game(terms={"classify": Classify()})
