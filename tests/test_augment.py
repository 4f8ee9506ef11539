"""What D sees everything through."""

import pytest
import torch
from composing import prepared, run
from play import game, trainer
from torch import nn

from ganlab.augment import DiffAugment, InstanceNoise
from ganlab.rng import BatchRNG
from ganlab.schedule import Linear
from ganlab.settings import build


def rng(n, seed=0, rows=slice(None)):
    return BatchRNG(seed, n, rows)


@pytest.mark.parametrize("policy", ["color", "translation", "cutout", "color,translation,cutout"])
def test_gradients_pass_and_samples_are_on_their_own(policy):
    augment = DiffAugment(policy)
    x = torch.randn(6, 3, 16, 24, dtype=torch.float64, requires_grad=True)
    y = augment(x, rng(6))
    assert y.shape == x.shape
    assert torch.equal(y, augment(x, rng(6)))  # drawn from rng alone
    assert not torch.equal(y, augment(x, rng(6, seed=1)))
    assert torch.equal(augment(x[2:5], rng(6, rows=slice(2, 5))), y[2:5])  # split over micro-batches or processes
    (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    assert gradient.isfinite().all()
    gradient.square().sum().backward()  # twice, as R1 needs it
    assert torch.autograd.gradcheck(lambda x: augment(x, rng(2)), x[:2].detach().requires_grad_())


def test_translation_moves_by_whole_pixels_and_fills_with_zeros():
    x = 1 + torch.arange(64.0).view(1, 1, 8, 8).expand(200, 1, 8, 8)
    y = DiffAugment("translation")(x, rng(200))
    seen = set()
    for image in y[:, 0]:
        at = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if torch.equal(image, moved(x[0, 0], i, j))]
        assert len(at) == 1
        seen.add(at[0])
    assert len(seen) == 9  # by up to an eighth of 8 pixels, in all directions


def moved(x, i, j):
    """x[r + i, c + j], 0 outside."""
    y = torch.zeros_like(x)
    for r in range(8):
        for c in range(8):
            if 0 <= r + i < 8 and 0 <= c + j < 8:
                y[r, c] = x[r + i, c + j]
    return y


def test_cutout_covers_a_square_of_half_the_size():
    y = DiffAugment("cutout")(torch.ones(500, 1, 16, 16), rng(500))
    covered = (y == 0).flatten(1).sum(1)
    assert covered.max() == 64
    assert covered.min() >= 16  # its middle lies in the image
    assert (y == 0).double().mean((0, 1)).min() > 0.05  # anywhere


def test_color_is_what_it_says():
    """With u = (brightness, saturation, contrast) known, the formula; and u = (0.5, 0.5, 0.5) changes nothing."""

    class Known:
        def __init__(self, *u):
            self.u = torch.tensor([u], dtype=torch.float64)

        def uniform(self, n):
            return self.u

    x = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    augment = DiffAugment("color")
    assert torch.allclose(augment(x, Known(0.5, 0.5, 0.5)), x)
    assert torch.allclose(augment(x, Known(0.8, 0.5, 0.5)), x + 0.3)
    assert torch.allclose(augment(x, Known(0.5, 0.0, 0.5)), x.mean(1, keepdim=True).expand_as(x))
    assert torch.allclose(augment(x, Known(0.5, 0.5, 0.0)), (x + x.mean()) / 2)


def test_both_kinds_are_augmented_alike_in_every_move():
    """D's phase: reals and fakes; G's: fakes, with gradient."""

    class Record(nn.Module):
        seen = []

        def forward(self, x, rng):
            self.seen.append((len(x), x.requires_grad))
            return x * 0.5

    gan = game(augment={"record": Record()})
    trainer(limit_train_batches=1).fit(gan, torch.utils.data.DataLoader([{"real": torch.randn(8, 2)}], batch_size=None))
    assert Record.seen == [(8, False), (8, False), (8, True)]


def test_what_it_can_not_do_is_refused():
    with pytest.raises(ValueError, match="blur is none of"):
        DiffAugment("color,blur")
    with pytest.raises(ValueError, match=r"D is shown \[2, 2\]: use augment="):
        game(augment={"diffaugment": DiffAugment()})  # points in the plane
    with pytest.raises(ValueError, match="2 things at once"):
        build(prepared("model=bigan", "augment=diffaugment", "metrics.enabled=false"))
    with pytest.raises(ValueError, match=r"noise\.deviation=-1"):
        InstanceNoise(-1)


def test_instance_noise_follows_its_schedule():
    """Deviation as asked, for one tensor or several; gone at the end."""
    noise = InstanceNoise(Linear(0.4, 0.0, stop=2))
    x = torch.zeros(4000, 3)
    assert noise(x, rng(4000)).std() == pytest.approx(0.4, rel=0.03)
    noise.set_clock(1000)
    a, b = noise((x, x[:, :2]), rng(4000))
    assert a.std() == pytest.approx(0.2, rel=0.03)
    assert b.shape == (4000, 2)
    noise.set_clock(2000)
    assert torch.equal(noise(x, rng(4000)), x)
    assert torch.equal(InstanceNoise(0.1)(x, rng(4000))[5:9], InstanceNoise(0.1)(x[5:9], rng(4000, rows=slice(5, 9))))


def test_their_strength_is_drawn(tmp_path):
    run(tmp_path, "experiment=tiny", "augment=[ada,noise]", "augment.ada.target=null", "augment.ada.p=0.25")
    header, first, *_ = (tmp_path / "metrics.csv").read_text().splitlines()
    values = dict(zip(header.split(","), first.split(","), strict=True))
    assert float(values["augment/ada/p"]) == 0.25
    assert 0 < float(values["augment/noise/now"]) < 0.02  # on its way from 0.1 to 0


def test_several_are_combined_in_the_order_given():
    class Twice(nn.Module):
        def forward(self, x, rng):
            return 2 * x

    class More(nn.Module):
        def forward(self, x, rng):
            return x + 1

    seen = []
    D = nn.Linear(2, 1)
    D.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    gan = game(discriminator=D, augment={"twice": Twice(), "more": More()})
    real = torch.randn(8, 2)
    trainer(limit_train_batches=1).fit(gan, torch.utils.data.DataLoader([{"real": real}], batch_size=None))
    assert any(torch.equal(x, 2 * real + 1) for x in seen)
