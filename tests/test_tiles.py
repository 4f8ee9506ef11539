"""Images of any size: continued, cut into tiles, and put together again."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from ganlab.tiles import joined, mirrored, starts, tiled


def image(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("size", [(5, 7), (8, 7), (9, 31), (40, 14)])
def test_images_are_continued_as_numpy_does_it(size):
    """However often it takes; NumPy's "reflect" is the same rule."""
    x = image(2, 5, 7)
    expected = np.pad(x.numpy(), ((0, 0), (0, size[0] - 5), (0, size[1] - 7)), "reflect")
    assert np.array_equal(mirrored(x, size).numpy(), expected)
    assert torch.equal(mirrored(x[:, :1, :1], size), x[:, :1, :1].expand(-1, *size))


@pytest.mark.parametrize(
    ("size", "side", "overlap"), [(64, 64, 16), (64, 64, 64), (9, 9, 128), (65, 64, 32), (1000, 64, 16), (300, 100, 50)]
)
def test_tiles_cover_all_and_three_never_meet(size, side, overlap):
    at = starts(size, side, overlap)
    covered = np.zeros(size, int)
    for start in at:
        covered[start : start + side] += 1
    assert covered.min() == 1
    assert covered.max() <= 2
    assert (at[0], at[-1]) == (0, size - side)
    assert all(a + side - b >= overlap for a, b in pairwise(at))


def test_where_two_tiles_meet_one_fades_into_the_other():
    """By hand, of 8 shared pixels: two of the first alone, four weighted 1/8 to 7/8, two of the second alone; in 2x
    the pixels, twice as many steps."""
    a, b = torch.zeros(1, 10), torch.ones(1, 10)
    whole = torch.cat(list(joined([(0, a), (2, b)], 10, 1)), 1)[0]
    assert whole.tolist() == [0, 0, 0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1, 1, 1]
    double = torch.cat(list(joined([(0, a.repeat(1, 2)), (2, b.repeat(1, 2))], 10, 1)), 1)[0]
    assert len(double) == 24
    assert double[8:16].tolist() == [(2 * i + 1) / 16 for i in range(8)]


class Convolutions(nn.Sequential):
    """Looks 4 pixels around; makes `scale` times as many."""

    def __init__(self, scale=1):
        torch.manual_seed(0)
        super().__init__(
            nn.Conv2d(3, 8, 5, padding=2), nn.Tanh(), nn.Conv2d(8, 3 * scale**2, 5, padding=2), nn.PixelShuffle(scale)
        )


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("size", [(32, 32), (70, 91), (32, 200), (33, 47)])
def test_tiles_make_the_whole_images_output(scale, size):
    """Everywhere, of a network that looks no further than a quarter of the overlap; no tile is larger than asked."""
    net, x, shown = Convolutions(scale), image(3, *size), []

    def function(part):
        shown.append(part.shape)
        return net(part[None])[0]

    with torch.no_grad():
        strips = list(tiled(function, x, (32, 32), 16))
        expected = net(x[None])[0]
    assert torch.allclose(torch.cat(strips, 1), expected, atol=1e-6)
    assert set(shown) == {(3, 32, 32)}
    assert max(strip.shape[1] for strip in strips) <= 32 * scale


def test_networks_that_look_further_show_where_tiles_meet():
    """The border of a tile changes what is made of pixels near it: with too small an overlap that is seen."""
    net, x = Convolutions(), image(3, 70, 91)
    with torch.no_grad():
        made = torch.cat(list(tiled(lambda part: net(part[None])[0], x, (32, 32), 4)), 1)
        differs = (made - net(x[None])[0]).abs().amax(0) > 1e-6
    assert differs.any()
    assert not differs[:20, :20].any()  # away from seams and borders it is the same
