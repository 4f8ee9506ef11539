"""StyleGAN2: noise is mapped to a style, and the style scales the channels of each convolution.

Analyzing and Improving the Image Quality of StyleGAN (Karras et al. 2020), arXiv:1912.04958: configuration F has
capacity 32768 and width 512. Training Generative Adversarial Networks with Limited Data (Karras et al. 2020),
arXiv:2006.06676, appendix D: labels, and for CIFAR-10 a mapping of 2 layers and a D without shortcuts.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ganlab.nn.conditional import LabelEmbedding
from ganlab.nn.equalized import EqualizedConv2d, EqualizedLinear
from ganlab.nn.filters import Double
from ganlab.nn.minibatch import MinibatchStd
from ganlab.nn.modulated import Halved, ModulatedConv2d, activated
from ganlab.nn.pyramid import image_shape, pyramid
from ganlab.phase import GeneratorOutput, full


def channels_of(base: Sequence[int], doublings: int, width: int, capacity: int) -> list[int]:
    """Channels from the smallest map to the largest: capacity / its smaller side, at most width."""
    return [max(1, min(width, capacity // (min(base) * 2**i))) for i in range(doublings + 1)]


def unit(x: Tensor) -> Tensor:
    """Each row scaled to a mean square of 1."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


class Mapping(nn.Module):
    """z [N, z_dim], label [N] where there are classes -> w [N, w_dim], in float32 under autocast too.

    z_dim    0: the label alone is mapped
    layers   each learning 100 times slower than the rest of the network
    """

    def __init__(self, z_dim: int, w_dim: int, layers: int, classes: int | None = None):
        super().__init__()
        self.label = LabelEmbedding(classes, w_dim) if classes else None
        have = [z_dim + (w_dim if classes else 0)] + [w_dim] * (layers - 1)
        self.layers = nn.Sequential(*[EqualizedLinear(n, w_dim, rate=0.01) for n in have])

    def forward(self, z: Tensor | None, label: Tensor | None = None) -> Tensor:
        with torch.autocast(next(self.parameters()).device.type, enabled=False):
            parts = [] if z is None else [unit(z)]
            if self.label is not None:
                parts.append(unit(self.label(label)))
            w = torch.cat(parts, 1)
            for layer in self.layers:
                w = activated(layer(w))
        return w


class StyledConv(nn.Module):
    """Modulated convolution, noise, bias, activation; `size` is that of its output.

    Noise is drawn per pixel in training and constant in evaluation, where a sample depends on its style alone.
    """

    constant: Tensor

    def __init__(self, have: int, out: int, size: Sequence[int], w_dim: int, noise: bool, double: bool):
        super().__init__()
        self.conv = ModulatedConv2d(have, out, 3, w_dim, double=double)
        self.bias = nn.Parameter(torch.zeros(out))
        self.strength = nn.Parameter(torch.zeros(())) if noise else None
        if noise:
            self.register_buffer("constant", torch.randn(*size))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        h = self.conv(x, w)
        if self.strength is not None:
            noise = h.new_empty(len(h), 1, *h.shape[2:]).normal_() if self.training else self.constant.to(h.dtype)
            h = h + self.strength.to(h.dtype) * noise
        return activated(h + self.bias.to(h.dtype)[:, None, None])


class ToImage(nn.Module):
    """What a map adds to the image: a modulated 1x1 convolution without demodulation."""

    def __init__(self, have: int, channels: int, w_dim: int):
        super().__init__()
        self.conv = ModulatedConv2d(have, channels, 1, w_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return full(self.conv(x, w)) + self.bias[:, None, None]


class Synthesis(nn.Module):
    """ws [N, layers, w_dim], a style for each convolution -> images [N, *shape], the sum over resolutions."""

    def __init__(self, shape: Sequence[int], width: int, w_dim: int, capacity: int, noise: bool):
        super().__init__()
        channels, height, breadth = image_shape(shape, "stylegan2")
        doublings, base = pyramid(height, breadth, "stylegan2")
        maps = channels_of(base, doublings, width, capacity)
        self.layers = 2 * doublings + 2  # the last is ToImage's alone; the others share the next convolution's style
        self.start = nn.Parameter(torch.randn(maps[0], *base))
        self.convs = nn.ModuleList([StyledConv(maps[0], maps[0], base, w_dim, noise, double=False)])
        for i in range(1, doublings + 1):
            size = [side * 2**i for side in base]
            self.convs.append(StyledConv(maps[i - 1], maps[i], size, w_dim, noise, double=True))
            self.convs.append(StyledConv(maps[i], maps[i], size, w_dim, noise, double=False))
        self.images = nn.ModuleList(ToImage(n, channels, w_dim) for n in maps)
        self.larger = Double()

    def forward(self, ws: Tensor) -> Tensor:
        h, image = self.start.repeat(ws.shape[0], 1, 1, 1), None
        for i, conv in enumerate(self.convs):
            h = conv(h, ws[:, i])
            if i % 2 == 0:  # the last of its resolution
                added = self.images[i // 2](h, ws[:, i + 1])
                image = added if image is None else self.larger(image) + added
        assert image is not None
        return image


class Generator(nn.Module):
    """z [N, z_dim], label [N] where there are classes -> images [N, *shape], about in [-1, 1]; in training with the
    styles ws [N, layers, w_dim] as aux.

    width      largest number of channels
    capacity   a map has capacity / (its smaller side) channels, at most width
    mapping    layers of the mapping network
    classes    number of labels; None: it is told none
    mixing     share of images in training whose layers from a random one on have the style of another z
    noise      add noise to each map

    Two parts are of use on their own: `mapping(z, label)` -> w [N, w_dim] and `synthesis(ws)` -> images.
    """

    w_average: Tensor

    def __init__(
        self, shape: Sequence[int], z_dim: int = 512, width: int = 512, w_dim: int = 512, mapping: int = 8,
        classes: int | None = None, capacity: int = 32768, mixing: float = 0.9, noise: bool = True,
    ):  # fmt: skip
        super().__init__()
        if mapping < 1:
            raise ValueError(f"generator.mapping={mapping}: must be at least 1 (layers)")
        if not 0 <= mixing <= 1:
            raise ValueError(f"generator.mixing={mixing}: must be between 0 and 1 (share of images)")
        self.z_dim, self.classes, self.mixing = z_dim, classes, mixing
        self.mapping = Mapping(z_dim, w_dim, mapping, classes)
        self.synthesis = Synthesis(shape, width, w_dim, capacity, noise)
        self.register_buffer("w_average", torch.zeros(w_dim))

    def forward(self, z: Tensor, label: Tensor | None = None, truncation: float = 1.0) -> Tensor | GeneratorOutput:
        """truncation   psi, the factor on a style's distance from the average (Karras et al. 2019, arXiv:1812.04948,
        appendix B): 1 leaves styles as they are, 0 makes all alike
        """
        w = self.mapping(z, label)
        if self.training:
            self.w_average.lerp_(w.detach().mean(0), 0.005)
        ws = w[:, None].expand(-1, self.synthesis.layers, -1)
        if self.training and self.mixing > 0:
            ws = self.mixed(ws, self.mapping(torch.randn_like(z), label))
        if truncation != 1:
            ws = torch.lerp(self.w_average, ws, truncation)
        fake = self.synthesis(ws)
        return GeneratorOutput(fake, aux=ws) if self.training else fake

    def mixed(self, ws: Tensor, other: Tensor) -> Tensor:
        """`other` [N, w_dim] from a random layer on, in a share `mixing` of the samples."""
        n, layers, _ = ws.shape
        first = torch.randint(1, layers, (n, 1), device=ws.device)
        first = first.where(torch.rand(n, 1, device=ws.device) < self.mixing, layers)
        return ws.where((torch.arange(layers, device=ws.device) < first)[..., None], other[:, None])


class Halving(nn.Module):
    """Two convolutions of D: [N, have, h, w] -> [N, out, h/2, w/2].

    shortcut   a 1x1 convolution beside them; the sum keeps its variance
    """

    def __init__(self, have: int, out: int, shortcut: bool):
        super().__init__()
        self.conv1, self.conv2 = EqualizedConv2d(have, have, 3, padding=1), Halved(have, out, 3)
        self.shortcut = Halved(have, out, 1, bias=None) if shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        h = activated(self.conv2(activated(self.conv1(x))))
        return h if self.shortcut is None else (h + self.shortcut(x)) / math.sqrt(2)


class Discriminator(nn.Module):
    """images [N, *shape], label [N] where there are classes -> logits [N]; with classes by projection on the mapped
    label.

    width           largest number of channels
    capacity        as of the generator
    minibatch_std   samples that are looked at together; None: each on its own
    classes         number of labels; None: it is told none
    architecture    "resnet", or "plain" without shortcuts
    mapping         layers of the label's mapping network
    """

    def __init__(
        self, shape: Sequence[int], width: int = 512, capacity: int = 32768, minibatch_std: int | None = 4,
        classes: int | None = None, architecture: Literal["resnet", "plain"] = "resnet", mapping: int = 8,
    ):  # fmt: skip
        super().__init__()
        if architecture not in ("resnet", "plain"):
            raise ValueError(f"discriminator.architecture={architecture!r}: must be resnet or plain")
        channels, height, breadth = image_shape(shape, "stylegan2")
        doublings, base = pyramid(height, breadth, "stylegan2")
        maps = channels_of(base, doublings, width, capacity)[::-1]
        self.classes = classes
        self.inside = EqualizedConv2d(channels, maps[0], 1)
        self.blocks = nn.Sequential(*[
            Halving(maps[i], maps[i + 1], architecture == "resnet") for i in range(doublings)
        ])  # fmt: skip
        last = maps[-1]
        self.deviation = MinibatchStd(minibatch_std) if minibatch_std else nn.Identity()
        self.conv = EqualizedConv2d(last + (1 if minibatch_std else 0), last, 3, padding=1)
        self.linear = EqualizedLinear(last * math.prod(base), last)
        self.label = Mapping(0, last, mapping, classes) if classes else None
        self.out = EqualizedLinear(last, last if classes else 1)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        h = self.blocks(activated(self.inside(x)))
        h = activated(self.conv(self.deviation(h)))
        h = self.out(activated(self.linear(h.flatten(1))))
        if self.label is None:
            return h.flatten(0)
        return (h * self.label(None, label)).sum(1) / math.sqrt(h.shape[1])
