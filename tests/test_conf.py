"""Configs: everything composes, nothing unknown gets through, what can't work is refused with the fix."""

import inspect
from pathlib import Path

import pytest
from composing import GROUPS, TRAIN, composed, group, prepared
from hydra.utils import get_object
from omegaconf import OmegaConf

from ganlab.checks import REFUSED, check_keys
from ganlab.conf import CONF, known_keys, options
from ganlab.data.rounds import DataModule
from ganlab.gan import GAN
from ganlab.metrics.extractors import Classifier
from ganlab.settings import drop_settings_of_what_was_removed, prepare


@pytest.fixture(autouse=True)
def _nothing_is_read(monkeypatch):
    """Whatever is refused here is refused before data are read or weights are fetched or trained."""
    monkeypatch.setattr(DataModule, "prepare_data", lambda *_: pytest.fail("data were read"))
    monkeypatch.setattr(Classifier, "prepare", lambda *_: pytest.fail("an extractor was prepared"))


@pytest.mark.parametrize(("name", "option"), [(g, o) for g in GROUPS for o in group(g)])
def test_every_option_composes(name, option):
    cfg = composed(f"{name}=[{option}]" if name in ("terms", "scores") else f"{name}={option}")
    given = OmegaConf.to_container(cfg)
    check_keys(given, known_keys(given), get_object)


def test_every_group_has_a_default():
    listed = {next(iter(d)) for d in TRAIN["defaults"] if isinstance(d, dict)}
    assert listed - {"override hydra/job_logging"} == set(GROUPS)
    assert TRAIN["defaults"][0] == "_self_"


def test_every_argument_of_gan_is_a_key():
    assert set(inspect.signature(GAN).parameters) <= set(TRAIN)


def test_a_models_own_knobs_win_over_the_defaults():
    assert composed("model=wgan_gp").n_critic == 5
    assert composed("model=dcgan").share_fake
    assert not composed("model=sngan").share_fake
    assert composed("model=wgan_gp").loss._target_.endswith("Wasserstein")
    assert set(composed("model=wgan_gp").terms) == {"gp"}  # and over the data's


def test_terms_from_the_command_line():
    assert set(composed("terms=[r1,r2]").terms) == {"r1", "r2"}
    assert set(composed("model=wgan_gp", "+terms=[r1]").terms) == {"gp", "r1"}
    assert set(composed("model=wgan_gp", "~terms.gp").terms) == set()
    assert composed("terms=[r1]", "terms.r1.weight=5").terms.r1.weight == 5


def test_an_experiments_settings_of_a_term_go_with_the_term():
    cfg = composed("experiment=ring", "terms=[r2]")
    assert "weight" in cfg.terms.r1
    drop_settings_of_what_was_removed(cfg, ["experiment=ring", "terms=[r2]"])
    assert list(cfg.terms) == ["r2"]
    with pytest.raises(ValueError, match=r"terms.gp has settings, but it was not chosen: .*\+terms=\[gp\]"):
        prepare(settings(terms__gp__weight=1))


def test_an_optimizer_has_its_own_learning_rate_and_a_user_may_bring_one(tmp_path):
    assert composed("optimizer=sgd").optimizer.lr == 0.1
    assert composed("model=wgan_gp").optimizer.betas == [0.0, 0.9]
    assert composed("model=wgan_gp", "optimizer.lr=1e-3").optimizer.G.lr == 1e-3
    cfg = settings(optimizer__weight_decay=0.1, optimizer__G__weight_decay="${optimizer.weight_decay}")
    given = OmegaConf.to_container(cfg)
    check_keys(given, known_keys(given), get_object)


def test_help_has_a_line_for_every_option():
    lines = options().splitlines()
    for name in GROUPS:
        assert name in lines
        for option in group(name):
            line = next(x for x in lines[lines.index(name) + 1 :] if x.split()[:1] == [option])
            assert len(line.split()) > 2, f"{name}/{option} has no description"


def settings(**changes):
    """A composed config with changes that a user's own yaml could make, which Hydra lets through."""
    cfg = composed()
    OmegaConf.set_struct(cfg, False)
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", "."), value, force_add=True)
    OmegaConf.set_struct(cfg, True)
    return cfg


@pytest.mark.parametrize(
    ("key", "value", "nearest"),
    [
        ("ncritic", 5, "n_critic"),
        ("discriminators", {}, "discriminator"),
        ("optimizer__lrr", 1, "optimizer.lr"),
        ("generator__widht", 1, "generator.width"),
        ("loss__weigth", 1, "loss.weight"),
        ("terms__r1__evry", 1, "terms.r1.every"),
        ("data__batchsize", 1, "data.batch_size"),
        ("metrics__evry", 1, "metrics.every"),
        ("trainer__device", 1, "trainer.devices"),
        ("callbacks__samples__rowss", 1, "callbacks.samples.rows"),
        ("logger__csv__paths", 1, "logger.csv.path"),
        ("speed__round", 1, "speed.rounds"),
        ("paths__outptu", 1, "paths.output"),
        ("start__g", 1, "start.G"),
        ("ema__halflife", 1, "ema.half_life"),
    ],
)
def test_unknown_keys_are_refused_and_the_nearest_named(key, value, nearest):
    with pytest.raises(ValueError, match=rf"{key.replace('__', '.')}: there is no such key; did you mean {nearest}\?"):
        prepare(settings(**{key: value}))


@pytest.mark.parametrize("key", sorted(REFUSED))
def test_what_means_something_else_here_is_refused(key):
    with pytest.raises(ValueError, match=rf"trainer.{key}=.* is not used here; use "):
        prepare(settings(**{f"trainer__{key}": 3}))


def test_the_usual_refused_keys_need_no_plus():
    for key in ("max_steps", "max_epochs", "accumulate_grad_batches", "gradient_clip_val"):
        with pytest.raises(ValueError, match=f"trainer.{key}=3 is not used here"):
            prepared(f"trainer.{key}=3")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.precision=16-mixed"], "float16 needs a loss scaler.*bf16-mixed"),
        (["trainer.precision=8"], "trainer.precision=8: use one of"),
        (["trainer.strategy=fsdp"], "trainer.strategy=fsdp: two players need"),
        (["trainer.devices=0"], "trainer.devices=0: must be"),
        (["trainer.devices=3"], r"data.batch_size=64 .* 3 process\(es\).*use 63 or 66"),
        (["trainer.devices=2", "trainer.accelerator=cpu", "micro_batches=3", "share_fake=false"], "use 60 or 66"),
        (["micro_batches=5", "share_fake=false"], "use 60 or 65"),
        (["micro_batches=4"], "share_fake=false"),
        (["n_critic=0"], "n_critic=0"),
        (["max_kimg=0"], "max_kimg=0"),
        (["log_every=0"], "log_every=0"),
        (["log_every=0.5"], "log_every=0.5: must be a whole number"),
        (["metrics.every=0.5"], "metrics.every=0.5"),
        (["trainer=gpu"], "there is no GPU here"),
        (["optimizer.G.lr=null"], "optimizer"),
        (["task.labels=data"], "takes no label"),
        (["+terms.r1.player=G"], "belongs to D"),
        (["+callbacks.sample.every=5"], "callbacks.sample: there is no such entry"),
        (["+optimizer.momentum=0.9"], "optimizer.momentum: there is no such key"),
        (["optimizer=sgd", "+optimizer.betas=[0,1]"], "optimizer.betas: there is no such key"),
        (["terms=[gp]"], "without batch norm"),
        (["data=toy"], "dcgan makes images.*model=mlp"),
        (["data.size=9"], r"9x9 can't be reached, 8x8 can. Set data.size=8"),
        (["data.size=[18,33]"], r"18x33 can't be reached, 16x32 can. Set data.size=\[16, 32\]"),
        (["data.channels=2"], "can become 1 or 3"),
        (["data=toy", "model=mlp", "extractor=classifier", "scores=[fid]"], "learns from images of one class each"),
        (["data=toy", "model=cgan"], "labels"),
        (["~scores.fid"], "scores is empty"),
        (["metrics.monitor=kid"], "metrics.monitor=kid"),
        (["metrics.n=1"], "metrics.n=1"),
        (["speed.rounds=0"], "speed.rounds=0"),
        (["task.z=gaussian"], "task.z='gaussian'"),
        (["terms.r1.every=0"], "every=0"),
        (["+terms.r1.player=X"], "player"),
        (["terms.r1.precision=16"], "precision"),
        (["loss.weight.D=null"], "loss.weight"),
        (["discriminator=null", "~loss"], "terms.r1 is D's"),
        (["discriminator=null", "terms=[]"], "adversarial loss needs a discriminator"),
        (["generator=null"], "generator"),
        (["resume=nowhere.ckpt"], "resume=nowhere.ckpt"),
        (["trainer.num_nodes=2"], "torchrun"),
        (["scores=[modes]"], "data.centers"),
        (["generator._target_=ganlab.models.dcgan.Nothing"], "Nothing"),
    ],
)
def test_refused_combinations_name_the_key_and_the_fix(overrides, message):
    with pytest.raises(ValueError, match=message):
        prepared(*overrides)


def test_refused_before_data_are_read():
    """The size is wrong and CIFAR-10 is not there: the first is said, nothing is downloaded."""
    with pytest.raises(ValueError, match="33x33 can't be reached"):
        prepared("data=cifar10", "data.size=33")


def test_steps_of_g_become_kimg(capsys, monkeypatch):
    """32,000 kimg for SNGAN's 100,000 steps of G, 5 of D each, 64 samples."""
    monkeypatch.setattr(DataModule, "prepare_data", lambda *_: None)
    settings = prepared("model=sngan", "g_steps=100000", "metrics.enabled=false", "generator.width=8")
    assert settings["max_kimg"] == 32_000
    assert settings["lr_schedule"]["stop"] == 32_000
    assert "max_kimg=32,000" in capsys.readouterr().out


def test_data_facts_reach_the_networks(monkeypatch):
    monkeypatch.setattr(DataModule, "prepare_data", lambda *_: None)
    settings = prepared("model=cgan", "data.size=[12,20]", "data.channels=3", "metrics.enabled=false")
    assert settings["generator"]["shape"] == settings["discriminator"]["shape"] == [3, 12, 20]
    assert settings["generator"]["classes"] == settings["task"]["classes"] == 10


def test_conf_is_found():
    assert (Path(CONF) / "train.yaml").is_file()
