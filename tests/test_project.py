"""The latents of given images are found, and what can't be looked for is refused."""

import csv

import numpy as np
import pytest
import torch
from composing import composed
from omegaconf import OmegaConf
from PIL import Image
from test_checkpoint import saved  # noqa: F401
from test_sampling import Styled
from torch import nn
from torchvision.utils import save_image

from ganlab.checkpoint import Sampler
from ganlab.files import Unavailable
from ganlab.models import dcgan
from ganlab.project import project, search
from ganlab.tasks import Generate


class Linear(nn.Module):
    z_dim = 3

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 12)

    def forward(self, z):
        return self.layer(z).view(-1, 3, 2, 2)


def test_the_latent_of_a_linear_generator_is_that_of_least_squares():
    sampler = Sampler(Linear(), Generate())
    targets = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    found = search(sampler, targets, steps=400, starts=8)
    layer = sampler.G.layer
    expected = np.linalg.lstsq(layer.weight.numpy(), (targets.flatten(1) - layer.bias).numpy().T, rcond=None)[0].T
    assert found.latent.numpy() == pytest.approx(expected, abs=2e-3)
    error = np.square(expected @ layer.weight.numpy().T + layer.bias.numpy() - targets.flatten(1).numpy()).mean(1)
    assert found.loss.numpy() == pytest.approx(error, rel=1e-4)
    assert found.psnr.numpy() == pytest.approx(10 * np.log10(4 / error), rel=1e-4)
    assert (found.psnr >= found.psnr_start).all()


def test_what_the_generator_made_is_found_again():
    torch.manual_seed(0)
    sampler = Sampler(dcgan.Generator([1, 8, 8], z_dim=4, width=16), Generate())
    sampler.standing(64)  # batch norm that lets the signal through
    targets = sampler.generate(1000, 3)
    found = search(sampler, targets, steps=150, starts=32)
    assert found.psnr.min() > 40
    assert found.psnr_start.max() < 40
    assert torch.equal(sampler(found.latent), found.result)


def test_an_image_is_searched_for_alone():
    sampler = Sampler(Styled(), Generate())
    targets = torch.randn(3, 1, 6, 5, generator=torch.Generator().manual_seed(2))
    whole = search(sampler, targets, steps=20, starts=4)
    second = search(sampler, targets[1:2], steps=20, starts=4, first=1)
    assert torch.allclose(whole.latent[1:2], second.latent, atol=1e-5)


@pytest.mark.parametrize(("space", "expected"), [("w", "rows"), ("ws", "all"), ("auto", "all")])
def test_styles_are_found_for_all_layers_together_or_for_each(space, expected):
    """Styled's image is its ws: with one w for all layers the best is the mean over layers."""
    sampler = Sampler(Styled(), Generate())
    targets = torch.randn(2, 1, 6, 5, generator=torch.Generator().manual_seed(2))
    found = search(sampler, targets, space=space, steps=300, starts=16)
    best = targets[:, 0].mean(1) if expected == "rows" else targets[:, 0]
    assert torch.allclose(found.latent, best, atol=2e-3)


def test_features_can_be_all_that_counts():
    """Seen through their sum over pixels, images of the same sum are as good as the target."""
    sampler = Sampler(Linear(), Generate())
    targets = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    found = search(sampler, targets, steps=200, starts=4, pixels=0, see=lambda x: x.flatten(1).sum(1, keepdim=True))
    assert torch.allclose(found.result.flatten(1).sum(1), targets.flatten(1).sum(1), atol=1e-2)
    assert (found.result - targets).abs().max() > 0.1


def arguments(*overrides):
    return OmegaConf.to_container(composed(*overrides, name="project"), resolve=True)


def test_files_of_any_size_and_mode_give_a_sheet_a_table_and_latents(saved, tmp_path):  # noqa: F811
    path, _ = saved
    (tmp_path / "in").mkdir()
    Image.new("RGBA", (40, 30), (200, 10, 10, 128)).save(tmp_path / "in" / "a.png")
    save_image(torch.rand(3, 20, 20), tmp_path / "in" / "b.jpg")
    given = ["extractor=pixels", f"checkpoint={path}", f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}"]
    folder = project(**arguments(*given, "steps=3", "starts=5", "batch_size=1", "device=cpu"))
    with Image.open(folder / "sheet.png") as sheet:
        assert sheet.size == (3 * 17 + 1, 2 * 17 + 1)  # 16 pixels and a line between
    with open(folder / "table.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"].rsplit("/", 1)[1] for row in rows] == ["a.png", "b.jpg"]
    assert all(float(row["psnr"]) >= float(row["psnr_start"]) > 0 for row in rows)
    with np.load(folder / "latents.npz") as stored:
        assert stored["latent"].shape == (2, 100)
        assert list(stored["image"]) == [row["image"] for row in rows]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["space=w"], "space=w: Generator has no mapping and synthesis"),
        (["space=v"], "space=v: must be auto, z, w, ws"),
        (["label=3"], "label=3: this generator is told none"),
        (["steps=0"], "steps=0: must be a whole number from 1 to 10000"),
        (["lr=-1"], "lr=-1: must be a number"),
        (["pixels=0"], "leaves nothing to go by"),
        (["extractor=classifier"], "extractor=classifier learns from images of one class"),
        (["input=nowhere.png"], "there is no such image"),
        (["checkpoint=nowhere.ckpt"], "there is no such file"),
        (["device=cuda:77"], "can't be used here"),
    ],
)
def test_what_can_not_be_looked_for_is_refused_with_the_reason(given, message, saved, tmp_path):  # noqa: F811
    path, _ = saved
    Image.new("L", (16, 16)).save(tmp_path / "x.png")
    common = [f"checkpoint={path}", f"input={tmp_path / 'x.png'}", f"output={tmp_path / 'out'}", "device=cpu"]
    with pytest.raises((ValueError, Unavailable), match=message):
        project(**arguments(*common, *given))
    assert not (tmp_path / "out").exists()


def test_a_conditional_generator_must_be_told_the_class(tmp_path):
    from test_analyze import conditional

    Image.new("L", (16, 16)).save(tmp_path / "x.png")
    common = [f"checkpoint={conditional(tmp_path)}", f"input={tmp_path / 'x.png'}", f"output={tmp_path / 'out'}"]
    with pytest.raises(ValueError, match="say which, 0 to 9"):
        project(**arguments(*common))
    project(**arguments(*common, "label=3", "steps=2", "starts=3", "device=cpu"))
    assert (tmp_path / "out" / "sheet.png").exists()
