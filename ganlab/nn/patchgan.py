"""A discriminator that judges overlapping patches, each by a logit of its own.

Image-to-Image Translation with Conditional Adversarial Networks (Isola et al. 2017), arXiv:1611.07004, section 3.2.2
and appendix 6.1.2.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ganlab.nn.pyramid import image_shape

Norm = Literal["instance", "batch", "none"]


def norm_layer(kind: Norm, channels: int) -> list[nn.Module]:
    """With a scale and a shift for each channel; for one image, instance norm is batch norm."""
    if kind not in ("instance", "batch", "none"):
        raise ValueError(f"norm={kind!r}: must be instance, batch or none")
    kinds = {"instance": [nn.InstanceNorm2d(channels, affine=True)], "batch": [nn.BatchNorm2d(channels)], "none": []}
    return kinds[kind]  # type: ignore[return-value]


def initialised(module: nn.Module) -> None:
    """Convolutions N(0, 0.02), norms N(1, 0.02), shifts 0 (appendix 6.2, and the authors' code)."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, (nn.BatchNorm2d, nn.InstanceNorm2d)) and module.affine:
        nn.init.normal_(module.weight, 1.0, 0.02)
    if isinstance(getattr(module, "bias", None), nn.Parameter):
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]


class PatchGAN(nn.Module):
    """Images [N, *shape], and where it is told them what they were made from, [N, *inputs] -> logits [N, 1, h, w].

    inputs   shape of what it is told; None: nothing
    width    channels of the largest map
    layers   how often maps are halved; a logit then sees 16, 34, 70, 142 pixels. None: 3, or as often as the image
             allows
    """

    def __init__(
        self, shape: Sequence[int], inputs: Sequence[int] | None = None, width: int = 64, layers: int | None = None,
        norm: Norm = "instance",
    ):  # fmt: skip
        super().__init__()
        channels, *size = image_shape(shape, "patchgan")
        most = (min(size) // 3).bit_length() - 1  # two layers more take a pixel each
        if most < 1 or (layers is not None and not 1 <= layers <= most):
            can = f"layers from 1 to {most}" if most > 0 else "none: set data.size=16"
            raise ValueError(f"discriminator.layers={layers}: images of {size[0]}x{size[1]} allow {can}")
        if inputs is not None and list(inputs[1:]) != size:
            raise ValueError(
                f"discriminator.inputs={list(inputs)}: D is shown both images at one size, {size[0]}x{size[1]}; where "
                "sizes differ, set discriminator.inputs=null task.conditional=false"
            )
        self.inputs = None if inputs is None else list(inputs)
        layers = min(3, most) if layers is None else layers
        widths = [width * min(2**i, 8) for i in range(layers + 1)]
        have = channels + (inputs[0] if inputs is not None else 0)
        parts: list[nn.Module] = []
        for i, out in enumerate(widths):
            normed = norm_layer(norm, out) if i > 0 else []
            parts += [nn.Conv2d(have, out, 4, 2 if i < layers else 1, 1, bias=not normed), *normed, nn.LeakyReLU(0.2)]
            have = out
        self.layers = nn.Sequential(*parts, nn.Conv2d(have, 1, 4, 1, 1))
        self.layers.apply(initialised)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        return self.layers(x if cond is None else torch.cat([cond.to(x), x], 1))
