"""Several processes play the same game as one: the same weights, the same scores."""

import os
from functools import partial

import pytest
import torch
from play import batches, game, trainer
from torch import nn

from ganlab import launch
from ganlab.callbacks.evaluate import Evaluate
from ganlab.checkpoint import Sampler
from ganlab.data.places import Place
from ganlab.data.rounds import InMemory
from ganlab.data.toy import Toy
from ganlab.losses import NonSaturating, Wasserstein
from ganlab.metrics.classes import ClassificationAccuracy, IntraFID
from ganlab.metrics.diversity import Diversity, InceptionScore, PathLength, Vendi
from ganlab.metrics.extractors import Own, Pixels
from ganlab.metrics.frechet import FID
from ganlab.metrics.kernels import CMMD, KID
from ganlab.metrics.modes import Modes
from ganlab.metrics.neighbours import PRDC, Memorization
from ganlab.metrics.scorer import Scorer
from ganlab.strategy import PlayersDDP, average
from ganlab.tasks import Generate
from ganlab.terms import Term
from ganlab.terms.penalties import R1, GradientPenalty


class Balance(Term):
    """A term with state, moved by what all processes saw."""

    def __init__(self):
        super().__init__(weight=0.1)
        self.register_buffer("level", torch.zeros((), dtype=torch.float64))

    def forward(self, phase):
        return (phase.on_real.logits - self.level).square()

    def after_move(self, phase):
        self.level.lerp_(phase.mean(phase.on_real.logits).double(), 0.1)


ADAM = partial(torch.optim.Adam, lr=1e-3, betas=(0.5, 0.999), fused=True)
SGD = partial(torch.optim.SGD, lr=0.02)
GAMES = {
    "r1": lambda **kw: game(terms={"r1": R1(1.0, every=4)}, loss=NonSaturating(), **kw),
    "gp, n_critic 5": lambda **kw: game(terms={"gp": GradientPenalty()}, loss=Wasserstein(), n_critic=5, **kw),
    "clipped": lambda **kw: game(clip_norm=0.5, **kw),
    "shared fakes": lambda **kw: game(share_fake=True, **kw),
    "a term with state": lambda **kw: game(terms={"balance": Balance()}, **kw),
}
VARIANTS = [  # game, float64 with Adam or float32 with SGD, micro-batches, rounds per step
    (name, double, micro, rounds)
    for name in GAMES
    for double in (True, False)
    for micro, rounds in ((1, 1), (4, 1), (1, 4), (4, 4))
    if micro == 1 or name != "shared fakes"
]


def play_here(variant):
    """Plays 20 rounds of 24 samples in this process's group; returns all weights as one vector, and the curves."""
    name, double, micro, rounds = variant
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    rows = slice(24 // world * rank, 24 // world * (rank + 1))
    data = [{"real": b["real"][rows]} for b in batches(20, 24, dtype=torch.float64 if double else torch.float32)]
    gan = GAMES[name](optimizer=ADAM if double else SGD, micro_batches=micro)
    strategy = PlayersDDP() if world > 1 else "auto"
    split = {"devices": world, "strategy": strategy, "use_distributed_sampler": False}
    trainer(precision="64-true" if double else "32-true", **split).fit(
        gan.double() if double else gan,
        torch.utils.data.DataLoader([data[i : i + rounds] for i in range(0, 20, rounds)], batch_size=None),
    )
    assert gan.seen == 480
    return torch.cat([v.detach().flatten().double() for v in gan.state_dict().values() if isinstance(v, torch.Tensor)])


def in_group():
    mine = [play_here(variant) for variant in VARIANTS]
    for weights in mine:  # ranks agree bit for bit
        everyone = [torch.empty_like(weights) for _ in range(int(os.environ["WORLD_SIZE"]))]
        torch.distributed.all_gather(everyone, weights)
        assert all(torch.equal(everyone[0], other) for other in everyone)
    return [weights.numpy() for weights in mine]


@pytest.fixture(scope="module")
def two_processes():
    return dict(zip(VARIANTS, launch.run(in_group, processes=2), strict=True))


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_two_processes_give_the_weights_of_one(two_processes, variant):
    name, double, _, _ = variant
    one = play_here((name, double, 1, 1))
    tolerance = 1e-10 if double else 1e-6
    assert torch.allclose(torch.from_numpy(two_processes[variant]), one, rtol=0, atol=tolerance)


def sent_here(name, micro):
    """Numbers of parameters of D and of G, and how many gradients each backward pass of 20 rounds sent."""
    sent, send = [], torch.distributed.all_reduce

    def counted(x, *args, **kwargs):
        if kwargs.get("async_op"):
            sent.append(x.numel())
        return send(x, *args, **kwargs)

    torch.distributed.all_reduce = counted
    try:
        play_here((name, False, micro, 1))
    finally:
        torch.distributed.all_reduce = send
    gan = GAMES[name](optimizer=SGD)
    return [sum(p.numel() for p in player.parameters()) for player in (gan.D, gan.G)], sent


def traffic_in_group():
    return {(name, micro): sent_here(name, micro) for name, micro in (("r1", 1), ("r1", 2), ("shared fakes", 1))}


def test_only_the_movers_gradients_travel_once_a_move():
    """DDP wraps both players, and would send both in each move of either."""
    for (d, g), sent in launch.run(traffic_in_group, processes=2).values():
        assert d != g
        assert sent == [d, g] * 20


def many_buckets_here():
    """All weights where each parameter is sent by itself, as of large networks many are."""
    play, sizes = PlayersDDP.__init__, []

    def small(self, **kwargs):
        play(self, bucket_cap_mb=1e-5, **kwargs)

    def seen(strategy, bucket):
        sizes.append(bucket.buffer().numel())
        return average(strategy, bucket)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PlayersDDP, "__init__", small)
        patch.setattr("ganlab.strategy.average", seen)
        return play_here(("r1", True, 1, 1)).numpy(), len(set(sizes))


def test_gradients_in_many_buckets_give_the_weights_of_one_process():
    """Of some buckets all belongs to the player that does not move: those are not sent."""
    weights, kinds = launch.run(many_buckets_here, processes=2)
    assert kinds > 2
    assert torch.allclose(torch.from_numpy(weights), play_here(("r1", True, 1, 1)), rtol=0, atol=1e-10)


class Pictures(nn.Module):
    """A fixed generator of labelled images."""

    z_dim = 4

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4 + 3, 3 * 32 * 32), nn.Tanh(), nn.Unflatten(1, (3, 32, 32)))

    def forward(self, z, label):
        return self.net(torch.cat([z, nn.functional.one_hot(label, 3).float()], 1))


class See(nn.Module):
    """A fixed network with all outputs that scores read."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 8, 8, 8), nn.Linear(8, 5)

    def forward(self, x):
        maps = self.body(x)
        features = maps.mean((2, 3))
        return {"features": features, "logits": self.head(features), "spatial": maps[:, :2].flatten(1)}


EVERY_SCORE = {
    "fid": FID(), "sfid": FID("spatial"), "kid": KID(subsets=3, subset_size=50), "is": InceptionScore(splits=4),
    "kid_rbf": KID(3, 50, "rbf"), "prdc": PRDC(), "memorization": Memorization(), "cmmd": CMMD(), "vendi": Vendi(),
    "diversity": Diversity(), "ppl": PathLength(), "intra_fid": IntraFID(), "cas": ClassificationAccuracy(epochs=2),
}  # fmt: skip


def every_score(cache):
    """All scores of one fixed generator by this process's group: 151 fakes against 211 reals, neither divisible."""
    os.environ["GANLAB_CACHE"] = cache
    if "WORLD_SIZE" in os.environ:
        torch.distributed.init_process_group("gloo")
    torch.set_num_threads(1)  # float32 sums of a network round otherwise, and ppl is a quotient of small differences
    torch.manual_seed(0)
    generator = Sampler(Pictures(), Generate(labels="data", classes=3))
    real, label = torch.randint(0, 256, (211, 3, 32, 32), dtype=torch.uint8), torch.arange(211) % 3
    reals = Place("noise", InMemory(real, label), [3, 32, 32])
    scorer = Scorer(Own(See(), "see"), EVERY_SCORE, n=151, batch_size=10)
    scorer.extractor.prepare()
    values = []
    for _ in range(2):  # then with what is known of the reals from the cache
        kept = scorer.reals(reals, "train", torch.device("cpu"))
        values.append(scorer.score(scorer.looking_at(generator), [3, 32, 32], kept, torch.device("cpu"), labels=True))
    assert values[0] == pytest.approx(values[1], rel=1e-9)
    return values[0]


@pytest.fixture(scope="module")
def scores_of_one(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        cache, threads = str(tmp_path_factory.mktemp("one")), torch.get_num_threads()
        patch.setenv("GANLAB_CACHE", cache)
        yield every_score(cache)
        torch.set_num_threads(threads)


@pytest.mark.parametrize("processes", [2, 3])
def test_scores_do_not_depend_on_the_number_of_processes(tmp_path, processes, scores_of_one):
    several = launch.run(every_score, str(tmp_path / "several"), processes=processes)
    assert {k.removesuffix("_see") for k in several} == {f"{k}151" for s in EVERY_SCORE.values() for k in s.keys}
    assert several == pytest.approx(scores_of_one, rel=1e-6, abs=1e-9)


def scored(cache):
    """Scores of one fixed G over training, by this process's group."""
    os.environ["GANLAB_CACHE"] = cache
    world = int(os.environ.get("WORLD_SIZE", 1))
    torch.manual_seed(0)
    gan, data = game(), Toy(count=1003, batch_size=6)
    scores = {"fid": FID(), "modes": Modes(data.facts()["centers"], deviation=0.3)}
    evaluate = Evaluate(1000, Pixels(), scores, folder=f"{cache}/run/checkpoints", n=101, batch_size=10)
    strategy = PlayersDDP() if world > 1 else "auto"
    trainer(devices=world, strategy=strategy, callbacks=[evaluate], limit_train_batches=1).fit(gan, datamodule=data)
    return evaluate.history[-1]


def test_two_processes_score_as_one_while_they_train(tmp_path, monkeypatch):
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "one"))
    one = scored(str(tmp_path / "one"))
    assert set(one) == {"kimg", "fid101_pixels", "quality101_pixels", "modes101_pixels", "good101_pixels"}
    assert launch.run(scored, str(tmp_path / "several"), processes=2) == pytest.approx(one, rel=1e-6)


def fail_on_one():
    if os.environ["RANK"] == "1":
        raise ValueError("the second process gave up")
    torch.distributed.init_process_group("gloo")
    torch.distributed.barrier()


def test_a_failing_process_ends_the_group_with_its_message():
    with pytest.raises(launch.WorkerFailed, match="the second process gave up"):
        launch.run(fail_on_one, processes=2)
