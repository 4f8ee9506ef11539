"""Several processes play the same game as one: the same weights, the same scores."""

import os
from functools import partial

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from play import batches, game, trainer

from ganlab import launch
from ganlab.callbacks.evaluate import Evaluate
from ganlab.data.toy import Toy
from ganlab.losses import NonSaturating, Wasserstein
from ganlab.metrics.extractors import Pixels
from ganlab.metrics.frechet import FrechetDistance
from ganlab.metrics.modes import Modes
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
    strategy = DDPStrategy(find_unused_parameters=True, broadcast_buffers=False) if world > 1 else "auto"
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


def scored(cache):
    """Scores of one fixed G by this process's group: 101 fakes against 1,003 reals, neither divisible."""
    os.environ["GANLAB_CACHE"] = cache
    world = int(os.environ.get("WORLD_SIZE", 1))
    torch.manual_seed(0)
    gan, data = game(), Toy(count=1003, batch_size=6)
    scores = {"fid": FrechetDistance, "modes": partial(Modes, centers=data.facts()["centers"], deviation=0.3)}
    evaluate = Evaluate(1000, Pixels(), scores, folder=f"{cache}/run/checkpoints", n=101, batch_size=10)
    strategy = DDPStrategy(find_unused_parameters=True, broadcast_buffers=False) if world > 1 else "auto"
    trainer(devices=world, strategy=strategy, callbacks=[evaluate], limit_train_batches=1).fit(gan, datamodule=data)
    values = evaluate.history[-1]
    again = evaluate.evaluate(gan.trainer, gan)  # with the reals' statistics from the cache
    assert again == pytest.approx({k: v for k, v in values.items() if k != "kimg"}, rel=1e-12)
    return values


@pytest.mark.parametrize("processes", [2, 3])
def test_scores_do_not_depend_on_the_number_of_processes(tmp_path, monkeypatch, processes):
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "one"))
    one = scored(str(tmp_path / "one"))
    several = launch.run(scored, str(tmp_path / "several"), processes=processes)
    assert set(one) == {"kimg", "fid_pixels", "quality_pixels", "modes_pixels", "good_pixels"}
    assert several == pytest.approx(one, rel=1e-6)


def fail_on_one():
    if os.environ["RANK"] == "1":
        raise ValueError("the second process gave up")
    torch.distributed.init_process_group("gloo")
    torch.distributed.barrier()


def test_a_failing_process_ends_the_group_with_its_message():
    with pytest.raises(launch.WorkerFailed, match="the second process gave up"):
        launch.run(fail_on_one, processes=2)
