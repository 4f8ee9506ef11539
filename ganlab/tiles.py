"""Images of any size through a network that takes some sizes only, and of any number of pixels in bounded memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor


def mirrored(x: Tensor, size: Sequence[int]) -> Tensor:
    """[..., h, w] continued below and to the right by its reflection, as often as it takes, to [..., *size]."""
    for dim, length in ((-2, size[0]), (-1, size[1])):
        last = x.shape[dim] - 1
        at = torch.arange(length, device=x.device) % max(1, 2 * last)
        x = x if length == last + 1 else x.index_select(dim, torch.minimum(at, 2 * last - at))
    return x


def starts(size: int, side: int, overlap: int) -> list[int]:
    """Where tiles of `side` begin that cover `size` >= side; neighbours share at least `overlap` <= side / 2."""
    return [0] if size == side else [*range(0, size - side, side - overlap), size - side]


def joined(parts: Iterable[tuple[int, Tensor]], side: int, dim: int) -> Iterator[Tensor]:
    """The pieces of one whole, in order, of parts that overlap; each is handed out as soon as nothing more is added.

    parts   (where it begins, what was made of the `side` pixels from there, which may be more or fewer pixels)

    Of what two parts share, the outer quarters are one part's alone, the nearer one's; in between, one fades into the
    other. What a network makes of the last quarter before a tile's end, without having seen beyond, is not used.
    """
    held: Tensor | None = None
    begun = 0
    for start, part in parts:
        if held is not None:
            shared = (begun + side - start) * part.shape[dim] // side
            own, old = held.split([held.shape[dim] - shared, shared], dim)
            yield own
            new, rest = part.split([shared, part.shape[dim] - shared], dim)
            ramp = ((torch.arange(shared, device=part.device) + 0.5) / shared * 2 - 0.5).clamp(0, 1).to(part)
            part = torch.cat([torch.lerp(old, new, ramp.view(-1, *[1] * (part.dim() - 1 - dim))), rest], dim)
        held, begun = part, start
    assert held is not None
    yield held


def tiled(function: Callable[[Tensor], Tensor], x: Tensor, tile: Sequence[int], overlap: int) -> Iterator[Tensor]:
    """What `function` makes of x [C, H, W], in strips [c, h, W] from the top; it is shown one tile at a time.

    function   [C, *tile] -> [c, h, w], of `tile`'s size or some whole multiple of it
    tile       (height, width), at most those of x
    overlap    pixels that neighbours share, at least
    """
    tops, lefts = (starts(size, side, overlap) for size, side in zip(x.shape[1:], tile, strict=True))

    def strip(top: int) -> Tensor:
        rows = x[:, top : top + tile[0]]
        made = ((left, function(rows[:, :, left : left + tile[1]])) for left in lefts)
        return torch.cat(list(joined(made, tile[1], 2)), 2)

    yield from joined(((top, strip(top)) for top in tops), tile[0], 1)
