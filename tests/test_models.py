"""Networks: the published sizes, every size and channel count they allow, and what they refuse."""

import pytest
import torch
from torch import nn

from ganlab.models import dcgan, mlp, r3gan, resnet, sndcgan
from ganlab.nn.pyramid import pyramid


def count(net):
    return sum(p.numel() for p in net.parameters())


def test_dcgan_64_has_the_layers_of_the_paper():
    """z 100, 512-256-128-64 channels: the sizes that pytorch/examples prints for the same nets."""
    G, D = dcgan.Generator([3, 64, 64]), dcgan.Discriminator([3, 64, 64])
    assert count(G) == 3_576_704
    assert count(D) == 2_765_568
    maps = [tuple(m.weight.shape) for m in G if isinstance(m, nn.ConvTranspose2d)]
    assert maps == [(100, 512, 4, 4), (512, 256, 4, 4), (256, 128, 4, 4), (128, 64, 4, 4), (64, 3, 4, 4)]
    maps = [tuple(m.weight.shape) for m in D if isinstance(m, nn.Conv2d)]
    assert maps == [(64, 3, 4, 4), (128, 64, 4, 4), (256, 128, 4, 4), (512, 256, 4, 4), (1, 512, 4, 4)]


def test_resnet_32_has_the_layers_of_the_papers():
    """Counted by hand from table 4 of SNGAN: 3 up blocks of 256; 2 down and 2 flat blocks of 128."""
    conv = lambda a, b, k: a * b * k * k + b
    norm = lambda c: 2 * c
    up = 2 * norm(256) + 2 * conv(256, 256, 3) + conv(256, 256, 1)
    assert count(resnet.Generator([3, 32, 32])) == 129 * 4096 + 3 * up + norm(256) + conv(256, 3, 3)
    first = conv(3, 128, 3) + conv(128, 128, 3) + conv(3, 128, 1)
    down, flat = 2 * conv(128, 128, 3) + conv(128, 128, 1), 2 * conv(128, 128, 3)
    assert count(resnet.Discriminator([3, 32, 32])) == first + down + 2 * flat + 129
    assert count(resnet.Generator([3, 32, 32], width=128)) < 1_300_000  # WGAN-GP's


def test_spectral_norm_is_on_every_layer_and_right():
    """After some power iterations each layer's largest singular value is 1."""
    torch.manual_seed(0)
    D = resnet.Discriminator([3, 32, 32], width=8)
    for _ in range(50):
        D(torch.randn(2, 3, 32, 32))
    layers = [m for m in D.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(layers) == 11
    D.eval()
    for layer in layers:
        assert torch.linalg.svdvals(layer.weight.detach().flatten(1))[0].item() == pytest.approx(1, abs=1e-2)
    assert not any(hasattr(m, "parametrizations") for m in resnet.Discriminator([3, 32, 32], spectral=False).modules())


SHAPES = [(c, h, w) for c in (1, 2, 3, 4) for h, w in ((16, 16), (28, 28), (32, 48))] + [
    (3, 8, 8),
    (3, 96, 48),
    (1, 64, 64),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("family", [dcgan, mlp, resnet])
def test_any_size_and_channels(family, shape):
    G, D = family.Generator(shape, width=8), family.Discriminator(shape, width=8)
    x = G(torch.randn(2, G.z_dim))
    assert x.shape == (2, *shape)
    assert -1 <= x.min() <= x.max() <= 1
    assert D(x).shape == (2,)


@pytest.mark.parametrize("classes", [None, 7])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_mlp_with_and_without_labels(classes, depth):
    label = None if classes is None else torch.tensor([0, 6])
    G = mlp.Generator([2], width=12, depth=depth, classes=classes)
    D = mlp.Discriminator([2], width=12, depth=depth, classes=classes)
    x = G(torch.randn(2, 100), label)
    assert x.shape == (2, 2)
    assert D(x, label).shape == (2,)
    if classes:
        D.eval()
        assert not torch.equal(G(torch.zeros(2, 100), label)[0], G(torch.zeros(2, 100), label)[1])
        assert not torch.equal(D(x[:1], label[:1]), D(x[:1], label[1:]))


def test_maxout_is_the_largest_piece():
    layer = mlp.Maxout(3, 2, pieces=4)
    x = torch.randn(5, 3)
    pieces = (x @ layer.linear.weight.T + layer.linear.bias).view(5, 2, 4)
    assert torch.allclose(layer(x), pieces.max(2).values)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((32, 32), (3, (4, 4))),
        ((28, 28), (2, (7, 7))),
        ((48, 96), (3, (6, 12))),
        ((8, 8), (1, (4, 4))),
        ((256, 256), (6, (4, 4))),
    ],
)
def test_pyramid(size, expected):
    assert pyramid(*size, "a model") == expected


@pytest.mark.parametrize(
    ("size", "fix"), [((30, 30), "data.size=32"), ((7, 7), "data.size=8"), ((32, 33), "data.size=32")]
)
def test_sizes_that_can_not_be_reached_are_refused_with_the_nearest(size, fix):
    with pytest.raises(ValueError, match=fix):
        pyramid(*size, "a model")
    height, width = (int(fix.split("=")[1]),) * 2
    pyramid(height, width, "a model")


def test_points_need_an_mlp():
    for family in (dcgan, resnet):
        for net in (family.Generator, family.Discriminator):
            with pytest.raises(ValueError, match="model=mlp"):
                net([2])


def test_dcgan_without_norm_has_biases_instead():
    D = dcgan.Discriminator([3, 32, 32], norm="none")
    assert not any(isinstance(m, nn.BatchNorm2d) for m in D.modules())
    assert all(m.bias is not None for m in D if isinstance(m, nn.Conv2d) and m.out_channels > 1)
    with pytest.raises(ValueError, match=r"discriminator.norm"):
        dcgan.Discriminator([3, 32, 32], norm="layer")


def test_sndcgan_32_has_the_layers_of_the_paper():
    """Counted by hand from table 3: D 64-64-128-128-256-256-512 in steps of 3x3 and 4x4, G 512-256-128-64."""
    conv = lambda a, b, k: a * b * k * k + b
    pairs = [(3, 64), (64, 128), (128, 256)]
    expected = sum(conv(a, b, 3) + conv(b, b, 4) for a, b in pairs) + conv(256, 512, 3) + 512 * 16 + 1
    assert count(sndcgan.Discriminator([3, 32, 32])) == expected
    ups = [(512, 256), (256, 128), (128, 64)]
    norms = sum(2 * c for c in (512, 256, 128, 64))
    expected = 129 * 512 * 16 + sum(conv(a, b, 4) for a, b in ups) + norms + conv(64, 3, 3)
    assert count(sndcgan.Generator([3, 32, 32])) == expected


def test_r3gan_32_has_the_width_of_the_paper():
    """Four resolutions of two blocks, 768 channels, 1,536 inside in groups of 16: counted by hand."""
    block = 768 * 1536 + 1536 + 1536 * 16 * 9 + 1536 + 1536 * 768
    G, D = r3gan.Generator([3, 32, 32]), r3gan.Discriminator([3, 32, 32])
    assert count(G) == 8 * block + 768 * 16 + 64 * 768 + 768 * 3 + 3
    assert count(D) == 8 * block + 768 * 16 + 768 + 3 * 768 + 768
    assert {m.groups for m in G.modules() if isinstance(m, nn.Conv2d)} == {1, 96}  # cardinality 96
