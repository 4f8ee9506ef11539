"""A trained generator applied to other people's images: nothing of them is lost, and what can't be done is said."""

import io
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from composing import composed
from omegaconf import OmegaConf
from PIL import Image
from torch import nn

from ganlab import checkpoint, degrade
from ganlab.checkpoint import AtomicIO, Sampler
from ganlab.files import Unavailable
from ganlab.models import dcgan, esrgan, pix2pix, srgan
from ganlab.rng import IndexedRNG
from ganlab.settings import drop_settings_of_what_was_removed
from ganlab.tasks import Generate, Restore, Segment, Translate
from ganlab.translate import translate
from ganlab.translator import Translator

# ------------------------------------------------------------------------------- generators whose outputs are known


class Inverse(nn.Module):
    """The negative, in `scale` times as many pixels; of more channels than it makes it takes the first."""

    multiple = 1

    def __init__(self, shape, inputs=None, scale=1):
        super().__init__()
        self.channels, self.scale, self.one = shape[0], scale, nn.Parameter(torch.ones(1))

    def forward(self, x):
        x = -self.one * x[:, : self.channels].expand(-1, self.channels, -1, -1)
        return x.repeat_interleave(self.scale, 2).repeat_interleave(self.scale, 3)


class Picky(Inverse):
    """Takes images of 8x8 alone."""

    multiple = None

    def forward(self, x):
        assert x.shape[2:] == (8, 8)
        return super().forward(x)


class TwoWays(Inverse):
    """There the negative in colour, back the middle of grey."""

    def __init__(self, shape, inputs):
        super().__init__(shape, inputs)
        self.back = Zero(inputs)


class Zero(Inverse):
    """An image without light or shade."""

    def forward(self, x):
        return 0 * super().forward(x)


class Average(Inverse):
    """Looks at the whole image."""

    def forward(self, x):
        return super().forward(x) - x.mean((2, 3), keepdim=True)


def stored(folder, task, kind=Inverse, shape=(3, 8, 8), inputs=None, **kwargs):
    """A checkpoint of such a generator, as a run writes it."""
    arguments = {"shape": list(shape), "inputs": list(inputs or shape), **kwargs}
    G = kind(**arguments)
    config = {"generator": {"_target_": f"{kind.__module__}.{kind.__name__}", **arguments}, "task": task}
    about = {"format": checkpoint.FORMAT, "version": "0", "config": config}
    state = {f"G_ema.{name}": value for name, value in G.state_dict().items()}
    path = folder / "run" / "checkpoints" / "last.ckpt"
    AtomicIO().save_checkpoint({"state_dict": state, "ganlab": about, "clock": {"rounds": 1, "seen": 64}}, path)
    return str(path)


def task(name, **degradation):
    node = {"_target_": f"ganlab.tasks.{name.partition('.')[0]}", "conditional": False}
    if "." in name:
        node["degradation"] = {"_target_": f"ganlab.degrade.{name.partition('.')[2]}", **degradation}
    return node


def used(folder, path, **kwargs):
    """What is in the output, by name."""
    settings = {"input": str(folder / "in"), "output": str(folder / "out"), "device": "cpu"}
    made = translate(path, trust=["test_translating"], **(settings | kwargs))
    files = [file for file in made.rglob("*") if file.is_file()]
    return {file.relative_to(made).as_posix(): np.array(Image.open(file)) for file in files}


def picture(path, mode="RGB", size=(12, 9), seed=0, **kwargs):
    """A random image; returns its pixels."""
    channels = {"L": (), "LA": (2,), "RGB": (3,), "RGBA": (4,)}[mode]
    x = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(x).save(path, **kwargs)
    return x


def over_white(x):
    alpha = x[..., -1:] / 255
    return np.round(x[..., :-1] * alpha + 255 * (1 - alpha)).astype(np.uint8)


# -------------------------------------------------------------------------------------------------------- translation


def test_a_folder_of_all_sorts_is_translated(tmp_path, capsys):
    """Each at its own size, in its subfolder, upright, with its transparency; what can't be read is named and counted,
    and the others are made."""
    home = tmp_path / "in"
    color = picture(home / "a.png")
    grey = picture(home / "sub" / "deep" / "grey.bmp", "L", (5, 17), seed=1)
    clear = picture(home / "sub" / "clear.png", "RGBA", (1, 1), seed=2)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    turned = picture(home / "turned.webp", size=(30, 20), seed=3, lossless=True, exif=exif)
    picture(home / "same.png", seed=4)
    picture(home / "same.bmp", seed=5)
    (home / "text.png").write_text("no image")
    (home / "empty.jpg").write_bytes(b"")
    whole = io.BytesIO()
    Image.new("RGB", (64, 64)).save(whole, "png")
    (home / "cut.png").write_bytes(whole.getvalue()[:-30])
    (home / "notes.txt").write_text("not looked at")
    made = used(tmp_path, stored(tmp_path, task("Translate")))
    said = capsys.readouterr().out
    names = {"a.png", "sub/deep/grey.png", "sub/clear.png", "turned.png", "same.png.png", "same.bmp.png"}
    assert set(made) == names | {"before_after.png"}
    assert np.array_equal(made["a.png"], 255 - color)
    assert np.array_equal(made["sub/deep/grey.png"], np.repeat(255 - grey[..., None], 3, 2))
    assert np.array_equal(made["sub/clear.png"][..., :3], 255 - over_white(clear))
    assert np.array_equal(made["sub/clear.png"][..., 3], clear[..., 3])
    assert np.array_equal(made["turned.png"], 255 - np.rot90(turned, -1))
    assert "6 images in" in said
    assert "3 left out" in said
    assert all(f"{home / name}: " in said for name in ("text.png", "empty.jpg", "cut.png"))


def test_what_is_there_already_is_left_alone_unless_told(tmp_path, capsys):
    x, path = picture(tmp_path / "in" / "a.png"), stored(tmp_path, task("Translate"))
    picture(tmp_path / "out" / "a.png", seed=1)
    kept = used(tmp_path, path)["a.png"]
    assert not np.array_equal(kept, 255 - x)
    assert "0 images in" in (said := capsys.readouterr().out)
    assert "1 were there already" in said
    assert np.array_equal(used(tmp_path, path, overwrite=True)["a.png"], 255 - x)


def test_an_original_is_never_written_over(tmp_path):
    x, path = picture(tmp_path / "in" / "a.png"), stored(tmp_path, task("Translate"))
    for output in (tmp_path / "in", tmp_path / "in" / "made"):
        with pytest.raises(ValueError, match="lies in input"):
            used(tmp_path, path, output=str(output), overwrite=True)
    with pytest.raises(Unavailable, match="would be overwritten"):
        used(tmp_path, path, input=str(tmp_path / "in" / "a.png"), output=str(tmp_path / "in"), overwrite=True)
    assert np.array_equal(np.array(Image.open(tmp_path / "in" / "a.png")), x)


def test_if_none_can_be_translated_it_fails(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_text("no image")
    with pytest.raises(Unavailable, match=r"none of 1 images could be translated: .*a.png: it is none of PNG"):
        used(tmp_path, stored(tmp_path, task("Translate")))


def test_an_output_that_can_not_be_written_ends_it(tmp_path):
    picture(tmp_path / "in" / "a.png")
    (tmp_path / "out").write_text("a file")
    with pytest.raises(Unavailable, match=r"output=.*out can't be written to"):
        used(tmp_path, stored(tmp_path, task("Translate")))


@pytest.mark.parametrize(("format", "worst"), [("jpg", 16), ("webp", 16), ("png", 0)])
def test_other_formats(format, worst, tmp_path):
    """JPEG has no transparency: the result is laid over white."""
    (tmp_path / "in").mkdir()
    Image.new("RGBA", (32, 32), (200, 40, 90, 128)).save(tmp_path / "in" / "a.png")
    made = used(tmp_path, stored(tmp_path, task("Translate")), format=format)[f"a.{format}"].astype(int)
    before = over_white(np.full((32, 32, 4), [200, 40, 90, 128], np.uint8))
    expected = np.concatenate([255 - before, np.full((32, 32, 1), 128)], 2)
    expected = over_white(expected.astype(np.uint8)) if format == "jpg" else expected
    assert np.abs(made - expected).max() <= worst


def test_transparency_grows_with_the_image(tmp_path):
    """Twice the pixels: colours as G makes them, transparency as Pillow enlarges it."""
    x = picture(tmp_path / "in" / "a.png", "RGBA")
    path = stored(tmp_path, task("Restore.Downscale", scale=2), shape=(3, 16, 16), inputs=(3, 8, 8), scale=2)
    made = used(tmp_path, path)["a.png"]
    assert np.array_equal(made[..., :3], (255 - over_white(x)).repeat(2, 0).repeat(2, 1))
    alpha = np.array(Image.fromarray(x[..., 3]).resize((24, 18), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(made[..., 3] - alpha).max() <= 1


def test_a_segmentation_comes_as_numbers_and_as_colours(tmp_path):
    x, path = picture(tmp_path / "in" / "sub" / "a.jpg", seed=3, format="png"), stored(tmp_path, task("Segment"))
    made = used(tmp_path, path, format="webp")
    assert set(made) == {"classes/sub/a.png", "colors/sub/a.webp", "before_after.png"}
    assert np.array_equal(made["classes/sub/a.png"], (255 - x).argmax(2))
    assert made["colors/sub/a.webp"].shape == x.shape


def test_a_sheet_shows_before_and_after(tmp_path):
    """Side by side, small images enlarged in whole steps: 12x9 in cells of 192 pixels are 16 times as large."""
    x = picture(tmp_path / "in" / "a.png")
    sheet = used(tmp_path, stored(tmp_path, task("Translate")))["before_after.png"]
    before, after = sheet[1:193, -387:-195], sheet[1:193, -193:-1]
    large = x.repeat(16, 0).repeat(16, 1)
    assert np.array_equal(before[24:168], large)
    assert np.array_equal(after[24:168], 255 - large)
    picture(tmp_path / "in" / "b.png")
    assert "before_after.png" not in used(
        tmp_path, stored(tmp_path, task("Translate")), preview=0, output=str(tmp_path / "b")
    )


def test_back_is_the_other_network(tmp_path):
    """From one channel to three there, from three to one back: each way starts from its own."""
    x = picture(tmp_path / "in" / "a.png", "RGBA")
    kind = {"_target_": "ganlab.tasks.TranslateUnpaired"}
    path = stored(tmp_path, kind, TwoWays, shape=(3, 8, 8), inputs=(1, 8, 8))
    grey = np.array(Image.fromarray(over_white(x)).convert("L")).astype(int)
    there = used(tmp_path, path, output=str(tmp_path / "there"))["a.png"]
    assert np.abs(there[..., :3].astype(int) - (255 - grey)[..., None]).max() <= 1
    back = used(tmp_path, path, back=True)["a.png"]
    assert back.shape == (9, 12, 2)
    assert set(back[..., 0].flatten()) <= {127, 128}
    assert np.array_equal(back[..., 1], x[..., 3])


# -------------------------------------------------------------------------------------------------------------- repair


def test_what_is_transparent_is_filled_in_and_nothing_else_changes(tmp_path):
    x = picture(tmp_path / "in" / "a.png", "RGBA")
    x[..., 3] = 255
    x[2:5, 3:9, 3] = 0
    Image.fromarray(x).save(tmp_path / "in" / "a.png")
    made = used(tmp_path, stored(tmp_path, task("Restore.Center"), inputs=(4, 8, 8)))["a.png"]
    hole = x[..., 3] == 0
    assert made.shape == (9, 12, 3)
    assert np.array_equal(made[~hole], x[~hole][:, :3])
    assert set(made[hole].flatten()) <= {127, 128}  # the negative of the grey that G was shown there


def test_what_is_more_than_half_transparent_is_missing(tmp_path):
    x = picture(tmp_path / "in" / "a.png", "RGBA")
    x[..., 3] = np.arange(x[..., 3].size).reshape(x.shape[:2]) + 74  # 74 to 181
    Image.fromarray(x).save(tmp_path / "in" / "a.png")
    Image.fromarray(over_white(x)).save(tmp_path / "in" / "whole.png")
    path = stored(tmp_path, task("Restore.Center"), inputs=(4, 8, 8))
    made = used(tmp_path, path)
    assert set(made) == {"a.png", "before_after.png"}
    assert np.array_equal((made["a.png"] != over_white(x)).any(-1), x[..., 3] < 128)


def test_masks_may_be_drawn_on_transparent_paper(tmp_path):
    """White strokes and nothing else: what is transparent is not missing. Two masks of one name are refused."""
    x = picture(tmp_path / "in" / "a.png")
    hole = np.full((9, 12, 4), 255, np.uint8)
    hole[..., 3] = 0
    hole[2:5, 3:7, 3] = 255
    (tmp_path / "masks").mkdir()
    Image.fromarray(hole).save(tmp_path / "masks" / "a.png")
    path = stored(tmp_path, task("Restore.Center"), inputs=(4, 8, 8))
    made = used(tmp_path, path, mask=str(tmp_path / "masks"))["a.png"]
    assert np.array_equal((made != x).any(-1), hole[..., 3] > 0)
    Image.fromarray(hole).save(tmp_path / "masks" / "a.webp", lossless=True)
    with pytest.raises(ValueError, match=r"which one is meant, .*a.png or .*a.webp"):
        used(tmp_path, path, mask=str(tmp_path / "masks"))


def test_holes_may_be_given_as_masks(tmp_path, capsys):
    """A folder of masks by the images' names, or one for all; an image without hole, or with another's, is left out."""
    path = stored(tmp_path, task("Restore.Center"), inputs=(4, 8, 8))
    x = picture(tmp_path / "in" / "sub" / "a.png", "LA")
    hole = np.zeros((9, 12), np.uint8)
    hole[:4] = 255
    (tmp_path / "masks" / "sub").mkdir(parents=True)
    Image.fromarray(hole).save(tmp_path / "masks" / "sub" / "a.bmp")
    picture(tmp_path / "in" / "b.png", seed=1)
    picture(tmp_path / "in" / "small.png", size=(5, 5))
    Image.fromarray(hole).save(tmp_path / "masks" / "small.png")
    made = used(tmp_path, path, mask=str(tmp_path / "masks"))
    said = capsys.readouterr().out
    known = np.repeat(over_white(x), 3, 2)
    assert np.array_equal(made["sub/a.png"][4:, :, :3], known[4:])
    assert set(made["sub/a.png"][:4, :, :3].flatten()) <= {127, 128}
    assert np.array_equal(made["sub/a.png"][..., 3], x[..., 1])
    assert "b.png: there is no mask b in" in said
    assert "small.png: its mask has 12x9 pixels, and it has 5x5" in said
    one = used(tmp_path, path, mask=str(tmp_path / "masks" / "sub" / "a.bmp"), output=str(tmp_path / "one"))
    assert {"b.png", "sub/a.png"} <= set(one)
    used(tmp_path, path, output=str(tmp_path / "none"))  # "LA" has transparent pixels
    assert "b.png: nothing is missing in it" in capsys.readouterr().out


def test_grey_images_are_coloured_whether_they_are_stored_grey_or_not(tmp_path):
    """The luma stays; the colours of this G are none."""
    x = picture(tmp_path / "in" / "a.png")
    grey = np.array(Image.fromarray(x).convert("L")).astype(int)
    Image.fromarray(grey.astype(np.uint8)).save(tmp_path / "in" / "b.png")
    made = used(tmp_path, stored(tmp_path, task("Restore.Grayscale"), inputs=(1, 8, 8)))
    for name in ("a.png", "b.png"):
        assert np.abs(made[name].astype(int) - grey[..., None]).max() <= 1  # Pillow's luma is ITU-R 601, too


def test_one_can_look_at_what_the_model_repairs(tmp_path):
    """degrade=true: G starts from what is left of the image, which is sample number i's; the sheet has both."""
    x = picture(tmp_path / "in" / "a.png", size=(13, 9))
    y = picture(tmp_path / "in" / "b.png", size=(13, 9), seed=1)
    made = used(tmp_path, stored(tmp_path, task("Restore.Noise", sigma=30.0)), degrade=True, seed=5)
    both = torch.from_numpy(np.stack([x, y])).permute(0, 3, 1, 2).float() / 127.5 - 1
    left = degrade.Noise(30.0)(both, IndexedRNG(5, range(2)))
    expected = ((1 - left) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(made["a.png"], expected[0])
    assert np.array_equal(made["b.png"], expected[1])
    assert made["before_after.png"].shape[1] > 3 * 192
    larger = stored(tmp_path, task("Restore.Downscale", scale=2), shape=(3, 16, 16), inputs=(3, 8, 8), scale=2)
    assert used(tmp_path, larger, degrade=True, overwrite=True)["a.png"].shape == (9, 13, 3)  # also where 2 divides not


# --------------------------------------------------------------------------------------------------------------- sizes


def sampler(G, task, **arguments):
    made = Sampler(G, task)
    made.arguments = arguments
    return made


@pytest.mark.parametrize("size", [(1, 1), (16, 48), (37, 90), (64, 64)])
def test_sizes_that_a_unet_does_not_take_are_continued_and_cut_back(size):
    """Where `multiple` divides the sides it is G's own output."""
    torch.manual_seed(0)
    G = pix2pix.Generator([3, 16, 16], width=4)
    x = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    made = Translator(sampler(G, Translate(), shape=[3, 16, 16]), tile=None).translated(x)[""]
    assert made.shape == x.shape
    if not size[0] % G.multiple and not size[1] % G.multiple:
        with torch.no_grad():
            expected = G(x[None] / 127.5 - 1)[0]
        assert (made / 127.5 - 1 - expected).abs().max() <= 0.5 / 127.5 + 1e-6


def test_a_network_of_one_size_sees_no_other(tmp_path):
    for size in ((3, 30), (8, 8), (21, 50)):
        x = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        made = Translator(sampler(Picky([3, 8, 8]), Translate(), shape=[3, 8, 8])).translated(x)[""]
        assert torch.equal(made, 255 - x)


class Pair(nn.Sequential):
    """A convolutional network: looks 4 pixels around."""

    multiple = 4

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 3, 5, padding=2))


def test_tiles_are_the_whole_image_and_if_not_that_is_said():
    """Of a network that looks no further than a quarter of the overlap; of others a note is made, once."""
    x = torch.randint(0, 256, (3, 70, 90), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    known = {"shape": [3, 16, 16]}
    near, far = sampler(Pair(), Translate(), **known), sampler(Average([3, 16, 16]), Translate(), **known)
    whole, tiles = Translator(near, tile=None), Translator(near, tile=35, overlap=14)
    assert (tiles.tile, tiles.overlap) == ((32, 32), 16)
    assert (whole.translated(x)[""].int() - tiles.translated(x)[""].int()).abs().max() <= 1
    assert tiles.note(70, 90) is None
    assert whole.note(70, 90) is None
    translator = Translator(far, tile=32, overlap=16)
    assert translator.note(32, 32) is None
    assert "further than 4 pixels around" in translator.note(70, 90)
    assert "tile=null" in Translator(far, tile=32, overlap=16).note(70, 90)
    assert translator.note(70, 90) is None


@pytest.mark.parametrize("family", [srgan, esrgan])
def test_what_enlarges_sees_images_whole(family):
    """Networks of super-resolution take any size; a tile has so many pixels of what comes out."""
    torch.manual_seed(0)
    G = family.Generator([3, 16, 16], [3, 8, 8], width=8, blocks=1)
    torch.nn.init.normal_((G.last if family is srgan else G.last[-1]).weight, std=0.3)
    one = sampler(G.eval(), Restore(degrade.Downscale(2)), shape=[3, 16, 16], inputs=[3, 8, 8])
    x = torch.randint(0, 256, (3, 37, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    translator = Translator(one)
    assert (translator.tile, translator.overlap) == ((512, 512), 64)
    with torch.no_grad():
        expected = G(x[None] / 127.5 - 1)[0].clamp(-1, 1)
    assert expected.std() > 0.05
    assert (translator.translated(x)[""] / 127.5 - 1 - expected).abs().max() <= 0.5 / 127.5 + 1e-5
    assert Translator(one, tile=64, overlap=32).sides(37, 50) == (32, 32)
    with pytest.raises(ValueError, match=r"tile=32: .* becomes 32, .* set tile=64 or more"):
        Translator(one, tile=32, overlap=32)


def test_what_would_have_too_many_pixels_is_left_out(tmp_path, monkeypatch):
    """An image that can be read may become one that can't."""
    picture(tmp_path / "in" / "a.png")
    monkeypatch.setattr("ganlab.translator.MOST_PIXELS", 400)
    path = stored(tmp_path, task("Restore.Downscale", scale=2), shape=(3, 16, 16), inputs=(3, 8, 8), scale=2)
    with pytest.raises(Unavailable, match="24x18 pixels would be too many, 400 at most"):
        used(tmp_path, path)


# -------------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("Translate", {"degrade": True}, "Translate has no degradation"),
        ("Translate", {"mask": "in"}, "this generator fills no holes"),
        ("Translate", {"back": True}, "back=true: Inverse knows one way only"),
        ("Restore.Center", {"mask": "in", "degrade": True}, "degrade=true makes its own"),
        ("Restore.Center", {"mask": "nowhere"}, "mask=nowhere: there is no such image"),
        ("Translate", {"input": "nowhere"}, "input=nowhere: there is no such image"),
        ("Translate", {"tile": 100}, "tile=100: .* set tile=256 or more, or tile=null"),
        ("Translate", {"tile": 0}, "tile=0: must be a whole number"),
        ("Translate", {"overlap": -1}, "overlap=-1: must be a whole number"),
        ("Translate", {"format": "gif"}, "format='gif': must be png or jpg or webp"),
        ("Translate", {"device": "cuda:77"}, "can't be used here"),
    ],
)
def test_what_can_not_be_done_is_refused_with_the_reason(kind, given, message, tmp_path):
    picture(tmp_path / "in" / "a.png")
    given = {k: str(tmp_path / v) if k == "mask" and v == "in" else v for k, v in given.items()}
    inputs = (4, 8, 8) if "Center" in kind else (3, 8, 8)
    with pytest.raises((ValueError, Unavailable), match=message):
        used(tmp_path, stored(tmp_path, task(kind), inputs=inputs), **given)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: sampler(dcgan.Generator([3, 8, 8]), Generate()), "starts from noise"),
        (lambda: sampler(Inverse([3, 8, 8]), Translate()), "does not say what it starts from"),
        (lambda: sampler(Pair(), Translate(), shape=[1, 8, 8]), "Pair can't be applied to an image of 16x16"),
        (lambda: sampler(nn.Conv2d(3, 3, 3), Translate(), shape=[3, 8, 8]), r"makes \[6, 6\] of \[8, 8\]"),
    ],
)
def test_generators_that_can_not_translate_are_refused(made, message):
    with pytest.raises(ValueError, match=message):
        Translator(made())


def test_the_command_has_every_argument_of_the_function(tmp_path):
    """A run's folder will do for a checkpoint, and outputs go beside it."""
    x, path = picture(tmp_path / "in" / "a.png"), stored(tmp_path, task("Translate"))
    run = path.removesuffix("/checkpoints/last.ckpt")
    cfg = composed(
        f"checkpoint={run}", f"input={tmp_path / 'in'}", "device=cpu", "trust=[test_translating]", name="translate"
    )
    folder = translate(**OmegaConf.to_container(cfg))
    assert folder == tmp_path / "run" / "translated" / "in"
    assert np.array_equal(np.array(Image.open(folder / "a.png")), 255 - x)


def test_a_translator_can_do_without_d():
    """What is learned without an adversarial term, to compare with; a loss that is not there has no settings."""
    given = ["experiment=segment_camvid", "discriminator=null", "loss=none"]
    cfg = composed(*given)
    drop_settings_of_what_was_removed(cfg, given)
    assert cfg.loss is cfg.discriminator is None
    with pytest.raises(ValueError, match=r"loss.weight.G=2: there is no adversarial loss"):
        drop_settings_of_what_was_removed(composed(*given, "loss.weight.G=2"), [*given, "loss.weight.G=2"])


DOCS = (Path(__file__).parent.parent / "docs" / "translate.md").read_text()
COMMANDS = [shlex.split(line)[2:] for line in DOCS.splitlines() if line.startswith("python -m ganlab")]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_docs_commands_compose(command):
    module, *overrides = command
    first = [o.split(",")[0] for o in overrides if o != "-m"] if "-m" in overrides else overrides
    assert composed(*first, name=module.partition(".")[2] or "train")


def test_the_docs_python_runs(tmp_path, monkeypatch):
    """With a network at hand in place of a run's."""
    torch.manual_seed(0)
    (example,) = re.findall(r"```python\n(.*?)```", DOCS, re.S)
    monkeypatch.setattr("ganlab.load", lambda path: sampler(Pair(), Translate(), shape=[3, 16, 16]))
    namespace = {}
    exec(compile(example.replace("480, 640", "48, 64"), "docs/translate.md", "exec"), namespace)
    assert namespace["result"].shape == (3, 48, 64)


def test_the_tasks_own_targets_do_not_matter():
    """Segment's play is shown a target in training; what is made of an image is the same without one."""
    torch.manual_seed(0)
    G = pix2pix.Generator([5, 16, 16], [3, 16, 16], width=4, tanh=False)
    x = torch.randint(0, 256, (3, 16, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    made = Translator(sampler(G, Segment(conditional=False), shape=[5, 16, 16], inputs=[3, 16, 16])).translated(x)
    with torch.no_grad():
        assert torch.equal(made["classes"][0], G(x[None] / 127.5 - 1)[0].argmax(0).to(torch.uint8))
    restored = Translator(sampler(Inverse([3, 8, 8]), Restore(degrade.Blur()), shape=[3, 8, 8])).translated(x)
    assert torch.equal(restored[""], 255 - x)
