"""PacGAN: a discriminator that judges several samples together.

PacGAN: The power of two samples in generative adversarial networks (Lin et al. 2018), arXiv:1712.04086.
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn


class Packed(nn.Module):
    """samples [N, *shape] -> logits [N / pack]: neighbours in the batch are joined along their
    first axis, `pack` at a time.

    net     (shape, width) -> a discriminator of samples of that shape: [pack * C, ...]
    width   of the net
    """

    def __init__(self, shape: Sequence[int], net: Callable[..., nn.Module], width: int, pack: int = 2):
        super().__init__()
        if pack < 2:
            raise ValueError(f"discriminator.pack={pack}: at least 2 samples are judged together")
        first, *rest = shape
        self.pack, self.net = pack, net(shape=[pack * first, *rest], width=width)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) % self.pack:
            raise ValueError(f"discriminator.pack={self.pack} does not divide the {len(x)} samples of a process's move")
        return self.net(x.reshape(len(x) // self.pack, -1, *x.shape[2:]))
