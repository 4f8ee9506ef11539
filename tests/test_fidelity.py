"""Scores of outputs beside targets: the numbers are those of other implementations, and reach where scores are read."""

import json

import numpy as np
import pytest
import torch
import torchmetrics
from composing import composed, run
from made import noise_images
from PIL import Image
from torch import nn

from ganlab.callbacks.samples import SaveSamples
from ganlab.checkpoint import Sampler
from ganlab.data.pairs import Sides
from ganlab.data.rounds import InMemory
from ganlab.evaluate import evaluate, resolved
from ganlab.metrics.extractors import Own, Pixels
from ganlab.metrics.fidelity import L1, LPIPS, PSNR, SSIM, Segmentation
from ganlab.metrics.protocol import Protocol
from ganlab.metrics.scorer import Scorer
from ganlab.metrics.scores import Kept
from ganlab.pictures import beside
from ganlab.rng import IndexedRNG
from ganlab.tasks import Generate, Translate


def pair(n=4, size=24, channels=3):
    """(fake, target) uint8: photographs of a kind, and with noise."""
    y = noise_images(n, size, channels=channels)
    noise = torch.randint(-30, 31, y.shape, generator=torch.Generator().manual_seed(1))
    return (y.int() + noise).clamp(0, 255).to(torch.uint8), y


def as_floats(x):
    return x.float() / 127.5 - 1


class Twice(nn.Module):
    """A generator with its task, whose outputs are its inputs."""

    def __init__(self, task=None):
        super().__init__()
        self.task, self.device, self.dtype = task or Translate(), torch.device("cpu"), torch.float32

    def reconstruct(self, batch, start=0, seed=0):
        fake, real = self.task.play(lambda x: x, self.task.prepare(batch, IndexedRNG(seed, range(len(batch["real"])))))
        return {"fake": fake.fake, "real": real, "inputs": batch["inputs"]}


def scored(scores, fake, target, extractor=None, batch_size=3):
    samples = Sides({"inputs": InMemory(fake), "real": InMemory(target)})
    scorer = Scorer(extractor or Pixels(), scores, n=len(fake), batch_size=batch_size)
    look = scorer.looking_at(Twice(), samples)
    return scorer.score(look, list(target.shape[1:]), None, torch.device("cpu"))


def test_psnr_and_ssim_are_scikit_images():
    """The mean over images, as papers report them; SSIM with the settings of its paper."""
    metrics = pytest.importorskip("skimage.metrics")
    fake, target = pair()
    values = scored({"psnr": PSNR(), "ssim": SSIM()}, fake, target)
    pairs = [(x.permute(1, 2, 0).numpy(), y.permute(1, 2, 0).numpy()) for x, y in zip(fake, target, strict=True)]
    psnr = np.mean([metrics.peak_signal_noise_ratio(y, x) for x, y in pairs])
    told = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 2}
    ssim = np.mean([metrics.structural_similarity(y, x, **told) for x, y in pairs])
    assert values["psnr"] == pytest.approx(psnr, abs=1e-4)
    assert values["ssim"] == pytest.approx(ssim, abs=2e-4)


def test_on_luma_without_the_border():
    """Y of MATLAB's rgb2ycbcr: white is 235, black 16; a wrong border does not count."""
    white = torch.full((2, 3, 24, 24), 255, dtype=torch.uint8)
    black = torch.zeros_like(white)
    value = scored({"psnr": PSNR(luma=True)}, white, black)
    assert value == {"psnr_y": pytest.approx(10 * np.log10(255**2 / (235 - 16) ** 2), abs=1e-4)}
    framed = white.clone()
    framed[..., :2, :] = framed[..., -2:, :] = framed[..., :2] = framed[..., -2:] = 0
    assert scored({"psnr": PSNR(border=2)}, framed, white) == {"psnr": 100.0}
    assert scored({"psnr": PSNR(border=1)}, framed, white)["psnr"] < 20
    with pytest.raises(ValueError, match=r"scores.psnr.border=12"):
        scored({"psnr": PSNR(border=12)}, framed, white)
    with pytest.raises(ValueError, match=r"scores.ssim: its window"):
        scored({"ssim": SSIM(border=7)}, framed, white)


def test_mean_absolute_difference():
    fake, target = pair()
    expected = (as_floats(fake) - as_floats(target)).abs().mean().item()
    assert scored({"l1": L1()}, fake, target)["l1"] == pytest.approx(expected, rel=1e-5)


def test_batches_do_not_matter():
    fake, target = pair(7)
    scores = {"psnr": PSNR(), "ssim": SSIM(), "l1": L1()}
    assert scored(scores, fake, target, batch_size=1) == pytest.approx(scored(scores, fake, target, batch_size=7))


def test_a_perceptual_distance_has_its_networks_name():
    """The squared distance of what the extractor sees, under the name of that."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 5))
    fake, target = pair()
    expected = (net(as_floats(fake)) - net(as_floats(target))).square().sum(1).mean().item()
    values = scored({"lpips": LPIPS()}, fake, target, Own(net, "lpips_mine"))
    assert values == {"lpips_mine": pytest.approx(expected, rel=1e-5)}
    scorer = Scorer(Pixels(), {"lpips": LPIPS()}, n=4)
    with pytest.raises(ValueError, match=r"scores.lpips looks through extractor=lpips"):
        scorer.check([3, 24, 24], torch.device("cpu"), None, False)


def test_maps_are_scored_as_by_torchmetrics():
    """Over all images together; the fourth class is nowhere, and pixels without a class do not count."""
    generator = torch.Generator().manual_seed(0)
    right = torch.randint(3, (5, 8, 8), generator=generator)
    guess = torch.where(torch.rand(5, 8, 8, generator=generator) < 0.6, right, right.roll(1, 0))
    void = torch.rand(5, 8, 8, generator=generator) < 0.2
    ones = lambda x: nn.functional.one_hot(x, 4).movedim(-1, 1).float()
    score = Segmentation()
    rows = torch.cat(
        [score.compare(ones(guess)[i], ones(right)[i] * ~void[i][:, None], None) for i in ([0, 1], [2, 3, 4])]
    )
    values = score(Kept(), Kept(5, {"confusion_rows": rows}))
    target = torch.where(void, 255, right)
    counted = {"num_classes": 4, "ignore_index": 255}
    iou = torchmetrics.functional.classification.multiclass_jaccard_index(guess, target, **counted, average="none")
    accuracy = torchmetrics.functional.classification.multiclass_accuracy(guess, target, **counted, average="micro")
    assert values["miou"] == pytest.approx(iou[:3].mean().item(), rel=1e-6)
    assert values["pixel_accuracy"] == pytest.approx(accuracy.item(), rel=1e-6)


def test_scores_go_with_the_task():
    """What needs a target is refused for samples from noise."""
    scorer = Scorer(Pixels(), {"psnr": PSNR()}, n=4)
    with pytest.raises(ValueError, match=r"scores.psnr is for a G that has targets"):
        scorer.looking_at(Twice(Generate(4)), None)


# ------------------------------------------------------------------------------------------------------------- in runs


def facades(folder, n=12):
    """Pairs side by side, the right half the negative of the left."""
    folder.mkdir()
    for i, x in enumerate(noise_images(n, 16)):
        Image.fromarray(torch.cat([x, 255 - x], 2).permute(1, 2, 0).numpy()).save(folder / f"{i}.png")
    return folder


SMALL = ["generator.width=4", "discriminator.width=4", "data.batch_size=4", "max_kimg=1", "callbacks.watchdog.probe=1"]


def test_a_run_writes_scores_of_the_test_pairs_and_a_grid(tmp_path, monkeypatch):
    """metrics.csv, result.json with a protocol that names the test split, and a picture of input, output, target."""
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))
    pairs = facades(tmp_path / "pairs")
    best = run(
        tmp_path / "run", "model=pix2pix", "data=side_by_side", f"data.root={pairs}", "data.test=4", *SMALL,
        "metrics.every=1", "callbacks.samples.every=1", "callbacks.samples.rows=2", "callbacks.samples.columns=6",
    )  # fmt: skip
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert set(result["scores"]) == {"kimg", "psnr", "ssim", "l1"}
    assert (result["score"], result["lower_is_better"]) == ("psnr", False)
    assert result["best"] == best == result["scores"]["psnr"]
    protocol = Protocol.read(result["protocol"])
    assert protocol.n_fake == 4
    assert "4 samples of G_ema" in protocol.text()
    assert "against pairs pairs test" in protocol.text()
    assert "score/psnr" in (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0]
    grid = np.array(Image.open(tmp_path / "run" / "samples" / "outputs_000001.png"))
    assert grid.shape[:2] == (2 * 17 + 1, 6 * 17 + 1)
    inputs, targets = (grid[1:17, 1 + 17 * i : 17 + 17 * i].astype(int) for i in (0, 2))
    assert np.abs(inputs + targets - 255).max() <= 1


def test_a_checkpoint_is_scored_as_the_run_scored_it(tmp_path, monkeypatch):
    """`ganlab.evaluate` of the last checkpoint gives the numbers that stand in result.json, of the same protocol."""
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))
    data = ["data=side_by_side", f"data.root={facades(tmp_path / 'pairs')}", "data.test=4"]
    run(tmp_path / "run", "model=pix2pix", *data, *SMALL, "metrics.every=1")
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    scores = ["scores=[psnr,ssim,l1]", "extractor=pixels", "accelerator=cpu"]
    given = resolved(composed(f"fakes={checkpoint}", *data, *scores, "split=test", name="evaluate"))
    (found,) = evaluate(given)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert found["scores"] == pytest.approx({k: v for k, v in result["scores"].items() if k != "kimg"})
    told = [Protocol.read(x["protocol"]) for x in (found, result)]
    assert told[0].id("psnr") == told[1].id("psnr")
    with pytest.raises(ValueError, match="starts from images: say which"):
        evaluate(resolved(composed(f"fakes={checkpoint}", *scores, f"reals={tmp_path / 'pairs'}", name="evaluate")))
    with pytest.raises(ValueError, match="starts from images and makes no samples from noise"):
        Sampler.load(checkpoint).generate(0, 1)


def test_any_set_can_be_repaired(tmp_path, monkeypatch):
    """Digits without pairs of their own: holes are made on the fly, scored on the test part, shown in the grid."""
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))
    run(
        tmp_path / "run", "model=pix2pix", "data=digits", "task=inpaint", *SMALL, "data.batch_size=50",
        "discriminator.inputs=null", "metrics.n=20", "metrics.every=1", "callbacks.samples.every=1",
    )  # fmt: skip
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["protocol"]["reals"] == "Digits test"
    assert result["scores"]["l1"] < 0.5
    assert (tmp_path / "run" / "samples" / "outputs_000001.png").exists()


def test_parts_of_other_sizes_and_channels_stand_side_by_side():
    x = beside(torch.full((2, 1, 4, 4), -1.0), torch.zeros(2, 3, 8, 8), torch.ones(2, 3, 8, 8))
    assert x.shape == (6, 3, 8, 8)
    assert x.mean((1, 2, 3)).tolist() == [-1, 0, 1, -1, 0, 1]
    assert SaveSamples(1, "unused").columns == 10
