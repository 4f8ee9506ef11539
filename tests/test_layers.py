"""Layers that several models share, by hand."""

import math
from functools import partial

import pytest
import torch

from ganlab.models import biggan, mlp, r3gan, resnet
from ganlab.models.packed import Packed
from ganlab.nn.attention import SelfAttention2d
from ganlab.nn.conditional import ConditionalBatchNorm2d
from ganlab.nn.minibatch import MinibatchStd


def test_conditional_batch_norm_by_hand():
    torch.manual_seed(0)
    layer = ConditionalBatchNorm2d(3, classes=4).double()
    torch.nn.init.normal_(layer.scale.weight)
    torch.nn.init.normal_(layer.shift.weight)
    x, label = torch.randn(6, 3, 5, 2, dtype=torch.float64), torch.tensor([0, 3, 1, 1, 2, 3])
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    for n in range(6):
        for c in range(3):
            normal = (x[n, c] - mean[c]) / math.sqrt(variance[c] + 1e-5)
            expected = normal * layer.scale.weight[label[n], c] + layer.shift.weight[label[n], c]
            assert torch.allclose(layer(x, label)[n, c], expected)
    before = ConditionalBatchNorm2d(3, classes=4)  # starts as plain batch norm, whatever the label
    assert torch.allclose(before(x.float(), label), torch.nn.BatchNorm2d(3)(x.float()), atol=1e-6)


@pytest.mark.parametrize("model", [resnet, biggan])
def test_projection_adds_the_inner_product_with_the_labels_embedding(model):
    torch.manual_seed(0)
    D = model.Discriminator([3, 16, 16], width=8, classes=5).eval()
    x, label = torch.randn(4, 3, 16, 16), torch.tensor([0, 4, 2, 2])
    h = D.blocks(x).relu().sum((2, 3))
    expected = [D.out(h)[n, 0] + sum(D.label.weight[label[n]] * h[n]) for n in range(4)]
    assert torch.allclose(D(x, label), torch.stack(expected), rtol=1e-4)
    difference = D(x, label) - D(x, (label + 1) % 5)
    change = ((D.label.weight[label] - D.label.weight[(label + 1) % 5]) * h).sum(1)
    assert torch.allclose(difference, change, rtol=1e-3, atol=1e-4)


def test_self_attention_by_hand():
    torch.manual_seed(0)
    layer = SelfAttention2d(16, spectral=False).double()
    x = torch.randn(2, 16, 4, 6, dtype=torch.float64)
    assert torch.equal(layer(x), x)  # gamma starts at 0
    torch.nn.init.constant_(layer.gamma, 0.7)
    pool = torch.nn.functional.max_pool2d
    f, g, h = layer.query(x).flatten(2), pool(layer.key(x), 2).flatten(2), pool(layer.value(x), 2).flatten(2)
    beta = torch.einsum("nci,ncj->nij", f, g).softmax(2)  # how much place i looks at place j
    seen = torch.einsum("nij,ncj->nci", beta, h).unflatten(2, (4, 6))
    assert torch.allclose(layer(x), x + 0.7 * layer.out(seen))


@pytest.mark.parametrize("blocks", [1, 3])
def test_r3gan_starts_as_a_plain_pyramid_and_keeps_its_scale(blocks):
    """Fixup: each block is the identity at first, so that depth changes nothing."""
    torch.manual_seed(0)
    G = r3gan.Generator([3, 32, 32], width=64, blocks=blocks)
    x = torch.randn(2, 64, 8, 8)
    assert all(torch.equal(block(x), x) for block in G.stages[0])
    assert 0.3 < G(torch.randn(64, 64)).std() < 3
    D = r3gan.Discriminator([3, 32, 32], width=64, blocks=blocks)
    assert 0.05 < D(torch.randn(64, 3, 32, 32)).std() < 5


def test_r3gan_is_told_the_label():
    torch.manual_seed(0)
    G, D = r3gan.Generator([3, 16, 16], width=16, classes=3), r3gan.Discriminator([3, 16, 16], width=16, classes=3)
    z, x = torch.randn(4, 64), torch.randn(4, 3, 16, 16)
    zero, one = torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.long)
    assert not torch.equal(G(z, zero), G(z, one))
    assert not torch.equal(D(x, zero), D(x, one))


def test_minibatch_deviation_by_hand():
    x = torch.randn(7, 2, 3, 4, dtype=torch.float64)
    y = MinibatchStd(group=4)(x)
    assert torch.equal(y[:, :2], x)
    for group in (slice(0, 4), slice(4, 7)):
        expected = (x[group].var(0, unbiased=False) + 1e-8).sqrt().mean()
        assert torch.allclose(y[group, 2], expected.expand_as(y[group, 2]))
    assert MinibatchStd(2)(torch.randn(4, 5)).shape == (4, 6)
    with pytest.raises(ValueError, match="at least 2"):
        MinibatchStd(1)


def test_packed_judges_neighbours_together():
    D = Packed([2], partial(mlp.Discriminator, depth=1, dropout=0.0), width=8, pack=3)
    x = torch.randn(6, 2)
    assert D(x).shape == (2,)
    assert torch.equal(D(x)[1], D.net(x[3:].reshape(1, 6))[0])
    image = Packed([3, 16, 16], resnet.Discriminator, width=8, pack=2)
    assert image(torch.randn(4, 3, 16, 16)).shape == (2,)
    with pytest.raises(ValueError, match="does not divide the 5 samples"):
        D(torch.randn(5, 2))
    with pytest.raises(ValueError, match="at least 2"):
        Packed([2], mlp.Discriminator, width=8, pack=1)
