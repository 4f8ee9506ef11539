"""Self-attention over the places of a map."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class SelfAttention2d(nn.Module):
    """x + gamma * attention(x), gamma starting at 0: each place looks at all others (Zhang et al. 2019,
    arXiv:1805.08318, eq. 1 to 3); keys and values at half of the resolution, as in the authors' code.

    x [N, C, H, W] -> the same; C at least 8
    """

    def __init__(self, channels: int, spectral: bool = True):
        super().__init__()
        layer = lambda have, out: normed(nn.Conv2d(have, out, 1, bias=False), spectral)
        self.query, self.key = layer(channels, channels // 8), layer(channels, channels // 8)
        self.value, self.out = layer(channels, channels // 2), layer(channels // 2, channels)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        places = self.query(x).flatten(2).transpose(1, 2)  # [N, HW, C/8]
        keys, values = (F.max_pool2d(layer(x), 2).flatten(2).transpose(1, 2) for layer in (self.key, self.value))
        if torch.compiler.is_exporting():  # other formats know attention in several heads only
            seen = (places @ keys.mT).softmax(2) @ values
        else:
            seen = F.scaled_dot_product_attention(places, keys, values, scale=1.0)  # [N, HW, C/2]
        return x + self.gamma * self.out(seen.transpose(1, 2).unflatten(2, x.shape[2:]))


def normed(layer: nn.Module, spectral: bool) -> nn.Module:
    nn.init.xavier_uniform_(layer.weight)  # type: ignore[arg-type]
    return spectral_norm(layer) if spectral else layer
