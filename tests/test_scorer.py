"""One pass for all scores: names, protocols, what is kept of the reals, and what is refused."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from made import inception_file, noise_images, squeezenet_file
from play import game, trainer
from torchvision.io import decode_image
from torchvision.utils import save_image

from ganlab.callbacks.evaluate import Evaluate
from ganlab.data.places import Place, images_at
from ganlab.data.rounds import InMemory
from ganlab.data.toy import Toy
from ganlab.files import Unavailable
from ganlab.metrics.classes import ClassificationAccuracy, IntraFID
from ganlab.metrics.diversity import InceptionScore, Vendi
from ganlab.metrics.extractors import Pixels
from ganlab.metrics.fit import as_shown
from ganlab.metrics.frechet import FID
from ganlab.metrics.kernels import CMMD, KID
from ganlab.metrics.modes import Modes
from ganlab.metrics.neighbours import PRDC
from ganlab.metrics.networks import Inception, Torchvision
from ganlab.metrics.protocol import Protocol
from ganlab.metrics.scorer import Scorer, chosen_of, load_statistics, save_statistics, shares
from ganlab.metrics.scores import Kept

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))


def place(x, name="images"):
    return Place(name, InMemory(x), x.shape[1:])


def look(x):
    return lambda first, count: {"real": x[first : first + count]}


def score(scorer, real, fake):
    kept = scorer.reals(place(real), "train", CPU) if scorer.needs_reals else None
    return scorer.score(look(fake), list(fake.shape[1:]), kept, CPU)


def test_a_score_is_named_by_what_it_is_of():
    """With as many fakes as the literature takes, the name is the literature's; otherwise it says how many."""
    for n, name in ((50_000, "fid_pixels"), (10_000, "fid10k_pixels"), (2500, "fid2500_pixels")):
        assert Scorer(Pixels(), {"fid": FID()}, n=n).name("fid") == name
    centers = [[0.0, 0.0]]
    assert Scorer(Pixels(), {"m": Modes(centers, 0.1)}, n=10_000).name("good") == "good_pixels"
    with pytest.raises(ValueError, match="kid, kid_std would be given by two"):
        Scorer(Pixels(), {"a": KID(), "b": KID()})
    with pytest.raises(ValueError, match="scores is empty"):
        Scorer(Pixels(), {})
    with pytest.raises(ValueError, match=r"metrics\.n=1"):
        Scorer(Pixels(), {"fid": FID()}, n=1)


def test_scores_equal_torch_fidelitys_from_images_to_number(tmp_path):
    """The same images, the same weights, the TF1 resize: FID, IS, precision, recall to 1e-4, KID to 1e-6."""
    from torch_fidelity import calculate_metrics

    class Images(torch.utils.data.Dataset):
        def __init__(self, x):
            self.x = x

        def __len__(self):
            return len(self.x)

        def __getitem__(self, i):
            return self.x[i]

    weights = inception_file(tmp_path)
    real, fake = noise_images(24, seed=1), noise_images(20, seed=2)
    theirs = calculate_metrics(
        input1=Images(fake), input2=Images(real), fid=True, isc=True, kid=True, prc=True, isc_splits=1,
        samples_shuffle=False, kid_subsets=4, kid_subset_size=15, rng_seed=2020, batch_size=16, cuda=False,
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(weights), cache=False, verbose=False, save_cpu_ram=True,
    )  # fmt: skip
    scores = {"fid": FID(), "is": InceptionScore(1, False), "kid": KID(4, 15), "prdc": PRDC()}
    ours = {}
    for resize in ("tf1", "torch"):
        extractor = Inception(resize, weights=str(weights))
        extractor.prepare()
        values = score(Scorer(extractor, scores, n=20, batch_size=7), real, fake)
        ours[resize] = {k.replace("20_inception", ""): v for k, v in values.items()}
    expected = {
        "fid": theirs["frechet_inception_distance"], "is": theirs["inception_score_mean"],
        "precision": theirs["precision"], "recall": theirs["recall"],
    }  # fmt: skip
    kid = {"kid": theirs["kernel_inception_distance_mean"], "kid_std": theirs["kernel_inception_distance_std"]}
    assert expected["fid"] > 1  # the numbers are of something
    assert expected["is"] > 1.05
    assert 0 < expected["recall"] < 1
    assert abs(kid["kid"]) > 1e-3
    of = lambda values, keys: {k: values[k] for k in keys}
    assert of(ours["tf1"], expected) == pytest.approx(expected, rel=1e-4, abs=0)
    assert of(ours["tf1"], kid) == pytest.approx(kid, abs=1e-6 * max(1, abs(kid["kid"])))
    assert ours["torch"]["fid"] != pytest.approx(expected["fid"], rel=1e-3)  # another resize is another number


def test_reals_are_looked_at_once(monkeypatch):
    real, fake = noise_images(30, 8, 1), noise_images(20, 8, 2)
    first = Scorer(Pixels(), {"fid": FID(), "prdc": PRDC()}, n=20, batch_size=7)
    values = score(first, real, fake)
    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "collect", lambda *a: pytest.fail("the reals were looked at again"))
        kept = Scorer(Pixels(), {"fid": FID(), "prdc": PRDC()}, n=20).reals(place(real), "train", CPU)
        for fewer in ({"fid": FID()}, {"prdc": PRDC()}, {"vendi": Vendi(), "fid": FID()}):
            Scorer(Pixels(), fewer, n=20).reals(place(real), "train", CPU)
    assert first.score(look(fake), [3, 8, 8], kept, CPU) == pytest.approx(values, rel=1e-12)
    other = Scorer(Pixels(), {"fid": FID()}, n=20, n_real=15).reals(place(real), "train", CPU)
    assert other.n == 15  # another protocol, other statistics
    changed = real.clone()
    changed[0, 0, 0, 0] += 1
    assert not torch.equal(first.reals(place(changed), "train", CPU).rows(), kept.rows())


def test_statistics_are_those_that_others_read_and_write(tmp_path):
    """.npz with mu and sigma, as pytorch-fid has them."""
    real, fake = noise_images(60, 4, 1, 1), noise_images(50, 4, 2, 1)
    scorer = Scorer(Pixels(), {"fid": FID()}, n=50)
    values = score(scorer, real, fake)
    save_statistics(tmp_path / "ours.npz", scorer.reals(place(real), "train", CPU), "raw values")
    x = (real / 127.5 - 1).flatten(1).double().numpy()
    with np.load(tmp_path / "ours.npz") as stored:
        assert np.allclose(stored["mu"], x.mean(0), atol=1e-6)
        assert np.allclose(stored["sigma"], np.cov(x, rowvar=False), atol=1e-6)
    np.savez(tmp_path / "theirs.npz", mu=x.mean(0), sigma=np.cov(x, rowvar=False))
    kept = load_statistics(tmp_path / "theirs.npz", "raw values")
    assert scorer.score(look(fake), [1, 4, 4], kept, CPU) == pytest.approx(values, rel=1e-5)
    with pytest.raises(ValueError, match="another extractor: raw values"):
        load_statistics(tmp_path / "ours.npz", "inception, weights 1234")
    np.savez(tmp_path / "small.npz", mu=np.zeros(4), sigma=np.eye(4))
    with pytest.raises(ValueError, match="made through another extractor"):
        scorer.score(look(fake), [1, 4, 4], load_statistics(tmp_path / "small.npz"), CPU)


def test_numbers_of_two_precisions_never_meet(tmp_path):
    """Neither by their name, nor by their protocol, nor by what is kept or published of the reals."""
    real, path = noise_images(8, 32, 1), squeezenet_file(tmp_path)
    seen, ids = {}, set()
    for precision in (32, "bf16"):
        extractor = Torchvision("squeezenet1_1", "features", size=32, weights=str(path), precision=precision)
        extractor.prepare()
        scorer = Scorer(extractor, {"fid": FID()}, n=8)
        seen[scorer.name("fid")] = scorer.reals(place(real), "train", CPU).arrays["features_mu"]
        ids.add(scorer.protocol("G").id("fid"))
    assert list(seen) == ["fid8_squeezenet1_1", "fid8_squeezenet1_1-bf16"]
    assert len(ids) == 2
    assert not torch.equal(*seen.values())
    save_statistics(tmp_path / "ours.npz", Kept(8, {}), extractor.describe())
    assert load_statistics(tmp_path / "ours.npz", extractor.describe()).n == 8
    with pytest.raises(ValueError, match="another extractor: squeezenet1_1-bf16"):
        load_statistics(tmp_path / "ours.npz", extractor.describe().replace("-bf16", ""))
    np.savez(tmp_path / "theirs.npz", mu=np.zeros(4), sigma=np.eye(4))
    with pytest.raises(ValueError, match="does not say that it was made in bf16"):
        load_statistics(tmp_path / "theirs.npz", extractor.describe())


def test_what_can_not_work_is_refused_before_it_is_looked_at(monkeypatch):
    check = lambda scores, shape=(3, 8, 8), n_real=30, labels=False, **kw: Scorer(Pixels(), scores, **kw).check(
        list(shape), CPU, n_real, labels
    )
    with pytest.raises(ValueError, match="subset_size=1000, and there are only 30 reals"):
        check({"kid": KID()}, n=2000)
    with pytest.raises(ValueError, match="only 5 fakes"):
        check({"prdc": PRDC()}, n=5)
    with pytest.raises(ValueError, match="score intra_fid reads labels, and there is only features"):
        check({"intra_fid": IntraFID()}, n=50)
    with pytest.raises(ValueError, match="prdc would keep 37 GiB of features"):
        check({"prdc": PRDC()}, shape=(3, 256, 256), n=50_000)
    check({"prdc": PRDC(), "fid": FID()}, n=50)
    monkeypatch.setattr(Pixels, "forward", lambda *a: pytest.fail("it looked"))
    with pytest.raises(ValueError, match="4 fakes are too few"):
        check({"cas": ClassificationAccuracy()}, n=4)


def test_fewer_samples_are_a_choice_from_all_over():
    """Folders are sorted by class: the first n would be of one."""
    chosen = chosen_of(1000, 100)
    assert torch.equal(chosen, chosen_of(1000, 100))
    assert len(chosen.unique()) == 100
    assert 400 < chosen.double().mean() < 600
    assert torch.equal(chosen_of(10, None), torch.arange(10))


def test_images_are_scored_as_a_viewer_sees_them(tmp_path):
    """Rounded, not cut off, and clamped: as PNG files of them."""
    x = torch.linspace(-1.2, 1.2, 3 * 16).view(1, 3, 4, 4)
    assert as_shown(torch.tensor([-1.0, 0.0, 1.0, 0.003]).view(1, 1, 2, 2)).flatten().tolist() == [0, 128, 255, 128]
    save_image((x.clamp(-1, 1) + 1) / 2, tmp_path / "x.png")
    assert (decode_image(str(tmp_path / "x.png")).int() - as_shown(x)[0].int()).abs().max() <= 1


def test_a_generator_that_broke_has_no_score_and_is_never_the_best(tmp_path):
    """NaN images would become black ones."""
    gan, evaluate = game(), Evaluate(1000, Pixels(), {"fid": FID()}, folder=str(tmp_path / "run" / "c"), n=20)
    trainer(callbacks=[evaluate], limit_train_batches=1).fit(gan, datamodule=Toy(count=50, batch_size=8))
    good = evaluate.best
    torch.nn.init.constant_(gan.G_ema[0].weight, torch.nan)
    scores, _ = evaluate.evaluate(gan.trainer, gan)
    assert math.isnan(scores["fid20_pixels"])
    evaluate.history = [{"kimg": 0, **scores}, good, {"kimg": 2, **scores}]
    assert evaluate.best is good


@pytest.mark.parametrize(("n", "world"), [(101, 1), (101, 3), (5, 8), (64, 2)])
def test_shares_cover_every_sample_once(n, world):
    pieces = [p for rank in range(world) for p in shares(n, 10, rank, world)]
    assert sorted(i for first, count in pieces for i in range(first, first + count)) == list(range(n))


# ------------------------------------------------------------------------------------------------------------ protocol


def test_a_protocol_tells_what_may_be_compared():
    scores = {"fid": {"reals": True}, "prdc": {"reals": True, "k": 3}, "is": {"reals": False}}
    told = Protocol("CIFAR10 train", "12ab", 50_000, "G_ema", 10_000, "inception, weights 1234", scores, kimg=100.0)
    same = (
        replace(told, seed=3), replace(told, kimg=7.0), replace(told, versions={"torch": "9"}),
        replace(told, reals="folder of the same"),
    )  # fmt: skip
    assert {p.id("fid") for p in (told, *same)} == {told.id("fid")}
    other = (
        replace(told, fingerprint="ab12"), replace(told, n_real=10_000), replace(told, fakes="G"),
        replace(told, n_fake=5000), replace(told, extractor="inception, clean"), replace(told, truncation=0.7),
    )  # fmt: skip
    assert len({p.id("fid") for p in (told, *other)}) == 7
    # a score that compares with no reals is still of one set of data, whatever stands beside it
    assert told.id("is") == replace(told, n_real=None, scores={"is": {"reals": False}}).id("is")
    assert told.id("is") != replace(told, fingerprint="ab12").id("is")
    changed = replace(told, scores={**scores, "prdc": {"reals": True, "k": 5}})
    assert changed.id("fid") == told.id("fid")
    assert changed.id("prdc") != told.id("prdc")
    assert Protocol.read(json.loads(json.dumps(told.plain()))) == told
    for part in ("10,000 samples of G_ema", "seed 0", "50,000 of CIFAR10 train (12ab)", "weights 1234"):
        assert part in told.text()
    assert "truncation 0.7" in other[-1].text()


def test_settings_of_scores_are_in_the_protocol():
    scores = {"kid": KID(subsets=7, subset_size=20, sigma=3), "vendi": Vendi(), "cmmd": CMMD(sigma=10)}
    told = Scorer(Pixels(), scores, n=50, seed=4).protocol("G_ema", "x", "12ab", 60)
    kid = {"reals": True, "subsets": 7, "subset_size": 20, "kernel": "poly", "seed": 2020}  # sigma is not used
    assert told.scores == {"kid": kid, "vendi": {"reals": False}, "cmmd": {"reals": True, "sigma": 10.0}}
    assert (told.seed, told.n_fake, told.n_real) == (4, 50, 60)
    assert set(told.versions) >= {"torch", "torchmetrics", "torch-fidelity"}
    float_or_not = [Scorer(Pixels(), {"cmmd": CMMD(sigma)}).protocol("G").id("cmmd") for sigma in (10, 10.0)]
    assert float_or_not[0] == float_or_not[1]
    ring, grid = (Scorer(Pixels(), {"modes": Modes(c, 0.1)}).protocol("G").id("modes") for c in ([[0, 0]], [[1, 0]]))
    assert ring != grid


# -------------------------------------------------------------------------------------------------------------- places


def test_images_are_found_in_folders_zips_and_arrays(tmp_path):
    x = noise_images(4, 8)
    (tmp_path / "images").mkdir()
    for i, image in enumerate(x):
        save_image(image / 255, tmp_path / "images" / f"{i}.png")
    import shutil

    shutil.make_archive(str(tmp_path / "zipped"), "zip", tmp_path / "images")
    np.savez(tmp_path / "array.npz", arr_0=x.permute(0, 2, 3, 1).numpy())
    found = [images_at(tmp_path / name) for name in ("images", "zipped.zip", "array.npz")]
    for one in found:
        assert one.facts()["shape"] == [3, 8, 8]
        assert torch.equal(one.split("any").take(torch.arange(4))["real"], x)
    assert [one.title for one in found] == ["folder images", "zip zipped.zip", "array array.npz"]
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    np.savez(tmp_path / "float.npz", arr_0=np.zeros((2, 8, 8, 3)))
    np.savez(tmp_path / "one.npz", arr_0=np.zeros((1, 8, 8, 3), np.uint8))
    with open(tmp_path / "array.npy.npz", "wb") as file:
        np.save(file, np.zeros(3))
    for name in ("junk.npz", "junk.zip"):
        (tmp_path / name).write_bytes(b"junk")
    cached = set((tmp_path / "cache").rglob("*.npy"))
    images_at(tmp_path / "zipped.zip")
    assert set((tmp_path / "cache").rglob("*.npy")) == cached  # what was unpacked is not kept
    for name, message in (
        ("nothing", "no such file"), ("other.npz", "holds x, and no images"), ("float.npz", "must be uint8"),
        ("array.npy.npz", "can't be read"), ("junk.npz", "can't be read"), ("junk.zip", "can't be unpacked"),
        ("one.npz", "N at least 2"),
    ):  # fmt: skip
        with pytest.raises(Unavailable, match=message):
            images_at(tmp_path / name)
