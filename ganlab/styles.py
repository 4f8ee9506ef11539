"""Generators that make images of styles: z becomes w, and every layer reads a w of its own.

A Style-Based Generator Architecture for Generative Adversarial Networks (Karras et al. 2019), arXiv:1812.04948. Such a
G has two networks, `mapping(z, label)` -> w [N, w_dim] and `synthesis(ws [N, layers, w_dim])` -> images, and where it
takes a truncation, `w_average` [w_dim].
"""

from typing import Any

import torch
from torch import Tensor, nn

from ganlab.phase import wrap
from ganlab.pictures import bordered
from ganlab.rng import IndexedRNG

SCALES = ("coarse", "middle", "fine")


def has_styles(G: nn.Module) -> bool:
    return all(isinstance(getattr(G, name, None), nn.Module) for name in ("mapping", "synthesis"))


def check(G: nn.Module, given: str, scale: str = "coarse") -> None:
    """Raises ValueError where G has no styles to mix, or none of this scale; given: the key that asks for them."""
    if not has_styles(G):
        raise ValueError(f"{given}: {type(G).__name__} has no mapping and synthesis, so no styles")
    if scale not in SCALES:
        raise ValueError(f"scale={scale}: must be {', '.join(SCALES)}")


@torch.no_grad()
def style_layers(gan: Any) -> int:
    """How many styles an image is made of: as many as `synthesis` is handed when G makes one."""
    seen: list[int] = []
    hook = gan.G.synthesis.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
    try:
        gan.generate(0, 1)
    finally:
        hook.remove()
    if not seen:
        raise ValueError(f"{type(gan.G).__name__}.forward does not call its synthesis: its styles can't be counted")
    return seen[0]


def layers_at(scale: str, layers: int) -> slice:
    """The first, middle or last third of the layers: coarse, middle or fine styles."""
    third = SCALES.index(scale)
    return slice(layers * third // 3, layers * (third + 1) // 3)


def mapped(gan: Any, z: Tensor, cond: Tensor | None) -> Tensor:
    """w [N, w_dim], truncated as the samples are."""
    w = gan.G.mapping(z, cond)
    return torch.lerp(gan.G.w_average, w, gan.options["truncation"]) if gan.options else w


def synthesised(gan: Any, ws: Tensor) -> Tensor:
    """Images of styles [N, layers, w_dim]."""
    return wrap(gan.G.synthesis(ws)).fake


@torch.no_grad()
def mixed(
    gan: Any, rows: int, columns: int, seed: int = 0, cond: Tensor | None = None, scale: str = "coarse"
) -> Tensor:  # fmt: skip
    """A table of pictures (Karras et al. 2019, figure 3), [(rows + 1) * (columns + 1), C, H, W]: each takes its styles
    of one scale from the sample at the left, and all others from the one at the top.

    cond    labels of the rows + columns samples, the rows first; None: as the task draws them
    scale   coarse, middle or fine

    Raises:
        ValueError: G has no styles, or there is no such scale
    """
    check(gan.G, f"styles={rows}", scale)
    z, cond = gan.task.draw(IndexedRNG(seed, range(rows + columns), gan.device, gan.dtype), cond)
    w = mapped(gan, z, cond)
    ws = w[:, None].repeat(1, style_layers(gan), 1)
    crossed = ws[rows:].repeat(rows, 1, 1)  # row by row: the top ones
    from_left = layers_at(scale, ws.shape[1])
    crossed[:, from_left] = ws[:rows].repeat_interleave(columns, 0)[:, from_left]
    sources = synthesised(gan, ws)
    return bordered(sources[:rows], sources[rows:], synthesised(gan, crossed))
