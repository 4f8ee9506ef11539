"""Residual networks for 32x32 and its like.

Improved Training of Wasserstein GANs (Gulrajani et al. 2017), arXiv:1704.00028, appendix: 128 channels, no
normalisation in the critic, mean pooling. Spectral Normalization for Generative Adversarial Networks (Miyato et al.
2018), arXiv:1802.05957, table 4: 256 channels in G, spectral norm in D, sum pooling. cGANs with Projection
Discriminator (Miyato & Koyama 2018), arXiv:1802.05637: labels by conditional batch norm and by projection.
Self-Attention GAN (Zhang et al. 2019), arXiv:1805.08318: spectral norm in G too, attention in both. At 32x32 these are
the papers' layers; other sizes have fewer or more of them.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal

from torch import Tensor, nn

from ganlab.nn.attention import SelfAttention2d
from ganlab.nn.conditional import ConditionalBatchNorm2d, LabelEmbedding
from ganlab.nn.pyramid import image_shape, pyramid
from ganlab.nn.residual import Down, Up, initialised
from ganlab.phase import DiscriminatorOutput


class Norm(nn.Module):
    """Batch norm, of the label where there are classes."""

    def __init__(self, width: int, classes: int | None):
        super().__init__()
        self.norm = ConditionalBatchNorm2d(width, classes) if classes else nn.BatchNorm2d(width)

    def forward(self, x: Tensor, label: Tensor | None) -> Tensor:
        return self.norm(x) if label is None else self.norm(x, label)


class Generator(nn.Module):
    """z [N, z_dim], label [N] where there are classes -> images [N, *shape] in [-1, 1].

    width       channels of every map
    classes     number of labels; None: it is told none
    spectral    spectral norm on every layer
    attention   self-attention after this block, from 1; None: nowhere
    """

    def __init__(
        self, shape: Sequence[int], z_dim: int = 128, width: int = 256, classes: int | None = None,
        spectral: bool = False, attention: int | None = None,
    ):  # fmt: skip
        super().__init__()
        channels, height, breadth = image_shape(shape, "a resnet")
        doublings, self.base = pyramid(height, breadth, "a resnet")
        self.classes = classes
        self.z_dim, self.width, self.attends_after = z_dim, width, attention and min(attention, doublings)
        self.linear = initialised(nn.Linear(z_dim, width * math.prod(self.base)), gain=1, spectral=spectral)
        norm = partial(Norm, classes=classes)
        self.blocks = nn.ModuleList(Up(width, width, norm, spectral) for _ in range(doublings))
        self.attention = SelfAttention2d(width, spectral) if attention else None
        self.norm = nn.BatchNorm2d(width)
        self.out = initialised(nn.Conv2d(width, channels, 3, padding=1), gain=1, spectral=spectral)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        h = self.linear(z).unflatten(1, (self.width, *self.base))
        for i, block in enumerate(self.blocks, 1):
            h = block(h, label)
            if self.attention is not None and i == self.attends_after:
                h = self.attention(h)
        return self.out(self.norm(h).relu()).tanh()


class Discriminator(nn.Module):
    """images [N, *shape], label [N] where there are classes -> logits [N]: halved until the smaller side is 8 to 15,
    then two blocks that keep the size.

    spectral    spectral norm on every layer
    pool        "sum" (Miyato et al.) or "mean" (Gulrajani et al.) over the last map
    classes     number of labels
    told        "projection": the logit has <embedding of the label, features> added; "classifier": the label is not
                looked at, and class logits [N, classes] are returned as aux (Odena et al. 2017, arXiv:1610.09585)
    attention   self-attention after this block, from 1; None: nowhere
    """

    def __init__(
        self, shape: Sequence[int], width: int = 128, spectral: bool = True, pool: Literal["sum", "mean"] = "sum",
        classes: int | None = None, told: Literal["projection", "classifier"] = "projection",
        attention: int | None = None,
    ):  # fmt: skip
        super().__init__()
        if told not in ("projection", "classifier"):
            raise ValueError(f"discriminator.told={told!r}: must be projection or classifier")
        channels, height, breadth = image_shape(shape, "a resnet")
        self.classes = classes
        halvings = max(1, pyramid(height, breadth, "a resnet")[0] - 1)
        have = channels
        blocks: list[nn.Module] = []
        for i in range(halvings + 2):
            blocks.append(Down(have, width, spectral, halve=i < halvings, first=i == 0))
            have = width
            if attention and i + 1 == attention:
                blocks.append(SelfAttention2d(width, spectral))
        self.blocks, self.pool = nn.Sequential(*blocks), pool
        self.out = initialised(nn.Linear(width, 1), gain=1, spectral=spectral)
        self.label = self.classifier = None
        if classes and told == "projection":
            self.label = initialised(LabelEmbedding(classes, width), gain=1, spectral=spectral)
        elif classes:
            self.classifier = initialised(nn.Linear(width, classes), gain=1, spectral=spectral)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor | DiscriminatorOutput:
        h = self.blocks(x).relu()
        h = h.sum((2, 3)) if self.pool == "sum" else h.mean((2, 3))  # [N, width]
        logits = self.out(h).flatten(0)
        if self.classifier is not None:
            return DiscriminatorOutput(logits, aux=self.classifier(h))
        return logits if self.label is None else logits + (self.label(label) * h).sum(1)
