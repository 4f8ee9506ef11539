"""The step: the order of moves, what each player's gradient is, and what does not change when the work is split."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from composing import prepared
from play import G, batches, game, mlp, phase, play, trainer
from torch import nn

from ganlab.curves import Curves
from ganlab.ema import EMA
from ganlab.gan import GAN
from ganlab.losses import Hinge, LeastSquares, NonSaturating, Relativistic, Wasserstein
from ganlab.phase import DiscriminatorOutput, GeneratorOutput
from ganlab.rng import BatchRNG, seed_of
from ganlab.schedule import Linear
from ganlab.tasks import Generate
from ganlab.terms import Term
from ganlab.terms.penalties import R1, GradientPenalty

SGD = partial(torch.optim.SGD, lr=0.1)


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


class Spy(Term):
    """A term that costs nothing and remembers when it was asked."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.calls = []

    def forward(self, phase):
        self.calls.append((phase.player, phase.seen))
        return 0.0 * phase.on_fake.logits.sum()


def noise(player, number, dtype=torch.float32):
    """What a game of seed 0 draws as z for this move."""
    torch.set_default_dtype(dtype)
    try:
        return BatchRNG(seed_of(0, "z", player, number), 8, slice(0, 8)).normal(4)
    finally:
        torch.set_default_dtype(torch.float32)


# ---------------------------------------------------------------------------------------------------------- the game


@pytest.mark.parametrize("share_fake", [False, True])
@pytest.mark.parametrize("n_critic", [1, 3])
def test_step_equals_a_loop_written_by_hand(share_fake, n_critic):
    """Six rounds with R1 and a schedule equal the same game in plain PyTorch, to float64 rounding."""
    torch.manual_seed(0)
    g, d = G().double(), mlp(2, 16, 1).double()
    data = batches(6, dtype=torch.float64)
    gan = game(
        copy.deepcopy(g), copy.deepcopy(d), optimizer=SGD, n_critic=n_critic, share_fake=share_fake,
        terms={"r1": R1(0.3, every=2)}, ema=EMA(0.02, None), lr_schedule=Linear(1.0, 0.5, stop=0.048),
    )  # fmt: skip
    average = [p.detach().clone() for p in g.parameters()]
    play(gan, data, precision="64-true")

    for i, x in enumerate(b["real"] for b in data):
        lr = 0.1 * (1 - 0.5 * i / 6)
        z = noise("D", i, torch.float64)
        x = x.clone().requires_grad_()
        on_real = d(x)
        loss = F.softplus(-on_real).mean() + F.softplus(d(g(z).detach())).mean()
        if i % 2 == 0:
            (grad,) = torch.autograd.grad(on_real.sum(), x, create_graph=True)
            loss = loss + 2 * 0.3 * grad.square().sum(1).mean() / 2
        for p, dp in zip(d.parameters(), torch.autograd.grad(loss, list(d.parameters())), strict=True):
            p.data -= lr * dp
        if (i + 1) % n_critic == 0:
            z = z if share_fake else noise("G", i // n_critic, torch.float64)
            loss = F.softplus(-d(g(z))).mean()
            for p, dp in zip(g.parameters(), torch.autograd.grad(loss, list(g.parameters())), strict=True):
                p.data -= lr * dp
            for a, p in zip(average, g.parameters(), strict=True):
                a.lerp_(p.data, 1 - 0.5 ** (8 * n_critic / 20))
    assert torch.allclose(weights(gan.D), weights(d), rtol=0, atol=1e-13)
    assert torch.allclose(weights(gan.G), weights(g), rtol=0, atol=1e-13)
    assert torch.allclose(weights(gan.G_ema), torch.cat([a.flatten() for a in average]), rtol=0, atol=1e-13)


def test_moves_and_lazy_terms_are_counted_in_the_players_own_moves():
    spies = {"d2": Spy(every=2, player="D"), "g2": Spy(every=2, player="G")}
    gan = play(game(terms=spies, n_critic=3), 12)
    assert gan.rounds == 12
    assert gan.seen == 96
    assert spies["d2"].calls == [("D", 8 * i) for i in range(0, 12, 2)]
    assert spies["g2"].calls == [("G", 8 * 2), ("G", 8 * 8)]  # G's moves 0 and 2 of 0..3, in rounds 2 and 8


def test_terms_the_loss_and_players_start_and_stop_on_the_clock():
    spy = Spy(start=0.016, stop=0.032)
    loss = NonSaturating(start=0.024)
    gan = game(terms={"spy": spy, "pre": L2(player="G", stop=0.024)}, loss=loss, start={"D": 0.016}, optimizer=SGD)
    seen = []
    for batch in batches(5):
        before = weights(gan.D), weights(gan.G)
        play(gan, [batch])
        seen.append((not torch.equal(before[0], weights(gan.D)), not torch.equal(before[1], weights(gan.G))))
    assert spy.calls == [("D", 16), ("D", 24)]
    # D starts at 16 samples with a term of no effect, its loss at 24; G is pre-trained until 24, then plays
    assert seen == [(False, True), (False, True), (False, True), (True, True), (True, True)]


class L2(Term):
    def forward(self, phase):
        return (phase.fake - phase.real).square().mean(1)


def test_loss_weight_is_per_player():
    """With SGD, a weight of 1/2 on D's loss moves D half as far; G as before."""
    start = game(optimizer=SGD)
    d, g = weights(start.D), weights(start.G)
    moved = {w: play(game(optimizer=SGD, loss=NonSaturating(weight={"D": w})), 1) for w in (1.0, 0.5)}
    assert torch.allclose(weights(moved[0.5].D) - d, (weights(moved[1.0].D) - d) / 2, atol=1e-7)
    assert not torch.equal(weights(moved[0.5].G), g)


def test_a_player_never_moves_the_other_and_frozen_stays_frozen():
    gan = game(stop={"D": 0.0}, optimizer=SGD)
    gan.D[0].weight.requires_grad_(False)
    before = weights(gan.D)
    play(gan, 3)
    assert torch.equal(before, weights(gan.D))
    assert [p.requires_grad for p in gan.D.parameters()] == [False, True, True, True]
    assert all(p.grad is None for p in gan.parameters())
    assert not any(p.requires_grad for p in gan.G_ema.parameters())


def test_one_player_game():
    """Without a D only G moves, by its terms."""
    torch.manual_seed(0)
    gan = GAN(G(), terms={"l2": L2(player="G")}, optimizer=SGD)
    before = weights(gan.G)
    play(gan, 2)
    assert gan.players == ("G",)
    assert not torch.equal(before, weights(gan.G))


def test_gradient_clipping_bounds_the_move():
    """With SGD at rate 1 the length of a move is the gradient's norm."""
    gan = game(optimizer=partial(torch.optim.SGD, lr=1.0), clip_norm=0.01)
    d, g = weights(gan.D), weights(gan.G)
    play(gan, 1)
    assert (weights(gan.D) - d).norm().item() == pytest.approx(0.01, rel=1e-3)
    assert (weights(gan.G) - g).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_learning_rates_may_differ_by_player():
    slow = {"D": partial(torch.optim.SGD, lr=0.1), "G": partial(torch.optim.SGD, lr=0.0)}
    gan = game(optimizer=slow)
    d, g = weights(gan.D), weights(gan.G)
    play(gan, 1)
    assert torch.equal(weights(gan.G), g)
    assert not torch.equal(weights(gan.D), d)


# ------------------------------------------------------------------------------------------- splitting changes nothing

GAMES = {
    "r1": lambda: game(terms={"r1": R1(1.0, every=2)}),
    "gp": lambda: game(terms={"gp": GradientPenalty()}, loss=Wasserstein(), n_critic=5),
    "hinge": lambda: game(loss=Hinge()),
}


@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize(("parts", "rounds"), [(4, 1), (3, 1), (1, 4), (4, 4)])
def test_micro_batches_and_rounds_per_step_change_nothing(name, parts, rounds):
    data = batches(20, dtype=torch.float64)
    chunks = [data[i : i + rounds] for i in range(0, 20, rounds)]
    reference, split = GAMES[name]().double(), GAMES[name]().double()
    split.micro_batches = parts
    play(reference, data, precision="64-true")
    play(split, chunks, precision="64-true")
    assert split.seen == reference.seen == 160
    for net in ("G", "D", "G_ema"):
        assert torch.allclose(weights(getattr(split, net)), weights(getattr(reference, net)), rtol=0, atol=1e-12)


def test_bf16_uses_the_weights_of_the_last_move():
    """Under autocast, copies of weights must not outlive an optimizer step, also with several rounds in one step."""
    data = batches(8)
    one, four = game(optimizer=SGD), game(optimizer=SGD)
    play(one, data, precision="bf16-mixed")
    play(four, [data[:4], data[4:]], precision="bf16-mixed")
    assert torch.equal(weights(one.D), weights(four.D))
    exact = play(game(optimizer=SGD), data)
    assert torch.allclose(weights(one.D), weights(exact.D), atol=0.02)
    assert not torch.equal(weights(one.D), weights(exact.D))


def test_dropout_is_a_function_of_seed_player_and_move():
    """What networks draw does not depend on what happened before, so that a resumed run continues alike."""
    d = nn.Sequential(nn.Linear(2, 16), nn.Dropout(0.5), nn.Linear(16, 1))
    runs = []
    for disturb in (False, True):
        gan = game(discriminator=copy.deepcopy(d))
        for batch in batches(3):
            play(gan, [batch])
            torch.rand(100 if disturb else 1)
        runs.append(weights(gan.D))
    assert torch.equal(*runs)


# ------------------------------------------------------------------------------------------------------------- hooks


class Labelled(nn.Module):
    """Takes a label and remembers what it was told."""

    def __init__(self, net):
        super().__init__()
        self.net, self.told, self.z_dim = net, [], 4

    def forward(self, x, cond=None):
        self.told.append(cond)
        return self.net(x)


def labelled_batches(rounds):
    return [b | {"label": torch.arange(8) % 3} for b in batches(rounds)]


def test_real_cond_is_told_with_the_reals():
    """Labels of fakes drawn on their own: D hears the data's labels with the reals, the drawn ones with the fakes."""
    d = Labelled(mlp(2, 8, 1))
    gan = play(game(Labelled(G()), d, task=Generate(classes=3, labels="uniform"), stop={"G": 0.0}), labelled_batches(1))
    told = {tuple(c.tolist()) for c in d.told}
    assert (0, 1, 2, 0, 1, 2, 0, 1) in told
    assert tuple(gan.G.told[0].tolist()) in told
    assert len(told) == 2


def test_labels_of_the_data_go_to_both():
    d = Labelled(mlp(2, 8, 1))
    gan = play(game(Labelled(G()), d, task=Generate(labels="data", classes=3)), labelled_batches(1))
    assert all(c.tolist() == [0, 1, 2, 0, 1, 2, 0, 1] for c in d.told + gan.G.told)


def test_labels_are_drawn_by_frequency_when_there_is_no_data():
    net = Labelled(G())
    gan = game(net, Labelled(mlp(2, 8, 1)), task=Generate(labels="data", classes=3, frequencies=[0.7, 0.0, 0.3]))
    gan.generate(0, 2000)
    share = torch.bincount(gan.G_ema.told[-1], minlength=3) / 2000
    assert share.tolist() == pytest.approx([0.7, 0.0, 0.3], abs=0.04)


class WithCode(G):
    def forward(self, z):
        return GeneratorOutput(super().forward(z), aux=z)


class ReadsCode(Term):
    player = "G"

    def forward(self, phase):
        self.aux = phase.aux
        return (phase.fake - phase.aux[:, :2]).square().mean()


def test_generator_output_aux_is_for_terms_only():
    term = ReadsCode()
    gan = play(game(WithCode(), terms={"code": term}), 1)
    assert torch.equal(term.aux, noise("G", 0))
    assert gan.generate(0, 3).shape == (3, 2)


class Both(Generate):
    """BiGAN's play: D sees pairs (x, code); G makes the code of the reals too."""

    def play(self, G, batch):
        return (G(batch.inputs), batch.inputs[:, :2]), (batch.real, G.encode(batch.real))


class PairD(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = mlp(4, 16, 1)

    def forward(self, pair, cond=None):
        return self.net(torch.cat(pair, 1))


class Encoding(G):
    def __init__(self):
        super().__init__()
        self.code = nn.Parameter(torch.eye(2))

    def encode(self, x):
        return x @ self.code


def test_play_may_show_d_pairs_and_give_g_a_part_in_the_reals():
    """BiGAN: D(x, code of x) against D(G(z), z); a relativistic G learns through both halves."""
    gan = game(Encoding(), PairD(), task=Both(), loss=Relativistic(), terms={"r1": R1()}, optimizer=SGD)
    before = gan.G.code.detach().clone()
    play(gan, 2)
    assert not torch.equal(before, gan.G.code)


class Clocked(G):
    def set_clock(self, seen):
        self.clock = seen


def test_networks_hear_the_clock():
    gan = play(game(Clocked()), 3)
    assert gan.G.clock == gan.G_ema.clock == 16


class Watcher(Term):
    """after_move sees the whole batch of the move, without gradient, and averages over it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.register_buffer("logit", torch.zeros(()))
        self.moves = []

    def forward(self, phase):
        return 0.0 * phase.on_real.logits.sum()

    def after_move(self, phase):
        assert not torch.is_grad_enabled()
        assert not phase.on_real.logits.requires_grad
        self.moves.append((phase.player, len(phase.real), len(phase.fake)))
        self.logit.copy_(phase.mean(phase.on_real.logits))


class WatchingLoss(NonSaturating):
    def after_move(self, phase):
        self.last = phase.player


class Negate(nn.Module):
    def forward(self, x, rng):
        return -x

    def after_move(self, phase):
        self.last = phase.on_real.logits.shape


@pytest.mark.parametrize("parts", [1, 4])
def test_after_move_is_called_once_per_move_over_all_micro_batches(parts):
    watcher, loss, augment = Watcher(), WatchingLoss(), Negate()
    gan = game(
        terms={"watch": watcher}, loss=loss, augment={"negate": augment}, micro_batches=parts, optimizer=SGD,
        stop={"G": 0.0},
    )  # fmt: skip
    data = batches(1)
    expected = gan.D(-data[0]["real"]).mean().item()
    play(gan, data)
    assert watcher.moves == [("D", 8, 8)]
    assert watcher.logit.item() == pytest.approx(expected, abs=1e-6)
    assert loss.last == "D"
    assert augment.last == (8, 1)


class Unroll(Term):
    """Uses phase.again with another D, with other inputs, and the raw networks."""

    player = "G"

    def forward(self, phase):
        other = copy.deepcopy(phase.D)
        with torch.no_grad():
            other[0].weight.zero_()
            other[0].bias.zero_()
        self.flat = phase.again(D=other).on_fake.logits
        self.same = phase.again(inputs=torch.zeros_like(phase.batch.inputs)).fake
        self.raw = phase.G(torch.zeros(1, 4))
        return 0.0 * self.flat.sum()


def test_phase_again_and_raw_networks():
    term = Unroll()
    play(game(terms={"unroll": term}), 1)
    assert term.flat.std() == 0
    assert term.same.shape == (8, 2)
    assert torch.equal(term.same[0], term.same[7])
    assert torch.allclose(term.raw[0], term.same[0])


def test_weights_may_be_schedules():
    class Mean(Term):
        def forward(self, phase):
            return phase.on_real.logits.mean()

    def bias(weight, rounds):
        gan = game(optimizer=SGD, terms={"mean": Mean(weight=weight)})
        return play(gan, rounds).D[2].bias.item()

    moved = lambda **kw: play(game(optimizer=SGD, **kw), 1)
    half, plain = moved(loss=NonSaturating(weight={"D": Linear(0.5, 1, start=1, stop=2)})), moved()
    constant = moved(loss=NonSaturating(weight={"D": 0.5}))
    assert torch.equal(weights(half.D), weights(constant.D))
    assert not torch.equal(weights(half.D), weights(plain.D))
    still = moved(ema=EMA(Linear(0, 10, start=1, stop=2), None))  # a half-life of 0 for now: a copy
    assert torch.equal(weights(still.G_ema), weights(still.G))

    off = bias(0.0, 1)
    assert bias(Linear(0.0, 1.0, stop=0.016), 1) == off  # 0 in the first round
    assert bias(Linear(1.0, 0.0, stop=0.016), 1) == pytest.approx(off - 0.1, abs=1e-7)  # the gradient of the mean is 1
    assert bias(Linear(0.0, 1.0, stop=0.016), 2) != bias(0.0, 2)


class Head(Term):
    """A term with trainable parameters: they move with its player."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.head = nn.Linear(16, 1)

    def forward(self, phase):
        return self.head(phase.on_real.features).square().mean()


class Featured(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.out = nn.Linear(2, 16), nn.Linear(16, 1)

    def forward(self, x):
        h = self.body(x)
        return DiscriminatorOutput(self.out(h), features=h)


def test_a_terms_head_moves_with_its_player_and_features_reach_it():
    term = Head()
    before = term.head.weight.detach().clone()
    play(game(discriminator=Featured(), terms={"head": term}, optimizer=SGD), 1)
    assert not torch.equal(before, term.head.weight)


def test_check_hooks_refuse_before_training():
    class Refuses(Term):
        def check(self, gan):
            raise ValueError("terms.refuses needs what is not there")

        def forward(self, phase):
            return phase.fake.mean()

    with pytest.raises(ValueError, match="needs what is not there"):
        game(terms={"refuses": Refuses()})
    with pytest.raises(ValueError, match="needs what is not there"):
        game(augment={"refuses": type("Refusing", (Negate,), {"check": Refuses.check})()})
    for part in ("loss", "task"):
        kind = {"loss": NonSaturating, "task": Generate}[part]
        refusing = type("Refusing", (kind,), {"check": Refuses.check})()
        with pytest.raises(ValueError, match="needs what is not there"):
            game(**{part: refusing})
    with pytest.raises(ValueError, match="without batch norm"):
        game(
            discriminator=nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)),
            terms={"gp": GradientPenalty()},
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_critic": 0}, "n_critic=0"),
        ({"micro_batches": 2.0}, "micro_batches=2.0"),
        ({"share_fake": True, "micro_batches": 2}, "share_fake"),
        ({"loss": None}, "nothing to minimise"),
        ({"generator": mlp(4, 8, 2)}, "z_dim"),
        ({"start": {"d": 5}}, "start"),
        ({"lr_schedule": {"g": None}}, "lr_schedule"),
        ({"optimizer": {"G": SGD}}, "optimizer has no entry for D"),
        ({"clip_norm": 0}, "clip_norm=0"),
        ({"terms": {"adversarial": R1()}}, "that name is the loss's"),
        ({"terms": {"r1": R1(player="G")}}, "belongs to D"),
        ({"task": Generate(labels="data", classes=3)}, "takes no label"),
    ],
)
def test_refused_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        game(**arguments)


# ----------------------------------------------------------------------------------------------------------- results


def test_sample_i_depends_on_seed_and_i_alone():
    gan = game()
    whole = gan.generate(0, 10, seed=3)
    assert torch.allclose(whole[4:7], gan.generate(4, 3, seed=3), atol=1e-6)
    assert not torch.allclose(whole, gan.generate(0, 10, seed=4), atol=1e-2)


def test_reconstruct_gives_what_scores_and_grids_read():
    out = game().reconstruct(batches(1)[0])
    assert set(out) == {"inputs", "real", "fake", "cond"}
    assert out["fake"].shape == out["real"].shape == (8, 2)


def test_show_draws_points_and_passes_images_through():
    task = Generate()
    image = torch.rand(2, 3, 8, 8)
    assert task.show(image) is image
    picture = task.show(torch.tensor([[0.0, 0.0], [1.4, 1.4], [99.0, 0.0]]))
    assert picture.shape == (1, 1, 256, 256)
    assert (picture > -1).sum() == 2  # the point outside is left out
    assert picture[0, 0, 8, 247] > -1  # up and to the right


def test_curves_hold_every_loss_by_player_and_are_means():
    gan = game(terms={"r1": R1(1.0, every=4)}, n_critic=3)
    play(gan, 4)
    curves = gan.curves.read()
    assert set(curves) == {
        "loss/D/adversarial", "loss/D/r1", "loss/G/adversarial", "D/logit_real", "D/logit_fake", "D/accuracy_real",
        "D/accuracy_fake", "gradient_norm/D", "gradient_norm/G",
    }  # fmt: skip
    assert 0 <= curves["D/accuracy_real"] <= 1
    assert gan.curves.read() == {}


@pytest.mark.parametrize(
    ("loss", "real", "fake", "accuracy"),
    [
        (NonSaturating(), [1.0, -1.0], [-2.0, -3.0], (0.5, 1.0)),
        (LeastSquares(), [0.9, 0.4], [0.2, 0.6], (0.5, 0.5)),  # halfway between its targets
        (Wasserstein(), [5.0, 7.0], [4.0, 2.0], (1.0, 1.0)),  # halfway between the means, 4.5
        (Relativistic(), [5.0, 3.0], [4.0, 2.0], (0.5, 0.5)),
    ],
)
def test_accuracy_is_by_the_losses_own_boundary(loss, real, fake, accuracy):
    curves, column = Curves(), lambda x: torch.tensor(x)[:, None]
    shown = phase("D", real=column(real), fake=column(fake), D=lambda x: x)
    loss(shown)
    curves.watch(shown, {}, 1.0, loss.boundary)
    values = curves.read()
    assert (values["D/accuracy_real"], values["D/accuracy_fake"]) == accuracy
    assert values["D/logit_real"] == pytest.approx(sum(real) / 2)


def test_g_ema_stays_in_eval_mode():
    g = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2))
    g.z_dim = 4
    gan = play(game(g), 2)
    gan.train()
    gan.generate(0, 1)
    assert gan.G.training
    assert not any(m.training for m in gan.G_ema.modules())
    assert torch.equal(gan.G_ema[1].running_mean, gan.G[1].running_mean)


def test_ema_half_life_ramp_and_state():
    """After one half-life half of the old weight is left; the ramp shortens it; its clock is saved."""
    a, b = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    a.weight.data.fill_(0.0), b.weight.data.fill_(1.0)
    ema = EMA(half_life=0.1, ramp=None)
    ema.update(a, b, samples=100)
    assert a.weight.item() == pytest.approx(0.5)
    a.weight.data.fill_(0.0)
    ramped = EMA(half_life=1e9, ramp=0.5)
    ramped.update(a, b, samples=100)  # half-life 50: two half-lives
    assert a.weight.item() == pytest.approx(0.75)
    other = EMA()
    other.load_state_dict(ramped.state_dict())
    assert other.seen == 100
    copied = EMA(half_life=0)
    copied.update(a, b, samples=1)
    assert a.weight.item() == 1.0


def test_trainer_is_plain_lightning():
    """A plain DataLoader whose dict is one round, as the README shows."""
    x = torch.randn(64, 2)
    loader = torch.utils.data.DataLoader([{"real": row} for row in x], batch_size=16, shuffle=True)
    gan = game(loss=Hinge(), terms={"r1": R1(weight=1.0, every=4)})
    trainer(max_epochs=2).fit(gan, loader)
    assert gan.seen == 128
    assert gan.generate(0, 5).shape == (5, 2)


def test_adams_second_moment_follows_its_schedule():
    """beta2 of both players' optimizers is the schedule's value at the last move; beta1 stays."""
    gan = play(game(beta2=Linear(0.9, 0.99, stop=0.08)), 6)  # 8 samples a round: the last begins at 40 of 80
    assert [g["betas"] for o in gan.trainer.optimizers for g in o.param_groups] == [(0.5, pytest.approx(0.945))] * 2
    with pytest.raises(ValueError, match="beta2 is Adam's"):
        prepared("optimizer=sgd", "beta2={_target_:ganlab.schedule.Linear,stop:3}", "metrics.enabled=false")
