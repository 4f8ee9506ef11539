"""There and back without pairs: CycleGAN's networks, terms, pool of past fakes, and a set whose answer is known."""

import gzip
import os
from functools import partial

import numpy as np
import pytest
import torch
from composing import composed, run
from made import noise_images
from PIL import Image
from play import phase, trainer
from torch import nn

from ganlab import launch
from ganlab.augment import DiffAugment
from ganlab.checkpoint import Sampler
from ganlab.data.halves import InvertedMNIST
from ganlab.gan import GAN
from ganlab.losses import LeastSquares
from ganlab.metrics.extractors import Pixels
from ganlab.metrics.fidelity import L1
from ganlab.metrics.scorer import Scorer
from ganlab.models import cyclegan, dcgan
from ganlab.phase import Batch
from ganlab.pool import Pooled
from ganlab.rng import SampleRNG
from ganlab.schedule import Linear
from ganlab.strategy import PlayersDDP
from ganlab.tasks import TranslateUnpaired
from ganlab.terms.cycle import Cycle, Identity


def images(n, channels=1, size=(8, 8), seed=0):
    return torch.rand(n, channels, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# ------------------------------------------------------------------------------------------------------------- networks


def count(net):
    return sum(p.numel() for p in net.parameters())


def test_networks_have_the_papers_size():
    """11.378 M and 2.765 M parameters each, as the authors' code prints them; there each convolution before a norm has
    a bias, here each norm a scale and a shift: one number more for each channel."""
    G, D = cyclegan.Generator([3, 256, 256]), cyclegan.Discriminator([3, 256, 256])
    normed = 64 + 128 + 256 + 9 * 2 * 256 + 128 + 64
    assert count(G.there) - normed == count(G.back) - normed == 11_378_179
    assert count(D.of_real) == count(D.of_inputs)
    assert count(D.of_real) - (128 + 256 + 512) == 2_764_737
    assert [tuple(x.shape) for x in D((torch.zeros(1, 3, 256, 256),) * 2)] == 2 * [(1, 1, 30, 30)]


def test_blocks_follow_the_size():
    """Nine from 256 pixels on, six below (section 4)."""
    blocks = lambda net: sum(isinstance(m, cyclegan.Block) for m in net.there.modules())
    assert blocks(cyclegan.Generator([3, 256, 256], width=4)) == 9
    assert blocks(cyclegan.Generator([3, 128, 128], width=4)) == 6
    assert blocks(cyclegan.Generator([3, 128, 128], width=4, blocks=2)) == 2


@pytest.mark.parametrize("size", [(8, 8), (10, 10), (12, 20), (28, 28), (24, 64)])
def test_any_size_and_channels(size):
    G, D = cyclegan.Generator([4, *size], [2, *size], 4), cyclegan.Discriminator([4, *size], [2, *size], 4)
    a, b = images(2, 2, size), images(2, 4, size)
    there, back = G((a, b))
    assert (there.shape, back.shape) == (b.shape, a.shape)
    assert max(there.abs().max(), back.abs().max()) <= 1
    assert [len(x) for x in D((there, back))] == [2, 2]
    assert torch.equal(G(a), there)
    larger = torch.zeros(1, 2, size[0] + G.multiple, size[1] + 2 * G.multiple)
    assert G(larger).shape[2:] == larger.shape[2:]


def test_sides_do_not_mix():
    """What is made of one side does not depend on the other, nor on the other samples."""
    G, D, a, b = (
        cyclegan.Generator([1, 8, 8], width=4),
        cyclegan.Discriminator([1, 8, 8], width=4),
        images(3),
        images(3),
    )
    for net in (G, D):
        whole, other = net((a, b)), net((a, -b))
        assert torch.equal(whole[0], other[0])
        assert not torch.equal(whole[1], other[1])
        assert torch.allclose(net((a[1:], b[:2]))[0], whole[0][1:], atol=1e-6)


# ---------------------------------------------------------------------------------------------------------------- terms


class Lines(nn.Module):
    """There x -> 2 x + 1, back x -> x / 4."""

    def forward(self, x):
        return 2 * x[0] + 1, x[1] / 4


def facing(a, b, G):
    """G's phase, in which its fakes are those of a and b."""
    made = G((a, b))
    return phase("G", fake=made, real=(b, a), D=None, G=lambda x: made if x is made else G(x), n=len(a))


def test_cycle_and_identity_by_hand():
    """There and back: (2 x + 1) / 4; back and there: y / 2 + 1. What is there already: 2 y + 1, and x / 4."""
    a, b = torch.tensor([[0.5, 1.0], [0.0, 0.0]]), torch.tensor([[2.0, 4.0], [1.0, -1.0]])
    given = facing(a, b, Lines())
    cycle = [
        (abs(2 / 2 + 1 - 2) + abs(4 / 2 + 1 - 4)) / 2 + (abs(2 / 4 - 0.5) + abs(3 / 4 - 1)) / 2,
        (abs(1 / 2 + 1 - 1) + abs(-1 / 2 + 1 + 1)) / 2 + (abs(1 / 4) + abs(1 / 4)) / 2,
    ]
    identity = [(3 + 5) / 2 + (0.375 + 0.75) / 2, (2 + 0) / 2 + 0]
    assert Cycle()(given).tolist() == cycle == [0.625, 1.25]
    assert Identity()(given).tolist() == identity
    assert (Cycle().weight, Identity().weight, Cycle().player, Identity().player) == (10.0, 5.0, "G", "G")


def test_a_perfect_way_back_costs_nothing():
    a, b = images(2), images(2, seed=1)
    given = facing(a, b, lambda x: (-x[0], -x[1]))
    assert Cycle()(given).tolist() == [0, 0]
    assert Identity()(given).min() > 0.5


def test_the_objective_is_the_papers():
    """Equation 3 with least squares (section 4): (D(fake) - 1)^2 on both sides for G, and for D half of (D(real) - 1)^2
    + D(fake)^2 on both sides."""
    weight = composed("model=cyclegan").loss.weight
    loss = Pooled(LeastSquares(), [[1], [1]], weight=dict(weight))
    logits = lambda x: [3 * x[0], x[1] + 2]
    real, fake = (torch.tensor([[0.5]]), torch.tensor([[-1.0]])), (torch.tensor([[0.2]]), torch.tensor([[4.0]]))
    value = lambda player: loss.factor(player, 0) * loss(phase(player, real=real, fake=fake, D=logits, n=1)).item()
    assert value("D") == pytest.approx(0.5 * (0.5**2 + 0.6**2) + 0.5 * (0 + 6**2), rel=1e-6)
    assert value("G") == pytest.approx(0.4**2 + 5**2, rel=1e-6)


# ----------------------------------------------------------------------------------------------------------------- pool


class Told(SampleRNG):
    """Draws what it is told to, [n, 2, sides]."""

    def __init__(self, numbers):
        self.numbers = torch.tensor(numbers)

    def _draw(self, kind, shape):
        assert shape == tuple(self.numbers.shape[1:])
        return self.numbers


def moved(pool, fakes, numbers=None):
    """What D is shown of these fakes (lists of numbers, one for each side), the pool having moved afterwards."""
    fakes = [torch.tensor(side)[:, None].float() for side in zip(*fakes, strict=True)]
    n = len(fakes[0])
    given = phase("D", real=fakes, fake=fakes, D=lambda x: x, n=n)
    given.rng = Told(numbers or np.random.default_rng(0).random((n, 2, len(fakes))).tolist())
    pool(given)
    with torch.no_grad():
        pool.after_move(type(given).finished([given], given.rng))
    return [tuple(row) for row in torch.cat(given.fake, 1).tolist()]


def contents(pool):
    return [side[:, 0].tolist() for side in pool.past]


def test_one_fake_at_a_time_is_the_papers_procedure():
    """Against the procedure written out with a list: fill it; then a coin says whether the fake is shown, or an old one
    in whose place it goes. Each side has a coin of its own."""
    pool, draws = Pooled(LeastSquares(), [[1], [1]], capacity=5), np.random.default_rng(1)
    kept = [[], []]
    for t in range(200):
        fakes, u = (float(t), float(-t)), draws.random((2, 2))
        expected = []
        for side in range(2):
            past, fake = kept[side], fakes[side]
            if len(past) < 5:
                past.append(fake)
                expected.append(fake)
            elif u[0, side] < 0.5:
                place = int(np.float32(u[1, side]) * 5)
                expected.append(past[place])
                past[place] = fake
            else:
                expected.append(fake)
        assert moved(pool, [fakes], [u.tolist()]) == [tuple(expected)]
        if t >= 4:
            assert contents(pool) == kept
    assert kept[0] != [-x for x in kept[1]]


def test_a_batch_sees_the_pool_of_before_and_the_last_of_a_place_stays():
    pool = Pooled(LeastSquares(), [[1]], capacity=4)
    assert moved(pool, [[1], [2], [3]]) == [(1,), (2,), (3,)]
    assert pool.filled == 3
    assert moved(pool, [[4], [5], [6]]) == [(4,), (5,), (6,)]  # of which one still has a place
    assert contents(pool) == [[1, 2, 3, 4]]
    u = [[[0.1], [0.3]], [[0.9], [0.3]], [[0.2], [0.3]], [[0.4], [0.99]]]  # places 1, none, 1 and 3
    assert moved(pool, [[7], [8], [9], [10]], u) == [(2,), (8,), (2,), (4,)]
    assert contents(pool) == [[1, 9, 3, 10]]
    assert pool.filled == 4


def test_half_of_the_fakes_are_past_ones_and_all_are_equally_likely():
    pool = Pooled(LeastSquares(), [[1]], capacity=4)
    moved(pool, [[0], [1], [2], [3]])
    draws = torch.rand(4000, 2, 1, generator=torch.Generator().manual_seed(0)).tolist()
    shown = moved(pool, [[9]] * 4000, draws)
    shares = [sum(x == (i,) for x in shown) / 4000 for i in (0, 1, 2, 3, 9)]
    assert shares == pytest.approx([0.125] * 4 + [0.5], abs=0.03)


def test_d_is_shown_the_pool_and_g_is_not():
    """Of the same fakes made once for both players; G's gradient comes from its own."""
    pool = Pooled(LeastSquares(), [[1]], capacity=1)
    moved(pool, [[7]])
    fake = torch.tensor([[3.0]], requires_grad=True)
    D = lambda x: tuple(10 * t for t in x)
    of_d = phase("D", real=(fake,), fake=(fake,), D=D, n=1, keep_graph=True, grad_inputs=("fake",))
    of_d.rng = Told([[[0.0], [0.0]]])
    assert pool(of_d).item() == pytest.approx(0.5 * (30 - 1) ** 2 + 0.5 * 70**2)
    assert of_d.fake[0].item() == 7
    assert of_d.fake[0].requires_grad
    of_g = phase("G", real=(fake,), fake=(fake,), D=D, n=1)
    of_g.played = of_d.played
    value = pool(of_g)
    assert value.item() == pytest.approx(0.5 * (30 - 1) ** 2)
    value.backward()
    assert fake.grad.item() == pytest.approx(290)
    with torch.no_grad():
        pool.after_move(type(of_d).finished([of_d], of_d.rng))
        pool.after_move(type(of_g).finished([of_g], of_g.rng))
    assert contents(pool) == [[3]]


def game(micro_batches=1, share_fake=False, capacity=6):
    torch.manual_seed(0)
    G, D = cyclegan.Generator([1, 8, 8], width=4, blocks=1), cyclegan.Discriminator([1, 8, 8], width=4)
    return GAN(
        G, D, Pooled(LeastSquares(), 2 * [[1, 8, 8]], capacity), {"cycle": Cycle(), "identity": Identity()},
        task=TranslateUnpaired(), optimizer=partial(torch.optim.Adam, lr=1e-3), micro_batches=micro_batches,
        share_fake=share_fake,
    ).double()  # fmt: skip


def played(gan, rows=slice(None), **kwargs):
    rounds = [{"inputs": images(4, seed=i).double(), "real": images(4, seed=100 + i).double()} for i in range(6)]
    data = [{k: v[rows] for k, v in batch.items()} for batch in rounds]
    trainer(precision="64-true", **kwargs).fit(gan, torch.utils.data.DataLoader(data, batch_size=None))
    return torch.cat([v.flatten().double() for v in gan.state_dict().values() if isinstance(v, torch.Tensor)])


def test_micro_batches_change_nothing():
    """Weights, pool and all."""
    whole = played(gan := game())
    assert gan.loss.filled == 6
    assert torch.allclose(played(game(micro_batches=3)), whole, rtol=0, atol=1e-10)


def in_group():
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    found = []
    for given in ({}, {"micro_batches": 2}, {"share_fake": True}):
        rows = slice(4 // world * rank, 4 // world * (rank + 1))
        strategy = PlayersDDP()
        mine = played(game(**given), rows, devices=world, strategy=strategy, use_distributed_sampler=False)
        everyone = [torch.empty_like(mine) for _ in range(world)]
        torch.distributed.all_gather(everyone, mine)
        assert torch.equal(*everyone)
        found.append(mine.numpy())
    return found


def test_two_processes_have_one_pool():
    """The weights and the pool of one process, in both, bit for bit alike."""
    for found, given in zip(launch.run(in_group, processes=2), ({}, {}, {"share_fake": True}), strict=True):
        assert torch.allclose(torch.from_numpy(found), played(game(**given)), rtol=0, atol=1e-10)


# ----------------------------------------------------------------------------------------------------------------- game


def test_all_are_inputs_and_reals():
    a, b = images(2), images(2, seed=1)
    gan = game().float()
    made = gan.reconstruct({"inputs": a, "real": b})
    assert [x is y for x, y in zip(made["inputs"] + made["real"], (a, b, b, a), strict=True)] == [True] * 4
    there, back = gan.G_ema.there, gan.G_ema.back
    assert torch.equal(made["fake"][0], there(a))
    assert torch.equal(made["fake"][1], back(b))
    columns = gan.task.columns(gan, made)
    assert [torch.equal(x, y) for x, y in zip(columns, (a, there(a), back(there(a))), strict=True)] == [True] * 3
    sampler = Sampler(gan.G_ema, gan.task).reconstruct({"inputs": a, "real": b})
    assert torch.equal(sampler["fake"][0], there(a))


def test_one_side_can_be_translated_alone():
    gan, a = game().float(), images(2)
    fake, _ = gan.task.play(gan.G_ema, Batch(a, a))
    assert torch.equal(gan.task.show(fake.fake), gan.G_ema.there(a))
    assert gan.task.show_inputs(a) is a


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generator": dcgan.Generator([1, 16, 16], width=8)}, "task=translate_unpaired: .* use model=cyclegan"),
        ({"augment": {"diffaugment": DiffAugment()}}, r"augment.diffaugment is for one image.*\[noise\]"),
        ({"task": None, "generator": dcgan.Generator([1, 16, 16], width=8)}, "cycle consistency.*use model=cyclegan"),
        ({"terms": {"identity": Identity(player="D")}}, "identity consistency with player=D"),
        (
            {
                "generator": cyclegan.Generator([3, 8, 8], [1, 8, 8], width=4),
                "discriminator": cyclegan.Discriminator([3, 8, 8], [1, 8, 8], width=4),
                "terms": {"identity": Identity()},
            },
            r"1 and 3 channels: leave it out \(~terms.identity\)",
        ),
    ],
)
def test_refused_games(changes, message):
    given = {
        "generator": cyclegan.Generator([1, 8, 8], width=4),
        "discriminator": cyclegan.Discriminator([1, 8, 8], width=4),
        "terms": {"cycle": Cycle()}, "task": TranslateUnpaired(),
    } | changes  # fmt: skip
    with pytest.raises(ValueError, match=message):
        GAN(loss=LeastSquares(), optimizer=partial(torch.optim.Adam, lr=1e-3), **given)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pooled(LeastSquares(), [[1]], capacity=0), "loss.capacity=0"),
        (lambda: moved(Pooled(LeastSquares(), [[2]]), [[1.0]]), r"loss.shapes=\[\(2,\)\].*\[\(1,\)\]"),
        (lambda: cyclegan.Generator([3, 32, 32], [3, 16, 16]), r"generator.inputs=\[3, 16, 16\]"),
        (lambda: cyclegan.Generator([3, 30, 31]), "data.size"),
        (lambda: TranslateUnpaired().facts({"shape": [3, 8, 8]}), "data=unpaired"),
        (lambda: Linear(stop=1.0, hold=1.0), "hold=1.0"),
    ],
)
def test_refused_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_learning_rate_falls_in_the_second_half():
    rate = Linear(stop=10.0, hold=0.5)
    assert [rate(seen) for seen in (0, 5000, 6000, 7500, 10_000, 20_000)] == pytest.approx([1, 1, 0.8, 0.5, 0, 0])
    assert composed("model=cyclegan").lr_schedule.hold == 0.5


# ----------------------------------------------------------------------------------------------------------------- data


def mnist(folder, train=12, test=5):
    """Files in MNIST's format, image i of brightness i."""
    folder.mkdir()
    for part, n, first in (("train", train, 0), ("t10k", test, 100)):
        x = np.broadcast_to(np.arange(first, first + n, dtype=np.uint8)[:, None, None], (n, 28, 28))
        label = np.arange(n, dtype=np.uint8) % 10
        for kind, array in (("images-idx3", x), ("labels-idx1", label)):
            head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            with gzip.open(folder / f"{part}-{kind}-ubyte.gz", "wb") as file:
                file.write(head + array.tobytes())
    return folder


def test_halves_of_a_set_share_no_image_and_test_images_have_partners(tmp_path):
    data = InvertedMNIST(str(mnist(tmp_path / "mnist")), batch_size=2)
    facts = data.facts()
    assert (facts["shape"], facts["inputs"], facts["classes"]) == ([1, 28, 28], [1, 28, 28], None)
    assert (facts["partners"], facts["maps"]) == (False, False)
    first = lambda split: {k: v[:, 0, 0, 0].tolist() for k, v in split.take(torch.arange(len(split))).items()}
    assert first(data.split("train")) == {"inputs": [0, 2, 4, 6, 8, 10], "real": [255 - i for i in (1, 3, 5, 7, 9, 11)]}
    assert first(data.split("test")) == {"inputs": list(range(100, 105)), "real": [255 - i for i in range(100, 105)]}
    data.trainer = type("Trainer", (), {"strategy": type("S", (), {"root_device": torch.device("cpu")})})
    data.trainer.global_rank, data.trainer.world_size, data.trainer.lightning_module = 0, 1, None
    batches = [batch for chunk, _ in zip(data.train_dataloader(), range(2), strict=False) for batch in chunk]
    level = lambda side: torch.cat([((b[side][:, 0, 0, 0] + 1) * 127.5).round() for b in batches]).int().tolist()
    assert sorted(level("inputs")[:6]) == [0, 2, 4, 6, 8, 10]
    pairs = {(a, 255 - b) for a, b in zip(level("inputs"), level("real"), strict=True)}
    assert len(pairs) > 6  # no fixed partners
    scorer = Scorer(Pixels(), {"l1": L1()}, n=4)
    scorer.looking_at(game(), data.split("test"))
    with pytest.raises(ValueError, match=r"scores.l1 compares with targets.*scores=\[fid\]"):
        scorer.looking_at(game(), data.split("train"))
    with pytest.raises(ValueError, match=r"data.count=3"):
        InvertedMNIST(count=3)


def test_a_run_writes_scores_and_a_grid(tmp_path, monkeypatch):
    """FID of the outputs against the other side, and a picture of input, output, input again."""
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))
    for side, n in (("trainA", 6), ("trainB", 5), ("testA", 4), ("testB", 3)):
        (tmp_path / "sets" / side).mkdir(parents=True)
        for i, x in enumerate(noise_images(n, 16)):
            x = x if side.endswith("A") else 255 - x
            Image.fromarray(x.permute(1, 2, 0).numpy()).save(tmp_path / "sets" / side / f"{i}.png")
    best = run(
        tmp_path / "run", "model=cyclegan", "data=unpaired", f"data.root={tmp_path / 'sets'}", "extractor=pixels",
        "scores=[fid]", "generator.width=4", "generator.blocks=1", "discriminator.width=4", "data.batch_size=50",
        "max_kimg=1", "metrics.every=1", "metrics.n=4", "callbacks.samples.every=1", "callbacks.samples.rows=2",
        "callbacks.samples.columns=6", "callbacks.watchdog=null",
    )  # fmt: skip
    assert best > 0
    assert "score/fid4_pixels" in (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0]
    grid = np.array(Image.open(tmp_path / "run" / "samples" / "outputs_000001.png"))
    assert grid.shape[:2] == (2 * 17 + 1, 6 * 17 + 1)
    shown = [(grid[1:17, 1 + 17 * i : 17 + 17 * i] / 255).astype(float) for i in range(3)]
    assert np.abs(shown[0] - noise_images(4, 16)[0].permute(1, 2, 0).numpy() / 255).max() < 0.01
    assert np.abs(shown[1] - shown[0]).max() > 0.01
    sampler = Sampler.load(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert sampler.G(noise_images(2, 16) / 127.5 - 1).shape == (2, 3, 16, 16)
