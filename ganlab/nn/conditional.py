"""Layers that are told the label: an index, or a vector of attributes."""

from torch import Tensor, nn

from ganlab.phase import one_hot


class LabelEmbedding(nn.Embedding):
    """labels [N] -> their rows [N, dim]; attributes [N, classes], as of 0 and 1 -> the weighted sum of rows."""

    def forward(self, label: Tensor) -> Tensor:
        return label.to(self.weight.dtype) @ self.weight if label.dim() == 2 else super().forward(label)


def as_vector(label: Tensor, classes: int, like: Tensor) -> Tensor:
    """[N, classes] in the type of `like`: labels [N] one-hot, attributes [N, classes] as they are."""
    return label.to(like.dtype) if label.dim() == 2 else one_hot(label, classes, like)


class ConditionalBatchNorm2d(nn.Module):
    """Batch norm whose scale and shift belong to the label (Dumoulin et al. 2017, arXiv:1610.07629, eq. 5).

    x [N, C, H, W], label [N] or [N, classes] -> [N, C, H, W]
    """

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale, self.shift = LabelEmbedding(classes, channels), LabelEmbedding(classes, channels)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        scale, shift = self.scale(label)[..., None, None], self.shift(label)[..., None, None]
        return self.norm(x) * scale + shift
