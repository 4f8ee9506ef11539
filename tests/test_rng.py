"""Randomness is a function of where it is used; schedules are functions of the clock."""

import pytest
import torch

from ganlab.pictures import slerp
from ganlab.rng import BatchRNG, IndexedRNG, seed_of
from ganlab.schedule import Cosine, Linear, at, crossed, within


def test_seeds_differ_for_different_parts_and_stay_the_same():
    assert seed_of(0, "z", "G", 1) == 9090401115425920439  # for ever: runs can be repeated
    seeds = {seed_of(s, p, n) for s in range(10) for p in "DG" for n in range(100)}
    assert len(seeds) == 2000
    assert all(0 <= s < 2**63 for s in seeds)


@pytest.mark.parametrize("draw", ["normal", "uniform"])
def test_parts_of_a_batch_draw_what_the_whole_draws(draw):
    whole = BatchRNG(5, 12, slice(0, 12))
    parts = [BatchRNG(5, 12, slice(a, a + 4)) for a in (0, 4, 8)]
    for shape in ((3,), (2, 2)):  # the second draw continues the stream
        assert torch.equal(getattr(whole, draw)(*shape), torch.cat([getattr(p, draw)(*shape) for p in parts]))


def test_indexed_samples_do_not_depend_on_their_neighbours():
    a, b = IndexedRNG(5, range(10)), IndexedRNG(5, [7])
    for _ in range(2):
        assert torch.equal(a.normal(4)[7:8], b.normal(4))


def test_integers_and_choices():
    rng = BatchRNG(0, 20_000, slice(None))
    counts = torch.bincount(rng.integers(5))
    assert counts.min() > 3700
    assert len(counts) == 5
    share = torch.bincount(rng.choice([1, 0, 3]), minlength=3) / 20_000
    assert share.tolist() == pytest.approx([0.25, 0, 0.75], abs=0.02)


def test_schedules():
    assert [Linear(1, 0, start=1, stop=3)(s) for s in (0, 1000, 2000, 3000, 9000)] == [1, 1, 0.5, 0, 0]
    assert [Cosine(1, 0, stop=2)(s) for s in (0, 1000, 2000)] == pytest.approx([1, 0.5, 0])
    assert at(3.0, 10) == 3.0
    assert at(Linear(0, 1, stop=1), 500) == 0.5
    with pytest.raises(ValueError, match="must stop after it starts"):
        Linear(stop=0)


def test_clock():
    assert [within(1, 2, s) for s in (999, 1000, 1999, 2000)] == [False, True, True, False]
    assert within(0, None, 10**12)
    assert crossed(990, 1010, 1.0)
    assert crossed(0, 1000, 1.0)
    assert not crossed(1000, 1999, 1.0)


def test_interpolation_keeps_to_the_sphere():
    a, b = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 3.0])
    walk = slerp(a, b, torch.linspace(0, 1, 5))
    assert torch.allclose(walk[0], a, atol=1e-5)
    assert torch.allclose(walk[-1], b, atol=1e-5)
    assert torch.allclose(walk.norm(dim=1), torch.full((5,), 3.0), atol=1e-4)
    assert torch.allclose(walk[2], torch.full((2,), 4.5**0.5), atol=1e-4)
