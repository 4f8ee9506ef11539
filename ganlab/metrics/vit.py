"""The vision transformer of DINOv2, with the names of its published weights.

DINOv2: Learning Robust Visual Features without Supervision (Oquab et al. 2023), arXiv:2304.07193; An Image is Worth
16x16 Words (Dosovitskiy et al. 2021), arXiv:2010.11929; LayerScale: Touvron et al. 2021, arXiv:2103.17239.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).view(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # [n, heads, tokens, d]
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, width))


class MLP(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Scale(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.attn, self.ls1 = nn.LayerNorm(width, eps=1e-6), Attention(width, heads), Scale(width)
        self.norm2, self.mlp, self.ls2 = nn.LayerNorm(width, eps=1e-6), MLP(width), Scale(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class DINOv2Network(nn.Module):
    """[N, 3, H, W], normalised, H and W multiples of the patch -> the class token [N, width]."""

    def __init__(self, width: int, depth: int, patch: int = 14, positions: int = 37 * 37, heads: int | None = None):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + positions, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # of the training; unused here
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, patch)})
        self.blocks = nn.ModuleList(Block(width, heads or width // 64) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    @classmethod
    def like(cls, state: dict[str, Tensor]) -> "DINOv2Network":
        """The network that these weights belong to.

        Raises:
            ValueError: they are not DINOv2's
        """
        try:
            patches = state["patch_embed.proj.weight"]
            depth = len({k.split(".")[1] for k in state if k.startswith("blocks.")})
            return cls(len(patches), depth, patches.shape[-1], state["pos_embed"].shape[1] - 1)
        except KeyError as error:
            raise ValueError(
                f"extractor.weights: the weights are another network's, not DINOv2's: no {error}"
            ) from None

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed["proj"](x)  # [N, width, h, w]
        h, w = x.shape[-2:]
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1)
        x = x + self.positions(h, w)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 0]

    def positions(self, h: int, w: int) -> Tensor:
        """The position embedding for h x w patches: resized bicubically, by a scale that has 0.1 of a patch added, as
        the published network does it."""
        first, grid = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        side = round(grid.shape[1] ** 0.5)
        if (h, w) == (side, side):
            return self.pos_embed
        grid = grid.view(1, side, side, -1).permute(0, 3, 1, 2)
        scale = ((h + 0.1) / side, (w + 0.1) / side)
        grid = F.interpolate(grid, scale_factor=scale, mode="bicubic")
        return torch.cat([first, grid.permute(0, 2, 3, 1).flatten(1, 2)], 1)
