"""WaveGAN: sounds by one-dimensional convolutions.

Adversarial Audio Synthesis (Donahue et al. 2019), arXiv:1802.04208, appendix D: kernels of 25 and strides of 4; phase
shuffle in D. With 16,384 samples these are the paper's layers; other lengths have fewer or more of them. It is told
labels by conditional batch norm (Dumoulin et al. 2017, arXiv:1610.07629) and projection (Miyato & Koyama 2018,
arXiv:1802.05637), which the paper does not have.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ganlab.nn.conditional import ConditionalBatchNorm2d, LabelEmbedding
from ganlab.phase import DiscriminatorOutput


class Generator(nn.Module):
    """z [N, z_dim], label [N] where there are classes -> sounds [N, C, L] in [-1, 1].

    width     channels of the longest map; doubled with each that is a quarter as long, up to 32 times
    classes   number of labels, told by conditional batch norm; None: it is told none, and has no norm
    """

    def __init__(self, shape: Sequence[int], z_dim: int = 100, width: int = 64, classes: int | None = None):
        super().__init__()
        channels, steps, self.base = strides(shape)
        self.z_dim, self.classes = z_dim, classes
        have, *others = [width * min(2**i, 32) for i in reversed(range(steps))]
        self.linear = initialised(nn.Linear(z_dim, have * self.base), gain=math.sqrt(2))
        self.norms, self.layers = nn.ModuleList(), nn.ModuleList()
        for out in [*others, channels]:
            self.norms.append(Norm(have, classes))
            # each output meets a quarter of the taps, hence twice the gain
            layer = nn.ConvTranspose1d(have, out, 25, 4, padding=11, output_padding=1)
            self.layers.append(initialised(layer, gain=2))
            have = out

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        h = self.linear(z).unflatten(1, (-1, self.base))
        for norm, layer in zip(self.norms, self.layers, strict=True):
            h = layer(norm(h, label).relu())  # [N, c, l] -> [N, c / 2, 4 l]
        return h.tanh()


class Discriminator(nn.Module):
    """sounds [N, C, L], label [N] where there are classes -> logits [N].

    width     channels of the longest map
    shuffle   phase shuffle by up to so many samples after each layer but the last (section 3.3); 0: none
    spectral  spectral norm on every layer
    classes   number of labels
    told      "projection": the logit has <embedding of the label, features> added; "classifier": the label is not
              looked at, and class logits [N, classes] are returned as aux (Odena et al. 2017, arXiv:1610.09585)
    """

    def __init__(
        self, shape: Sequence[int], width: int = 64, shuffle: int = 2, spectral: bool = False,
        classes: int | None = None, told: Literal["projection", "classifier"] = "projection",
    ):  # fmt: skip
        super().__init__()
        if told not in ("projection", "classifier"):
            raise ValueError(f"discriminator.told={told!r}: must be projection or classifier")
        have, steps, base = strides(shape)
        if not 0 <= shuffle < base:
            raise ValueError(f"discriminator.shuffle={shuffle}: must be from 0 to {base - 1}, below the shortest map")
        norm = spectral_norm if spectral else lambda layer: layer
        layers: list[nn.Module] = []
        for i in range(steps):
            out = width * min(2**i, 32)
            layers += [norm(initialised(nn.Conv1d(have, out, 25, 4, padding=11), gain=math.sqrt(2))), nn.LeakyReLU(0.2)]
            layers += [PhaseShuffle(shuffle)] if i < steps - 1 else []
            have = out
        self.layers, self.classes = nn.Sequential(*layers, nn.Flatten()), classes
        self.out = norm(initialised(nn.Linear(have * base, 1)))
        self.label = self.classifier = None
        if classes and told == "projection":
            self.label = norm(initialised(LabelEmbedding(classes, have * base)))
        elif classes:
            self.classifier = norm(initialised(nn.Linear(have * base, classes)))

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor | DiscriminatorOutput:
        h = self.layers(x)
        logits = self.out(h).flatten(0)
        if self.classifier is not None:
            return DiscriminatorOutput(logits, aux=self.classifier(h))
        return logits if self.label is None else logits + (self.label(label) * h).sum(1)


class Norm(nn.Module):
    """Batch norm of the label where there are classes; nothing otherwise."""

    def __init__(self, width: int, classes: int | None):
        super().__init__()
        self.norm = ConditionalBatchNorm2d(width, classes) if classes else None

    def forward(self, x: Tensor, label: Tensor | None) -> Tensor:
        return x if self.norm is None else self.norm(x[:, :, None], label)[:, :, 0]


class PhaseShuffle(nn.Module):
    """Moves each map in time by a number of samples that is uniform in -n .. n, for each sample anew; what comes in
    at the edge is the map's own reflection. In eval mode it does nothing."""

    def __init__(self, n: int):
        super().__init__()
        self.n = n

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.n == 0:
            return x
        return shifted(x, torch.randint(-self.n, self.n + 1, (len(x), 1), device=x.device))


def shifted(x: Tensor, by: Tensor) -> Tensor:
    """x [N, C, L] moved to the right by as many samples as `by` [N, 1] says, |by| < L, reflected at the edges."""
    last = x.shape[2] - 1
    at = last - (last - (torch.arange(last + 1, device=x.device) - by).abs()).abs()  # [N, L]
    return x.gather(2, at[:, None].expand_as(x))


def initialised(layer: nn.Module, gain: float = 1.0) -> nn.Module:
    """Xavier uniform as in the authors' code; bias 0."""
    assert isinstance(layer, (nn.Conv1d, nn.ConvTranspose1d, nn.Linear, nn.Embedding))
    nn.init.xavier_uniform_(layer.weight, gain)
    if isinstance(bias := getattr(layer, "bias", None), Tensor):
        nn.init.zeros_(bias)
    return layer


def strides(shape: Sequence[int]) -> tuple[int, int, int]:
    """(channels, how often a map is quartered, length of the shortest): as often as leaves 16 to 63 samples.

    Raises:
        ValueError: these are no sounds, or their length can't be quartered so often; names the nearest that can
    """
    if len(shape) != 2:
        raise ValueError(f"wavegan makes sounds, and the data's samples have the shape {list(shape)}: use data=sounds")
    channels, length = shape
    steps = max(1, int(math.log(max(length, 64) / 16, 4) + 1e-9))
    if length < 64 or length % 4**steps:
        nearest = max(16, round(length / 4**steps)) * 4**steps
        raise ValueError(
            f"wavegan quarters a sound until 16 to 63 samples are left: {length:,} can't be reached, {nearest:,} can. "
            f"Set data.length={nearest}"
        )
    return channels, steps, length // 4**steps
