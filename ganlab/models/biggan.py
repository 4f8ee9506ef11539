"""BigGAN: wide residual networks that are told the class, and noise, in every block.

Large Scale GAN Training for High Fidelity Natural Image Synthesis (Brock et al. 2019), arXiv:1809.11096, appendix B;
at 32x32 the layers that its authors' code has for CIFAR-10. With `embed`, D has the heads of ContraGAN (Kang & Park
2020), arXiv:2006.12681, and ReACGAN (Kang et al. 2021), arXiv:2111.01118, in place of the projection.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ganlab.nn.attention import SelfAttention2d
from ganlab.nn.conditional import LabelEmbedding
from ganlab.nn.pyramid import image_shape, pyramid
from ganlab.nn.residual import Down, Up
from ganlab.phase import DiscriminatorOutput, full

INIT: dict[str, Callable[..., Tensor]] = {
    "orthogonal": nn.init.orthogonal_,
    "normal": partial(nn.init.normal_, std=0.02),
}
Init = Literal["orthogonal", "normal"]


def widths(doublings: int) -> tuple[list[int], list[int]]:
    """Channels, in units of `width`: of G's maps from the smallest one on, and of what D's blocks make (tables 4 to 6;
    3 and 4 doublings, 32x32 and 64x64, as in the code)."""
    if doublings <= 3:
        return [4] * (doublings + 1), [4] * (max(1, doublings - 1) + 2)
    if doublings == 4:
        return [16, 16, 8, 4, 2], [1, 2, 4, 8, 16]
    wide = [16, 16, 8, 4, 2, 1] if doublings == 5 else [16, 16, 8, 8, 4, 2] + [1] * (doublings - 5)
    return wide, [*wide[:0:-1], 16]


def place(sides: list[int], least: int | None) -> int | None:
    """Index of the first of the smallest maps whose side is at least `least`, of the largest where none is."""
    return None if least is None else sides.index(min((s for s in sides if s >= least), default=max(sides)))


def finish(net: nn.Module, init: Init, spectral: tuple[type[nn.Module], ...]) -> None:
    """All weights orthogonal, or normal with a deviation of 0.02; biases 0; spectral norm on these kinds of layers."""
    if init not in INIT:
        raise ValueError(f"generator.init or discriminator.init={init!r}: must be {' or '.join(INIT)}")
    for layer in list(net.modules()):
        if isinstance(layer, (nn.Conv2d, nn.Linear, nn.Embedding)):
            INIT[init](layer.weight)
            if getattr(layer, "bias", None) is not None:
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            if isinstance(layer, spectral):
                spectral_norm(layer)


class Norm(nn.Module):
    """Batch norm whose scale, 1 + gain, and shift come from what the block is told.

    told    channels -> a layer for the gain or the shift; None: plain batch norm
    """

    def __init__(self, channels: int, told: Callable[[int], nn.Module] | None):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=told is None)
        self.gain = told(channels) if told else None
        self.shift = told(channels) if told else None

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:
        if self.gain is None or self.shift is None:
            return self.norm(x)
        return self.norm(x) * (1 + self.gain(c)[..., None, None]) + self.shift(c)[..., None, None]


class Generator(nn.Module):
    """z [N, z_dim], label [N] or [N, classes] where there are classes -> images [N, *shape] in [-1, 1].

    width           channels, "ch" in the paper; maps have 1 to 16 times as many
    classes         number of labels; None: it is told none
    shared          length of the one embedding of the label whose linear images are all gains and shifts; None: each
                    batch norm has its own gain and shift for each label
    hierarchical    z is cut into one piece for the first layer and one for each block, which adds it to the label
    attention       self-attention on the map whose smaller side is this, or the next larger one; None: nowhere
    spectral        spectral norm on every layer but the embeddings
    init            "orthogonal" (the paper), or "normal" with a deviation of 0.02 (the code for CIFAR-10)
    """

    def __init__(
        self, shape: Sequence[int], z_dim: int = 128, width: int = 64, classes: int | None = None,
        shared: int | None = None, hierarchical: bool = False, attention: int | None = None, spectral: bool = True,
        init: Init = "orthogonal",
    ):  # fmt: skip
        super().__init__()
        channels, height, breadth = image_shape(shape, "biggan")
        doublings, self.base = pyramid(height, breadth, "biggan")
        self.z_dim, self.classes = z_dim, classes
        self.pieces = [z_dim]
        if hierarchical:
            if classes and not shared:
                raise ValueError(
                    "generator.hierarchical=true joins z to generator.shared, which is null: set it to 128"
                )
            self.pieces = [len(piece) for piece in torch.arange(z_dim).tensor_split(doublings + 1)]
        maps = [width * m for m in widths(doublings)[0]]
        self.linear = nn.Linear(self.pieces[0], maps[0] * math.prod(self.base))
        self.shared = LabelEmbedding(classes, shared) if classes and shared else None
        self.blocks = nn.ModuleList()
        for i in range(doublings):
            told: Callable[[int], nn.Module] | None = None
            if hierarchical or self.shared is not None:
                length = (shared or 0) * bool(classes) + (self.pieces[i + 1] if hierarchical else 0)
                told = partial(nn.Linear, length, bias=False)
            elif classes:
                told = partial(LabelEmbedding, classes)
            self.blocks.append(Up(maps[i], maps[i + 1], partial(Norm, told=told)))
        at = place([min(self.base) * 2 ** (i + 1) for i in range(doublings)], attention)
        self.attends_after = at
        self.attention = None if at is None else SelfAttention2d(maps[at + 1], spectral=False)
        self.norm = nn.BatchNorm2d(maps[-1])
        self.out = nn.Conv2d(maps[-1], channels, 3, padding=1)
        finish(self, init, (nn.Conv2d, nn.Linear) if spectral else ())

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        y = label if self.shared is None else self.shared(label)
        first, *pieces = z.split(self.pieces, 1)
        h = self.linear(first).unflatten(1, (-1, *self.base))
        for i, block in enumerate(self.blocks):
            c = torch.cat([pieces[i]] if y is None else [y, pieces[i]], 1) if pieces else y
            h = block(h, c)
            if self.attention is not None and i == self.attends_after:
                h = self.attention(h)
        return self.out(self.norm(h).relu()).tanh()


class Discriminator(nn.Module):
    """images [N, *shape], label [N] or [N, classes] where there are classes -> logits [N], by projection.

    width       channels, "ch" in the paper
    classes     number of labels; None: it is told none
    embed       the logit does not look at the label, and aux is two tensors [N, embed] of rows of length 1: an
                embedding of the image, and the proxy of its label (ContraGAN, figure 2). None: by projection
    attention   self-attention on the map whose smaller side is this, or the next larger one; None: nowhere
    spectral    spectral norm on every layer
    init        "orthogonal" (the paper), or "normal" with a deviation of 0.02 (the code for CIFAR-10)
    """

    def __init__(
        self, shape: Sequence[int], width: int = 64, classes: int | None = None, embed: int | None = None,
        attention: int | None = None, spectral: bool = True, init: Init = "orthogonal",
    ):  # fmt: skip
        super().__init__()
        channels, height, breadth = image_shape(shape, "biggan")
        doublings, _ = pyramid(height, breadth, "biggan")
        self.classes = classes
        makes = [width * m for m in widths(doublings)[1]]
        halvings = doublings if doublings > 3 else max(1, doublings - 1)
        at = place([min(height, breadth) >> min(i + 1, halvings) for i in range(len(makes))], attention)
        blocks: list[nn.Module] = []
        for i, (have, make) in enumerate(zip([channels, *makes], makes, strict=False)):
            blocks.append(Down(have, make, spectral=False, halve=i < halvings, first=i == 0))
            if i == at:
                blocks.append(SelfAttention2d(make, spectral=False))
        self.blocks, self.out = nn.Sequential(*blocks), nn.Linear(makes[-1], 1)
        self.embed = nn.Linear(makes[-1], embed) if classes and embed else None
        self.label = LabelEmbedding(classes, embed or makes[-1]) if classes else None
        finish(self, init, (nn.Conv2d, nn.Linear, nn.Embedding) if spectral else ())

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor | DiscriminatorOutput:
        h = self.blocks(x).relu().sum((2, 3))
        logits = self.out(h).flatten(0)
        if self.label is None:
            return logits
        y = self.label(label)
        if self.embed is None:
            return logits + (y * h).sum(1)
        return DiscriminatorOutput(logits, aux=(F.normalize(full(self.embed(h))), F.normalize(full(y))))
