"""BigGAN: the published sizes, what its blocks are told, and its regularization, by hand."""

import math
from functools import partial

import pytest
import torch
from composing import composed, prepared
from play import game, phase
from torch import nn

from ganlab.models import biggan
from ganlab.models.biggan import Discriminator, Generator
from ganlab.settings import build
from ganlab.terms.weights import Orthogonal


def count(net):
    return sum(p.numel() for p in net.parameters())


def test_the_published_sizes():
    """ImageNet at 128x128: 70.43 and 87.98 million (what the authors' code prints); CIFAR-10
    about 4.3 and 4.2 million."""
    with torch.device("meta"):
        G = Generator([3, 128, 128], 120, 96, 1000, shared=128, hierarchical=True, attention=64)
        D = Discriminator([3, 128, 128], 96, 1000, attention=64)
        small = Generator([3, 32, 32], 128, 64, 10), Discriminator([3, 32, 32], 64, 10)
    assert G.pieces == [20] * 6
    assert (round(count(G) / 1e6, 2), round(count(D) / 1e6, 2)) == (70.43, 87.98)
    assert [round(count(net) / 1e6, 1) for net in small] == [4.3, 4.2]
    assert (G.classes, D.classes) == (1000, 1000)


def test_the_layers_of_the_paper_at_128():
    """Table 4: 16-16-8-4-2-1 times ch in G, attention at 64x64 in both; D ends in a block that keeps the size."""
    with torch.device("meta"):
        G, D = Generator([3, 128, 128], 120, 96, attention=64), Discriminator([3, 128, 128], 96, attention=64)
    assert [b.conv2.out_channels // 96 for b in G.blocks] == [16, 8, 4, 2, 1]
    assert G.linear.out_features == 16 * 96 * 4 * 4
    assert G.attends_after == 3  # 4 -> 8 -> 16 -> 32 -> 64
    assert G.attention.out.out_channels == 2 * 96
    kinds = [type(b).__name__ for b in D.blocks]
    assert kinds == ["Down", "SelfAttention2d", "Down", "Down", "Down", "Down", "Down"]
    blocks = [b for b in D.blocks if hasattr(b, "halve")]
    assert [b.conv2.out_channels // 96 for b in blocks] == [1, 2, 4, 8, 16, 16]
    assert [b.halve for b in blocks] == [True] * 5 + [False]


@pytest.mark.parametrize(("doublings", "g", "d"), [
    (3, [4, 4, 4, 4], [4, 4, 4, 4]),
    (4, [16, 16, 8, 4, 2], [1, 2, 4, 8, 16]),
    (6, [16, 16, 8, 8, 4, 2, 1], [1, 2, 4, 8, 8, 16, 16]),
    (7, [16, 16, 8, 8, 4, 2, 1, 1], [1, 1, 2, 4, 8, 8, 16, 16]),
])  # fmt: skip
def test_channels_at_other_sizes(doublings, g, d):
    """32x32 and 64x64 as in the authors' code, 256x256 and 512x512 as in tables 5 and 6."""
    assert biggan.widths(doublings) == (g, d)


@pytest.mark.parametrize("shape", [(1, 8, 8), (4, 28, 28), (2, 16, 24), (3, 48, 96)], ids=str)
@pytest.mark.parametrize("classes", [None, 5])
@pytest.mark.parametrize("told", [{}, {"shared": 6, "hierarchical": True, "z_dim": 23}])
def test_any_size_with_and_without_labels(shape, classes, told):
    torch.manual_seed(0)
    G = Generator(shape, width=8, classes=classes, attention=16, **told)
    D = Discriminator(shape, width=8, classes=classes, attention=16)
    label = None if classes is None else torch.tensor([0, 4])
    x = G(torch.randn(2, G.z_dim), label)
    assert x.shape == (2, *shape)
    assert x.abs().max() <= 1
    assert D(x, label).shape == (2,)
    assert (G.classes, D.classes) == (classes, classes)


@pytest.mark.parametrize("told", [{}, {"shared": 6}, {"shared": 6, "hierarchical": True}])
def test_labels_may_be_vectors(told):
    """One-hot vectors are labels; half of each of two labels is halfway between their logits' projections."""
    torch.manual_seed(0)
    G = Generator([3, 16, 16], 24, 8, 5, init="normal", **told).eval()
    D = Discriminator([3, 16, 16], 8, 5).eval()
    z, label = torch.randn(4, 24), torch.tensor([0, 3, 3, 4])
    one_hot = nn.functional.one_hot(label, 5).float()
    x = G(z, label)
    assert torch.allclose(G(z, one_hot), x, atol=1e-6)
    assert torch.allclose(D(x, one_hot), D(x, label), atol=1e-4)
    assert not torch.allclose(G(z, (label + 1) % 5), x, atol=1e-3)
    between = (D(x, label) + D(x, (label + 1) % 5)) / 2
    mixed = (one_hot + one_hot.roll(1, 1)) / 2
    assert torch.allclose(D(x, mixed), between, atol=1e-4)


def test_hierarchical_noise_reaches_its_own_block():
    """What block i is told is the shared embedding and piece i + 1 of z; piece 0 makes the first map."""
    torch.manual_seed(0)
    G = Generator([3, 32, 32], 22, 8, 5, shared=7, hierarchical=True).eval()
    z, label = torch.randn(2, 22), torch.tensor([1, 4])
    told = {}
    for i, block in enumerate(G.blocks):
        block.register_forward_hook(lambda block, args, out, i=i: told.__setitem__(i, args[1]))
    first = []
    G.linear.register_forward_hook(lambda layer, args, out: first.append(args[0]))
    G(z, label)
    assert G.pieces == [6, 6, 5, 5]
    assert torch.equal(first[0], z[:, :6])
    for i, piece in enumerate((z[:, 6:12], z[:, 12:17], z[:, 17:22])):
        assert torch.equal(told[i], torch.cat([G.shared.weight[label], piece], 1))
    with pytest.raises(ValueError, match=r"generator\.shared"):
        Generator([3, 32, 32], classes=5, hierarchical=True)


def test_the_norms_gain_by_hand():
    torch.manual_seed(0)
    layer = biggan.Norm(3, partial(nn.Linear, 4, bias=False)).double()
    x, c = torch.randn(5, 3, 2, 6, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    y = layer(x, c)
    for n in range(5):
        for k in range(3):
            gain, shift = (sum(w[k, j] * c[n, j] for j in range(4)) for w in (layer.gain.weight, layer.shift.weight))
            expected = (x[n, k] - mean[k]) / math.sqrt(variance[k] + 1e-5) * (1 + gain) + shift
            assert torch.allclose(y[n, k], expected)


def test_initialisation_and_spectral_norm():
    """Orthogonal: rows (or columns) of every weight have length 1 and stand at right angles. Spectral norm is on all
    layers but G's embeddings."""
    torch.manual_seed(0)
    G = Generator([3, 16, 16], 16, 8, 5, shared=6, spectral=False)
    for layer in (m for m in G.modules() if isinstance(m, (nn.Conv2d, nn.Linear, nn.Embedding))):
        w = layer.weight.flatten(1)
        w = w if len(w) <= w.shape[1] else w.T
        assert torch.allclose(w @ w.T, torch.eye(len(w)), atol=1e-5)
        assert getattr(layer, "bias", None) is None or not layer.bias.any()
    deviation = Generator([3, 16, 16], 16, 32, init="normal", spectral=False).blocks[0].conv1.weight.std().item()
    assert deviation == pytest.approx(0.02, rel=0.02)
    normed = lambda net: {type(m).__name__ for m in net.modules() if hasattr(m, "parametrizations")}
    kinds = ("Conv2d", "Linear", "Embedding")
    assert all(any(kind in name for name in normed(Discriminator([3, 16, 16], 8, 5))) for kind in kinds)
    G = Generator([3, 16, 16], 16, 8, 5, shared=6)
    assert not hasattr(G.shared, "parametrizations")
    assert hasattr(G.linear, "parametrizations")
    assert hasattr(G.blocks[0].norm1.gain, "parametrizations")
    with pytest.raises(ValueError, match="orthogonal or normal"):
        Generator([3, 16, 16], init="xavier")


def test_discriminator_can_be_differentiated_twice_and_in_bfloat16():
    torch.manual_seed(0)
    D, x = Discriminator([3, 16, 16], 8, 5, attention=8), torch.randn(3, 3, 16, 16, requires_grad=True)
    label = torch.tensor([0, 1, 4])
    (gradient,) = torch.autograd.grad(D(x, label).sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in D.parameters() if p.grad is not None)
    assert D.blocks[0].conv1.parametrizations.weight.original.grad.abs().sum() > 0
    with torch.autocast("cpu", torch.bfloat16):
        assert D(x, label).isfinite().all()


def test_orthogonal_by_hand():
    """Squared products of all pairs of different rows, each pair counted twice; embeddings and vectors not at all."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 2), nn.Conv2d(2, 3, 2)).double()
    expected = 0.0
    for w in (net[1].weight, net[2].weight.reshape(3, 8)):
        for i in range(len(w)):
            for j in range(len(w)):
                expected += (w[i] * w[j]).sum().item() ** 2 if i != j else 0.0
    x = torch.zeros(1, 2)
    assert Orthogonal()(phase("G", real=x, fake=x, D=None, G=net)).item() == pytest.approx(expected)
    value = Orthogonal(player="D")(phase("D", real=x, fake=x, D=net))
    assert value.item() == pytest.approx(expected)
    value.backward()
    w = net[1].weight.detach()
    product = (w[0] * w[1]).sum()
    assert torch.allclose(net[1].weight.grad, 4 * product * w.flip(0))  # of 2 (w0.w1)^2
    assert net[0].weight.grad is None


def test_orthogonal_in_a_game():
    """The term of conf/terms plays for either player, with spectral norm on the weights, which it sees without."""
    gan = build(prepared("model=biggan", "+terms=[orthogonal]", "generator.width=8", "discriminator.width=8",
                         "data=digits", "data.size=16", "metrics.enabled=false"))  # fmt: skip
    assert gan.terms["orthogonal"].player == "G"
    assert gan.terms["orthogonal"].weight == 1e-4
    fake = torch.zeros(2, 1, 16, 16)
    value = gan.terms["orthogonal"](phase("G", real=fake, fake=fake, D=gan.D, G=gan.G))
    weight = gan.G.linear.parametrizations.weight.original
    (gradient,) = torch.autograd.grad(value, weight)
    assert gradient.abs().sum() > 0
    with pytest.raises(ValueError, match="must be D or G"):
        game(terms={"orthogonal": Orthogonal(player="x")})


@pytest.mark.parametrize(("model", "batch"), [("biggan", 50), ("contragan", 64), ("reacgan", 128)])
def test_the_average_is_the_recipes(model, batch):
    """0.9999^n = 1/2 after n moves of G, one every n_critic batches; a user's choice wins over the model's."""
    cfg = composed(f"model={model}")
    moves = math.log(0.5) / math.log(0.9999)
    assert cfg.ema.half_life == pytest.approx(moves * batch * cfg.n_critic / 1000, rel=1e-3)
    assert composed(f"model={model}", "ema=none").ema.half_life == 0
    assert composed(f"model={model}", "ema.half_life=3").ema.half_life == 3
    assert composed("model=dcgan").ema.half_life == 10
