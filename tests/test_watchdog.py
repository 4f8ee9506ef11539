"""The watchdog: each failure is seen by the rule that is meant for it, healthy games are left alone, and looking leaves
no trace."""

import copy
import json
import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch
import yaml
from composing import composed, run
from play import batches, game, mlp, trainer
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from ganlab import launch
from ganlab.callbacks.clock import Budget
from ganlab.callbacks.curves import LogCurves, record
from ganlab.callbacks.vitals import Vitals, above, along, averaged_by_name, copies
from ganlab.callbacks.watchdog import ACTIONS, SIGNS, RollBack, Rule, Unhealthy, Watchdog
from ganlab.checkpoint import finite
from ganlab.conf import CONF
from ganlab.data.rounds import InMemory
from ganlab.data.sets import Digits
from ganlab.data.toy import Toy
from ganlab.losses import Hinge, Wasserstein
from ganlab.terms.penalties import GradientPenalty

SHIPPED = yaml.safe_load((Path(CONF) / "callbacks" / "default.yaml").read_text())["watchdog"]
ADAM = partial(torch.optim.Adam, lr=1e-3, betas=(0.5, 0.999))


def watchdog(folder, every=1.0, probe=5.0, **rules):
    """With the shipped rules; keyword arguments change them."""
    changed = {name: rule | rules.pop(name, {}) for name, rule in SHIPPED["rules"].items()}
    assert not rules
    return Watchdog(every, changed, folder, probe)


def watched(gan, data, kimg, folder, *more, **rules):
    """Plays and returns {rule: what was said}."""
    dog = watchdog(folder, **rules)
    callbacks = [*more, LogCurves(1.0), dog, Budget(kimg)]
    data.events = [1.0]
    trainer(callbacks=callbacks, max_epochs=-1, num_sanity_val_steps=0, limit_val_batches=0).fit(gan, datamodule=data)
    return said(folder)


def said(folder):
    path = Path(folder) / "health.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {line["rule"]: line for line in reversed(lines)}


class Pictures(nn.Sequential):
    """A small generator of digits."""

    z_dim = 16

    def __init__(self):
        super().__init__(*mlp(16, 64, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8)))


class Judge(nn.Sequential):
    def __init__(self, width=64):
        super().__init__(nn.Flatten(), *mlp(64, width, width, 1))


def digits(batch_size=200, **kwargs):
    return Digits(batch_size=batch_size, **kwargs)


def game_of_digits(G=None, D=None, **kwargs):
    kwargs.setdefault("optimizer", ADAM)
    torch.manual_seed(0)
    return game(G or Pictures(), D or Judge(), **kwargs)


# ------------------------------------------------------------------------------------------------- the made failures


def test_a_healthy_game_is_left_alone(tmp_path):
    assert watched(game_of_digits(), digits(), 20, tmp_path) == {}


@pytest.mark.parametrize(
    ("loss", "terms"), [(Hinge(), {}), (Wasserstein(), {"gp": GradientPenalty()})], ids=["hinge", "wasserstein"]
)
def test_healthy_critics_are_left_alone(loss, terms, tmp_path):
    assert watched(game_of_digits(loss=loss, terms=terms), digits(), 20, tmp_path) == {}


def test_points_are_left_alone(tmp_path):
    torch.manual_seed(0)
    assert watched(game(optimizer=ADAM), Toy(batch_size=200), 20, tmp_path) == {}


def test_a_learning_rate_100_times_too_high(tmp_path):
    told = watched(game_of_digits(optimizer=partial(ADAM, lr=0.1)), digits(), 20, tmp_path)
    assert told["steps"]["kimg"] <= 20
    assert "a lower optimizer.lr" in told["steps"]["says"]


def test_a_frozen_d(tmp_path):
    slow = {"D": partial(ADAM, lr=0.0), "G": ADAM}
    told = watched(game_of_digits(optimizer=slow), digits(), 20, tmp_path)
    assert told["still"]["kimg"] <= 20


def test_a_d_that_has_stopped(tmp_path):
    told = watched(game_of_digits(stop={"D": 2}), digits(50), 20, tmp_path)
    assert told["still"]["kimg"] <= 20
    assert told["weak"]["kimg"] <= 20


def test_a_g_that_makes_one_image(tmp_path):
    class One(Pictures):
        def forward(self, z):
            x = super().forward(z)
            return x[:1].expand_as(x)

    told = watched(game_of_digits(One()), digits(), 20, tmp_path)
    assert told["diversity"]["kimg"] <= 20


def test_a_g_that_makes_few_images(tmp_path):
    class Few(Pictures):
        def forward(self, z):
            return super().forward(torch.eye(16)[z[:, 0].gt(0).long() + 2 * z[:, 1].gt(0).long()])

    told = watched(game_of_digits(Few()), digits(), 20, tmp_path)
    assert told["duplicates"]["kimg"] <= 20
    assert "diversity" not in told


class Narrows(L.Callback):
    """From 35 kimg on G's samples are drawn together, a little more in each round."""

    def on_train_batch_start(self, trainer, gan, *_):
        if gan.seen >= 35_000:
            for parameter in gan.G.parameters():
                parameter.data *= 0.8


def test_a_g_that_loses_variety(tmp_path):
    told = watched(game(optimizer=ADAM), Toy(batch_size=500), 55, tmp_path, Narrows())
    assert 35 <= told["collapse"]["kimg"] <= 55


class Breaks(L.Callback):
    """Makes one weight NaN at some time."""

    def __init__(self, kimg=3):
        self.kimg = kimg

    def on_train_batch_start(self, trainer, gan, *_):
        if gan.seen >= 1000 * self.kimg:
            next(gan.D.parameters()).data.view(-1)[0] = torch.nan


class BreaksOnce(Breaks):
    """The same, in a run that has not been rolled back yet."""

    def __init__(self, folder):
        super().__init__(2.5)
        self.mark = Path(folder) / "broken"

    def on_train_batch_start(self, trainer, gan, *_):
        if gan.seen >= 1000 * self.kimg and not self.mark.exists():
            super().on_train_batch_start(trainer, gan)
            self.mark.touch()


def test_nan_asks_for_a_way_back_at_the_next_look(tmp_path):
    with pytest.raises(RollBack) as caught:
        watched(game_of_digits(), digits(), 20, tmp_path, Breaks())
    assert (caught.value.rule, caught.value.number, caught.value.factor) == ("nan", 1, 0.5)
    assert said(tmp_path)["nan"]["kimg"] == pytest.approx(4, abs=0.05)


def test_infinity_in_a_buffer_is_seen():
    gan = game_of_digits()
    assert finite(gan)
    gan.G.register_buffer("level", torch.tensor(torch.inf))
    assert not finite(gan)


def test_a_d_that_learns_few_images_by_heart(tmp_path):
    gan = game_of_digits(D=Judge(256), optimizer=partial(ADAM, lr=2e-3))
    told = watched(gan, digits(100, count=48), 20, tmp_path)
    assert told["overfitting"]["kimg"] <= 20
    assert "augment=[ada]" in told["overfitting"]["says"]


@pytest.mark.slow
def test_the_default_d_learns_200_images_by_heart(tmp_path):
    run(tmp_path, "metrics.enabled=false", "callbacks.samples=null", "max_kimg=20", "data.count=200", "terms=[]")
    assert said(tmp_path)["overfitting"]["kimg"] <= 20


def test_a_generator_that_hands_out_training_images(tmp_path):
    data = digits(count=100)

    class Thief(Pictures):
        def forward(self, z):
            image = data.played().real.float()[(z[:, 0].sigmoid() * 100).long()] / 127.5 - 1
            return image + 0.01 * super().forward(z)

    told = watched(game_of_digits(Thief()), data, 20, tmp_path)
    assert told["copies"]["value"] > 0.9


# ---------------------------------------------------------------------------------------------------------- the rules


@pytest.mark.parametrize("name", SIGNS)
def test_every_sign_has_a_rule_and_words(name):
    rule = SHIPPED["rules"][name]
    assert set(rule) == {"limit", "patience", "start", "action"}
    assert rule["action"] in ACTIONS
    sign = SIGNS[name]
    assert sign.bad(rule["limit"] - 1e-3 if sign.below else rule["limit"] + 1e-3, rule["limit"])
    assert not sign.bad(rule["limit"], rule["limit"])
    assert not sign.bad(float("nan"), rule["limit"])
    text = sign.says.format(value=0.5, limit=0.5)
    assert text
    assert sign.hint
    assert "\n" not in text + sign.hint


TRY = sorted({word.strip(",.") for sign in SIGNS.values() for word in sign.hint.split() if "=" in word})


@pytest.mark.parametrize("override", TRY)
def test_what_is_advised_can_be_typed(override):
    composed("scores=[prdc]", *(["augment=ada"] if override.startswith("augment.ada") else []), override)


def test_patience_and_one_warning_for_each_episode():
    rule = Rule(limit=1, patience=2)
    looks = [True, False, True, True, True, False, True, True, False, False, True, True]
    assert [rule.begins(bad) for bad in looks] == [i in (3, 11) for i in range(len(looks))]


class Curve(L.Callback):
    """Writes a curve of its own."""

    def __init__(self, name, law):
        self.name, self.law, self.every = name, law, 1.0

    def on_train_batch_end(self, trainer, gan, *_):
        value = self.law(gan.seen / 1000)
        record(trainer, gan, {self.name: value})
        self.history = [{"kimg": gan.seen / 1000, self.name.removeprefix("score/"): value}]  # as Evaluate's


@pytest.mark.parametrize(
    ("rule", "curve", "law"),
    [
        ("nan", "loss/D/adversarial", lambda kimg: torch.inf if kimg > 8 else 1.0),
        ("gradients", "gradient_norm/G", lambda kimg: 1000.0 if kimg > 8 else 1.0),
        ("recall", "score/recall10k_inception", lambda kimg: 0.1 if kimg > 8 else 0.6),
        ("p", "augment/ada/p", lambda kimg: min(1.0, kimg / 5)),
    ],
)
def test_rules_that_read_curves(rule, curve, law, tmp_path):
    gan = game(optimizer=ADAM)
    dog = watchdog(tmp_path, nan={"action": "warn"})
    data = torch.utils.data.DataLoader(batches(200, 100), batch_size=None)
    trainer(callbacks=[Curve(curve, law), dog]).fit(gan, data)
    assert set(said(tmp_path)) == {rule}
    lines = (tmp_path / "health.jsonl").read_text().splitlines()
    assert len(lines) == 1


class Late(Curve):
    """A curve that begins at 8 kimg."""

    def on_train_batch_end(self, trainer, gan, *_):
        if gan.seen > 8000:
            super().on_train_batch_end(trainer, gan)


@pytest.mark.parametrize("begins", [True, False])
def test_gradients_are_compared_with_those_of_the_same_game(begins, tmp_path):
    """Where a term begins, as that of D after G was trained alone, they may have any size."""
    grown = Curve("gradient_norm/G", lambda kimg: 1000.0 if kimg > 8 else 1.0)
    term = (Late if begins else Curve)("loss/G/content", lambda kimg: 1.0)
    data = torch.utils.data.DataLoader(batches(200, 100), batch_size=None)
    trainer(callbacks=[grown, term, watchdog(tmp_path)]).fit(game(optimizer=ADAM), data)
    assert (tmp_path / "health.jsonl").exists() == (not begins)


def test_d_that_wins_is_said(tmp_path):
    told = watched(game_of_digits(), digits(), 5, tmp_path, probe=1.0, strong={"limit": 0.5, "patience": 2})
    assert "G learns little" in told["strong"]["says"]


@pytest.mark.parametrize(("action", "error"), [("stop", Unhealthy), ("rollback", RollBack)])
def test_actions(action, error, tmp_path):
    rules = {"strong": {"limit": 0.0, "patience": 1, "action": action}}
    with pytest.raises(error, match="strong at 1 kimg: D tells reals") as caught:
        watched(game_of_digits(), digits(), 5, tmp_path, probe=1.0, **rules)
    again = pickle.loads(pickle.dumps(caught.value))  # it passes from process to process
    assert (str(again), vars(again)) == (str(caught.value), vars(caught.value))
    assert error.exit_code == 3


def test_after_so_many_rollbacks_the_run_is_stopped(tmp_path):
    dog = watchdog(tmp_path)
    dog.rollbacks = 2
    with pytest.raises(Unhealthy, match="after 2 rollbacks") as caught:
        dog.do("nan", 1.0, game())
    assert not isinstance(caught.value, RollBack)


def test_a_warning_is_a_line_on_screen(tmp_path, capsys):
    watched(game_of_digits(optimizer={"D": partial(ADAM, lr=0.0), "G": ADAM}), digits(), 8, tmp_path)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(lines) == 1
    assert lines[0].startswith("warning at 6 kimg (still): the weights of a player do not move")


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"nann": {"limit": 1}}, "rules.nann: there is no such rule; did you mean nan"),
        ({"nan": {"limit": 1, "acton": "warn"}}, "rules.nan.acton: there is no such key"),
        ({"nan": {"limit": 1, "action": "panic"}}, "rules.nan.action=panic: must be one of warn, stop, rollback"),
        ({"nan": {"limit": None}}, "rules.nan: it needs a limit"),
    ],
)
def test_what_is_no_rule_is_refused(rules, message):
    with pytest.raises(ValueError, match=message):
        Watchdog(1, rules, "nowhere")


def test_a_rule_may_be_turned_off(tmp_path):
    dog = Watchdog(1, {"nan": None, "weak": SHIPPED["rules"]["weak"]}, tmp_path)
    assert list(dog.rules) == ["weak"]


def test_its_state_survives_a_checkpoint(tmp_path):
    one, other = watchdog(tmp_path), watchdog(tmp_path)
    one.rules["weak"].begins(True)
    one.rollbacks, one.norms = 1, {"D": [1.0, 2.0]}
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    assert other.rules["weak"].begins(True) is False
    assert other.rules["weak"].begins(True) is True  # patience 3, one look before
    assert (other.rollbacks, other.norms) == (1, {"D": [1.0, 2.0]})


# ------------------------------------------------------------------------------------------------------- whole runs

SMALL = [
    "model=mlp", "generator.width=16", "discriminator.width=16", "metrics.enabled=false", "callbacks.samples=null",
    "callbacks.progress=null", "logger=csv", "callbacks.checkpoint.every=1",
]  # fmt: skip


class Saves(L.Callback):
    """A checkpoint after each round."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_batch_end(self, trainer, gan, *_):
        trainer.save_checkpoint(self.folder / f"{gan.rounds}.ckpt")


def test_what_is_half_measured_at_a_checkpoint_is_measured_to_its_end(tmp_path):
    """G moves every fifth round: wherever a run is cut, the watchdog goes on as in the whole run."""

    def fit(data, *more, **kwargs):
        dog = watchdog(tmp_path, every=0.016, probe=100.0)
        player = trainer(callbacks=[LogCurves(0.016), dog, *more, Budget(0.096)])
        player.fit(game(n_critic=5), torch.utils.data.DataLoader([*data, *data, *data], batch_size=None), **kwargs)
        return repr(dog.state_dict())

    data = batches(30)
    whole = fit(data, Saves(tmp_path))
    assert "'G': [" in whole
    for cut in range(1, 12):
        assert fit(data[cut:], ckpt_path=tmp_path / f"{cut}.ckpt", weights_only=True) == whole, cut


def test_a_rollback_goes_on_from_the_last_checkpoint_with_a_lower_rate(tmp_path, capsys):
    breaking = ["+callbacks.breaks._target_=test_watchdog.BreaksOnce", f"+callbacks.breaks.folder={tmp_path}"]
    run(tmp_path / "run", *SMALL, "max_kimg=4", *breaking)
    assert "goes on from 2.048 kimg with the learning rates times 0.5 (rollback 1 of 2)" in capsys.readouterr().err
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    groups = [group for optimizer in state["optimizer_states"] for group in optimizer["param_groups"]]
    assert [group["initial_lr"] for group in groups] == [1e-4, 1e-4]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["warnings"]["nan"] == pytest.approx(3, abs=0.1)
    assert all(v.isfinite().all() for v in state["state_dict"].values() if isinstance(v, torch.Tensor))


def test_what_breaks_again_and_again_is_stopped(tmp_path):
    with pytest.raises(Unhealthy, match="after 2 rollbacks") as caught:
        run(
            tmp_path,
            *SMALL,
            "max_kimg=4",
            "+callbacks.breaks._target_=test_watchdog.Breaks",
            "+callbacks.breaks.kimg=1.5",
        )
    assert not isinstance(caught.value, RollBack)
    assert len((tmp_path / "health.jsonl").read_text().splitlines()) == 3


def test_a_stopped_run_ends_with_code_3(tmp_path):
    stop = [
        "callbacks.watchdog.rules.strong={limit: -100, patience: 1, start: 0, action: stop}",
        "callbacks.watchdog.probe=1",
    ]
    command = [sys.executable, "-m", "ganlab", *SMALL, "max_kimg=2", *stop]
    env = os.environ | {"PYTHONPATH": str(Path(CONF).parent)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 3, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: strong at 1.024 kimg: D tells reals from fakes without effort")


def unhealthy(_):
    raise RollBack("nan", "it is so", 1, 0.5, {})


def test_several_processes_hand_on_one_decision():
    with pytest.raises(RollBack, match="it is so"):
        launch.run(unhealthy, 1, processes=2)


# ------------------------------------------------------------------------------------------------------------ measures


def test_a_margin_is_in_deviations_whatever_the_scale():
    a, b = torch.tensor([1.0, 3.0]), torch.tensor([-1.0, 1.0])  # deviation sqrt(2) each, means 2 and 0
    assert above(a, b).item() == pytest.approx(2 / 2**0.5)
    assert above(1e6 * a + 7, 1e6 * b + 7).item() == pytest.approx(2 / 2**0.5)


def test_copies_are_much_nearer_to_one_image_than_to_any_other():
    known = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    x = torch.tensor([[0.1, 0.0], [2.0, 0.0], [4.0, 0.0]])
    assert copies(x, known).item() == pytest.approx(2 / 3)


def measured_by_one(names):
    torch.distributed.init_process_group("gloo")
    mine = names if torch.distributed.get_rank() == 0 else [name for name in names if name != "leak"]
    values = {name: torch.tensor(float(1 + torch.distributed.get_rank())) for name in mine}
    return averaged_by_name(values, torch.device("cpu"))


def test_what_applies_to_the_samples_of_one_process_alone_is_its_own():
    """Processes look at different samples: each adds what it has, and all get the same."""
    told = launch.run(measured_by_one, ["margin", "leak", "broken"], processes=2)
    assert told == {"margin": 1.5, "leak": 1.0, "broken": 1.5}
    alone = averaged_by_name({"leak": torch.tensor(2.0)}, torch.device("cpu"))
    assert alone == {"leak": 2.0}


def test_along_is_the_share_of_a_way():
    start, end = torch.tensor([0.0, 0.0]), torch.tensor([2.0, 0.0])
    assert along(torch.tensor([1.0, 5.0]), start, end).item() == pytest.approx(0.5)


class Set:
    """A DataModule's view of two sets."""

    def __init__(self, trained, held_out):
        self.played, self.held_out = lambda: InMemory(trained), lambda: InMemory(held_out) if len(held_out) else None


def test_measures_that_do_not_apply_are_left_out():
    points, device = torch.randn(100, 2, generator=torch.Generator().manual_seed(0)), torch.device("cpu")
    gan = game()
    measured = lambda data, gan=gan: set(Vitals(data, 32, 0, 1, device).measure(gan))
    assert measured(object()) == set()
    assert measured(Set(points[:10], points)) == set()  # too few
    assert measured(Set(points, points[:0])) == {"margin", "diversity", "duplicates"}
    assert measured(Set(points, points[:10])) == {"margin", "diversity", "duplicates"}
    assert measured(Set(points, points[:20])) == {"margin", "overfitting", "diversity", "duplicates"}


def test_processes_look_at_different_samples():
    points, device = torch.arange(200.0).view(100, 2), torch.device("cpu")
    first, second = (Vitals(Set(points, points), 32, rank, 2, device).trained[0]["real"] for rank in (0, 1))
    assert len(first) == len(second) == 32
    assert not set(first[:, 0].tolist()) & set(second[:, 0].tolist())


# ------------------------------------------------------------------------------------------------------------ no trace


class Moody(nn.Sequential):
    """All that a look could leave a trace in: batch norm, spectral norm, dropout."""

    z_dim = 4

    def __init__(self, a, b):
        layers = [nn.Linear(a, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.LeakyReLU(0.2)]
        super().__init__(*layers, spectral_norm(nn.Linear(8, b)))


def test_a_run_is_bit_for_bit_the_same_with_and_without(tmp_path):
    def weights(*callbacks):
        torch.manual_seed(0)
        gan = game(Moody(4, 2), Moody(2, 1), optimizer=ADAM)
        data = Toy(batch_size=100, count=1000)
        data.events = [0.3]
        trainer(callbacks=[*callbacks, Budget(3)], max_epochs=-1, limit_val_batches=0).fit(gan, datamodule=data)
        return list(gan.state_dict().items()), torch.get_rng_state()

    dog = watchdog(tmp_path, every=0.3, probe=0.3)
    (without, random), (with_it, random_then) = weights(), weights(dog)
    assert torch.equal(random, random_then)
    for (name, one), (name_there, other) in zip(without, with_it, strict=True):
        assert name == name_there
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    assert dog.acted == 3000
