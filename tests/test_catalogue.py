"""Every model of conf/model, with no list by hand: a new model is tested here without new test code."""

import json
import os
from functools import cache
from itertools import chain, islice
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
import yaml
from composing import composed, group
from omegaconf import OmegaConf
from play import trainer
from torch.utils._pytree import tree_leaves

from ganlab import launch
from ganlab.callbacks.clock import Budget
from ganlab.callbacks.curves import LogCurves
from ganlab.callbacks.watchdog import Watchdog
from ganlab.checkpoint import sync_buffers
from ganlab.conf import CONF
from ganlab.data.pairs import Sides
from ganlab.data.rounds import DataModule, InMemory, Zipped
from ganlab.phase import wrap
from ganlab.rng import IndexedRNG
from ganlab.settings import build, complete, drop_settings_of_what_was_removed, made
from ganlab.strategy import PlayersDDP

IMAGE = (1, 16, 16)
SIZES = [IMAGE, (3, 32, 32), (3, 16, 24)]


@cache
def served(model):
    """The DataModule that a model is composed with."""
    cfg = composed(f"model={model}", "experiment=tiny")
    drop_settings_of_what_was_removed(cfg, ())
    data = made(OmegaConf.to_container(cfg.data, resolve=True))
    data.trainer = SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device("cpu")), global_rank=0, world_size=1, lightning_module=None
    )
    return data


def is_of_images(model):
    """Such a model takes images of any size; another one is tested with the set of its yaml."""
    return len(served(model).facts()["shape"]) == 3


def sizes():
    shapes = {
        model: SIZES if is_of_images(model) else [tuple(served(model).facts()["shape"])] for model in group("model")
    }
    return [(model, shape) for model in shapes for shape in shapes[model]]


def tiny(model, shape=IMAGE, *overrides):
    cfg = composed(f"model={model}", "experiment=tiny", *overrides)
    drop_settings_of_what_was_removed(cfg, overrides)
    facts = {"classes": 10, "class_names": None, "frequencies": None, "several": False}
    images = {"shape": list(shape), "inputs": list(shape), **facts}
    complete(cfg, images if is_of_images(model) else served(model).facts())
    gan = build(OmegaConf.to_container(cfg, resolve=True))
    for term in gan.terms.values():
        if hasattr(term, "network"):  # whose weights are too large for tests: any features will do
            term.network, term.layers = [Edges()], ["edges"]
    return gan


class Edges(torch.nn.Module):
    """Stands for a classifier whose features are compared."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 4, 3, padding=1).requires_grad_(False)

    def forward(self, x):
        return {"edges": self.layer(x)}


def rounds(model, n, shape=IMAGE, size=8):
    """n rounds of `size` samples: images drawn at random, or what the model's own set serves."""
    if not is_of_images(model):
        batches = chain.from_iterable(served(model).train_dataloader())
        return [{k: v[:size] for k, v in batch.items()} for batch in islice(batches, n)]
    generator = torch.Generator().manual_seed(0)
    image = lambda: torch.rand(size, *shape, generator=generator) * 2 - 1
    rounds = [{"real": image(), "label": torch.arange(size) % 10} for _ in range(n)]
    return [batch | {"inputs": -batch["real"]} for batch in rounds]  # a paired model's, and others do not look at them


def samples(model, gan, n, shape=IMAGE):
    """n of G_ema's, from noise or from data; where G makes several things at once, the first."""
    made = gan.generate(0, n) if hasattr(gan.task, "draw") else gan.reconstruct(rounds(model, 1, shape, n)[0])["fake"]
    return tree_leaves(made)[0]


def play(model, gan, n, shape=IMAGE, **kwargs):
    trainer(**kwargs).fit(gan, torch.utils.data.DataLoader(rounds(model, n, shape), batch_size=None))
    return gan


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("model", group("model"))
def test_both_players_and_the_average_move(model, precision):
    """Rounds until each player has moved twice: finite, both move, EMA moves and follows."""
    gan = tiny(model)
    before = {name: weights(getattr(gan, name)) for name in (*gan.players, "G_ema")}
    play(model, gan, 2 * gan.every["G"], precision=precision)
    for name, old in before.items():
        new = weights(getattr(gan, name))
        assert new.isfinite().all()
        assert not torch.equal(old, new)
    assert not torch.equal(weights(gan.G), weights(gan.G_ema))
    curves = gan.curves.read()
    assert all(v == v and abs(v) < 1e6 for v in curves.values())
    assert gan.loss is None or {"loss/D/adversarial", "loss/G/adversarial"} <= set(curves)


@pytest.mark.parametrize(("model", "shape"), sizes(), ids=str)
def test_every_size_and_channel_count(model, shape):
    gan = play(model, tiny(model, shape), 1, shape)
    x = samples(model, gan, 5, shape)
    assert x.shape == (5, *shape)
    assert x.abs().max() <= 30  # of order 1, also where no tanh bounds it


@pytest.mark.parametrize("model", group("model"))
def test_the_first_output_is_sane(model):
    """Before training: samples differ, none is saturated, D's logits are of order 1."""
    gan = tiny(model)
    x = samples(model, gan, 16)
    assert x.std(0).mean() > 1e-4
    assert x.abs().max() > 1 or (x.abs() > 0.999).float().mean() < 0.5  # some models have no tanh
    assert x.std() < 5
    if gan.D is None:
        return
    batch = gan.task.prepare(rounds(model, 1, size=16)[0], IndexedRNG(0, range(16)))
    shown, _ = gan.task.play(gan.G_ema, batch)  # as the task shows it to D: perhaps with more than the image
    shown = wrap(shown).fake
    logits = gan.D(shown) if batch.cond is None else gan.D(shown, batch.cond)
    assert all(x.abs().max() < 100 for x in tree_leaves(getattr(logits, "logits", logits)))


class Kept:
    """Samples of some rounds."""

    def __init__(self, rounds):
        self.all = {key: torch.cat([batch[key] for batch in rounds]) for key in rounds[0]}
        self.real, self.label = self.all["real"], self.all.get("label")

    def __len__(self):
        return len(self.real)

    def take(self, indices):
        return {key: value[indices] for key, value in self.all.items()}


class Few(L.LightningDataModule):
    """These rounds, and reals for the watchdog to look at: 32 that are trained on and 32 that are not."""

    def __init__(self, data):
        super().__init__()
        self.data = data

    def played(self):
        return Kept(self.data[:4])

    def held_out(self):
        return Kept(self.data[-4:])

    def train_dataloader(self):
        return torch.utils.data.DataLoader(self.data, batch_size=None)


def watchdog(folder, **kwargs):
    rules = yaml.safe_load((Path(CONF) / "callbacks" / "default.yaml").read_text())["watchdog"]["rules"]
    return Watchdog(rules=rules, folder=folder, **kwargs)


@pytest.mark.parametrize("model", group("model"))
def test_the_state_survives_a_checkpoint_bit_for_bit(model, tmp_path):
    """10 rounds, save, load, 10 rounds equal 20 rounds: networks, average, optimizers and every object with state. The
    20 are looked at by the watchdog, which leaves no trace and has nothing to say."""
    data = rounds(model, 20)
    whole, first, second = (tiny(model) for _ in range(3))
    looks = watchdog(tmp_path, every=0.04, probe=0.08, n=32)
    trainer(callbacks=[LogCurves(0.04), looks]).fit(whole, datamodule=Few(data))
    assert looks.acted == 160
    assert not (tmp_path / "health.jsonl").exists()
    half = trainer()
    half.fit(first, torch.utils.data.DataLoader(data[:10], batch_size=None))
    half.save_checkpoint(tmp_path / "half.ckpt")
    torch.rand(7)  # what happened in between does not matter
    more = trainer(max_epochs=2)
    more.fit(
        second,
        torch.utils.data.DataLoader(data[10:], batch_size=None),
        ckpt_path=tmp_path / "half.ckpt",
        weights_only=True,
    )
    assert (second.rounds, second.seen) == (whole.rounds, whole.seen) == (20, 160)
    a, b = whole.state_dict(), second.state_dict()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k] for k in a)
    for one, other in zip(whole.trainer.optimizers, second.trainer.optimizers, strict=True):
        states = zip(one.state_dict()["state"].values(), other.state_dict()["state"].values(), strict=True)
        assert all(torch.equal(x[k], y[k]) for x, y in states for k in x)


def resumed_in_group(folder):
    """Of each model: what differs, in this process, between some rounds and as many with a save and a load between."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    strategy = lambda: PlayersDDP()
    new = lambda **kw: trainer(devices=world, strategy=strategy(), use_distributed_sampler=False, **kw)
    found = {}
    for model in group("model"):
        n = 2 * tiny(model).every["G"]
        data = [{k: v[rank::world] for k, v in batch.items()} for batch in rounds(model, 20, size=16)]
        whole, first, second = (tiny(model) for _ in range(3))
        fit = lambda player, gan, some, **kw: player.fit(
            gan, torch.utils.data.DataLoader(some, batch_size=None), weights_only=True, **kw
        )
        fit(new(), whole, data[: 2 * n])
        half = new()
        fit(half, first, data[:n])
        sync_buffers(half.lightning_module)
        half.save_checkpoint(f"{folder}/{model}.ckpt")
        fit(new(max_epochs=2), second, data[n : 2 * n], ckpt_path=f"{folder}/{model}.ckpt")
        a, b = whole.state_dict(), second.state_dict()
        equal = lambda x, y: torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y
        # batch norm's averages are of each process's own samples; those of rank 0 count
        own = lambda name: rank > 0 and ("running_" in name or "w_average" in name)
        found[model] = [k for k in a if not own(k) and not equal(a[k], b[k])]
    everywhere = [None] * world
    torch.distributed.all_gather_object(everywhere, found)
    return everywhere


@pytest.mark.slow
def test_every_model_resumes_bit_for_bit_on_two_processes(tmp_path):
    ranks = launch.run(resumed_in_group, str(tmp_path), processes=2)
    assert len(ranks) == 2
    for found in ranks:
        assert found == {model: [] for model in group("model")}


class Inverted(DataModule):
    """Pairs of which the one is the other's negative, for a model that learns from pairs."""

    def __init__(self, data):
        super().__init__(data.batch_size, data.rounds, data.seed)
        self.data = data

    def load(self, split):
        samples = self.data.split(split)
        return Sides({"inputs": InMemory(255 - samples.real), "real": samples})

    def train_dataloader(self):
        return Zipped({name: self.served(part, self.seed) for name, part in self.split("train").parts.items()})


@pytest.mark.slow
@pytest.mark.parametrize("model", group("model"))
def test_a_healthy_run_raises_no_alarm(model, tmp_path):
    """20 kimg of digits, or of the model's own set, with the shipped rules."""
    torch.manual_seed(0)
    data = made(OmegaConf.to_container(composed(f"model={model}", "experiment=tiny").data, resolve=True))
    gan = tiny(model, IMAGE, "max_kimg=20")  # to which learning rates go down
    if is_of_images(model) and not hasattr(gan.task, "draw"):
        data = Inverted(data)
    data.events = [1.0]
    callbacks = [LogCurves(1.0), watchdog(tmp_path, every=1.0), Budget(20)]
    trainer(callbacks=callbacks, max_epochs=-1, limit_val_batches=0).fit(gan, datamodule=data)
    path = tmp_path / "health.jsonl"
    assert not path.exists(), [json.loads(line)["says"] for line in path.read_text().splitlines()]
