"""Contrastive terms between samples and labels: loops over the papers' formulas, the players' sides, corner cases."""

import math
from dataclasses import replace

import pytest
import torch
from composing import prepared
from play import game, phase
from torch.nn.functional import normalize, one_hot

from ganlab.models.biggan import Discriminator
from ganlab.phase import DiscriminatorOutput
from ganlab.settings import build
from ganlab.terms.labels import Contrast, DataToDataCE

torch.manual_seed(0)
REAL, FAKE = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
PROXIES = normalize(torch.randn(3, 4, dtype=torch.float64))
FAKE_LABEL, REAL_LABEL = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([2, 2, 1, 2, 0])


class Embeds(torch.nn.Module):
    """The embedding is the sample itself, at length 1."""

    def forward(self, x, cond=None):
        index = cond.argmax(1) if cond.dim() == 2 else cond
        return DiscriminatorOutput(x.sum(1), aux=(normalize(x), PROXIES[index]))


def value(term, fake_label=FAKE_LABEL, real_label=REAL_LABEL, n=5):
    p = phase(term.player, real=REAL[:n], fake=FAKE[:n], D=Embeds(), cond=fake_label[:n])
    p.batch = replace(p.batch, real_cond=real_label[:n])
    return term(p)


def contrast(x, label, t):
    """Equation 8 of ContraGAN, one sample after the other."""
    h, losses = [row / row.norm() for row in x], []
    for i in range(len(h)):
        near = math.exp(h[i] @ PROXIES[label[i]] / t)
        above, below = near, near
        for k in range(len(h)):
            if k != i:
                e = math.exp(h[i] @ h[k] / t)
                below += e
                above += e if label[k] == label[i] else 0.0
        losses.append(-math.log(above / below))
    return torch.tensor(losses, dtype=torch.float64)


def d2d_ce(x, label, t, m_p):
    """D2D-CE of ReACGAN, one sample after the other."""
    h, losses = [row / row.norm() for row in x], []
    for i in range(len(h)):
        above = math.exp(min(h[i] @ PROXIES[label[i]] - m_p, 0.0) / t)
        below = above
        for k in range(len(h)):
            if label[k] != label[i]:
                below += math.exp(max(h[i] @ h[k] - (1 - m_p), 0.0) / t)
        losses.append(-math.log(above / below))
    return torch.tensor(losses, dtype=torch.float64)


@pytest.mark.parametrize("t", [1.0, 0.3])
def test_contrast_by_hand(t):
    """D's term is about the reals and their labels, G's about the fakes and theirs."""
    assert torch.allclose(value(Contrast(temperature=t)), contrast(REAL, REAL_LABEL, t))
    assert torch.allclose(value(Contrast(temperature=t, player="G")), contrast(FAKE, FAKE_LABEL, t))


@pytest.mark.parametrize(("t", "margin"), [(0.5, 0.98), (1.0, 0.6), (0.2, 0.1)])
def test_data_to_data_cross_entropy_by_hand(t, margin):
    term = lambda **kwargs: DataToDataCE(temperature=t, margin=margin, **kwargs)
    assert torch.allclose(value(term()), d2d_ce(REAL, REAL_LABEL, t, margin))
    assert torch.allclose(value(term(player="G")), d2d_ce(FAKE, FAKE_LABEL, t, margin))


def test_what_is_near_enough_or_far_enough_moves_no_more():
    """Proxies nearer than m_p and other labels' samples further than m_n give no gradient."""
    h = torch.eye(4)[:3].requires_grad_()  # at right angles, each at its own proxy
    pairs, proxies, same = h @ h.T, (h * torch.eye(4)[:3]).sum(1), torch.eye(3, dtype=torch.bool)
    loss = DataToDataCE(margin=0.9).contrast(pairs, proxies, same)
    assert torch.allclose(loss, torch.full((3,), math.log(3)))  # all exponents are 0
    loss.sum().backward()
    assert not h.grad.any()


@pytest.mark.parametrize("term", [Contrast(), DataToDataCE()])
@pytest.mark.parametrize("label", [[0, 0, 0, 0, 0], [0, 1, 2, 3, 4]])
@pytest.mark.parametrize("n", [1, 5])
def test_one_label_only_or_one_sample_of_each(term, label, n):
    """No other label, no other sample of the label, no other sample at all: values and gradients are finite."""
    x = REAL[:n].clone().requires_grad_()
    label = torch.tensor(label)[:n]
    h = normalize(x)
    loss = term.contrast(h @ h.T, h[:, 0], label[:, None] == label)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert x.grad.isfinite().all()
    if n == 1 or not label.any():
        assert torch.allclose(loss, torch.zeros(n, dtype=torch.float64))  # nothing to be told apart from


@pytest.mark.parametrize("term", [Contrast(), DataToDataCE()])
def test_one_hot_vectors_are_labels(term):
    vectors = one_hot(FAKE_LABEL, 3).double(), one_hot(REAL_LABEL, 3).double()
    assert torch.equal(value(term, *vectors), value(term))


def test_biggans_heads():
    """The logit does not look at the label; embeddings and proxies have length 1, the proxy being the label's."""
    torch.manual_seed(0)
    D = Discriminator([3, 16, 16], 8, 5, embed=12).eval()
    x, label = torch.randn(4, 3, 16, 16), torch.tensor([0, 3, 3, 4])
    output, other = D(x, label), D(x, (label + 1) % 5)
    embedding, proxy = output.aux
    assert embedding.shape == proxy.shape == (4, 12)
    for rows in (embedding, proxy):
        assert torch.allclose(rows.norm(dim=1), torch.ones(4))
    assert torch.equal(output.logits, other.logits)
    assert torch.equal(embedding, other.aux[0])
    assert torch.equal(proxy[1], proxy[2])
    assert not torch.allclose(proxy[0], proxy[1], atol=0.1)
    assert torch.allclose(D(x, one_hot(label, 5).float()).aux[1], proxy, atol=1e-6)


@pytest.mark.parametrize(("model", "names"), [("contragan", "contrast"), ("reacgan", "d2d_ce")])
def test_models_have_a_term_for_each_player(model, names):
    small = ("generator.width=8", "discriminator.width=8", "data=digits", "data.size=16", "metrics.enabled=false")
    gan = build(prepared(f"model={model}", *small))
    assert {name: term.player for name, term in gan.terms.items()} == {names: "D", f"{names}_g": "G"}
    label = torch.tensor([0, 1, 1])
    real = torch.randn(3, 1, 16, 16)
    for term in gan.terms.values():
        p = phase(term.player, real=real, fake=real, D=gan.D, cond=label)
        assert term(p).shape == (3,)
        assert ("on_real" in vars(p)) == (term.player == "D")


def test_refused_with_the_fix():
    with pytest.raises(ValueError, match="model=contragan"):
        game(terms={"contrast": Contrast()})
    with pytest.raises(ValueError, match="model=reacgan"):
        game(terms={"d2d_ce": DataToDataCE()})
    with pytest.raises(ValueError, match=r"terms\.contrast\.temperature=0"):
        Contrast(temperature=0)
    with pytest.raises(ValueError, match="margin=2"):
        DataToDataCE(margin=2)
    blind = phase(real=REAL, fake=FAKE, D=lambda x, cond: x.sum(1), cond=FAKE_LABEL)
    with pytest.raises(ValueError, match=r"discriminator\.embed=512"):
        Contrast()(blind)
