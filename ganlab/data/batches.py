"""What is served becomes what networks take."""

from collections.abc import Sequence

import torch
from torch import Tensor


def cut(x: Tensor, corner: Tensor, window: Sequence[int]) -> Tensor:
    """A window of each x [N, ..., H, W]; corner [N, 2] in [0, 1): where it lies, from top to bottom and left to right.
    Of images of other sizes it is at the same place in proportion."""
    room = torch.tensor([have - wanted + 1 for have, wanted in zip(x.shape[-2:], window, strict=True)])
    at = (corner * room).long().tolist()
    return torch.stack([t[..., i : i + window[0], j : j + window[1]] for t, (i, j) in zip(x, at, strict=True)])


def as_input(batch: dict[str, Tensor], mirrored: Tensor | None = None) -> dict[str, Tensor]:
    """uint8 images [N, C, H, W] and clips [N, C, T, H, W] become float in [-1, 1] and uint8 maps of classes [N, H, W]
    int64, mirrored left to right where `mirrored`; int16 sounds become float in [-1, 1); others stay as they are."""
    x = batch["real"]
    if x.dtype == torch.int16:
        return {**batch, "real": x.to(torch.get_default_dtype()).div_(32768)}
    if x.dtype == torch.uint8:
        if mirrored is not None and mirrored.any():
            rows = torch.arange(len(x)) + len(x) * mirrored
            x = torch.cat((x, x.flip(-1))).index_select(0, rows.to(x.device))  # 5 times as fast as torch.where
        x = x.to(torch.get_default_dtype()).div_(127.5).sub_(1) if x.dim() >= 4 else x.long()
    return {**batch, "real": x}
