"""Rounds that are recorded and replayed (`speed.graph`) are the rounds that would have been played, bit for bit."""

import copy
import gc
import math
import random
from functools import partial
from unittest import mock

import lightning as L
import pytest
import torch
from composing import group
from play import batches, game
from play import play as played
from test_catalogue import play, tiny
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ganlab import recording
from ganlab.ada import ADA
from ganlab.augment import InstanceNoise
from ganlab.capture import Graphs, Recorder
from ganlab.losses import ClippedWasserstein, Hinge, Wasserstein
from ganlab.pool import Pooled
from ganlab.schedule import Linear
from ganlab.tape import Tape
from ganlab.terms import Term
from ganlab.terms.penalties import R1, GradientPenalty

SHAPE = (1, 16, 16)
FUSED = partial(torch.optim.Adam, lr=1e-3, betas=(0.5, 0.999), fused=True)


def both(make, data, **kwargs):
    """A game played as it is, and the same with rounds recorded."""
    plain, quick = make(), make()
    quick.recorder = Recorder()
    return played(plain, data, **kwargs), played(quick, data, **kwargs)


def assert_same(plain, quick):
    """Weights, buffers, what optimizers keep, learning rates and curves; and rounds were replayed."""
    assert quick.recorder.why is None
    assert quick.recorder.recordings
    ours, theirs = quick.state_dict(), plain.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert not isinstance(value, torch.Tensor) or torch.equal(ours[name], value), name
    for mine, other in zip(quick.trainer.optimizers, plain.trainer.optimizers, strict=True):
        assert mine.param_groups[0]["lr"] == other.param_groups[0]["lr"]
        for a, b in zip(mine.state.values(), other.state.values(), strict=True):
            assert all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in b)
    ours, theirs = quick.curves.read(), plain.curves.read()
    assert ours.keys() == theirs.keys()
    assert all(ours[k] == v or math.isnan(v) for k, v in theirs.items())


@pytest.fixture
def replays(monkeypatch):
    """How often what was replayed."""
    counted, run = [], Tape.run
    monkeypatch.setattr(Tape, "run", lambda tape: (counted.append(tape), run(tape))[1])
    return counted


@pytest.mark.parametrize("model", group("model"))
def test_every_model_is_played_from_recordings_alike(model, replays):
    more = () if tiny(model, SHAPE).every["G"] == 1 else ("n_critic=2",)
    plain, quick = (tiny(model, SHAPE, *more, f"speed.graph={on}").double() for on in ("false", "true"))
    for gan in (plain, quick):
        play(model, gan, 6 if not more else 10, SHAPE, precision="64-true")
    assert_same(plain, quick)
    assert replays
    moves = [kind[: len(quick.players)] for kind in quick.recorder.recordings]
    assert any(all(len(due) > 1 for due in each) for each in moves)  # G's too


class Drop(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, 0.5)


def with_dropout():
    return nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(0.2), Drop(), nn.Linear(16, 1))


GAMES = {
    "plain": {},
    "shared fakes": {"share_fake": True},
    "shared fakes, dropout": {"share_fake": True, "discriminator": with_dropout},
    "micro-batches": {"micro_batches": 3, "clip_norm": 0.5, "terms": lambda: {"gp": GradientPenalty()}},
    "critic": {"n_critic": 3, "loss": ClippedWasserstein},
    "together": {"together": None},
    "no average": {"ema": lambda: __import__("ganlab.ema").ema.EMA(0.0, None)},
    "dropout": {"discriminator": with_dropout},
    "rates fall": {"lr_schedule": lambda: Linear(stop=0.2)},
    "another rate for G": {"lr_schedule": lambda: {"G": Linear(stop=0.2)}},
    "a weight changes": {"terms": lambda: {"r1": R1(weight=Linear(1.0, 0.1, stop=0.2), every=2)}},
    "a loss's weight changes": {"loss": lambda: Hinge(weight={"D": 1.0, "G": Linear(1.0, 0.5, stop=0.2)})},
    "lazy": {"terms": lambda: {"r1": R1(every=4)}},
    "starts and stops": {"start": {"G": 0.05}, "stop": {"D": 0.1}, "terms": lambda: {"r1": R1(start=0.03, stop=0.07)}},
    "noise": {"augment": lambda: {"noise": InstanceNoise(Linear(0.1, 0.0, stop=0.15))}},
    "pool": {"loss": lambda: Pooled(Wasserstein(), [(2,)], capacity=12)},
    "sgd": {"optimizer": partial(torch.optim.SGD, lr=0.01, momentum=0.9)},
    "rmsprop": {"optimizer": partial(torch.optim.RMSprop, lr=0.01)},
}


def made(options):
    make = lambda v: v() if callable(v) and not isinstance(v, partial) else v
    return {"optimizer": FUSED} | {k: make(v) for k, v in options.items()}


def fresh(options, **kwargs):
    torch.manual_seed(0)
    return game(**made(options), **kwargs)


@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-mixed"])
def test_every_kind_of_game_is_played_from_recordings_alike(name, precision, replays):
    data = batches(24, dtype=torch.float64 if precision == "64-true" else None)
    make = lambda: fresh(GAMES[name]).double() if precision == "64-true" else fresh(GAMES[name])
    plain, quick = both(make, data, precision=precision)
    assert_same(plain, quick)
    assert len(replays) >= 8


@pytest.mark.parametrize("option", [{"together": True}, {"share_fake": True}])
def test_batches_of_each_size_have_recordings_of_their_own(option, replays):
    data = [{"real": batches(1, n, seed=i)[0]["real"]} for i, n in enumerate([8, 6, 8, 6, 8, 6, 8, 6, 8])]
    plain, quick = both(lambda: game(**option, optimizer=FUSED), data)
    assert_same(plain, quick)
    assert len(set(replays)) == 2


def test_ada_moves_its_p_in_recorded_rounds(replays):
    ends = []
    for on in ("false", "true"):
        gan = tiny(
            "stylegan2_ada",
            SHAPE,
            f"speed.graph={on}",
            "augment.ada.interval=2",
            "augment.ada.kimg=1",
            "augment.ada.p=0.5",
        )
        ends.append(play("stylegan2_ada", gan, 12, SHAPE))
    assert_same(*ends)
    assert 0 < ends[1].augment["ada"].p != 0.5
    assert isinstance(ends[1].augment["ada"], ADA)
    assert replays


def test_while_a_network_grows_each_stage_is_recorded_anew(replays):
    """And rounds in which it fades in are played."""
    overrides = [f"{net}.{k}=0.04" for net in ("generator", "discriminator") for k in ("stage_kimg", "fade_kimg")]
    ends = [
        play("progan", tiny("progan", SHAPE, *overrides, f"speed.graph={on}"), 24, SHAPE) for on in ("false", "true")
    ]
    assert_same(*ends)
    assert len(set(replays)) >= 2


class Odd(Term):
    """Does `f` with a look at itself and the phase; its value is D's opinion, a little."""

    def __init__(self, f):
        super().__init__()
        self.f, self.count, self.last = f, 0, 0.0
        self.register_buffer("kept", torch.zeros(2))

    def forward(self, phase):
        return 0.01 * phase.on_real.logits.mean() * self.f(self, phase)


class Following(Odd):
    def set_clock(self, seen):
        self.half = seen / 2


class Writes(Term):
    """Into a constant."""

    def forward(self, phase):
        total = torch.tensor(0.0)
        total += phase.on_real.logits.detach().mean()
        return 0.01 * phase.on_real.logits.mean() * total


def counts(term, phase):
    term.count += 1
    return 1 / term.count


def keeps(term, phase):
    last, term.last = term.last, phase.real.detach().mean()
    return 1 + last


def reassigns(term, phase):
    term.kept = term.kept * 0.9 + phase.real.detach().mean(0)
    return term.kept.mean()


def sets_back(term, phase):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return torch.rand(2).mean()


def lays_anew(term, phase):
    x = phase.real.clone().detach()
    return x.mean() + x.detach().unsqueeze_(0).mean()


def with_its_own(term, phase):
    return torch.rand(2, generator=torch.Generator().manual_seed(3)).mean()


CANT = {
    "item": (Odd(lambda term, phase: phase.real.mean().item()), "local_scalar_dense"),
    "bool": (Odd(lambda term, phase: 1.0 if phase.real.mean() > 0 else 2.0), "local_scalar_dense"),
    "tolist": (Odd(lambda term, phase: phase.real.mean(0).tolist()[0]), "tolist"),
    "numpy": (Odd(lambda term, phase: float(phase.real.mean(0).numpy()[0])), "numpy"),
    "selection": (Odd(lambda term, phase: phase.real[phase.real > 0].sum()), "depends on the values"),
    "nonzero": (Odd(lambda term, phase: phase.real.nonzero().sum()), "nonzero"),
    "clock": (Odd(lambda term, phase: phase.seen * 0.01), "looks at the clock"),
    "clock compared": (Odd(lambda term, phase: 1.0 if phase.seen == 40 else 2.0), "looks at the clock"),
    "clock, unseen": (Odd(lambda term, phase: torch.ones(1) * phase.seen), "differs from the one before"),
    "set_clock": (Following(lambda term, phase: 1.0), "Following has set_clock and no steady"),
    "a counter": (Odd(counts), "differs from the one before"),
    "a tensor of the last round": (Odd(keeps), "differs from the one before"),
    "a buffer put anew": (Odd(reassigns), "differs from the one before"),
    "chance of Python's": (Odd(lambda term, phase: random.random()), "differs from the one before"),
    "seeds": (Odd(sets_back), "set to another place"),
    "a generator": (Odd(with_its_own), "a generator of its own"),
    "another shape in place": (Odd(lays_anew), "changes where a tensor lies"),
}


@pytest.mark.parametrize("name", CANT)
def test_what_can_not_be_recorded_is_played_and_says_why_once(name, capsys):
    term, why = CANT[name]
    plain, quick = (game(terms={"odd": copy.deepcopy(term)}, optimizer=FUSED) for _ in range(2))
    quick.recorder = Recorder()
    for gan in (plain, quick):
        random.seed(0)
        played(gan, 8)
    told = capsys.readouterr().err
    assert told.count("speed.graph=true") == 1
    assert why in told
    assert not quick.recorder.recordings
    for a, b in zip(plain.state_dict().values(), quick.state_dict().values(), strict=True):
        assert not isinstance(a, torch.Tensor) or torch.equal(a, b)


def test_a_constant_that_a_round_writes_into_is_made_anew():
    assert_same(*both(lambda: game(terms={"odd": Writes()}, optimizer=FUSED), 8))


def test_a_number_that_changes_unseen_is_noticed_before_a_replay(replays):
    """A weight out of a table, and a rate that a callback lowers."""
    table = dict.fromkeys(range(0, 80, 8), 1.0) | dict.fromkeys(range(80, 400, 8), 0.1)

    class Lowers(L.Callback):
        def on_train_batch_end(self, trainer, gan, *_):
            if gan.rounds == 20:
                for optimizer in trainer.optimizers:
                    optimizer.param_groups[0]["initial_lr"] *= 0.5

    plain, quick = both(
        lambda: game(terms={"r1": R1(weight=lambda seen: table[int(seen)])}, optimizer=FUSED), 32, callbacks=[Lowers()]
    )
    assert_same(plain, quick)
    assert len(set(replays)) == 2


def test_batches_that_hold_something_else_are_another_kind(replays):
    data = [{"real": b["real"], name: b["real"] + i} for i, b in enumerate(batches(24)) for name in ("ab"[i % 2],)]
    plain, quick = both(lambda: game(optimizer=FUSED), data)
    assert_same(plain, quick)
    assert len(set(replays)) == 2


def test_a_batch_with_what_is_no_tensor_is_played(capsys):
    gan = game(optimizer=FUSED)
    gan.recorder = Recorder()
    played(gan, [batch | {"file": f"{i}.png"} for i, batch in enumerate(batches(6))])
    assert "no tensor" in capsys.readouterr().err


def test_curves_are_read_between_recorded_rounds(replays):
    """What costs more is asked for in the first round after a reading, and only there."""

    class Reads(L.Callback):
        def __init__(self):
            self.read = []

        def on_train_batch_end(self, trainer, gan, *_):
            if gan.rounds % 4 == 0:
                self.read.append(gan.curves.read())

    plain, quick, told = game(optimizer=FUSED), game(optimizer=FUSED), [Reads(), Reads()]
    quick.recorder = Recorder()
    for gan, callback in zip((plain, quick), told, strict=True):
        played(gan, 40, callbacks=[callback])
    assert told[0].read == told[1].read
    assert all("D/logit_real" in read and "gradient_norm/G" in read for read in told[1].read)
    assert len(set(replays)) == 2


def test_recorded_rounds_leave_the_data_alone(replays):
    """The same batches are served again and again."""
    data = batches(4)
    before = [batch["real"].clone() for batch in data]
    plain, quick = both(lambda: game(optimizer=FUSED), data * 4)
    assert_same(plain, quick)
    assert all(torch.equal(batch["real"], x) for batch, x in zip(data, before, strict=True))


def test_work_in_the_middle_of_a_round_is_not_recorded():
    """Neither what it does to tensors, nor twice."""
    done, kept = [], torch.zeros(1)

    class Works(Term):
        def forward(self, phase):
            recording.amid(lambda: (done.append(1), kept.add_(1)))
            return 0.01 * phase.on_real.logits.mean() * kept

    ends = []
    for recorder in (None, Recorder()):
        gan = game(terms={"works": Works()}, optimizer=FUSED)
        gan.recorder = recorder
        done.clear()
        kept.zero_()
        ends.append(played(gan, 10))
        assert len(done) == kept.item() == 10
    assert_same(*ends)


def test_after_giving_up_nothing_is_replayed(replays):
    """Not even kinds that were recorded before."""

    class Late(Term):
        def forward(self, phase):
            return 0.01 * phase.on_real.logits.mean() * phase.real.mean().item()

    plain, quick = both(lambda: game(terms={"late": Late(start=0.08)}, optimizer=FUSED), 20)
    assert replays
    assert not quick.recorder.recordings
    assert quick.recorder.why
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), quick.parameters(), strict=True))


def test_an_error_in_a_round_comes_through_and_leaves_nothing_recording():
    def fails(term, phase):
        if gan.rounds == 2:
            raise KeyError("odd")
        return 1.0

    gan = game(terms={"odd": Odd(fails)}, optimizer=FUSED)
    gan.recorder = Recorder()
    with pytest.raises(KeyError, match="odd"):
        played(gan, 4)
    assert recording._recording is None


def test_a_recording_keeps_no_graph_of_gradients(replays):
    """What is kept of a round is its operators, and no tensor that it made."""

    def made_by(recorder):
        gan = game(optimizer=FUSED)
        gan.recorder = recorder
        before = {id(x) for x in gc.get_objects()}
        played(gan, 8)
        gc.collect()
        return [x for x in gc.get_objects() if isinstance(x, torch.Tensor) and x.grad_fn and id(x) not in before]

    assert len(made_by(Recorder())) == len(made_by(None)) == 0
    assert replays


class Emulated(TorchDispatchMode):
    """Stands for a CUDA graph: what is captured is not played (the test takes it back), and a replay writes its
    results to where they lay. Draws need generators that it was told of before."""

    running = None

    def __init__(self):
        super().__init__()
        self.operators, self.known = [], []

    def register_generator_state(self, generator):
        assert Emulated.running is None, "too late"
        self.known.append(generator)

    def capture_begin(self, pool, capture_error_mode):
        assert Emulated.running is None
        Emulated.running = self
        self.__enter__()

    def capture_end(self):
        assert Emulated.running is self
        Emulated.running = None
        self.__exit__(None, None, None)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if (generator := kwargs.get("generator")) is not None:
            assert generator.initial_seed() in [known.initial_seed() for known in self.known]
        if function is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        result = function(*args, **kwargs)
        self.operators.append((function, args, kwargs, result))
        return result

    @torch.no_grad()
    def replay(self):
        assert Emulated.running is None
        for function, args, kwargs, kept in self.operators:
            if function.is_view or function.namespace == "profiler":  # lies where it lay
                continue
            for old, new in zip(tree_leaves(kept), tree_leaves(function(*args, **kwargs)), strict=True):
                if isinstance(old, torch.Tensor) and old is not new:
                    old.copy_(new)


@pytest.fixture
def cuda(monkeypatch):
    """torch.cuda as `Graphs` uses it, emulated: rounds are recorded by it on the CPU."""
    stream = mock.MagicMock()
    for name in ("synchronize", "empty_cache", "graph_pool_handle", "Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, mock.MagicMock())
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Emulated)
    monkeypatch.setattr(Recorder, "captures", staticmethod(lambda gan: True))
    monkeypatch.setattr(Emulated, "running", None)
    make = torch.Generator

    class Guarded(type):
        def __call__(cls, *args):
            assert Emulated.running is None, "Cannot construct a new CUDAGeneratorImpl while capturing"
            return make(*args)

        def __instancecheck__(cls, x):
            return isinstance(x, make)

    monkeypatch.setattr(torch, "Generator", Guarded("Generator", (), {}))
    record = Graphs.record

    def unplayed(graphs, gan, batch, earlier):
        """Captures, and takes back what that played."""
        keep = [
            *gan.state_dict().values(),
            *(v for o in gan.trainer.optimizers for s in o.state.values() for v in s.values()),
        ]
        tensors = [x for x in keep if isinstance(x, torch.Tensor)]
        copies = [x.clone() for x in tensors]
        record(graphs, gan, batch, earlier)
        with torch.no_grad():
            for x, copy in zip(tensors, copies, strict=True):
                x.copy_(copy)

    monkeypatch.setattr(Graphs, "record", unplayed)


@pytest.mark.parametrize("name", GAMES)
def test_graphs_are_captured_in_the_right_order(name, cuda):
    """With an emulated torch.cuda: what lies between two graphs, seeds, numbers that change, curves."""
    if name == "rmsprop":
        pytest.skip("it knows that this is no GPU")
    plain, quick = both(lambda: fresh(GAMES[name]), batches(24))
    assert_same(plain, quick)
    assert all(isinstance(kept, Graphs) for kept in quick.recorder.recordings.values())


def test_a_round_that_cuda_can_not_capture_ends_the_run(cuda, monkeypatch):
    """What was recorded without being played can't be taken back in Python; weights are those before the round."""
    gan = game(terms={"gp": GradientPenalty()}, optimizer=FUSED)
    gan.recorder = Recorder()
    play_one, calls, before = Emulated.__torch_dispatch__, [], []

    def fails(graph, function, *args, **kwargs):
        calls.append(function)
        if len(calls) == 120:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        return play_one(graph, function, *args, **kwargs)

    class Notes(L.Callback):
        def on_train_batch_start(self, trainer, gan, *_):
            before[:] = [p.detach().clone() for p in gan.parameters()]

    monkeypatch.setattr(Emulated, "__torch_dispatch__", fails)
    with pytest.raises(ValueError, match=r"RuntimeError: operation not permitted when stream is capturing\. Go on"):
        played(gan, 8, callbacks=[Notes()])
    assert all(torch.equal(a, b) for a, b in zip(gan.parameters(), before, strict=True))
    assert Emulated.running is None
    assert not any(group["capturable"] for o in gan.trainer.optimizers for group in o.param_groups)


def test_captured_rounds_leave_optimizers_as_they_were(cuda):
    gan = game(optimizer=FUSED)
    gan.recorder = Recorder()
    played(gan, 8)
    assert gan.recorder.recordings
    assert not any(group["capturable"] for o in gan.trainer.optimizers for group in o.param_groups)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("model", group("model"))
def test_on_a_gpu_too(model):
    more = () if tiny(model, SHAPE).every["G"] == 1 else ("n_critic=2",)
    ends = []
    for on in ("false", "true"):
        gan = tiny(model, SHAPE, *more, f"speed.graph={on}")
        ends.append(play(model, gan, 10, SHAPE, accelerator="gpu", deterministic="warn"))
    plain, quick = ends
    if quick.recorder.why is None:
        assert quick.recorder.recordings
    for a, b in zip(plain.parameters(), quick.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
