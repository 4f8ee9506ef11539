"""Layers that are told the label."""

from torch import Tensor, nn


class ConditionalBatchNorm2d(nn.Module):
    """Batch norm whose scale and shift belong to the label (Dumoulin et al. 2017, arXiv:1610.07629, eq. 5).

    x [N, C, H, W], label [N] -> [N, C, H, W]
    """

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale, self.shift = nn.Embedding(classes, channels), nn.Embedding(classes, channels)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        scale, shift = self.scale(label)[..., None, None], self.shift(label)[..., None, None]
        return self.norm(x) * scale + shift
