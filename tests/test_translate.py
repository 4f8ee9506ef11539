"""From images to images: tasks, degradations, terms and pix2pix's networks."""

import inspect
import io
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from composing import composed
from PIL import Image
from play import phase, trainer
from torch import nn

from ganlab import degrade, tasks
from ganlab.augment import DiffAugment, InstanceNoise
from ganlab.checkpoint import Sampler
from ganlab.conf import CONF
from ganlab.gan import GAN
from ganlab.losses import NonSaturating
from ganlab.models import pix2pix
from ganlab.phase import GeneratorOutput
from ganlab.rng import BatchRNG, IndexedRNG
from ganlab.tasks import Restore, Segment, Translate
from ganlab.terms.content import L1, L2, CrossEntropy
from ganlab.untrusted import build


def rng(n, seed=0):
    return IndexedRNG(seed, range(n))


def images(n=4, channels=3, size=(16, 24), seed=0):
    return torch.rand(n, channels, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# ------------------------------------------------------------------------------------------------------------- networks


def seen_by_a_logit(D, size):
    """Pixels (height, width) of which one logit in the middle depends, by its gradient."""
    x = torch.rand(1, 3, size, size, requires_grad=True)
    logits = D(x)
    (gradient,) = torch.autograd.grad(logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2], x)
    found = gradient.abs().sum((0, 1)).nonzero()
    return (found.amax(0) - found.amin(0) + 1).tolist()


@pytest.mark.parametrize(("layers", "pixels"), [(1, 16), (2, 34), (3, 70), (4, 142)])
def test_a_logit_sees_its_patch(layers, pixels):
    """70x70 for the paper's three halvings, and its others (section 4.4)."""
    D = pix2pix.Discriminator([3, 256, 256], width=4, layers=layers, norm="none")
    assert seen_by_a_logit(D, 256) == [pixels, pixels]


def test_networks_have_the_papers_size():
    """54.414 M parameters and 2.769 M, as the authors' code prints them, up to the biases of layers without norm."""
    G = pix2pix.Generator([3, 256, 256], norm="batch")
    D = pix2pix.Discriminator([3, 256, 256], [3, 256, 256], norm="batch")
    assert sum(p.numel() for p in G.parameters()) == pytest.approx(54.414e6, abs=2e3)
    assert sum(p.numel() for p in D.parameters()) == pytest.approx(2.769e6, abs=1e3)
    assert D(torch.zeros(1, 3, 256, 256), torch.zeros(1, 3, 256, 256)).shape == (1, 1, 30, 30)
    assert len(G.down) == 8
    assert G.down[-1](torch.zeros(1, 512, 2, 2)).shape == (1, 512, 1, 1)
    assert [sum(isinstance(m, nn.Dropout) for m in up.modules()) for up in G.up] == [1, 1, 1, 0, 0, 0, 0, 0]


def test_weights_begin_as_in_the_paper():
    D = pix2pix.Discriminator([3, 64, 64], width=64)
    weights = torch.cat([m.weight.flatten() for m in D.modules() if isinstance(m, nn.Conv2d)])
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)


@pytest.mark.parametrize("size", [(8, 8), (12, 20), (16, 16), (28, 28), (24, 64)])
def test_any_size_and_channels(size):
    G, D = pix2pix.Generator([4, *size], [2, *size], width=4), pix2pix.Discriminator([4, *size], [2, *size], width=4)
    x = images(2, 2, size)
    assert G(x).shape == (2, 4, *size)
    assert D(G(x), x).dim() == 4
    larger = torch.zeros(1, 2, size[0] + G.multiple, size[1] + 2 * G.multiple)
    assert G.eval()(larger).shape[2:] == larger.shape[2:]


def test_a_sample_depends_on_its_input_alone_once_trained():
    G, x = pix2pix.Generator([3, 32, 32], width=4), images(3, 3, (32, 32))
    assert not torch.equal(G(x), G(x))
    G.eval()
    assert torch.allclose(G(x)[:1], G(x[:1]), atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pix2pix.Generator([3, 30, 31]), "data.size"),
        (lambda: pix2pix.Generator([3, 32, 32], [3, 16, 16]), r"generator.inputs=\[3, 16, 16\]"),
        (lambda: pix2pix.Generator([3, 32, 32], depth=6), r"generator.depth=6: .* 5 times"),
        (lambda: pix2pix.Generator([3, 32, 32], norm="layer"), "norm='layer'"),
        (lambda: pix2pix.Discriminator([3, 32, 32], layers=5), "layers from 1 to 3"),
        (lambda: pix2pix.Discriminator([3, 32, 32], [3, 16, 16]), "discriminator.inputs=null"),
    ],
)
def test_refused_networks(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---------------------------------------------------------------------------------------------------------------- tasks


def game(task, generator=None, discriminator=None, **kwargs):
    torch.manual_seed(0)
    generator = generator or pix2pix.Generator([3, 16, 16], width=4)
    discriminator = discriminator or pix2pix.Discriminator([3, 16, 16], [3, 16, 16] if task.conditional else None, 4)
    return GAN(
        generator, discriminator, NonSaturating(), kwargs.pop("terms", {"l1": L1()}), task=task,
        optimizer=partial(torch.optim.Adam, lr=1e-3), **kwargs,
    )  # fmt: skip


def test_d_is_shown_what_g_started_from():
    """With `conditional` a D that reads only its second argument tells inputs apart; without it gets none."""
    batch = {"inputs": images(seed=1), "real": images(seed=2)}
    told = Translate().prepare(batch, rng(4))
    assert told.cond is told.inputs is batch["inputs"]
    assert Translate(conditional=False).prepare(batch, rng(4)).cond is None
    fake, real = Translate().play(lambda x: x + 1, told)  # G itself is handed its input once
    assert torch.equal(fake.fake, batch["inputs"] + 1)
    assert real is batch["real"]


def test_l1_learns_the_way_from_one_image_to_the_other():
    """G is to invert plain images: after some rounds its error is far below the beginning's."""
    gan = game(Translate(), share_fake=True)
    plain = [images(8, 3, (1, 1), i).expand(8, 3, 16, 16) for i in range(60)]
    data = [{"inputs": x, "real": -x} for x in plain]
    error = lambda: (gan.reconstruct(data[0])["fake"] - data[0]["real"]).abs().mean().item()
    before = error()
    trainer().fit(gan, torch.utils.data.DataLoader(data, batch_size=None))
    gan.G_ema.load_state_dict(gan.G.state_dict())
    assert error() < 0.7 * before


def test_what_d_compares_is_not_moved_apart():
    """An augmentation of one of two images that D compares is refused; noise is none."""
    with pytest.raises(ValueError, match=r"task.conditional=false"):
        game(Translate(), augment={"diff": DiffAugment()})
    game(Translate(), augment={"noise": InstanceNoise()})
    game(Translate(conditional=False), augment={"diff": DiffAugment()})


def test_d_and_task_agree_on_what_d_is_told():
    with pytest.raises(ValueError, match=r"task.conditional=true and discriminator.inputs=null"):
        game(Translate(), discriminator=pix2pix.Discriminator([3, 16, 16], width=4))
    with pytest.raises(ValueError, match=r"generator.tanh=true .*: set generator.tanh=false"):
        game(Segment(conditional=False), generator=pix2pix.Generator([3, 16, 16], width=4))
    with pytest.raises(ValueError, match=r"takes one argument only: set task.conditional=false"):
        game(Translate(), discriminator=nn.Conv2d(3, 1, 4))


@pytest.mark.parametrize(
    ("task", "facts", "message"),
    [
        (Translate(), {"shape": [3, 8, 8]}, "learns from pairs.*task=denoise"),
        (Translate(), {"shape": [3, 8, 8], "inputs": [3, 8, 8], "maps": True}, "task=segment"),
        (Translate(), {"shape": [3, 8, 8], "inputs": [3, 8, 8], "partners": False}, "learns from pairs"),
        (Segment(), {"shape": [3, 8, 8], "inputs": [3, 8, 8]}, "data=label_maps"),
        (Restore(degrade.Noise()), {"shape": [2]}, "repairs images"),
        (Restore(degrade.Downscale(2), conditional=True), {"shape": [3, 8, 8]}, "task.conditional=true"),
        (Restore(degrade.Downscale(3)), {"shape": [3, 8, 8]}, r"does not divide 8x8: set data.size=9"),
        (Restore(degrade.Grayscale()), {"shape": [1, 8, 8]}, "data.channels=3"),
        (Restore(degrade.JPEG()), {"shape": [2, 8, 8]}, "1 or 3 channels"),
        (Restore(degrade.Blur(4)), {"shape": [3, 8, 8]}, "reaches 12 pixels"),
    ],
)
def test_data_that_a_task_can_not_use_are_refused(task, facts, message):
    with pytest.raises(ValueError, match=message):
        task.facts(facts)


def test_maps_become_ones_and_zeros_and_logits_probabilities():
    """By hand: three classes, one pixel that does not count, which is nothing to D on both sides."""
    real = torch.tensor([[[0, 2], [1, 255]]])
    logits = torch.tensor([2.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    batch = Segment().prepare({"inputs": torch.zeros(1, 1, 2, 2), "real": real}, rng(1))
    output, ones = Segment().play(lambda x: logits, batch)
    assert ones[0, :, 0].T.tolist() == [[1, 0, 0], [0, 0, 1]]
    assert ones[0, :, 1].T.tolist() == [[0, 1, 0], [0, 0, 0]]
    e = np.exp([2.0, 0.0, 1.0])
    assert torch.allclose(output.fake[0, :, 0, 1], torch.tensor(e / e.sum(), dtype=torch.float32))
    assert output.fake[0, :, 1, 1].tolist() == [0, 0, 0]
    assert torch.equal(output.aux, logits)
    colors = Segment().show(ones)
    assert colors.shape == (1, 3, 2, 2)
    assert colors[0, :, 1, 1].tolist() == [-1, -1, -1]
    assert len({tuple(c.tolist()) for c in colors[0].flatten(1).T}) == 4


def test_terms_by_hand():
    fake, real = torch.tensor([[0.0, 1.0], [2.0, 2.0]]), torch.tensor([[0.5, 0.0], [2.0, 0.0]])
    given = phase("G", fake=fake, real=real, D=None)
    assert L1()(given).tolist() == [0.75, 1.0]
    assert L2()(given).tolist() == [0.625, 2.0]
    assert (L1().player, L1().weight) == ("G", 100.0)
    ids = torch.tensor([[[0, 255], [1, 0]]])
    logits = torch.tensor([1.0, -1.0]).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    given = phase("G", fake=logits, real=ids, D=None, G=lambda x: GeneratorOutput(x, x))
    p = 1 / (1 + np.exp(-2.0))
    assert CrossEntropy()(given).item() == pytest.approx(-(2 * np.log(p) + np.log(1 - p)) / 3, rel=1e-5)
    nothing = phase("G", fake=logits, real=torch.full_like(ids, 255), D=None, G=lambda x: GeneratorOutput(x, x))
    assert CrossEntropy()(nothing).item() == 0


def test_restored_images_are_the_same_whoever_asks_and_in_whatever_pieces():
    """Noise of an evaluation's i-th sample belongs to (seed, i)."""
    gan, x = game(Restore(degrade.Noise())), images(6, 3, (16, 16))
    whole = gan.reconstruct({"real": x}, seed=3)
    part = gan.reconstruct({"real": x[4:]}, start=4, seed=3)
    assert torch.equal(whole["inputs"][4:], part["inputs"])
    assert torch.allclose(whole["fake"][4:], part["fake"], atol=1e-6)
    assert not torch.equal(gan.reconstruct({"real": x}, seed=4)["inputs"], whole["inputs"])
    sampler = Sampler(gan.G_ema, gan.task).reconstruct({"real": x}, seed=3)
    assert all(torch.equal(sampler[k], whole[k]) for k in ("inputs", "fake", "real"))


def test_a_stored_task_brings_its_degradation_and_nothing_else():
    of = lambda target: {
        "_target_": "ganlab.tasks.Restore", "degradation": {"_target_": target, "sigma": 5.0}, "conditional": False,
    }  # fmt: skip
    own, parts = ("ganlab.tasks",), {"degradation": ("ganlab.degrade",)}
    task = build(of("ganlab.degrade.Noise"), own, "task", parts)
    assert task.degradation.sigma == 5.0
    for evil in ("os.system", "ganlab.files.fetch", "torch.nn.Linear", "ganlab.tasks.Generate"):
        with pytest.raises(ValueError, match="which is not ganlab's own"):
            build(of(evil), own, "task", parts)
    deeper = of("ganlab.degrade.Noise")
    deeper["degradation"]["sigma"] = {"_target_": "ganlab.degrade.Noise"}
    for config, allowed in ((deeper, parts), (of("ganlab.degrade.Noise"), None)):
        with pytest.raises(ValueError, match="not plain values"):
            build(config, own, "task", allowed)


# --------------------------------------------------------------------------------------------------------- degradations

ALL = [
    degrade.Nothing(), degrade.Noise(), degrade.Blur(), degrade.Grayscale(), degrade.JPEG([5, 60]),
    degrade.Downscale(2), degrade.Center(), degrade.Blocks(), degrade.FreeForm(),
]  # fmt: skip


@pytest.mark.parametrize("degradation", ALL, ids=lambda d: type(d).__name__)
def test_what_is_left_has_the_told_shape_and_depends_on_the_samples_own_numbers(degradation):
    x = images()
    left = degradation(x, rng(4))
    assert list(left.shape[1:]) == degradation.shape([3, 16, 24])
    assert left.dtype == x.dtype
    assert torch.equal(left, degradation(x, rng(4)))
    assert torch.equal(left[2:], degradation(x[2:], IndexedRNG(0, range(2, 4))))
    halves = [degradation(x[rows], BatchRNG(5, 4, rows)) for rows in (slice(0, 2), slice(2, 4))]
    assert torch.equal(torch.cat(halves), degradation(x, BatchRNG(5, 4, slice(0, 4))))
    assert degradation.picture(left).shape[1] in (1, 3)
    assert degradation.merged(left, x).shape == x.shape


def test_noise_has_its_deviation():
    x = torch.zeros(2, 3, 200, 200)
    assert degrade.Noise(25)(x, rng(2)).std().item() * 127.5 == pytest.approx(25, rel=0.01)


def test_blur_is_scipys():
    from scipy.ndimage import gaussian_filter

    x = images(1, 1, (20, 30))
    expected = gaussian_filter(x[0, 0].numpy(), 1.5, mode="mirror", truncate=5 / 1.5)
    assert np.allclose(degrade.Blur(1.5)(x, rng(1))[0, 0].numpy(), expected, atol=1e-6)


def test_jpeg_is_pillows():
    """At the same quality the file of another writer decodes to nearly the same image."""
    x = F.interpolate(images(1, 1, (4, 4)), (32, 32), mode="bilinear")
    stored = io.BytesIO()
    Image.fromarray(((x[0, 0] + 1) * 127.5).round().to(torch.uint8).numpy()).save(stored, "jpeg", quality=20)
    expected = torch.from_numpy(np.array(Image.open(stored))).float() / 127.5 - 1
    assert (degrade.JPEG(20)(x, rng(1))[0, 0] - expected).abs().max() < 0.02


def test_downscaling_is_pillows_bicubic():
    x = (images(1, 1, (16, 24)) * 127.5 + 127.5).round() / 127.5 - 1
    image = Image.fromarray(((x[0, 0] + 1) * 127.5).round().to(torch.uint8).numpy())
    expected = np.array(image.resize((6, 4), Image.Resampling.BICUBIC)).astype(int)
    found = ((degrade.Downscale(4)(x, rng(1))[0, 0] + 1) * 127.5).numpy()
    assert np.abs(found - expected).max() <= 1.01
    assert np.allclose(found, found.round(), atol=1e-4)


def test_grey_is_luma():
    x = torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1)
    assert degrade.Grayscale()(x, rng(1)).item() == pytest.approx(0.299 - 0.114)


def test_colours_are_added_and_grey_stays():
    """Whatever G makes, what is seen of it has the luma that was handed in, and the differences of its channels."""
    inputs, fake = images(2, 1, seed=1), images(2, 3, seed=2)
    made = degrade.Grayscale().merged(inputs, fake)
    assert torch.allclose(degrade.Grayscale()(made, rng(2)), inputs, atol=1e-6)
    assert torch.allclose(made[:, 0] - made[:, 2], fake[:, 0] - fake[:, 2], atol=1e-6)


def test_holes_are_grey_told_of_and_filled():
    x, fake = images(), torch.full((4, 3, 16, 24), 0.5)
    for hole in (degrade.Center(), degrade.Blocks(), degrade.FreeForm()):
        left = hole(x, rng(4))
        missing = left[:, -1:] > 0
        assert set(left[:, -1].unique().tolist()) == {-1.0, 1.0}
        assert (left[:, :3].where(missing, 0.0) == 0).all()
        merged = hole.merged(left, fake)
        assert (merged.where(missing, 0.5) == 0.5).all()
        assert torch.equal(merged.where(~missing, 0.0), x.where(~missing, 0.0))
    assert (degrade.Center(0.5)(x, rng(4))[:, -1] > 0).float().mean().item() == 0.25
    shares = (degrade.FreeForm()(images(64), rng(64))[:, -1] > 0).float().mean((1, 2))
    assert 0.05 < shares.mean() < 0.6
    assert len(shares.unique()) > 30


def test_a_stroke_is_as_wide_as_the_brush():
    grid = torch.stack(torch.meshgrid(torch.arange(5.0), torch.arange(9.0), indexing="ij"), -1)
    d = degrade.distance(grid, torch.tensor([[2.0, 2.0]]), torch.tensor([[2.0, 6.0]]))[0]
    assert d[2].tolist() == [2, 1, 0, 0, 0, 0, 0, 1, 2]
    assert d[:, 4].tolist() == [2, 1, 0, 1, 2]


@pytest.mark.parametrize(
    "make",
    [
        lambda: degrade.Noise(0), lambda: degrade.Blur(0), lambda: degrade.JPEG(0), lambda: degrade.JPEG([50, 10]),
        lambda: degrade.Downscale(1), lambda: degrade.Center(1), lambda: degrade.Blocks(0),
        lambda: degrade.Blocks(1, [0.5, 0.1]), lambda: degrade.FreeForm(0),
    ],
)  # fmt: skip
def test_refused_degradations(make):
    with pytest.raises(ValueError, match=r"task\.degradation"):
        make()


def test_what_is_refused_is_told_of_options_that_are_there():
    """A message that says task=x, model=x or data=x gives advice that can be followed."""
    said = set(re.findall(r"\b(task|model|data)=([a-z_0-9]+)\b", inspect.getsource(tasks)))
    assert len(said) > 10
    assert [f"{group}={name}" for group, name in said if not (Path(CONF) / group / f"{name}.yaml").is_file()] == []


def test_each_image_has_a_jpeg_quality_of_its_own():
    """Between the two: a lower quality leaves fewer bytes, so of one image in many samples not all can be alike."""
    one = images(1, 3, (16, 16), 0).expand(8, -1, -1, -1)
    made = degrade.JPEG((5, 95))(one, rng(8))
    known = torch.cat([degrade.JPEG(q)(one[:1], rng(1)) for q in range(5, 96)])
    assert all((known == x).flatten(1).all(1).any() for x in made)
    assert len({x.numpy().tobytes() for x in made}) > 4


def test_the_weights_of_pix2pix_are_the_papers():
    """Section 3.3: D's loss counts half, L1 100 times, and Adam has 0.5; one image at a time."""
    cfg = composed("model=pix2pix")
    game = {"D": cfg.loss.weight.D, "G": cfg.loss.weight.G, "l1": cfg.terms.l1.weight}
    assert game == {"D": 0.5, "G": 1.0, "l1": 100.0}
    assert (cfg.adam.lr, list(cfg.adam.betas), cfg.data.batch_size) == (2e-4, [0.5, 0.999], 1)
    assert (cfg.generator.dropout, cfg.generator.width, cfg.discriminator.width) == (0.5, 64, 64)
