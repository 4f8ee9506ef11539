"""Clips: digits whose motion is known, folders of clips with all that may be wrong in them, networks, scores, GIF."""

import contextlib
import math
import zipfile
from fractions import Fraction

import numpy as np
import pytest
import test_hostile as hostile
import torch
from composing import prepared
from made import SHARED, scored
from PIL import Image
from play import phase
from torch import nn

from ganlab.data import films
from ganlab.data.clips import Clips
from ganlab.data.films import films_below
from ganlab.data.moving import MovingDigits, bounced, placed
from ganlab.data.sets import Digits
from ganlab.files import Unavailable
from ganlab.media import clips as media
from ganlab.metrics.clips import FCD, ClipNet, FrameFID, Motion, altered, centres, halves, played, turned
from ganlab.metrics.frechet import frechet_distance
from ganlab.models import mocogan, vgan
from ganlab.nn.clips import clip_pyramid
from ganlab.phase import GeneratorOutput
from ganlab.terms.mask import Mask


def count(net):
    return sum(p.numel() for p in net.parameters())


# --------------------------------------------------------------------------------------------------------- known motion


def test_digits_move_straight_on_and_are_mirrored_at_the_edges():
    """Against a simulation in small steps, which turns the velocity round at an edge."""
    generator = torch.Generator().manual_seed(0)
    begin, direction = torch.rand(20, 2, generator=generator, dtype=torch.float64), torch.arange(20) * 0.37
    at = bounced(begin, direction, 1.5, 30, 8.0)
    for n in range(20):
        place = (begin[n] * 8).tolist()
        velocity = [1.5 * math.sin(direction[n]), 1.5 * math.cos(direction[n])]
        for t in range(30):
            assert at[n, t].tolist() == pytest.approx(place, abs=1e-4)
            for axis in (0, 1):
                place[axis] += velocity[axis]
                if not 0 <= place[axis] <= 8:
                    edge = 0 if place[axis] < 0 else 8
                    place[axis], velocity[axis] = 2 * edge - place[axis], -velocity[axis]


def test_a_digit_at_a_whole_pixel_is_itself_and_its_centre_moves_with_it():
    digit = torch.arange(1, 10, dtype=torch.uint8).view(1, 3, 3) * 25
    at = torch.tensor([[[1.0, 2.0], [1.25, 2.0], [1.5, 2.5]]], dtype=torch.float64)
    clip = placed(digit, at, 8)
    expected = torch.zeros(8, 8, dtype=torch.uint8)
    expected[1:4, 2:5] = digit
    assert torch.equal(clip[0, 0], expected)
    moved = centres(clip[:, None] / 127.5 - 1)[0].diff(dim=0)
    assert moved.tolist() == pytest.approx(np.array([[0.25, 0], [0.25, 0.5]]), abs=0.02)  # levels are rounded


def test_moving_digits_have_the_speed_that_was_asked_for():
    """But for frames in which one is thrown back, where the centre's way is shorter."""
    data = MovingDigits(frames=12, size=20, speed=0.7, clips=200)
    x = data.split("train").real
    assert data.facts()["shape"] == [1, 12, 20, 20] == list(x.shape[1:])
    way = centres(x / 127.5 - 1).diff(dim=1).norm(dim=2)
    assert way.median() == pytest.approx(0.7, abs=0.01)
    assert way.max() < 0.75
    assert torch.equal(x, MovingDigits(frames=12, size=20, speed=0.7, clips=200, seed=5).split("train").real)


def test_clips_for_testing_are_of_other_digits():
    data = MovingDigits(frames=2, size=12, clips=40)
    assert len(data.split("test")) == 10
    assert data.split("train").label.max() <= 9
    assert not torch.equal(data.split("test").real[:10], data.split("train").real[:10])
    with pytest.raises(ValueError, match=r"data.size=8: digits of 8 pixels need room"):
        MovingDigits(size=8)
    assert len(Digits().split("test")) == 359


# -------------------------------------------------------------------------------------------------------------- folders


def frames_of(n, size=(6, 8), colour=False, seed=0):
    shape = (n, *size, 3) if colour else (n, *size)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save_frames(folder, frames):
    folder.mkdir(parents=True)
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{i + 1}.png")  # 10.png comes after 9.png


def save_strip(path, frames, stacked=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(frames, 0 if stacked else 1)).save(path)


def windows(root, **kwargs):
    kwargs = {"frames": 3, "size": None, "held_out": 0.0} | kwargs
    return Clips(str(root), **kwargs)


def test_a_folder_of_frames_is_read_in_the_order_of_their_numbers(tmp_path):
    frames = frames_of(12)
    save_frames(tmp_path / "walk" / "anna", frames)
    save_frames(tmp_path / "run" / "ben", frames_of(5, seed=1))
    data = windows(tmp_path, step=2)
    facts = data.facts()
    assert facts["shape"] == [1, 3, 6, 8]
    assert facts["class_names"] == ["run", "walk"]
    assert facts["frequencies"] == pytest.approx([1 / 9, 8 / 9])
    taken = data.split("train").take(torch.tensor([0, 3, 8]))
    assert taken["label"].tolist() == [0, 1, 1]
    assert np.array_equal(taken["real"][1, 0], frames[[2, 4, 6]])
    assert np.array_equal(taken["real"][2, 0], frames[[7, 9, 11]])
    with pytest.raises(Unavailable, match=r"no clips are kept for testing"):
        data.split("test")


def test_folders_of_frames_alone_are_clips_and_no_labels(tmp_path):
    for name in "ab":
        save_frames(tmp_path / name, frames_of(4))
    assert windows(tmp_path).facts()["classes"] is None
    assert len(windows(tmp_path).split("train")) == 4
    assert len(windows(tmp_path, hop=None).split("train")) == 2


@pytest.mark.parametrize("stacked", [False, True])
def test_strips_are_cut_into_square_frames(tmp_path, stacked):
    frames = frames_of(5, (8, 8), colour=True)
    save_strip(tmp_path / "3" / "x.png", frames, stacked)
    save_strip(tmp_path / "1" / "y.png", frames_of(4, (8, 8), colour=True, seed=1), stacked)
    data = windows(tmp_path)
    assert data.facts()["shape"] == [3, 3, 8, 8]
    real = data.split("train").take(torch.tensor([3]))["real"][0]
    assert np.array_equal(real.permute(1, 2, 3, 0), frames[1:4])


WEIZMANN = SHARED / "video" / "weizmann64.zip"


@pytest.mark.skipif(not WEIZMANN.exists(), reason="needs the clips of the Weizmann actions")
def test_the_weizmann_actions(tmp_path):
    """36 strips of 2,645 frames in all, of 4 actions by 9 people."""
    with zipfile.ZipFile(WEIZMANN) as archive:
        archive.extractall(tmp_path)
    data = windows(tmp_path / "weizmann64", frames=1, size=16)
    assert data.facts()["class_names"] == ["0", "1", "3", "4"]
    assert len(data.films) == 36
    assert len(data.split("train")) == 2645


def test_layout_says_what_a_long_picture_is(tmp_path):
    for i in range(3):
        save_strip(tmp_path / f"{i}.png", frames_of(4, (6, 6), seed=i))
    kinds = lambda layout: [film.kind for film in films_below(tmp_path, layout)[0]]
    assert kinds("auto") == ["strip"] * 3
    assert kinds("frames") == ["frames"]
    Image.fromarray(frames_of(1, (6, 10))[0]).save(tmp_path / "odd.png")
    with pytest.raises(Unavailable, match=r"odd.png can't be read .*10x6 is no strip of square frames.*on_bad=skip"):
        windows(tmp_path, layout="strips").facts()


@pytest.mark.parametrize("colour", [False, True])
def test_what_the_medium_writes_is_read_back(tmp_path, colour):
    """GIF has 256 colours: grey comes back as it was, few colours too."""
    frames = frames_of(4, colour=colour) // 64 * 64
    x = torch.from_numpy(frames).float() / 127.5 - 1
    x = x.permute(3, 0, 1, 2)[None] if colour else x[None, None]
    (path,) = media.Clips(fps=10).write(x, tmp_path, first=7, prefix="class_1_")
    assert path.name == "class_1_000007.gif"
    assert Image.open(path).info["duration"] == 100
    data = windows(tmp_path)
    assert data.facts()["shape"] == [3 if colour else 1, 3, 6, 8]
    real = data.split("train").take(torch.tensor([1]))["real"][0]
    assert np.array_equal(real.permute(1, 2, 3, 0).squeeze(3), frames[1:])


def save_video(path, frames, rate=8):
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(rate))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0"
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def test_video_files(tmp_path, monkeypatch):
    frames = frames_of(5, (16, 24), colour=True)
    save_video(tmp_path / "film.mkv", frames)
    real = windows(tmp_path).split("train").take(torch.tensor([0]))["real"][0]
    assert np.array_equal(real.permute(1, 2, 3, 0), frames[:3])
    (tmp_path / "film.mkv").write_bytes(b"no film at all" * 100)
    with pytest.raises(Unavailable, match=r"film.mkv can't be read"):
        windows(tmp_path).facts()
    monkeypatch.setattr(films, "find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"film.mkv is a video file, which PyAV is needed to read: pip install 'ganlab\[video\]'"
    ):
        windows(tmp_path).facts()


def test_clips_that_are_too_short_are_named_and_counted(tmp_path, capsys):
    save_frames(tmp_path / "long", frames_of(6))
    save_frames(tmp_path / "short", frames_of(4))
    assert len(windows(tmp_path, step=2).split("train")) == 2
    assert "short (4): 1 of 2 clips shorter than 5 frames" in capsys.readouterr().out
    with pytest.raises(Unavailable, match=r"all 2 clips are shorter than 9 frames.*data.step=4 need.*\(6\)"):
        windows(tmp_path, step=4).facts()


def test_frames_of_mixed_size_in_a_clip_are_refused_or_left_out(tmp_path, capsys):
    save_frames(tmp_path / "good", frames_of(4))
    save_frames(tmp_path / "mixed", frames_of(4))
    Image.fromarray(frames_of(1, (6, 9))[0]).save(tmp_path / "mixed" / "5.png")
    with pytest.raises(Unavailable, match=r"mixed can't be read.*its frames are of mixed size, 9x6 after 8x6.*=skip"):
        windows(tmp_path).facts()
    assert len(windows(tmp_path, on_bad="skip").split("train")) == 2
    assert "mixed: 1 of 2 can't be read, left out" in capsys.readouterr().out


def test_clips_of_different_sizes_need_a_size(tmp_path):
    save_frames(tmp_path / "a", frames_of(4))
    save_frames(tmp_path / "b", frames_of(4, (12, 12)))
    with pytest.raises(ValueError, match=r"data.size=null: the clips have 2 sizes \(8x6, 12x12\): set data.size"):
        windows(tmp_path).facts()
    assert windows(tmp_path, size=[8, 4]).facts()["shape"] == [1, 3, 8, 4]
    assert windows(tmp_path, size=8, channels=3).facts()["shape"] == [3, 3, 8, 8]


def test_damaged_files_are_refused_or_left_out(tmp_path, capsys):
    save_strip(tmp_path / "good.png", frames_of(5, (8, 8)))
    save_strip(tmp_path / "half.png", frames_of(9, (8, 8)))
    (tmp_path / "half.png").write_bytes((tmp_path / "half.png").read_bytes()[:300])
    (tmp_path / "none.gif").write_bytes(b"")
    with pytest.raises(
        Unavailable, match=r"none.gif can't be read as a clip .it is empty, nor can 1 others of 3.*=skip"
    ):
        windows(tmp_path).facts()
    assert len(windows(tmp_path, on_bad="skip").split("train")) == 3
    assert "none.gif, half.png: 2 of 3 can't be read" in capsys.readouterr().out


def test_mutated_files_are_read_or_refused(tmp_path):
    save_video(tmp_path / "good.mkv", frames_of(6, (16, 16), colour=True))
    media.Clips().write(torch.rand(1, 3, 6, 16, 16) * 2 - 1, tmp_path)
    generator, loaded = np.random.default_rng(0), 0
    for good in (tmp_path / "good.mkv", tmp_path / "000000.gif"):
        for case in range(25):
            content = bytearray(good.read_bytes())
            for at in generator.integers(0, len(content), 4):
                content[at] = generator.integers(0, 256)
            folder = tmp_path / f"{good.stem}{case}"
            folder.mkdir()
            kept = len(content) if case % 2 else generator.integers(1, len(content))
            (folder / good.name).write_bytes(content[:kept])
            with contextlib.suppress(Unavailable, ValueError):
                loaded += len(windows(folder).split("train")) > 0
    assert 10 < loaded < 45


def test_a_clip_that_lacks_a_frame_is_none(tmp_path, monkeypatch):
    """Without a damaged frame it would jump."""
    save_frames(tmp_path / "good", frames_of(4))
    save_frames(tmp_path / "torn", frames_of(6))
    (tmp_path / "torn" / "3.png").write_bytes(b"torn")
    with pytest.raises(Unavailable, match=r"torn/3.png can't be read as a clip"):
        windows(tmp_path).facts()
    assert len(windows(tmp_path, on_bad="skip").split("train")) == 2
    monkeypatch.setattr(films, "memory", lambda: 200)
    with pytest.raises(Unavailable, match=r"its frames take more than 0 GiB of memory: set data.size lower"):
        windows(tmp_path / "good").facts()


def test_an_empty_folder_and_none(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(Unavailable, match=r"no clips found in it, and 1 other files. A clip is a folder of frames"):
        windows(tmp_path).facts()
    with pytest.raises(Unavailable, match=r"there is no such folder"):
        windows(tmp_path / "nowhere").facts()
    with pytest.raises(ValueError, match=r"data.root is not set"):
        Clips()


def test_whole_clips_are_kept_for_testing(tmp_path):
    for i in range(10):
        save_frames(tmp_path / f"{i}", np.full((4, 6, 8), i, np.uint8))
    data = windows(tmp_path, held_out=0.2)
    shown = [set(x.take(torch.arange(len(x)))["real"].unique().tolist()) for x in map(data.split, ("train", "test"))]
    assert len(shown[0]) == 8
    assert shown[0] | shown[1] == set(range(10))
    assert not shown[0] & shown[1]


# ------------------------------------------------------------------------------------------------------------- networks


def test_the_papers_layers():
    """VGAN at 32 frames of 64x64: z 100 to 512 channels of 2x4x4, then 256, 128, 64, by kernels of 4x4x4."""
    normed3 = lambda a, b, k=64: a * b * k + 2 * b
    moving = normed3(100, 512, 32) + normed3(512, 256) + normed3(256, 128) + normed3(128, 64)
    still = normed3(100, 512, 16) + normed3(512, 256, 16) + normed3(256, 128, 16) + normed3(128, 64, 16)
    heads = (64 * 3 * 64 + 3) + (64 * 64 + 1) + (64 * 3 * 16 + 3)
    assert count(vgan.Generator([3, 32, 64, 64])) == moving + still + heads
    D = (3 * 64 * 64 + 64) + normed3(64, 128) + normed3(128, 256) + normed3(256, 512) + 512 * 2 * 16
    assert count(vgan.Discriminator([3, 32, 64, 64])) == D
    gru = 2 * (3 * 10 * 10 + 3 * 10)
    frame = normed3(60, 512, 16) + sum(normed3(a, a // 2, 16) for a in (512, 256, 128)) + 64 * 3 * 16
    G = mocogan.Generator([3, 16, 64, 64])
    assert count(G) == gru + frame
    assert G.z_dim == 50 + 17 * 10


@pytest.mark.parametrize("shape", [[1, 8, 16, 16], [3, 6, 16, 24], [2, 2, 8, 8], [4, 16, 32, 32]], ids=str)
@pytest.mark.parametrize("model", [mocogan, vgan])
def test_any_size(model, shape):
    """Time and space on their own; half precision too; D can be differentiated twice."""
    G, D = model.Generator(shape, width=8), model.Discriminator(shape, width=8, norm="none")
    with torch.autocast("cpu", torch.bfloat16):
        x = G(torch.randn(3, G.z_dim))
    x = getattr(x, "fake", x).float()
    assert list(x.shape) == [3, *shape]
    assert x.abs().max() <= 1
    logits = D(x := x.detach().requires_grad_())
    logits = logits if isinstance(logits, list) else [logits]
    assert [list(part.shape) for part in logits] == [[3]] * len(logits)
    slope = torch.autograd.grad(sum(part.sum() for part in logits), x, create_graph=True)[0]
    slope.square().sum().backward()
    assert all(p.grad is not None for name, p in D.named_parameters() if name.endswith("weight"))


def test_each_frame_of_mocogan_is_of_the_content_and_the_path_up_to_it():
    """Against a GRU written out: what pushes the motion later does not reach an earlier frame."""
    torch.manual_seed(0)
    G = mocogan.Generator([1, 5, 8, 8], width=8, content=3, motion=2).eval()
    z = torch.randn(1, G.z_dim)
    h, frames, rnn = z[:, 3:5], [], G.path
    for t in range(5):
        push = z[:, 5 + 2 * t : 7 + 2 * t]
        a = nn.functional.linear(push, rnn.weight_ih_l0, rnn.bias_ih_l0)
        b = nn.functional.linear(h, rnn.weight_hh_l0, rnn.bias_hh_l0)
        reset, update = torch.sigmoid(a[:, :2] + b[:, :2]), torch.sigmoid(a[:, 2:4] + b[:, 2:4])
        h = (1 - update) * torch.tanh(a[:, 4:] + reset * b[:, 4:]) + update * h
        frames.append(G.frame(torch.cat([z[:, :3], h], 1)))
    assert torch.allclose(G(z), torch.stack(frames, 2), atol=1e-6)


def test_mocogans_d_sees_a_frame_at_random_in_training_and_the_middle_one_otherwise():
    D = mocogan.Discriminator([1, 4, 8, 8], width=8, norm="none")
    clip = torch.randn(1, 1, 4, 8, 8)
    of_frames = D.still(clip[0].transpose(0, 1))
    torch.manual_seed(0)
    seen = {round(D(clip)[0].item(), 5) for _ in range(60)}
    assert seen == {round(v, 5) for v in of_frames.tolist()}
    assert D.eval()(clip)[0].item() == pytest.approx(of_frames[2].item(), abs=1e-6)


def test_vgan_lays_the_foreground_over_a_background_that_stands_still():
    torch.manual_seed(0)
    G = vgan.Generator([1, 4, 8, 8], z_dim=5, width=8).eval()
    z = torch.randn(2, 5)
    with torch.no_grad():
        G.mask[0].bias.fill_(-1e4)  # nothing of the foreground
        still = G(z).fake
        G.mask[0].bias.fill_(1e4)
        foreground = G(z).fake
    assert torch.equal(still, still[:, :, :1].expand_as(still))
    assert torch.allclose(foreground, G.foreground(G.moving(z)))


def test_clip_pyramids():
    assert clip_pyramid(32, 64, 64, "it") == (4, 4, (2, 4, 4))
    assert clip_pyramid(16, 64, 64, "it") == (4, 3, (2, 4, 4))
    assert clip_pyramid(8, 16, 24, "it") == (2, 2, (2, 4, 6))
    assert clip_pyramid(3, 16, 16, "it") == (2, 0, (3, 4, 4))
    with pytest.raises(ValueError, match=r"18 frames can't be reached, 16 or 20 can. Set data.frames=16"):
        clip_pyramid(18, 16, 16, "it")
    with pytest.raises(ValueError, match=r"data.size=16"):
        clip_pyramid(16, 17, 17, "it")


@pytest.mark.parametrize("model", [mocogan, vgan])
def test_networks_refuse_what_is_no_clip(model):
    for net in (model.Generator, model.Discriminator):
        with pytest.raises(ValueError, match=r"makes clips.*\[3, 8, 8\]: use data=moving_digits"):
            net([3, 8, 8])
        with pytest.raises(ValueError, match=r"clips of 2 frames or more: set data.frames, which is 1"):
            net([3, 1, 8, 8])
    with pytest.raises(ValueError, match=r"discriminator.norm='layer'"):
        model.Discriminator([1, 4, 8, 8], norm="layer")


def test_the_mask_term_is_the_mean_of_the_mask():
    mask, fake = torch.rand(3, 1, 2, 4, 4), torch.zeros(3, 2, 2, 4, 4)
    G = lambda z: GeneratorOutput(fake, mask)
    term = Mask(weight=0.1)
    assert term(phase("G", real=fake, fake=torch.zeros(3, 1), D=None, G=G)).tolist() == pytest.approx(
        [m.mean().item() for m in mask]
    )
    with pytest.raises(ValueError, match=r"terms.mask needs a G that returns its mask"):
        term(phase("G", real=fake, fake=fake, D=None))
    with pytest.raises(ValueError, match=r"terms.mask.player=D"):
        Mask(player="D").check(None)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=mocogan", "data=digits"], "mocogan makes clips"),
        (["model=vgan", "data.frames=10"], "10 frames can't be reached, 8 or 12 can"),
        (["model=mocogan", "data.size=17"], "17x17 can't be reached"),
        (["model=mocogan", "data.frames=0"], "data.frames=0"),
        (["model=mocogan", "data=clips"], "data.root is not set"),
        (["model=dcgan", "data=moving_digits"], "dcgan makes images"),
        (["model=mocogan", "extractor=classifier"], "extractor=classifier learns from images"),
        (["extractor=clipnet"], "extractor=clipnet looks at clips"),
    ],
)
def test_refused_combinations_name_the_key_and_the_fix(overrides, message):
    with pytest.raises(ValueError, match=message):
        prepared(*overrides)


@pytest.mark.parametrize("overrides", [["model=mocogan", "data=clips", "data.root=x"], ["model=vgan"]])
def test_every_key_refuses_what_it_can_not_be(overrides):
    hostile.test_every_key_refuses_what_it_can_not_be(overrides)


# --------------------------------------------------------------------------------------------------------------- scores


def test_the_centre_of_mass():
    x = torch.full((1, 1, 3, 5, 7), -1.0)
    x[0, 0, 0, 2, 6] = 1.0
    x[0, 0, 1, 0, 0] = x[0, 0, 1, 4, 2] = 0.5
    assert centres(x)[0].tolist() == [[2, 6], [2, 1], [2, 3]]  # a black frame's is the middle


def test_motion_is_zero_for_the_same_and_known_for_a_faster_one():
    steps = torch.arange(6.0)
    path = lambda speed: torch.stack([speed * steps, torch.zeros(6)], 1).expand(10, 6, 2)
    zeros = torch.zeros(10, 1)
    values = scored(Motion(), zeros, zeros, centres=(path(1.0), path(1.5)))
    assert values == pytest.approx({"speed": 0.5, "turn": 0.0})
    jumping = path(1.0).clone()
    jumping[:, 1::2] += 3.0  # each difference is 1 +- 3, and turns by 6
    values = scored(Motion(), zeros, zeros, centres=(path(1.0), jumping))
    way, turn = jumping.diff(dim=1).norm(dim=2), jumping.diff(n=2, dim=1).norm(dim=2)
    assert values == pytest.approx({"speed": (way - 1).abs().mean().item(), "turn": turn.mean().item()})


def test_the_frame_score_is_of_all_frames_alike():
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(40, 6, 3, generator=generator) * s + s for s in (1.0, 1.3))
    value = scored(FrameFID(), real[:, 0], fake[:, 0], frames=(real, fake), pieces=3)["frame_fid"]
    both = [x.view(-1, 3).double() for x in (real, fake)]
    moments = [(x.mean(0), torch.from_numpy(np.cov(x.T.numpy()))) for x in both]
    assert value == pytest.approx(frechet_distance(*moments[0], *moments[1]).item(), rel=1e-6)
    assert scored(FCD(), real[:, 0], real[:, 0])["fcd"] == pytest.approx(0, abs=1e-5)


def test_the_ways_to_play_a_clip():
    x = torch.arange(6).view(1, 1, 6, 1, 1).expand(50, 1, 6, 2, 2)
    asis, slow, still, mixed = (way[:, 0, :, 0, 0] for way in played(x, torch.Generator().manual_seed(0)))
    assert torch.equal(asis[0], torch.arange(6))
    assert slow[0].tolist() == [0, 0, 1, 1, 2, 2]
    assert still[0].tolist() == [3] * 6
    assert torch.equal(mixed.sort(1).values, asis)
    assert not (mixed == asis).all(1).any()
    frames = torch.tensor([[1, 2], [3, 4]]).expand(3, 1, 5, 2, 2)
    turns = [way[0, 0].tolist() for way in turned(frames, torch.Generator().manual_seed(0))]
    assert turns == [[[1, 2], [3, 4]], [[3, 4], [1, 2]], [[2, 1], [4, 3]], [[4, 3], [2, 1]]]
    y = altered(frames, torch.tensor([0, 1, 2]), turned, 0)[1]
    assert y.tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(a clip network, the set that it was trained on)"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        data, extractor = MovingDigits(clips=300, size=12, speed=0.8), ClipNet(steps=80)
        extractor.prepare(data)
        again = ClipNet(steps=80)
        again.prepare(data)  # from the cache
    assert again.describe() == extractor.describe()
    return extractor, data


def test_clips_that_stand_still_are_far_by_the_clip_score_and_near_by_the_frame_score(world):
    """What each score is there for; of other clips of the same law both are small."""
    extractor, data = world
    real = data.split("train").real
    outputs = extractor(real)

    def scores(x):
        made = extractor(x)
        pair = lambda name: (outputs[name], made[name])
        values = {}
        for score in (FCD(), FrameFID(), Motion()):
            more = {name: pair(name) for name in score.reads if name != "features"}
            values |= scored(score, *pair("features"), **more)
        return values

    ways = played(data.split("test").real, torch.Generator().manual_seed(0))
    found = dict(zip(("other", "slow", "still", "mixed"), map(scores, ways)))
    for way in ("slow", "still", "mixed"):
        assert found[way]["fcd"] > 5 * found["other"]["fcd"]
        assert found[way]["speed"] > 0.2 > 10 * found["other"]["speed"]
    assert found["mixed"]["frame_fid"] == pytest.approx(found["other"]["frame_fid"], rel=1e-4)
    assert found["still"]["frame_fid"] < 3 * found["other"]["frame_fid"]
    assert "clips ways" in extractor.describe()


def test_floats_are_seen_as_they_are_shown(world):
    extractor, data = world
    x = data.split("test").real[:4]
    near = x / 127.5 - 1 + 0.001
    assert all(torch.allclose(extractor(x)[k], extractor(near)[k]) for k in ("features", "frames", "centres"))


def test_without_a_test_part_the_last_tenth_is_held_out(tmp_path):
    for i in range(10):
        save_frames(tmp_path / f"{i}", np.full((3, 6, 8), i, np.uint8))
    (shown, label), (held, _) = halves(windows(tmp_path), 0)
    assert shown[:, 0, 0, 0, 0].tolist() == list(range(9))
    assert held[:, 0, 0, 0, 0].tolist() == [9]
    assert not label.any()


# --------------------------------------------------------------------------------------------------------------- medium


def test_strips_and_tensorboard(tmp_path):
    """A picture is the frames side by side; TensorBoard is given a GIF."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    x = torch.rand(2, 3, 4, 5, 6) * 2 - 1
    medium = media.Clips()
    assert torch.equal(medium.picture(x)[1, :, :, 6:12], x[1, :, 1])
    writer = SummaryWriter(tmp_path)
    medium.log(writer, "fakes", x, 3)
    writer.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (event,) = events.Images("fakes/clips")
    assert (event.step, event.width, event.height) == (3, 12, 5)  # two clips side by side
    assert event.encoded_image_string[:6] == b"GIF89a"
