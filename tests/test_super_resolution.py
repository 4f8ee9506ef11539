"""Larger images from smaller ones: networks, features as a term, G alone at first, windows of images as they are."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
import torchvision
from composing import composed, prepared
from made import noise_images, squeezenet_file
from omegaconf import OmegaConf
from PIL import Image
from play import phase, play
from torch import nn

from ganlab import degrade
from ganlab.data.folder import Folder
from ganlab.files import Unavailable
from ganlab.gan import GAN
from ganlab.losses import RelativisticAverage
from ganlab.models import esrgan, srgan
from ganlab.nn.upscaling import enlarged, scale_of, steps_of
from ganlab.tasks import Restore
from ganlab.terms.content import L2, Content

CPU = torch.device("cpu")


def count(net):
    return sum(p.numel() for p in net.parameters())


# ------------------------------------------------------------------------------------------------------------- networks


def test_networks_have_the_papers_size():
    """RRDBNet's 16,697,987 as its authors' code counts them; SRResNet and D by hand from figure 4."""
    assert count(esrgan.Generator([3, 128, 128], [3, 32, 32])) == 16_697_987
    conv = lambda a, b, k, bias=1: a * b * k * k + b * bias
    normed = lambda a, b: conv(a, b, 3, 0) + 2 * b
    ends = conv(3, 64, 9) + 1 + conv(64, 3, 9)
    body = 16 * (2 * normed(64, 64) + 1) + normed(64, 64)
    assert count(srgan.Generator([3, 96, 96], [3, 24, 24])) == ends + body + 2 * (conv(64, 256, 3) + 1)
    widths = [64, 64, 128, 128, 256, 256, 512, 512]
    maps = sum(normed(a, b) for a, b in pairwise(widths))
    D = srgan.Discriminator([3, 96, 96])
    assert count(D) == conv(3, 64, 3) + maps + 512 * 6 * 6 * 1024 + 1024 + 1025
    assert [m.stride[0] for m in D.modules() if isinstance(m, nn.Conv2d)] == [1, 2, 1, 2, 1, 2, 1, 2]


@pytest.mark.parametrize("family", [srgan, esrgan])
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_any_scale_size_and_channels(family, scale):
    """Trained at one size, G enlarges images of any."""
    G = family.Generator([2, 6 * scale, 8 * scale], [2, 6, 8], width=4, blocks=1)
    assert G(torch.zeros(2, 2, 6, 8)).shape == (2, 2, 6 * scale, 8 * scale)
    assert G.eval()(torch.zeros(1, 2, 17, 5)).shape == (1, 2, 17 * scale, 5 * scale)


@pytest.mark.parametrize("family", [srgan, esrgan])
def test_a_residual_network_begins_as_pillows_bicubic_interpolation(family):
    x = noise_images(1, 16)[0] / 127.5 - 1
    resized = [Image.fromarray(t.numpy()).resize((32, 32), Image.Resampling.BICUBIC) for t in x]
    G = family.Generator([3, 32, 32], [3, 16, 16], width=4, blocks=1, residual=True)
    assert np.abs(G(x[None])[0].detach().numpy() - np.stack(resized)).max() < 1e-5
    with pytest.raises(ValueError, match=r"generator.residual=true: 4 channels can't be added to 3"):
        family.Generator([3, 32, 32], [4, 16, 16], residual=True)


def test_d_halves_as_often_as_the_size_allows():
    """At 128x128 five times, as ESRGAN has it."""
    D = srgan.Discriminator([3, 128, 128], width=4)
    assert sum(m.stride[0] == 2 for m in D.modules() if isinstance(m, nn.Conv2d)) == 5
    for size in ((8, 8), (16, 24), (28, 28)):
        assert srgan.Discriminator([1, *size], width=4)(torch.rand(3, 1, *size)).shape == (3,)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in srgan.Discriminator([1, 8, 8], 4, norm="none").modules())


def test_scales():
    assert [steps_of(scale) for scale in (1, 2, 3, 4, 6, 8)] == [[], [2], [3], [2, 2], [2, 3], [2, 2, 2]]
    assert scale_of([3, 12, 24], [1, 3, 6], "x") == 4
    assert scale_of([3, 12, 24], None, "x") == 1
    for inputs in ([3, 12, 12], [3, 24, 48], [3, 5, 10]):
        with pytest.raises(ValueError, match=r"generator.inputs=.*task.degradation.scale"):
            scale_of([3, 12, 24], inputs, "x")
    assert torch.equal(enlarged(torch.ones(1, 1, 2, 2), 1), torch.ones(1, 1, 2, 2))


# ------------------------------------------------------------------------------------------------------------- features


def content(folder, **kwargs):
    term = Content(net="squeezenet1_1", weights=str(squeezenet_file(folder)), **kwargs)
    term.set_clock(0)
    return term


def seen(folder, x):
    """What layers of the whole network give, watched from outside: {name: map}."""
    net = torchvision.models.squeezenet1_1(weights=None).eval()
    net.load_state_dict(torch.load(squeezenet_file(folder)))
    found = {}
    keep = lambda name: lambda module, given, output: found.update({name: output.clone()})
    for name, layer in net.named_modules():
        layer.register_forward_hook(keep(name))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    net(((x + 1) / 2 - mean) / std)
    return found


def test_the_term_compares_features_before_and_after_the_activation(tmp_path):
    """The network's convolutions and their ReLU, by hand, sample by sample; several layers count equally."""
    x, y = (noise_images(2, 32, seed) / 127.5 - 1 for seed in (1, 2))
    p = phase("G", fake=x, real=y, D=None)
    a, b = seen(tmp_path, x), seen(tmp_path, y)
    names = ["features.12.expand1x1", "features.12.expand3x3"]
    gap = lambda name: (a[name] - b[name]).abs().flatten(1).mean(1)
    assert torch.allclose(content(tmp_path)(p), (gap(names[0]) + gap(names[1])) / 2, rtol=1e-4)
    after = (a["features.12"] - b["features.12"]).square().flatten(1).mean(1)
    assert torch.allclose(content(tmp_path, activated=True, squared=True)(p), after, rtol=1e-4)
    both = (gap("features.0") + gap("features.8")) / 2  # the first is followed by a ReLU in place
    assert torch.allclose(content(tmp_path, layers=["features.0", "features.8"])(p), both, rtol=1e-4)


def test_g_learns_from_features_and_the_network_stays_out_of_the_run(tmp_path):
    """Its gradient reaches the fakes; it has no parameters to train, and none in a checkpoint."""
    term = content(tmp_path)
    fake = (noise_images(2, 32, 1) / 127.5 - 1).requires_grad_()
    term(phase("G", fake=fake, real=torch.zeros(2, 3, 32, 32), D=None)).sum().backward()
    assert fake.grad.abs().sum() > 0
    assert list(term.parameters()) == []
    assert term.state_dict() == {}
    assert not any(p.requires_grad for p in term.network[0].parameters())
    of = lambda x: term(phase("G", fake=x, real=x.flip(-1), D=None))
    grey = noise_images(1, 32, channels=1) / 127.5 - 1
    assert torch.allclose(of(grey), of(grey.expand(-1, 3, -1, -1)))
    assert torch.allclose(of(torch.cat([grey.expand(-1, 3, -1, -1), torch.ones_like(grey)], 1)), of(grey))  # no alpha
    assert of(grey.double()).dtype == torch.float64


def test_images_that_are_too_small_for_the_network_are_refused(tmp_path):
    x = torch.zeros(1, 3, 12, 12)
    with pytest.raises(ValueError, match=r"terms.content: squeezenet1_1 .* \[12, 12\]: set data.size=32"):
        content(tmp_path)(phase("G", fake=x, real=x, D=None))


def test_weights_are_missed_before_the_first_move(tmp_path, monkeypatch):
    """Also where the term starts much later: with the ways out."""
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path))
    monkeypatch.setattr("ganlab.files._download", lambda url, part: (_ for _ in ()).throw(OSError("no net")))
    with pytest.raises(Unavailable, match=r"vgg19-dcbb9e9d.pth(.|\n)*terms.content.weights=FILE(.|\n)*squeezenet1_1"):
        Content(start=1000).set_clock(0)
    other = tmp_path / "other.pth"
    torch.save(nn.Linear(2, 2).state_dict(), other)
    with pytest.raises(ValueError, match=r"terms.content.weights=.*other.pth: the weights are another network's"):
        Content(weights=str(other)).set_clock(0)
    with pytest.raises(Unavailable, match=r"terms.content.weights=.* is another file than expected"):
        Content(weights=str(other), checksum="sha256:00000000").set_clock(0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"net": "vgg20"}, r"terms.content.net='vgg20': torchvision has no"),
        ({"net": "vgg11"}, r"terms.content.layers: say which of vgg11, or take net=vgg19 or squeezenet1_1"),
        ({"layers": ["features.99"]}, r"terms.content.layers=\['features.99'\]: of vgg19 it can't be"),
    ],
)
def test_refused_features(given, message):
    with pytest.raises(ValueError, match=message):
        Content(**given)


# --------------------------------------------------------------------------------------------------------------- phases


@pytest.mark.parametrize("model", ["srgan", "esrgan"])
def test_one_key_says_how_long_g_is_trained_alone(model):
    cfg = composed(f"model={model}", "start.D=7")
    assert cfg.loss.start == cfg.terms.content.start == 7
    assert model == "esrgan" or cfg.terms.l2.stop == 7
    assert "stop" not in cfg.terms.get("l1", {}) or cfg.terms.l1.stop is None
    assert cfg.terms.content.net == "vgg19"


def test_first_g_moves_alone_then_both(tmp_path):
    """Two rounds of the first phase, two of the second, with the terms of each."""
    torch.manual_seed(0)
    at = 0.016
    gan = GAN(
        srgan.Generator([3, 32, 32], [3, 16, 16], width=4, blocks=1), srgan.Discriminator([3, 32, 32], width=4),
        RelativisticAverage(start=at), {"l2": L2(stop=at), "content": content(tmp_path, start=at)},
        optimizer=partial(torch.optim.Adam, lr=1e-3), task=Restore(degrade.Downscale(2)), start={"D": at},
    )  # fmt: skip
    data = [{"real": noise_images(8, 32, i) / 127.5 - 1} for i in range(4)]
    of_d = lambda: torch.cat([p.detach().flatten() for p in gan.D.parameters()])
    before = of_d()
    play(gan, data[:2])
    assert torch.equal(of_d(), before)
    assert {k for k in gan.curves.read() if k.startswith("loss/")} == {"loss/G/l2"}
    play(gan, data[2:])
    assert not torch.equal(of_d(), before)
    told = {k for k in gan.curves.read() if k.startswith("loss/")}
    assert {"loss/G/content", "loss/G/adversarial", "loss/D/adversarial"} <= told


# ----------------------------------------------------------------------------------------------------------------- data


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Seven images of different sizes, whose pixels tell which it is, and where they are."""
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "images"
    root.mkdir()
    for i in range(7):
        h, w = 20 + 3 * i, 40 - 4 * i
        x = np.stack([np.full((h, w), i), *np.mgrid[:h, :w]], -1).astype(np.uint8)
        Image.fromarray(x).save(root / f"{i}.png")
    return root


def data(root, **kwargs):
    return Folder(str(root), crop="random", size=kwargs.pop("size", 16), batch_size=4, **kwargs)


def served(data, rounds, rank=0, world=1, start=0):
    """[n, 3, H, W] levels, as processes are handed them."""

    class Trainer:
        strategy = type("S", (), {"root_device": CPU})
        global_rank, world_size = rank, world
        lightning_module = type("M", (), {"rounds": start})

    data.trainer = Trainer
    found, batches = [], iter(data.train_dataloader())
    while len(found) < rounds:
        found += next(batches)
    return ((torch.cat([batch["real"] for batch in found[:rounds]]) + 1) * 127.5).round().long()


def test_windows_are_parts_of_the_images_as_they_are(folder):
    """Neighbours in a window are neighbours in the image; each epoch shows every image once, elsewhere than before."""
    x = served(data(folder), 14)  # 56 samples: 8 epochs
    assert x.shape == (56, 3, 16, 16)
    which, top, left = x[:, 0], x[:, 1], x[:, 2]
    assert (which == which[:, :1, :1]).all()
    assert (top - top[:, :1] == torch.arange(16)[:, None]).all()
    assert (left - left[:, :, :1] == torch.arange(16)).all()
    epochs = which[:, 0, 0].view(8, 7)
    assert (epochs.sort(1).values == torch.arange(7)).all()
    corners = x[which[:, 0, 0] == 3][:, 1:, 0, 0].unique(dim=0)
    assert len(corners) >= 6


def test_windows_depend_on_seed_and_epoch_alone(folder):
    whole = served(data(folder, seed=3), 10)
    assert torch.equal(served(data(folder, seed=3), 4, start=6), whole[24:])
    halves = [served(data(folder, seed=3), 10, rank, 2).view(10, 2, 3, 16, 16) for rank in (0, 1)]
    assert torch.equal(torch.cat(halves, 1).flatten(0, 1), whole)
    assert torch.equal(served(data(folder, seed=3, memory=0.0, workers=1), 10), whole)  # read from disk meanwhile
    assert not torch.equal(served(data(folder, seed=4), 10), whole)
    mirrored = served(data(folder, seed=3, flip=True), 10)
    same = torch.where((mirrored == whole).flatten(1).all(1)[:, None, None, None], whole, whole.flip(-1))
    assert torch.equal(mirrored, same)


def test_whoever_looks_otherwise_sees_the_middle(folder):
    samples = data(folder).split("train")
    x = samples.take(torch.tensor([0, 6]))["real"].long()
    assert x[:, 0, 0, 0].tolist() == [0, 6]
    assert x[:, 1, 0, 0].tolist() == [2, 11]  # of 5 and 23 places
    assert x[:, 2, 0, 0].tolist() == [12, 0]
    assert len(samples) == 7
    few = data(folder, count=3)
    assert len(few.played()) == 3
    shown = few.played().take(torch.arange(3))["real"][:, 0, 0, 0]
    assert set(served(few, 3)[:, 0, 0, 0].tolist()) == set(shown.tolist())
    prints = {d.fingerprint("train") for d in (data(folder), data(folder, size=12))}
    assert len({*prints, few.played().fingerprint()}) == 3


def test_images_that_are_too_small_are_named(folder):
    with pytest.raises(Unavailable, match=r"0.png has 20x40, and 1 others are too small: .* data.size to 16 or less"):
        data(folder, size=[22, 17]).split("train")
    with pytest.raises(ValueError, match=r"data.crop='left': must be center or random"):
        Folder(str(folder), crop="left")


def test_the_experiments_are_what_they_say(folder):
    """Composed and built: twice as large, 48x48 from 24x24."""
    for name in ("srresnet_t91", "srgan_t91"):
        given = [f"experiment={name}", f"data.root={folder}", "data.size=16", "metrics.enabled=false"]
        if name == "srgan_t91":
            given.append(f"terms.content.weights={squeezenet_file(folder.parent)}")
        settings = prepared(*given)
        assert settings["generator"]["inputs"] == [3, 8, 8]
        assert settings["data"]["crop"] == "random"


@pytest.mark.parametrize("model", ["srresnet", "srgan", "esrgan"])
def test_scores_leave_out_the_usual_border(model):
    """As many pixels as the scale, on Y; none where nothing is enlarged."""
    for given, border in (((), 4), (("task.degradation.scale=2",), 2), (("task=denoise",), 0)):
        scores = OmegaConf.to_container(composed(f"model={model}", *given).scores, resolve=True)
        assert [(scores[k]["luma"], scores[k]["border"]) for k in ("psnr", "ssim")] == [(True, border)] * 2
