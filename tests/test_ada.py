"""Adaptive augmentation: each change by hand, its law, its strength, and whether it leaks."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from play import LinearD, game, mlp, phase, play
from torch import nn

from ganlab.ada import ADA, BLIT, COLOR, SYM6, WARP, Draw
from ganlab.ema import EMA
from ganlab.losses import LeastSquares, Relativistic
from ganlab.rng import BatchRNG
from ganlab.schedule import Cosine
from ganlab.terms.penalties import R1, R2

SIX = {"dtype": torch.float64}
KINDS = sorted({*BLIT, *WARP, *COLOR})


def rng(n, seed=0, rows=slice(None)):
    return BatchRNG(seed, n, rows)


class Known:
    """Every draw is the same known number."""

    def __init__(self, n=1, *, uniform=0.5, normal=0.0, integer=0):
        self.uniform = lambda: torch.full((n,), uniform, **SIX)
        self.normal = lambda: torch.full((n,), normal, **SIX)
        self.integers = lambda high: torch.full((n,), integer)


def images(n=1, channels=3, height=16, width=16):
    return torch.randn(n, channels, height, width, generator=torch.Generator().manual_seed(0), **SIX)


def once(policy, x, **known):
    """Each change of the policy made, with known numbers."""
    return ADA(policy, target=None, p=1.0).double()(x, Known(len(x), **known))


# ----------------------------------------------------------------------------------------------------- all of them


@pytest.mark.parametrize("shape", [(1, 16, 16), (2, 16, 16), (3, 16, 24), (4, 8, 8)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_p_0_nothing_changes_not_one_bit(shape, dtype):
    x = torch.randn(6, *shape, dtype=dtype)
    assert torch.equal(ADA(p=0.0)(x, rng(6)), x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ADA(p=0.0)(x, rng(6)), x)


@pytest.mark.parametrize("kind", KINDS)
def test_at_p_1_each_change_is_made_and_in_full_precision(kind):
    """To images with three channels; grey ones have no hue and no saturation, two and four channels no color."""
    augment = ADA(kind, target=None, p=1.0)
    for channels in (1, 2, 3, 4):
        x = torch.randn(64, channels, 16, 16)
        y = augment(x, rng(64))
        assert y.shape == x.shape
        changed = (y - x).abs().flatten(1).max(1).values > 1e-4
        colorless = kind in COLOR and (channels in (2, 4) or (channels == 1 and kind in ("hue", "saturation")))
        assert changed.sum() == 0 if colorless else changed.sum() >= 24  # half of flips and lumas are none
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(augment(x, rng(64)), y)


def test_samples_are_on_their_own():
    x, augment = images(6, 3, 16, 24), ADA(target=None, p=0.7).double()
    y = augment(x, rng(6))
    assert torch.equal(y, augment(x, rng(6)))  # drawn from rng alone
    assert not torch.equal(y, augment(x, rng(6, seed=1)))
    assert torch.allclose(augment(x[2:5], rng(6, rows=slice(2, 5))), y[2:5])  # over micro-batches or processes


def test_r1_passes_through():
    """The change is x -> A x + b, so with D(y) = w.y^2 / 2 the gradient is A^T (w (A x + b)), and R1's is known too."""
    augment, x = ADA(target=None, p=1.0).double(), images(1, 3, 8, 8)
    f = lambda x: augment(x, rng(1)).flatten()
    A = torch.autograd.functional.jacobian(f, x).flatten(1)  # [192, 192]
    w = torch.randn(192, **SIX, requires_grad=True)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad((w * f(x).square()).sum() / 2, x, create_graph=True)
    (got,) = torch.autograd.grad(gradient.square().sum(), w)
    y = f(x).detach()
    by_hand = A.T @ (w * y)
    assert torch.allclose(gradient.flatten(), by_hand)
    assert torch.allclose(got, 2 * y * (A @ by_hand))
    small = images(1, 1, 8, 8).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: augment(x, rng(1)).sin(), small, fast_mode=True)


def test_share_of_samples_that_are_changed():
    """p of each kind; rotations come twice, and p is the share that is rotated at all."""
    n = 8000
    augment, draw = ADA(target=None, p=0.3), Draw(rng(n), torch.zeros(n, 1, 16, 16))
    for kinds in (["shift"], ["rotate", "rotate"]):
        _, touched = augment.composed(kinds, draw, 3)
        assert touched.float().mean().item() == pytest.approx(0.3, abs=0.02)


# ---------------------------------------------------------------------------------------------------------- geometry


def test_blits_are_exact():
    x = images(2, 3, 16, 16)
    assert torch.equal(once("flip", x, integer=1), x.flip(3))
    turned = [once("turn", x, integer=i) for i in range(4)]
    assert all(torch.equal(turned[i], torch.rot90(x, i, (2, 3))) for i in range(4))
    both = once("b", x, uniform=0.5, integer=1)  # flip first, then turn
    assert torch.equal(both, torch.rot90(x.flip(3), 1, (2, 3)))
    wide = images(2, 3, 8, 16)
    assert torch.equal(once("turn", wide, integer=1), torch.rot90(wide, 2, (2, 3)))  # the shape is kept


def test_shifts_are_by_whole_pixels_and_mirror_what_comes_in():
    x = images(1, 2, 16, 24)
    y = once("shift", x, uniform=0.95)  # 0.9 / 8 of 16 and 24: 1.8 and 2.7 pixels
    assert torch.equal(y[..., :-2, :-3], torch.roll(x, (-2, -3), (2, 3))[..., :-2, :-3])
    mirrored = np.pad(x.numpy(), ((0, 0), (0, 0), (0, 2), (0, 3)), mode="reflect")[..., 2:, 3:]
    assert torch.equal(y, torch.from_numpy(mirrored.copy()))
    assert torch.equal(once("shift", x, uniform=0.5), x)


def test_the_wavelet_filter_is_sym6():
    """Orthonormal to its shifts by two, with six vanishing moments (Daubechies 1992): doubling and halving is the
    identity."""
    h = np.array(SYM6)
    assert h.sum() == pytest.approx(math.sqrt(2))
    for k in range(6):
        assert h[2 * k :] @ h[: 12 - 2 * k] == pytest.approx(float(k == 0), abs=1e-12)
    for moment in range(6):
        terms = (-1.0) ** np.arange(12) * h * np.arange(12.0) ** moment
        assert abs(terms.sum()) < 1e-7 * np.abs(terms).sum()
    for shape in ((16, 16), (8, 24)):
        x = images(2, 3, *shape)
        assert torch.allclose(once("g", x, uniform=0.5, normal=0.0), x, atol=1e-6)  # by angle 0, factor 1, distance 0


def wave(place):
    """A smooth picture, by its places (x, y) from the middle: [..., 2] -> [...]"""
    return torch.cos(place @ torch.tensor([0.25, 0.1], **SIX)) + torch.sin(place @ torch.tensor([-0.1, 0.2], **SIX))


@pytest.mark.parametrize(
    ("kind", "known", "to_old"),
    [
        ("scale", {"normal": 1.0}, torch.eye(2) * 2**0.2),
        ("stretch", {"normal": 1.0}, torch.diag(torch.tensor([2**0.2, 2**-0.2]))),
        ("rotate", {"uniform": 0.55}, None),  # twice by a tenth of pi
    ],
)
def test_warps_of_a_smooth_picture(kind, known, to_old):
    """The new picture at a place is the old one at the place that the change maps to it."""
    if to_old is None:
        c, s = math.cos(0.2 * math.pi), math.sin(0.2 * math.pi)
        to_old = torch.tensor([[c, -s], [s, c]])
    axis = torch.arange(32, **SIX) - 15.5
    places = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)  # (x, y)
    y = once(kind, wave(places)[None, None], **known)[0, 0]
    inside = slice(8, 24)
    assert torch.allclose(y[inside, inside], wave(places @ to_old.double().T)[inside, inside], atol=0.005)


@pytest.mark.parametrize(("policy", "blits"), [("g", 0), ("bg", 3)])
def test_changes_follow_each_other_in_the_papers_order(policy, blits):
    """Appendix B: flip, turn, shift, scale, rotate, stretch, rotate, move. The place in the old picture is found by
    undoing the last of them first, so that their inverses stand from left to right."""
    factor, c, s = 2**0.12, math.cos(0.2 * math.pi), math.sin(0.2 * math.pi)
    away = lambda distance: np.array([[1, 0, distance], [0, 1, distance], [0, 0, 1]])
    rotate = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    inverses = [
        np.diag([-1, 1, 1]), np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]), away(1),  # 0.2 / 8 of 32, whole
        np.diag([factor, factor, 1]), rotate, np.diag([factor, 1 / factor, 1]), rotate, away(2.4),  # 0.6 / 8 of 32
    ][3 - blits :]  # fmt: skip
    to_old = torch.from_numpy(np.linalg.multi_dot(inverses))
    axis = torch.arange(32, **SIX) - 15.5
    places = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    y = once(policy, wave(places)[None, None], uniform=0.6, normal=0.6, integer=1)[0, 0]
    inside = slice(10, 22)
    expected = wave(places @ to_old[:2, :2].T + to_old[:2, 2])
    assert torch.allclose(y[inside, inside], expected[inside, inside], atol=0.005)


def test_moves_by_any_distance():
    axis = torch.arange(32, **SIX) - 15.5
    places = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    y = once("move", wave(places)[None, None], normal=0.6)[0, 0]  # 0.6 / 8 of 32: 2.4 pixels
    inside = slice(6, 26)
    assert torch.allclose(y[inside, inside], wave(places + 2.4)[inside, inside], atol=0.005)
    x = images(1, 3, 16, 16)
    assert torch.allclose(once("move", x, normal=1.0)[..., :-5, :-5], x[..., 2:-3, 2:-3], atol=1e-6)


def test_the_laws_of_geometry():
    """Appendix B of the paper, from 20,000 draws."""
    n = 20000
    draw = Draw(rng(n), torch.zeros(n, 1, 32, 64, **SIX))
    shift = draw.shift()
    assert set(shift[:, 0, 2].tolist()) == set(range(-8, 9))
    assert set(shift[:, 1, 2].tolist()) == set(range(-4, 5))
    assert (shift[:, 0, 2] == 3).double().mean().item() == pytest.approx(1 / 16, abs=0.01)
    move = draw.move()
    assert move[:, :2, 2].std(0).tolist() == pytest.approx([8, 4], rel=0.03)
    scale, stretch = draw.scale(), draw.stretch()
    assert torch.equal(scale[:, 0, 0], scale[:, 1, 1])
    assert torch.allclose(stretch[:, 0, 0] * stretch[:, 1, 1], torch.ones(n, **SIX))
    for factor in (scale, stretch):
        logs = factor[:, 0, 0].log2()
        assert logs.mean().item() == pytest.approx(0, abs=0.01)
        assert logs.std().item() == pytest.approx(0.2, rel=0.03)
    rotate = draw.rotate()
    angles = torch.atan2(rotate[:, 1, 0], rotate[:, 0, 0])
    assert angles.std().item() == pytest.approx(math.pi / math.sqrt(3), rel=0.03)
    assert angles.abs().max().item() == pytest.approx(math.pi, rel=0.01)
    assert draw.flip()[:, 0, 0].mean().item() == pytest.approx(0, abs=0.03)
    square = Draw(rng(n), torch.zeros(n, 1, 8, 8, **SIX)).turn()[:, :2, 0]
    assert torch.unique(square.round(), dim=0, return_counts=True)[1].tolist() == pytest.approx([n / 4] * 4, rel=0.05)


# ------------------------------------------------------------------------------------------------------------- color


def test_colors_by_hand():
    x = images(2, 3, 4, 5)
    grey = x.mean(1, keepdim=True)
    assert torch.allclose(once("brightness", x, normal=1.5), x + 0.3)
    assert torch.allclose(once("contrast", x, normal=1.0), x * math.sqrt(2))
    assert torch.allclose(once("luma", x, integer=1), x - 2 * grey)
    assert torch.allclose(once("luma", x, integer=0), x)
    assert torch.allclose(once("saturation", x, normal=-1.0), grey + (x - grey) / 2)
    third = once("hue", x, uniform=5 / 6)  # by 2 pi / 3 around grey: red, green and blue change places
    assert torch.allclose(third, x[:, [2, 0, 1]])
    some = once("hue", x, uniform=0.6)
    assert torch.allclose(some.mean(1), x.mean(1))
    assert torch.allclose(some.square().sum(1), x.square().sum(1))
    in_order = once("c", x, uniform=0.5, normal=1.0, integer=1)  # brightness, contrast, luma, hue 0, saturation
    after = (x + 0.2) * math.sqrt(2)
    after = after - 2 * after.mean(1, keepdim=True)
    middle = after.mean(1, keepdim=True)
    assert torch.allclose(in_order, middle + 2 * (after - middle))


def test_grey_images_are_as_with_three_equal_channels():
    x = images(2, 1, 4, 5)
    assert torch.allclose(once("luma", x, integer=1), -x)
    for kind in COLOR:
        known = {"uniform": 0.7, "normal": 1.2, "integer": 1}
        assert torch.allclose(once(kind, x, **known), once(kind, x.expand(-1, 3, -1, -1), **known)[:, :1])


def test_the_laws_of_color():
    n = 20000
    draw = Draw(rng(n), torch.zeros(n, 3, 8, 8, **SIX))
    assert draw.brightness()[:, 0, 3].std().item() == pytest.approx(0.2, rel=0.03)
    assert draw.contrast()[:, 0, 0].log2().std().item() == pytest.approx(0.5, rel=0.03)
    saturated = draw.saturation()[:, 0, 0] - draw.saturation().new_tensor(1 / 3)  # 1/3 + 2/3 s
    assert (saturated * 3 / 2).log2().std().item() == pytest.approx(1, rel=0.03)
    hue = draw.hue()  # around grey by any angle: the trace is 1 + 2 cos, the odd part sin / sqrt(3)
    angles = torch.atan2(math.sqrt(3) / 2 * (hue[:, 1, 0] - hue[:, 0, 1]), (3 * hue[:, 0, 0] - 1) / 2)
    assert torch.allclose(angles.sort().values, torch.linspace(-math.pi, math.pi, n, **SIX), atol=0.1)
    assert draw.luma()[:, :3, :3].sum((1, 2)).mean().item() == pytest.approx(0, abs=0.1)  # 3 or -3


# ------------------------------------------------------------------------------------------------------- its strength


def move(augment, *logits, player="D"):
    real = torch.tensor(logits, **SIX)[:, None]
    with torch.no_grad():
        augment.after_move(phase(player, real=real, fake=real, D=LinearD([1.0]), grad_inputs=()))
    return augment.p.item()


def test_p_follows_the_sign_of_ds_logits():
    """Every second move, by (samples since) / (kimg * 1000), towards the target."""
    augment = ADA(kimg=0.1, interval=2, target=0.5, p=0.05)
    assert move(augment, 1, 2, 3, 4) == pytest.approx(0.05)
    assert move(augment, 1, 9, 9, 9, player="G") == pytest.approx(0.05)  # G's moves do not count
    assert move(augment, 5, 0.1, 7, -8) == pytest.approx(0.05 + 8 / 100)  # mean sign (1 + 0.5) / 2 above 0.5
    assert move(augment, 1, 2) == pytest.approx(0.13)
    assert move(augment, -1, -2, -3) == pytest.approx(0.13 - 5 / 100)  # 0
    assert move(augment, 1, 1, 1, -1) == pytest.approx(0.08)
    assert move(augment, 1, 1, 1, -1) == pytest.approx(0.08)  # 0.5: as it should be
    for _ in range(4):
        move(augment, *[-1] * 50)
    assert augment.p == 0
    for _ in range(4):
        move(augment, *[1] * 60)
    assert augment.p == 1
    assert {"p", "tally"} <= set(augment.state_dict())  # they survive a checkpoint
    fixed = ADA(target=None, p=0.3, interval=1)
    assert move(fixed, 1, 1) == pytest.approx(0.3)


def of_images(loss, augment, **kwargs):
    """A small game of 8x8 images."""
    torch.manual_seed(0)
    G = nn.Sequential(mlp(4, 64, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8)))
    G.z_dim = 4
    return game(G, nn.Sequential(nn.Flatten(), mlp(64, 64, 64, 1)), loss=loss, augment={"ada": augment}, **kwargs)


def test_signs_are_counted_from_the_losss_own_boundary():
    augment = ADA(interval=1, target=0.0, p=0.5, kimg=0.02)
    of_images(LeastSquares(), augment)  # halfway between 0 and 1
    assert move(augment, 0.4, 0.3) == pytest.approx(0.4)
    with pytest.raises(ValueError, match=r"augment\.ada\.target=0\.6 .*: set augment\.ada\.target=null"):
        of_images(Relativistic(), ADA())
    of_images(Relativistic(), ADA(target=None, p=0.3))


def test_p_may_be_a_schedule():
    augment = ADA(target=None, p=Cosine(0.0, 0.4, stop=10.0))
    assert augment.p == 0
    for seen, p in ((0, 0.0), (5000, 0.2), (10000, 0.4), (99000, 0.4)):
        augment.set_clock(seen)
        assert augment.p.item() == pytest.approx(p)
    fixed = ADA(target=None, p=0.25)
    fixed.set_clock(5000)
    assert fixed.p == 0.25


@pytest.mark.parametrize(
    ("key", "kwargs"),
    [
        ("policy", {"policy": "bgx"}), ("policy", {"policy": "flip,blur"}), ("policy", {"policy": ""}),
        ("target", {"target": 1.5}), ("target", {"p": lambda seen: 0.1}), ("p", {"p": 1.5}), ("p", {"p": -0.1}),
        ("kimg", {"kimg": 0}), ("interval", {"interval": 0}),
    ],
)  # fmt: skip
def test_what_does_not_work_is_refused(key, kwargs):
    with pytest.raises(ValueError, match=rf"augment\.ada\.{key}"):
        ADA(**kwargs)


def test_it_is_for_images():
    with pytest.raises(ValueError, match=r"ADA is for images .*, and D is shown \[2, 2\]: use augment="):
        game(augment={"ada": ADA()})


# --------------------------------------------------------------------------------------------------------- does it leak


def seen_orientations(augment, n=4000):
    """[4, 4]: how often an image whose bright side is i (from the top, by quarters of a turn) is seen with j."""
    upright = torch.zeros(1, 1, 8, 8)
    upright[..., :4, :] = 1
    kinds = [torch.rot90(upright, i, (2, 3)) for i in range(4)]
    shares = []
    for i in range(4):
        y = augment(kinds[i].expand(n, -1, -1, -1), rng(n, seed=i))
        shares.append(torch.stack([(y == kind).flatten(1).all(1).double().mean() for kind in kinds]))
    return torch.stack(shares)


@pytest.mark.parametrize("p", [0.0, 0.5, 0.8, 1.0])
def test_turns_leak_only_where_their_law_can_not_be_undone(p):
    """What D sees of G's orientations is q M, M = (1 - p) + p / 4: below p = 1, q M = r M only where q = r, since the
    smallest singular value is 1 - p; at p = 1 all q look alike."""
    M = seen_orientations(ADA("turn", target=None, p=p))
    assert torch.allclose(M, (1 - p) * torch.eye(4, **SIX) + p / 4, atol=0.03)
    assert torch.linalg.svdvals(M).tolist() == pytest.approx([1] + [1 - p] * 3, abs=0.06)
    upright, mixture = torch.tensor([1.0, 0, 0, 0], **SIX), torch.full((4,), 0.25, **SIX)
    apart = (upright @ M - mixture @ M).abs().sum().item()
    assert apart < 0.06 if p == 1 else apart == pytest.approx(1.5 * (1 - p), abs=0.06)


def upright(gan):
    """The share of G's samples that are brightest above."""
    x = gan.generate(0, 1000)
    sides = [x[:, :, :4], x[:, :, 4:], x[..., :4], x[..., 4:]]  # above, below, left, right
    return (torch.stack([side.mean((1, 2, 3)) for side in sides]).argmax(0) == 0).float().mean().item()


@pytest.mark.parametrize("p", [0.5, 1.0])
def test_what_g_learns_leaks_only_where_it_must(p):
    """Images that are bright above, which D sees turned with probability p; G begins with images that are bright at the
    left. At 0.5 it learns to make at least 99 % of them upright; at 1 all turns look alike to D, and it does not."""
    generator = torch.Generator().manual_seed(0)
    real = torch.full((2048, 1, 8, 8), -0.8) + 0.1 * torch.randn(2048, 1, 8, 8, generator=generator)
    real[:, :, :4] += 1 + 0.6 * torch.rand(2048, 1, 1, 1, generator=generator)
    gan = of_images(
        Relativistic(), ADA("turn", target=None, p=p), terms={"r1": R1(0.1), "r2": R2(0.1)}, ema=EMA(1.0),
        optimizer=partial(torch.optim.Adam, lr=2e-3, betas=(0.0, 0.99)),
    )  # fmt: skip
    with torch.no_grad():  # G's own doing, in G_ema too
        left = (torch.arange(8) < 4).float() * 2 - 1
        for net in (gan.G, gan.G_ema):
            net[0][-1].bias.copy_(left.expand(8, 8).flatten())
    assert upright(gan) == 0
    play(gan, [{"real": part} for part in real.split(32)] * 5)
    assert upright(gan) >= 0.99 if p < 1 else upright(gan) < 0.5
