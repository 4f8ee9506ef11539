"""Sounds: files read and repaired, spectra, WaveGAN's layers, the classifier that scores see through."""

import os
import struct
import wave
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import torch
from composing import prepared
from made import SHARED, scored

from ganlab.data.rounds import DataModule, InMemory
from ganlab.data.sounds import Sounds, resampled, trimmed
from ganlab.data.tones import NAMES, Tones
from ganlab.files import Unavailable
from ganlab.media.sound import Sound
from ganlab.metrics.classes import ClassificationAccuracy, Recognised
from ganlab.metrics.extractors import Classifier, Pixels
from ganlab.metrics.scorer import Scorer
from ganlab.models.wavegan import Discriminator, Generator, PhaseShuffle, shifted, strides
from ganlab.spectra import LogMel

soundfile = pytest.importorskip("soundfile")
RATE, LENGTH = 8000, 800


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))


def sine(f=440.0, rate=RATE, seconds=0.1, peak=0.5):
    return peak * np.sin(2 * np.pi * f * np.arange(round(rate * seconds)) / rate)


def put(path, x=None, rate=RATE, subtype="PCM_16"):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sine(rate=rate) if x is None else x, rate, subtype=subtype)
    return path


def folder(path, n=4):
    for i in range(n):
        put(path / f"{i % 2}_{i}.wav")
    return path


def sounds(root, **kwargs):
    return Sounds(str(root), RATE, LENGTH, **({"peak": None, "trim": None, "held_out": 0.0} | kwargs))


def one(root, name, **kwargs):
    """The sound of that file, as numbers in [-1, 1)."""
    data = sounds(root, **kwargs)
    names = [path.name for path in data.found[0]]
    return data.split("train").real[names.index(name), 0].double() / 32768


# ---------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("kind", ["wav-PCM_U8", "wav-PCM_16", "wav-PCM_24", "wav-FLOAT", "flac-PCM_16"])
def test_every_depth_is_read_as_what_was_written(tmp_path, kind):
    """To within the depth's own rounding."""
    ending, subtype = kind.split("-")
    put(folder(tmp_path) / f"it.{ending}", subtype=subtype)
    error = (one(tmp_path, f"it.{ending}") - torch.from_numpy(sine())).abs().max()
    assert error < (1 / 127 if subtype == "PCM_U8" else 1e-4)


def test_stereo_is_mixed_down(tmp_path):
    both = np.stack([sine(400, peak=0.4), sine(900, peak=0.2)], 1)
    put(folder(tmp_path) / "both.wav", both)
    np.testing.assert_allclose(one(tmp_path, "both.wav"), both.mean(1), atol=1e-4)


@pytest.mark.parametrize("rate", [4000, 11025, 16000, 44100])
def test_a_tone_keeps_its_pitch_and_loudness_at_every_rate(tmp_path, rate):
    put(folder(tmp_path) / "it.wav", sine(440, rate, seconds=0.1), rate)
    x = one(tmp_path, "it.wav")
    np.testing.assert_allclose(x[100:-100], sine(440)[100:-100], atol=0.01)  # but for the filter's edges


def test_what_the_rate_cannot_hold_is_filtered_out_and_not_folded():
    x = sine(7000, 44100, 0.2)
    assert np.abs(resampled(x, 44100, RATE)[100:-100]).max() < 0.01


def test_silent_ends_are_cut_off_and_short_sounds_padded(tmp_path):
    quiet = np.concatenate([np.full(160, 1e-4), sine(peak=0.3)[:400], np.zeros(400)])
    put(folder(tmp_path) / "it.wav", quiet)
    x = one(tmp_path, "it.wav", trim=40.0, peak=0.9)
    assert x.abs().max() == pytest.approx(0.9, abs=1e-3)
    np.testing.assert_allclose(x[:400], 3 * sine(peak=0.3)[:400], atol=0.01)
    assert not x[400:].any()
    assert len(trimmed(quiet, RATE, None)) == len(quiet)


def test_longer_sounds_are_cut_and_counted(tmp_path, capsys):
    put(folder(tmp_path) / "it.wav", sine(seconds=0.3))
    np.testing.assert_allclose(one(tmp_path, "it.wav"), sine()[:LENGTH], atol=1e-4)
    assert "data.length=800: 1 of 5 sounds are longer, and their ends are cut off" in capsys.readouterr().out


def truncated(path):
    put(path, sine(seconds=1))
    os.truncate(path, 5000)


def pcm_float(path, value):
    put(path, np.full(800, value), subtype="FLOAT")


BROKEN = {
    "it ends early: 16,000 bytes of sound are announced, 4,956 are there": truncated,
    "it is empty": lambda path: path.write_bytes(b""),
    "it has no samples": lambda path: put(path, np.zeros(0)),
    "it is silent": lambda path: put(path, np.zeros(800)),
    "some of its numbers are not finite": lambda path: pcm_float(path, np.nan),
    "Error opening": lambda path: path.write_bytes(b"no sound at all"),
    "100 samples per second are not 1,000 to 768,000": lambda path: put(path, rate=100),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_a_file_that_cannot_be_used_is_named_or_left_out_and_counted(tmp_path, capsys, reason):
    folder(tmp_path)
    BROKEN[reason](tmp_path / "9_bad.wav")
    (tmp_path / "9_worse.wav").write_bytes(b"")
    with pytest.raises(
        Unavailable, match=rf"9_bad.wav can't be used as a sound \({reason}.*1 others of 6.*on_bad=skip"
    ):
        sounds(tmp_path).facts()
    data = sounds(tmp_path, on_bad="skip", class_of="name")
    assert data.facts()["class_names"] == ["0", "1"]
    assert len(data.split("train")) == 4
    told = capsys.readouterr().out
    assert "2 of 6 sounds can't be used, listed in" in told
    listed = Path(told.partition("listed in ")[2].strip()).read_text()
    assert "9_bad.wav" in listed
    assert reason in listed


def test_sizes_that_a_recorder_did_not_know_are_no_truncation(tmp_path):
    path = put(folder(tmp_path) / "it.wav")
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(content)
    assert one(tmp_path, "it.wav").any()


def test_a_header_that_announces_too_much_takes_no_memory(tmp_path, monkeypatch):
    folder(tmp_path)
    monkeypatch.setattr("ganlab.data.sounds.MOST", 700)
    with pytest.raises(Unavailable, match="800 samples are too many: cut it into several files"):
        sounds(tmp_path).facts()


def test_links_out_of_the_folder_are_not_followed(tmp_path, capsys):
    put(tmp_path / "secret.wav")
    (folder(tmp_path / "in") / "link.wav").symlink_to(tmp_path / "secret.wav")
    assert len(sounds(tmp_path / "in").found[0]) == 4
    assert "1 links lead out of it" in capsys.readouterr().out


def test_no_folder_and_no_sounds_are_refused(tmp_path):
    (tmp_path / "text.txt").write_text("no sound")
    with pytest.raises(Unavailable, match="0 sounds found in it, at least 2 are needed"):
        sounds(tmp_path).facts()
    with pytest.raises(Unavailable, match="there is no such folder"):
        sounds(tmp_path / "nowhere").facts()


@pytest.mark.skipif(not (SHARED / "fsdd").is_dir(), reason="the recordings are not here")
def test_real_recordings_are_read(tmp_path):
    """60 spoken digits: none is bad, each begins with sound, is as loud as asked, and has its class."""
    with zipfile.ZipFile(SHARED / "fsdd" / "fsdd_3000.zip") as packed:
        names = [name for name in packed.namelist() if name.endswith("_1.wav")]
        packed.extractall(tmp_path, names)
    data = Sounds(str(tmp_path), 4000, 2048, class_of="name", held_out=0.0)
    x = data.split("train").real
    assert data.facts()["class_names"] == [str(i) for i in range(10)]
    assert (x[:, 0, :40].float().square().mean(1) > 0).all()
    assert x.float().abs().amax((1, 2)).sub(0.9 * 32767).abs().max() <= 1


# -------------------------------------------------------------------------------------------------------------- classes


def test_classes_are_subfolders_or_beginnings_of_names(tmp_path):
    for name, n in (("cat", 3), ("dog", 1)):
        for i in range(n):
            put(tmp_path / name / f"a_{i}.wav")
    facts = sounds(tmp_path).facts()
    assert (facts["class_names"], facts["frequencies"]) == (["cat", "dog"], [0.75, 0.25])
    assert sounds(tmp_path).split("train").label.tolist() == [0, 0, 0, 1]
    assert sounds(tmp_path, class_of="name").facts()["classes"] is None  # one class is none
    put(tmp_path / "loose.wav")
    assert sounds(tmp_path).facts()["classes"] is None
    with pytest.raises(Unavailable, match=r"1 of 5 have none, loose.wav is the first .* data.class_of=folder"):
        sounds(tmp_path, class_of="name").facts()


def test_the_held_out_part_is_fixed_and_belongs_to_names(tmp_path):
    """A file stays in its part whatever others come or go; a pattern names the part."""
    folder(tmp_path, 100)
    inside = lambda data, split: {path.name for path in data.found[0] if data.is_held_out(path) == (split == "test")}
    before = inside(sounds(tmp_path, held_out=0.3), "test")
    for i in range(0, 100, 2):
        (tmp_path / f"0_{i}.wav").unlink()
    assert inside(sounds(tmp_path, held_out=0.3), "test") == {name for name in before if name.startswith("1_")}
    assert 15 < len(before) < 45
    data = sounds(tmp_path, held_out="*_?.wav")
    assert (len(data.split("test")), len(data.split("train"))) == (5, 45)
    with pytest.raises(Unavailable, match=r"data.held_out=0.0: that leaves no sounds for the test part"):
        sounds(tmp_path).split("test")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"root": None}, "data.root is not set"),
        ({"class_of": "colour"}, "data.class_of='colour': must be folder or name"),
        ({"on_bad": "cry"}, "data.on_bad='cry'"),
        ({"held_out": 1.0}, "data.held_out=1.0"),
        ({"rate": 10}, "data.rate=10"),
        ({"imbalance": 0.1, "root": "."}, "needs a set with one label"),
    ],
)
def test_wrong_keys_are_refused(keys, message, tmp_path):
    for name in ("a.wav", "b.wav"):
        put(tmp_path / name)
    with pytest.raises(ValueError, match=message):
        Sounds(**({"root": str(tmp_path)} | keys | ({"root": str(tmp_path)} if keys.get("root") else {}))).facts()


def test_without_soundfile_the_run_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install ganlab\[sound\]"):
        Sounds("anywhere")


# ---------------------------------------------------------------------------------------------------------------- tones


def test_tones_have_the_spectra_that_they_are_said_to_have():
    """Peaks of SciPy's periodogram; of the sweeps the frequency of SciPy's analytic signal, at both ends."""
    data = Tones(rate=4000, length=1024, clips=40)
    x, label = data.split("train").real[:, 0].double().numpy(), data.split("train").label
    assert data.facts()["class_names"] == list(NAMES)
    for sound, kind in zip(x, label.tolist(), strict=True):
        f, power = scipy.signal.periodogram(sound, 4000)
        peaks = f[scipy.signal.find_peaks(power, power.max() / 30)[0]]
        turning = np.unwrap(np.angle(scipy.signal.hilbert(sound)))
        begin, end = (np.diff(turning)[rows].mean() * 4000 / (2 * np.pi) for rows in (slice(50, 150), slice(-150, -50)))
        if kind == 0:
            assert 120 <= peaks[0] <= 172
            np.testing.assert_allclose(peaks[:4] / peaks[0], range(1, len(peaks[:4]) + 1), rtol=0.05)
        elif kind == 1:
            assert len(peaks) == 1
            assert 490 <= peaks[0] <= 677
        else:
            assert (begin < 300 < 400 < end) == (kind == 2)
            assert (end < 300 < 400 < begin) == (kind == 3)
    assert 0.5 <= np.abs(x).max(1).min() / 32767 <= np.abs(x).max() / 32767 <= 0.9


# ---------------------------------------------------------------------------------------------------- spectra and files


def test_the_spectrogram_is_scipys_in_the_same_bands():
    x = torch.randn(2, 1, 2000, generator=torch.Generator().manual_seed(0)) * 0.1
    see = LogMel(8000, bands=20, floor=60.0)
    window = scipy.signal.get_window("hann", see.size)
    _, _, spectrum = scipy.signal.stft(
        x.numpy(), window=window, nperseg=see.size, noverlap=see.size // 2, nfft=2 * see.size, padded=False,
        boundary="zeros", scaling="spectrum",
    )  # fmt: skip
    power = (2 * np.abs(spectrum[:, 0])) ** 2
    mel = lambda f: 2595 * np.log10(1 + f / 700)
    edges = 700 * (10 ** (np.linspace(0, mel(4000), 22) / 2595) - 1)
    bins = np.linspace(0, 4000, see.size + 1)
    bands = np.stack([np.interp(bins, edges[i : i + 3], [0, 1, 0], 0, 0) for i in range(20)])
    wanted = 1 + np.clip(10 * np.log10(bands @ power), -60, 0) / 30
    np.testing.assert_allclose(see(x)[:, 0, :, 2:-2], wanted[:, :, 2 : see(x).shape[3] - 2], atol=0.02)


def test_the_spectrogram_shows_a_full_tone_at_its_band_and_silence_as_nothing():
    see = LogMel(8000)
    x = torch.from_numpy(np.stack([sine(1000, seconds=0.5, peak=1.0), np.zeros(4000)]))[:, None]
    shown = see(x)
    centres = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 4000 / 700), 42)[1:-1] / 2595) - 1)
    assert shown[0, 0, :, 10].argmax() == np.abs(centres - 1000).argmin()
    assert 0.9 < shown[0, 0].max() <= 1
    assert (shown[1] == -1).all()


def test_written_sounds_are_what_was_made(tmp_path):
    x = torch.from_numpy(np.stack([sine(peak=1.0), 0.3 * sine(900), sine(50)])).float()[:, None]
    paths = Sound(RATE).write(x, tmp_path / "new", first=7, prefix="fakes_")
    assert [path.name for path in paths] == [f"fakes_{i:06d}.wav" for i in (7, 8, 9)]
    for sound, path in zip(x, paths, strict=True):
        read, rate = soundfile.read(path)
        assert rate == RATE
        np.testing.assert_allclose(read, sound[0], atol=1e-4)
    with wave.open(str(Sound(RATE).write(torch.cat([x, -x], 1), tmp_path)[0])) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getnframes()) == (2, 2, 800)


def test_sounds_are_shown_as_spectrograms_and_played_in_tensorboard(tmp_path):
    x = torch.from_numpy(sine(3000, seconds=0.5))[None, None]
    picture = Sound(RATE).picture(x)
    assert picture.shape == (1, 1, 40, 32)
    assert picture[0, 0, :, 10].argmax() < 10  # high pitch at the top
    played = []
    writer = type("Writer", (), {"add_audio": lambda self, *args: played.append(args)})()
    Sound(RATE).log(writer, "fakes", x, 3)
    (name, sound, step, rate), = played  # fmt: skip
    assert (name, tuple(sound.shape), step, rate) == ("fakes/0", (1, 4000), 3, RATE)


# -------------------------------------------------------------------------------------------------------------- WaveGAN


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def test_the_papers_layers_at_its_length():
    """Table 4 and 5 of the paper, d = 64: 16,384 samples, the number of weights and biases by hand."""
    sizes = [1024, 512, 256, 128, 64, 1]
    convolutions = sum(25 * a * b for a, b in pairwise(sizes))
    G = Generator((1, 16384), z_dim=100)
    assert parameters(G) == 100 * 16384 + 16384 + convolutions + sum(sizes[1:])
    assert parameters(Discriminator((1, 16384))) == convolutions + sum(sizes[:-1]) + 16384 + 1
    assert [part.n for part in Discriminator((1, 16384)).modules() if isinstance(part, PhaseShuffle)] == [2] * 4


@pytest.mark.parametrize(
    ("length", "steps"), [(64, 1), (252, 1), (256, 2), (1024, 3), (4096, 4), (8192, 4), (16384, 5)]
)
def test_lengths_that_strides_of_four_reach(length, steps):
    assert strides((1, length)) == (1, steps, length // 4**steps)
    assert Generator((2, length), width=4)(torch.randn(2, 100)).shape == (2, 2, length)
    assert Discriminator((2, length), width=4)(torch.randn(2, 2, length)).shape == (2,)


@pytest.mark.parametrize(("length", "nearest"), [(8000, 7936), (63, 64), (4100, 4096)])
def test_other_lengths_are_refused_and_the_nearest_named(length, nearest):
    with pytest.raises(ValueError, match=f"Set data.length={nearest}$"):
        strides((1, length))
    assert strides((1, nearest))


def test_phase_shuffle_is_numpys_reflection():
    x = torch.randn(5, 3, 8, generator=torch.Generator().manual_seed(0))
    for by in range(-2, 3):
        padded = np.pad(x.numpy(), ((0, 0), (0, 0), (2, 2)), mode="reflect")
        np.testing.assert_array_equal(shifted(x, torch.full((5, 1), by)), padded[:, :, 2 - by : 10 - by])


def test_phase_shuffle_draws_each_shift_for_each_sample_when_training_only():
    x = torch.arange(9.0).expand(2000, 1, 9)
    layer = PhaseShuffle(2)
    torch.manual_seed(0)
    shifts = 4 - layer(x)[:, 0, 4]
    assert torch.histc(shifts, 5, -2.5, 2.5).sub(400).abs().max() < 80  # uniform, to four deviations
    assert layer.eval()(x) is x


def test_a_sample_depends_on_its_z_and_label_alone():
    G = Generator((1, 256), width=4, classes=3)
    for _ in range(3):
        G(torch.randn(20, 100), torch.randint(3, (20,)))
    z, label = torch.randn(4, 100), torch.tensor([0, 1, 2, 0])
    G.eval()
    together, alone = G(z, label), torch.cat([G(z[i : i + 1], label[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone)


def test_wrong_settings_of_the_networks_are_refused():
    with pytest.raises(ValueError, match=r"wavegan makes sounds, and the data's samples have the shape"):
        Generator((1, 16, 16))
    with pytest.raises(ValueError, match=r"discriminator.shuffle=16: must be from 0 to 15"):
        Discriminator((1, 4096), shuffle=16)
    with pytest.raises(ValueError, match=r"discriminator.told='shouting'"):
        Discriminator((1, 4096), told="shouting")


# --------------------------------------------------------------------------------------------------------------- scores


class Few(DataModule):
    """Loud low tones and quiet high ones."""

    def load(self, split):
        f, peak = torch.tensor([300.0, 2500.0]), torch.tensor([0.8, 0.2])
        label = torch.arange(256 if split == "train" else 64) % 2
        phase = torch.rand(len(label), 1, generator=torch.Generator().manual_seed(len(label)))
        t = torch.arange(400) / 8000
        x = peak[label, None] * torch.sin(2 * torch.pi * (f[label, None] * t + phase))
        return InMemory((x[:, None] * 32767).to(torch.int16), label)

    def facts(self):
        return {"shape": [1, 400], "classes": 2}


def test_a_classifier_learns_sounds_through_their_spectrogram():
    """Also when asked for the same again, and of int16 as of float."""
    data = Few(16, 1, 0)
    extractor = Classifier(epochs=10, front=LogMel(8000), name="logmel")
    extractor.check(data.facts())
    extractor.prepare(data)
    assert extractor.accuracy == 1
    assert "100.0% on held-out samples through LogMel" in extractor.describe()
    again = Classifier(epochs=10, front=LogMel(8000), name="logmel")
    again.prepare(data)
    assert again.describe() == extractor.describe()
    other = Classifier(epochs=10, front=LogMel(8000, bands=20), name="logmel")
    other.prepare(data)
    assert other.describe() != extractor.describe()
    x = data.split("test").real
    assert extractor(x)["logits"].argmax(1).tolist() == extractor(x / 32768)["logits"].argmax(1).tolist()


def test_sounds_without_classes_train_no_classifier():
    facts = {"shape": [1, 400], "classes": None}
    with pytest.raises(ValueError, match=r"logmel learns from samples of one class each, .* metrics.enabled=false"):
        Classifier(front=LogMel(8000), name="logmel").check(facts)


def test_the_share_that_is_recognised():
    label = torch.tensor([[0], [0], [1], [1], [1], [2]])
    seen = torch.tensor([0, 1, 1, 1, 0, 2])
    logits = torch.nn.functional.one_hot(seen, 3).float()
    values = scored(Recognised(), None, torch.zeros(6, 2), labels=(None, label), logits=(None, logits), pieces=2)
    assert values == {"recognised": pytest.approx(4 / 6), "recognised_worst": pytest.approx(1 / 2)}


def test_scores_that_need_images_are_refused():
    scorer = Scorer(Pixels(), {"cas": ClassificationAccuracy()}, n=200)
    with pytest.raises(ValueError, match=r"scores.cas learns from images, and .* \[1, 800\]: leave it out"):
        scorer.check([1, 800], torch.device("cpu"), 200, labels=True, classes=2)


def test_the_command_line_refuses_what_cannot_be_made_of_sounds():
    with pytest.raises(ValueError, match=r"dcgan makes images"):
        prepared("data=tones", "model=dcgan")
    with pytest.raises(ValueError, match=r"Set data.length=992"):
        prepared("model=wavegan", "data.length=1000")
