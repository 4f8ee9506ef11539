"""Networks that grow, or speak at several scales: schedules and fades by hand, gradients against the small networks."""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from play import LinearD, game, phase, play

from ganlab.losses import Wasserstein
from ganlab.models import msggan, progan
from ganlab.nn.equalized import EqualizedConv2d, EqualizedLinear, PixelNorm
from ganlab.phase import Batch
from ganlab.tasks import MultiScale, Progressive
from ganlab.terms.consistency import Drift
from ganlab.terms.penalties import GradientPenalty


def count(net):
    return sum(p.numel() for p in net.parameters())


def images(n, *shape):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(1))


def up(x, times):
    return x.repeat_interleave(times, 2).repeat_interleave(times, 3)


def grown(shape=(3, 16, 16), level=None, alpha=1.0, **kwargs):
    """(G, D) of 100 kimg per level and 100 per fade, at this point of the schedule."""
    torch.manual_seed(0)
    kwargs = {"width": 8, "stage_kimg": 100, "fade_kimg": 100} | kwargs
    G, D = progan.Generator(shape, z_dim=6, **kwargs), progan.Discriminator(shape, **kwargs)
    for net in (G, D):
        net.set_clock(10**9 if level is None else round((200 * level - 100 + 100 * alpha) * 1000))
    return G, D


def test_equalized_layers_are_scaled_in_use():
    """gain / sqrt(fan in) times weights of variance 1; a rate changes how fast a layer learns and nothing else."""
    torch.manual_seed(0)
    x, image = torch.randn(5, 300, dtype=torch.float64), torch.randn(2, 30, 6, 7, dtype=torch.float64)
    for rate in (1.0, 0.01):
        linear = EqualizedLinear(300, 200, gain=1.5, rate=rate).double()
        conv = EqualizedConv2d(30, 40, 3, padding=1, gain=1.5, rate=rate).double()
        for layer in (linear, conv):
            assert layer.weight.std().item() * rate == pytest.approx(1, rel=0.02)
            assert not layer.bias.any()
            torch.nn.init.normal_(layer.bias)
        expected = x @ linear.weight.T * rate * 1.5 / math.sqrt(300) + rate * linear.bias
        assert torch.allclose(linear(x), expected)
        expected = F.conv2d(image, conv.weight * rate * 1.5 / math.sqrt(270), rate * conv.bias, padding=1)
        assert torch.allclose(conv(image), expected)


def test_pixel_norm_by_hand():
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    for n, i, j in ((0, 0, 0), (1, 2, 3)):
        length = math.sqrt(sum(value**2 for value in x[n, :, i, j].tolist()) / 5)
        assert torch.allclose(PixelNorm()(x)[n, :, i, j], x[n, :, i, j] / length, rtol=1e-7)
    z = torch.randn(3, 7)
    assert torch.allclose(PixelNorm()(z).square().mean(1), torch.ones(3))


@pytest.mark.parametrize(
    ("kimg", "expected"),
    [
        (0, (0, 1.0)), (599, (0, 1.0)), (600, (1, 0.0)), (900, (1, 0.5)), (1200, (1, 1.0)), (1799, (1, 1.0)),
        (1800, (2, 0.0)), (1950, (2, 0.25)), (2400, (2, 1.0)), (3000, (2, 1.0)), (99999, (2, 1.0)),
    ],
)  # fmt: skip
def test_the_schedule_of_levels(kimg, expected):
    """4x4 for 600 kimg; then each level fades in for 600 and is trained for 600; the last one stays."""
    for net in (progan.Generator([1, 16, 16], width=4), progan.Discriminator([1, 16, 16], width=4)):
        net.set_clock(kimg * 1000)
        assert net.stage() == expected


def test_without_a_fade_levels_appear_at_once_and_without_stages_all_are_there():
    G, _ = grown(stage_kimg=10, fade_kimg=0)
    for kimg, level in ((0, 0), (9, 0), (10, 1), (19, 1), (20, 2), (500, 2)):
        G.set_clock(kimg * 1000)
        assert G.stage() == (level, 1.0)
    G, _ = grown(stage_kimg=0, fade_kimg=0)
    G.set_clock(0)
    assert G.stage() == (2, 1.0)
    with pytest.raises(ValueError, match=r"generator\.fade_kimg"):
        grown(fade_kimg=-1)


def test_a_level_is_the_small_network_spread_over_the_image():
    G, D = grown()
    z, x = torch.randn(4, 6), images(4, 3, 16, 16)
    h = G.blocks[0](z)
    for level, size in enumerate((4, 8, 16)):
        for net in (G, D):
            net.set_clock((200 * level) * 1000)
        h = G.blocks[level](h) if level else h
        assert torch.equal(G(z), up(G.to_image[level](h), 16 // size))
        small = x.unflatten(3, (size, -1)).unflatten(2, (size, -1)).mean((3, 5))
        d = D.from_image[level](small)
        for i in range(level, -1, -1):
            d = D.blocks[i](d)
        assert torch.allclose(D(x), d.flatten(), atol=1e-5)


@pytest.mark.parametrize("level", [1, 2])
def test_a_new_level_starts_as_the_old_one_and_is_faded_in(level):
    G, D = grown()
    z, x = torch.randn(4, 6), images(4, 3, 16, 16)

    def at(alpha, level=level):
        for net in (G, D):
            net.set_clock(round((200 * level - 100 + 100 * alpha) * 1000))
        return G(z), D(x)

    old, start, half, end = at(1.0, level - 1), at(0.0), at(0.5), at(1.0)
    assert torch.equal(start[0], old[0])
    assert torch.allclose(start[1], old[1], atol=1e-5)
    assert torch.allclose(half[0], (old[0] + end[0]) / 2, atol=1e-6)
    assert not torch.allclose(half[0], old[0], atol=0.01)
    for a, b in ((0.0, 0.00001), (0.99999, 1.0)):  # one sample before and after each change
        for one, other in zip(at(a), at(b), strict=True):
            assert torch.allclose(one, other, atol=1e-3)


def test_reals_are_faded_by_hand():
    G, _ = grown((1, 16, 16))
    x = torch.arange(256.0).view(1, 1, 16, 16)  # value 16 i + j
    mean_of = lambda i, j, n: 16 * (i // n * n + (n - 1) / 2) + j // n * n + (n - 1) / 2  # of the n x n block around
    for level, alpha, parts in ((0, 1.0, {4: 1.0}), (1, 0.25, {4: 0.75, 2: 0.25}), (2, 0.5, {2: 0.5, 1: 0.5})):
        G.set_clock(round((200 * level - 100 + 100 * alpha) * 1000))
        y = G.faded(x)
        assert y.shape == x.shape
        for i, j in ((0, 0), (5, 10), (15, 3)):
            expected = sum(share * mean_of(i, j, n) for n, share in parts.items())
            assert y[0, 0, i, j].item() == pytest.approx(expected)
    G.set_clock(10**9)
    assert torch.equal(G.faded(x), x)


def test_gradients_are_those_of_the_small_game():
    """At 8x8 of 32x32: the norm of D's gradient at an image, its own gradient to D, and what G receives are equal to
    those of networks that were made for 8x8."""
    G, D = grown((3, 32, 32), level=1)
    small_G, small_D = grown((3, 8, 8))
    for net, small in ((G, small_G), (D, small_D)):
        state = net.state_dict()
        small.load_state_dict({k: state[k] for k in small.state_dict()} | {"_extra_state": torch.tensor(10**9)})
    x, z = images(4, 3, 32, 32), torch.randn(4, 6)
    pooled = F.avg_pool2d(x, 4)

    def results(G, D, x):
        penalty = GradientPenalty()(phase(real=x, fake=G(z).detach(), D=D))
        penalty.mean().backward()
        from_penalty = [p.grad.clone() for p in D.blocks[0].parameters() if p.grad is not None]  # all but the last bias
        (-D(G(z)).mean()).backward()
        return [penalty.detach(), *from_penalty, *[p.grad for p in G.blocks[:2].parameters()]]

    for one, other in zip(results(G, D, x), results(small_G, small_D, pooled), strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-6)


def test_levels_that_are_not_reached_do_not_move():
    """And are not in the optimizer's state; the average follows at the same level; the clock is in the state."""
    kwargs = {"width": 4, "stage_kimg": 0.016, "fade_kimg": 0.032}
    G, D = progan.Generator([1, 16, 16], z_dim=6, **kwargs), progan.Discriminator([1, 16, 16], **kwargs)
    before = {name: [p.clone() for p in net.parameters()] for name, net in (("G", G), ("D", D))}
    gan = game(
        G, D, task=Progressive(), loss=Wasserstein(), terms={"gp": GradientPenalty(), "drift": Drift()},
        optimizer=partial(torch.optim.Adam, lr=1e-2),
    )  # fmt: skip
    play(gan, [{"real": images(8, 1, 16, 16)} for _ in range(5)])  # the last round: 32 samples seen, alpha 1/2
    assert gan.G.stage() == gan.D.stage() == gan.G_ema.stage() == (1, 0.5)
    for name, parts in (("G", (G.blocks, G.to_image)), ("D", (D.blocks, D.from_image))):
        unreached = {id(p) for part in parts for p in part[2].parameters()}
        net = getattr(gan, name)
        for old, new in zip(before[name], net.parameters(), strict=True):
            assert torch.equal(old, new) == (id(new) in unreached)
        optimizer = gan.trainer.optimizers[gan.players.index(name)]
        assert {id(p) for p in optimizer.state} == {id(p) for p in net.parameters()} - unreached
    fresh = progan.Generator([1, 16, 16], z_dim=6, **kwargs)
    fresh.load_state_dict(gan.G_ema.state_dict())
    z = torch.randn(3, 6)
    assert fresh.stage() == (1, 0.5)
    assert torch.equal(fresh(z), gan.G_ema(z))


@pytest.mark.parametrize(("level", "alpha"), [(0, 1.0), (1, 0.5), (2, 1.0)])
def test_in_half_precision(level, alpha):
    G, D = grown(level=level, alpha=alpha)
    z = torch.randn(4, 6)
    with torch.autocast("cpu", torch.bfloat16):
        x = G(z)
        logits = D(x)
    assert (x.float() - G(z)).abs().mean() < 0.02
    assert (logits.float() - D(G(z))).abs().mean() < 0.05


def test_progan_1024_has_the_parameters_of_the_paper():
    """Table 2: 23.1 million in each; the convolutions that make and read images at all sizes are included."""
    with torch.device("meta"):
        assert count(progan.Generator([3, 1024, 1024])) == 23_079_115
        assert count(progan.Discriminator([3, 1024, 1024])) == 23_087_249


def test_drift_by_hand():
    real = torch.tensor([[2.0], [-3.0]], dtype=torch.float64)
    D = LinearD([1.0])
    assert Drift()(phase(real=real, fake=real, D=D)).tolist() == [4, 9]
    several = lambda x: [D(x), 2 * D(x)[:, None].expand(-1, 3)]
    assert Drift()(phase(real=real, fake=real, D=several)).tolist() == [(4 + 16) / 2, (9 + 36) / 2]


def test_generators_that_do_not_fit_the_task_are_refused():
    with pytest.raises(ValueError, match="model=progan"):
        game(task=Progressive())
    with pytest.raises(ValueError, match="model=msggan"):
        game(task=MultiScale())


def test_msggan_speaks_at_every_scale():
    """D is shown G's image at each scale from the features of that scale, beside the real averaged down to it."""
    torch.manual_seed(0)
    G = msggan.Generator([2, 16, 24], z_dim=6, width=8)
    z, real = torch.randn(3, 6), images(3, 2, 16, 24)
    fakes, reals = MultiScale(6).play(G, Batch(z, real))
    h = z
    for i in range(3):
        h = G.blocks[i](h)
        assert torch.equal(fakes[2 - i], G.to_image[i](h))
    assert [x.shape[2:] for x in fakes] == [x.shape[2:] for x in reals] == [(16, 24), (8, 12), (4, 6)]
    assert torch.equal(reals[0], real)
    for x, n in zip(reals[1:], (2, 4), strict=True):
        corner = real[1, 0, n : 2 * n, 2 * n : 3 * n]
        assert x[1, 0, 1, 2].item() == pytest.approx(sum(corner.flatten().tolist()) / n**2, abs=1e-6)


def test_every_scale_reaches_d_and_gets_a_gradient_of_its_own():
    torch.manual_seed(0)
    D = msggan.Discriminator([3, 32, 32], width=8)
    scales = [images(4, 3, size, size).requires_grad_() for size in (32, 16, 8, 4)]
    logits = D(scales)
    assert logits.shape == (4,)
    logits.sum().backward()
    assert all(x.grad.abs().sum(1).amin() > 0 for x in scales)  # at each place
    for i in range(4):
        changed = [x + (j == i) for j, x in enumerate(scales)]
        assert not torch.allclose(D(changed), logits)


def test_msggan_1024_has_the_layers_of_the_paper():
    """Counted by hand: ProGAN's blocks; in D every block sees 3 more channels, the image, and 1 of deviation."""
    sizes = [512, 512, 512, 512, 256, 128, 64, 32, 16]
    conv = lambda a, b, k=3: a * b * k * k + b
    with torch.device("meta"):
        G, D = msggan.Generator([3, 1024, 1024]), msggan.Discriminator([3, 1024, 1024])
    assert count(G) == 23_079_115
    blocks = sum(conv(b + (4 if b > 16 else 1), b) + conv(b, a) for a, b in pairwise(sizes))
    assert count(D) == conv(3, 16, 1) + blocks + conv(516, 512) + conv(512, 512, 4) + 513


def test_a_penalty_on_each_scale_by_hand():
    """D = a.x + b.y: the mean of (|a| - 1)^2 and (|b| - 1)^2, or (|(a, b)| - 1)^2 at once."""
    a, b = LinearD([3.0, 4.0]), LinearD([12.0])  # norms 5 and 12, together 13
    D = lambda pair: a(pair[0]) + b(pair[1])
    real, fake = ((torch.randn(3, 2).double(), torch.randn(3, 1).double()) for _ in range(2))
    value = lambda **kwargs: GradientPenalty(**kwargs)(phase(real=real, fake=fake, D=D, n=3))
    assert torch.allclose(value(each=True), torch.tensor((16.0 + 121) / 2).double())
    assert torch.allclose(value(), torch.tensor(144.0).double())
