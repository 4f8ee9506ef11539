"""StyleGAN2's layers by their definitions, its published sizes, and the path length against Jacobians."""

import math

import numpy as np
import pytest
import scipy.signal
import torch
import torch.nn.functional as F
from play import LinearD, game, phase, play
from torch import nn

from ganlab.models.stylegan2 import Discriminator, Generator, channels_of
from ganlab.nn.equalized import EqualizedConv2d, EqualizedLinear
from ganlab.nn.filters import Double, Halve, upfirdn
from ganlab.nn.modulated import Halved, ModulatedConv2d
from ganlab.phase import Batch, GeneratorOutput, Phase
from ganlab.rng import BatchRNG
from ganlab.terms.path_length import PathLength

SIX = {"dtype": torch.float64}


def count(net):
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


# ---------------------------------------------------------------------------------------------------------- filters


@pytest.mark.parametrize(("up", "down", "pad"), [(1, 1, (0, 0)), (2, 1, (2, 1)), (1, 2, (1, 1)), (3, 2, (4, -1))])
def test_upfirdn_is_scipys(up, down, pad):
    """Zeros between, padding or cropping, convolution with the outer product of the taps, every down-th."""
    torch.manual_seed(0)
    x, taps = torch.randn(2, 3, 7, 6, **SIX), torch.tensor([0.5, -1.0, 2.0, 0.25, 3.0], **SIX)
    y = upfirdn(x, taps, up, down, pad)
    for n in range(2):
        for c in range(3):
            stuffed = np.zeros((7 * up, 6 * up))
            stuffed[::up, ::up] = x[n, c]
            padded = np.pad(stuffed, (pad[0], max(pad[1], 0)))
            padded = padded[: 7 * up + sum(pad), : 6 * up + sum(pad)]
            expected = scipy.signal.convolve2d(padded, np.outer(taps, taps), mode="valid")[::down, ::down]
            assert np.allclose(y[n, c], expected)
    if pad == (0, 0):
        once = scipy.signal.upfirdn(taps, x[0, 0], up, down, axis=0)[4:-4]
        assert np.allclose(scipy.signal.upfirdn(taps, once, up, down, axis=1)[:, 4:-4], y[0, 0])


def test_doubling_and_halving_keep_what_is_flat_and_remove_what_alternates():
    flat, alternating = torch.ones(1, 1, 8, 10), torch.ones(1, 1, 8, 10)
    alternating[..., ::2] = -1
    assert Double()(flat).shape == (1, 1, 16, 20)
    assert Halve()(flat).shape == (1, 1, 4, 5)
    assert torch.allclose(Double()(flat)[..., 2:-2, 2:-2], torch.ones(1, 1, 12, 16))
    assert torch.allclose(Halve()(flat)[..., 1:-1, 1:-1], torch.ones(1, 1, 2, 3))
    assert torch.allclose(Halve()(alternating)[..., 1:-1, 1:-1], torch.zeros(1, 1, 2, 3))


def test_filters_keep_the_precision_of_what_they_filter():
    """In half precision sums of resolutions would show steps."""
    x = torch.randn(2, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(Double()(x), Double()(x).float())
        assert Double()(x).dtype == torch.float32
        assert Double()(x.bfloat16()).dtype == torch.bfloat16


# ----------------------------------------------------------------------------------------------------------- layers


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("double", [True, False])
def test_modulated_convolution_by_its_definition(demodulate, double):
    """Scale the input channels, convolve, divide each output by the norm of the weights that made it."""
    torch.manual_seed(0)
    layer = ModulatedConv2d(3, 5, 3, w_dim=4, demodulate=demodulate, double=double).double()
    x, w = torch.randn(2, 3, 6, 4, **SIX), torch.randn(2, 4, **SIX)
    y = layer(x, w)
    assert y.shape == (2, 5, 12, 8) if double else (2, 5, 6, 4)
    for n in range(2):
        style = w[n] @ layer.style.weight.T / math.sqrt(4) + 1
        weight = layer.weight / math.sqrt(3 * 9)
        scaled = (x[n] * style[:, None, None])[None]
        if double:  # between zeros; a transposed convolution flips
            stuffed = torch.zeros(1, 3, 13, 9, **SIX)
            stuffed[..., 1:-1:2, 1:-1:2] = scaled
            out = F.conv2d(F.pad(stuffed, (1, 1, 1, 1)), weight.flip(2, 3))
            low = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 16
            out = [scipy.signal.convolve2d(np.pad(c.detach(), 1), low, mode="valid") for c in out[0]]
            out = torch.tensor(np.stack(out))[None]
        else:
            out = F.conv2d(scaled, weight, padding=1)
        if demodulate:
            norm = torch.stack([(weight[o] * style[:, None, None]).square().sum().sqrt() for o in range(5)])
            out = out / norm[:, None, None]
        assert torch.allclose(y[n], out[0], rtol=1e-6)


@pytest.mark.parametrize("double", [True, False])
def test_modulated_convolution_can_be_differentiated_twice(double):
    torch.manual_seed(0)
    layer = ModulatedConv2d(2, 2, 3, w_dim=2, double=double).double()
    inputs = torch.randn(2, 2, 3, 3, **SIX, requires_grad=True), torch.randn(2, 2, **SIX, requires_grad=True)
    assert torch.autograd.gradgradcheck(layer, inputs)


@pytest.mark.parametrize("kernel", [1, 3])
def test_halving_convolution_by_its_definition(kernel):
    """Low-pass, then convolve at every second place; of 1x1 this is a halving and a convolution."""
    torch.manual_seed(0)
    layer, x = Halved(2, 3, kernel).double(), torch.randn(1, 2, 8, 6, **SIX)
    weight = layer.weight / math.sqrt(2 * kernel**2)
    low = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
    width = 1 + kernel // 2
    filtered = np.stack([scipy.signal.convolve2d(np.pad(c, width), low, mode="valid") for c in x[0]])
    assert torch.allclose(layer(x), F.conv2d(torch.tensor(filtered)[None], weight, stride=2))
    assert layer(x).shape == (1, 3, 4, 3)
    if kernel == 1:
        assert torch.allclose(layer(x), F.conv2d(Halve()(x), weight))
    assert torch.autograd.gradgradcheck(lambda x: layer(x).sin(), x.requires_grad_(), fast_mode=True)


def test_demodulation_gives_unit_deviation_whatever_the_style():
    torch.manual_seed(0)
    layer = ModulatedConv2d(64, 32, 3, w_dim=8)
    y = layer(torch.randn(4, 64, 32, 32), 5 * torch.randn(4, 8))[..., 1:-1, 1:-1]
    assert torch.allclose(y.std((2, 3)), torch.ones(4, 32), atol=0.15)


def test_equalized_weights_are_scaled_as_they_are_used():
    torch.manual_seed(0)
    for layer, x in (
        (EqualizedLinear(50, 400), torch.randn(200, 50)),
        (EqualizedConv2d(50, 100, 3, padding=1), torch.randn(4, 50, 12, 12)),
    ):
        assert layer.weight.std().item() == pytest.approx(1, abs=0.02)
        assert layer(x)[..., 1:-1].std().item() == pytest.approx(1, abs=0.05)
    x, fan_in = torch.randn(3, 50), 50
    layer = EqualizedLinear(50, 400)
    layer(x).sum().backward()
    by_hand = x.sum(0).expand(400, 50) / math.sqrt(fan_in)  # of x @ (weight / sqrt(fan in))
    assert torch.allclose(layer.weight.grad, by_hand, rtol=1e-4, atol=1e-5)


def test_a_layers_own_learning_rate():
    """At first nothing differs; a step of Adam changes weights and biases as used by lr times as much."""
    x, changes = torch.randn(3, 16), {}
    for lr in (1.0, 0.01):
        torch.manual_seed(0)
        layer = EqualizedLinear(16, 2, bias=0.5, rate=lr)
        if lr == 1:
            first = layer(x)
        assert torch.allclose(layer(x), first, atol=1e-6)
        used = lambda layer=layer: (layer.weight * layer.scale, layer.bias * layer.rate)
        before = [p.detach().clone() for p in used()]
        layer(x).square().sum().backward()
        torch.optim.Adam(layer.parameters(), lr=0.1).step()
        changes[lr] = [(a - b).detach() for a, b in zip(used(), before, strict=True)]
        assert torch.allclose(changes[lr][0].abs(), torch.tensor(0.1 * lr / 4), rtol=1e-2)
        assert torch.allclose(changes[lr][1].abs(), torch.tensor(0.1 * lr), rtol=1e-2)


# ---------------------------------------------------------------------------------------------------------- networks


def test_the_sizes_are_the_published_ones():
    """FFHQ at 1024x1024, configuration F: 30.37 and 29.01 million parameters."""
    with torch.device("meta"):
        assert count(Generator([3, 1024, 1024])) == 30_370_060
        assert count(Discriminator([3, 1024, 1024])) == 29_012_513


def test_the_sizes_for_cifar_are_those_of_the_definition():
    """512 channels at 4, 8, 16, 32; counted by hand."""
    linear = lambda a, b: a * b + b
    styled = lambda a, b, k: a * b * k * k + b + linear(512, a)
    mapping = 2 * linear(512, 512)
    synthesis = 512 * 16 + 7 * (styled(512, 512, 3) + 1) + 4 * styled(512, 3, 1)  # + 1: strength of noise
    conv = lambda a, b, k: a * b * k * k + b
    body = 6 * conv(512, 512, 3) + conv(513, 512, 3) + linear(512 * 16, 512) + linear(512, 1)
    with torch.device("meta"):
        assert count(Generator([3, 32, 32], mapping=2)) == mapping + synthesis == 19_947_539
        D = Discriminator([3, 32, 32], architecture="plain", minibatch_std=32)
        assert count(D) == conv(3, 512, 1) + body == 20_720_641
        assert count(Discriminator([3, 32, 32])) == 20_720_641 + 3 * 512 * 512  # shortcuts have no bias


def test_channels_follow_from_the_capacity():
    assert channels_of((4, 4), 8, 512, 32768) == [512, 512, 512, 512, 512, 256, 128, 64, 32]
    assert channels_of((7, 9), 2, 64, 700) == [64, 50, 25]


@pytest.mark.parametrize("shape", [(1, 28, 28), (2, 16, 24), (3, 8, 8), (4, 64, 32)], ids=str)
@pytest.mark.parametrize("architecture", ["resnet", "plain"])
def test_any_size_and_channels(shape, architecture):
    G, D = Generator(shape, width=8, w_dim=16, mapping=1), Discriminator(shape, width=8, architecture=architecture)
    x = G(torch.randn(3, G.z_dim)).fake
    assert x.shape == (3, *shape)
    assert D(x).shape == (3,)


def small(**kwargs):
    torch.manual_seed(0)
    G = Generator([3, 16, 16], **{"z_dim": 6, "width": 8, "w_dim": 10, "mapping": 2} | kwargs)
    for name, p in G.named_parameters():
        if name.endswith("strength"):
            nn.init.constant_(p, 0.5)
    return G


def test_in_evaluation_a_sample_depends_on_its_z_alone():
    G, z = small().eval(), torch.randn(4, 6)
    with torch.no_grad():
        x = G(z)
        assert torch.equal(G(z), x)
        assert torch.allclose(G(z[2:]), x[2:], atol=1e-5)
        for part in G.synthesis.convs:  # the noise is there, and constant
            nn.init.zeros_(part.strength)
        assert not torch.allclose(G(z), x, atol=1e-2)


def test_in_training_noise_is_new_for_each_pixel():
    G, z = small(mixing=0.0), torch.randn(1, 6).expand(2, -1)
    x = G(z).fake
    assert (x[0] - x[1]).abs().min() > 0
    still = small(mixing=0.0, noise=False)
    assert not any(name.endswith(("strength", "constant")) for name in still.state_dict())
    assert torch.allclose(*still(z).fake, atol=1e-5)


def test_the_parts_make_the_whole():
    """mapping and synthesis are of use on their own: projecting, mixing."""
    G, z = small().eval(), torch.randn(2, 6)
    w = G.mapping(z, None)
    assert w.shape == (2, 10)
    ws = w[:, None].expand(-1, G.synthesis.layers, -1)
    assert G.synthesis.layers == 6  # two a resolution
    assert torch.equal(G.synthesis(ws), G(z))
    for layer in range(6):  # each of them matters
        changed = ws.clone()
        changed[:, layer] += 1
        assert not torch.allclose(G.synthesis(changed), G(z))


def test_the_average_style_and_truncation():
    G = small(mixing=0.0)
    z = torch.randn(5, 6)
    w = G.mapping(z).detach()
    G(z)
    assert torch.allclose(G.w_average, 0.005 * w.mean(0))
    G.eval()
    psi = G.w_average + 0.3 * (w - G.w_average)
    assert torch.allclose(G(z, truncation=0.3), G.synthesis(psi[:, None].expand(-1, 6, -1)), atol=1e-5)
    alike = G(z, truncation=0.0)
    assert torch.allclose(alike, alike[:1].expand_as(alike), atol=1e-5)


def test_style_mixing_takes_the_layers_from_one_on():
    torch.manual_seed(0)
    G = small(mixing=0.7)
    ws, other = torch.zeros(3000, 6, 10), torch.ones(3000, 10)
    layers = G.mixed(ws, other)[..., 0]
    assert torch.equal(layers, layers.sort(1).values)  # from a layer on, to the last
    first = (layers == 0).sum(1)
    assert first.min() == 1
    assert (first < 6).float().mean().item() == pytest.approx(0.7, abs=0.03)
    shares = torch.bincount(first, minlength=7)[1:6] / (first < 6).sum()
    assert torch.allclose(shares, torch.full((5,), 0.2), atol=0.04)
    aux = G(torch.randn(50, 6)).aux
    assert (aux[:, 0] != aux[:, -1]).any(1).float().mean() > 0.4


def test_they_are_told_the_label():
    torch.manual_seed(0)
    G, D = small(classes=3).eval(), Discriminator([3, 16, 16], width=8, classes=3, mapping=2, minibatch_std=None)
    z, x = torch.randn(2, 6), torch.randn(2, 3, 16, 16)
    zero, one = torch.zeros(2, dtype=torch.long), torch.ones(2, dtype=torch.long)
    assert not torch.allclose(G(z, zero), G(z, one))
    assert not torch.allclose(D(x, zero), D(x, one))
    assert torch.allclose(G(z, F.one_hot(one, 3)), G(z, one))  # a vector of attributes
    seen = []
    D.out.register_forward_hook(lambda layer, inputs, output: seen.append(output))
    logits, label = D(x, torch.tensor([0, 2])), D.label(None, torch.tensor([0, 2]))
    for n in range(2):  # by projection
        assert torch.allclose(logits[n], sum(seen[0][n, i] * label[n, i] for i in range(8)) / math.sqrt(8), atol=1e-6)


def test_neighbours_matter_to_d_with_a_deviation_alone():
    x = torch.randn(4, 3, 16, 16)
    for group, alone in ((4, False), (None, True)):
        D = Discriminator([3, 16, 16], width=8, minibatch_std=group)
        assert torch.allclose(D(x)[:1], D(x[:1]), atol=1e-5) == alone


def test_what_does_not_work_is_refused():
    with pytest.raises(ValueError, match=r"discriminator\.architecture='skip'"):
        Discriminator([3, 16, 16], architecture="skip")
    with pytest.raises(ValueError, match=r"generator\.mapping=0"):
        Generator([3, 16, 16], mapping=0)
    with pytest.raises(ValueError, match=r"generator\.mixing=2"):
        Generator([3, 16, 16], mixing=2)
    with pytest.raises(ValueError, match="model=mlp"):
        Generator([2])


# -------------------------------------------------------------------------------------------------------- path length


def played(G, z, seed=3, **kwargs):
    return phase(
        "G", real=torch.zeros(len(z), 1, 8, 8, **SIX), fake=z, D=LinearD(torch.ones(64)), G=G, seed=seed, **kwargs
    )


def tiny():
    torch.manual_seed(0)
    return Generator([1, 8, 8], z_dim=3, width=4, w_dim=3, mapping=1, mixing=0.0, noise=False).double()


def lengths_of(G, z, seed=3):
    """|J^T y| by the Jacobian of each image with respect to its styles, all of it."""
    noise = BatchRNG(seed, len(z), slice(None)).normal(1, 8, 8).double() / 8  # sqrt(8 * 8)
    values = []
    for i in range(len(z)):
        w = G.mapping(z[i : i + 1])[:, None].expand(-1, G.synthesis.layers, -1).detach()
        J = torch.autograd.functional.jacobian(lambda ws: G.synthesis(ws).flatten(), w)[:, 0]  # [64, layers, 3]
        pulled = torch.einsum("plw,p->lw", J, noise[i].flatten())
        values.append(pulled.square().sum(1).mean().sqrt())
    return torch.stack(values)


def test_path_length_by_jacobians():
    G, z, term = tiny(), torch.randn(2, 3, **SIX), PathLength()
    term.average.fill_(0.25)
    value = term(played(G, z))
    assert torch.allclose(value, (lengths_of(G, z) - 0.25).square())
    value.mean().backward()
    for name, at in (("mapping.layers.0.weight", (0, 1)), ("synthesis.convs.1.conv.weight", (2, 1, 0, 2))):
        p, eps = G.get_parameter(name), 1e-5
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                p[at] += sign * eps
                ends.append((lengths_of(G, z) - 0.25).square().mean())
                p[at] -= sign * eps
        assert p.grad[at].item() == pytest.approx((ends[0] - ends[1]).item() / (2 * eps), rel=1e-4)


def test_the_average_follows_once_a_move():
    G, z, term = tiny(), torch.randn(4, 3, **SIX), PathLength(decay=0.9)
    for rows in (slice(0, 1), slice(1, 4)):  # micro-batches of unequal size
        p = Phase(
            "G", Batch(z[rows], z[rows]), G, None, lambda G, b: (G(b.inputs), b.real), None,
            BatchRNG(3, 4, rows),
        )  # fmt: skip
        term(p)
    with torch.no_grad():
        term.after_move(p)
    assert term.average.item() == pytest.approx(0.1 * lengths_of(G, z).mean().item(), rel=1e-5)
    assert "average" in term.state_dict()  # it survives a checkpoint
    value = term(played(G, z[:1]))
    with torch.no_grad():
        term.after_move(p)
    assert len(term.lengths) == 0
    assert torch.allclose(value, (lengths_of(G, z[:1]) - 0.1 * lengths_of(G, z).mean()).square(), rtol=1e-4)


class NoStyles(nn.Module):
    def forward(self, z):
        return GeneratorOutput(z, aux=None)


def test_path_length_needs_styles_and_is_gs():
    with pytest.raises(ValueError, match="NoStyles does not: use model=stylegan2"):
        PathLength()(played(NoStyles(), torch.randn(2, 1, 8, 8)))
    with pytest.raises(ValueError, match="belongs to G"):
        game(terms={"path_length": PathLength(player="D")})
    with pytest.raises(ValueError, match="decay=1"):
        PathLength(decay=1)


@pytest.mark.parametrize("how", [{"share_fake": True}, {"micro_batches": 2}, {}], ids=str)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_path_length_joins_the_game(how, precision):
    """G's styles are part of the graph of its fakes however these are made."""
    torch.manual_seed(0)
    nets = Generator([1, 8, 8], z_dim=4, width=8, w_dim=8, mapping=1), Discriminator([1, 8, 8], width=8)
    gan = game(*nets, terms={"path_length": PathLength(every=1, decay=0.5)}, **how)
    play(gan, [{"real": torch.randn(4, 1, 8, 8)} for _ in range(2)], precision=precision)
    assert gan.terms["path_length"].average > 0
    assert all(p.isfinite().all() for p in gan.G.parameters())
