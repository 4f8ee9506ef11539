"""From noise to texts."""

import torch.nn.functional as F
from torch import nn

from ganlab.media import Medium
from ganlab.phase import Batch, Data, output_of, wrap
from ganlab.tasks.noise import Generate


class Write(Generate):
    """From noise to texts: real is int64 [N, T], of V symbols; D is shown vectors [N, T, V], of the reals a one and
    zeros.

    medium   how texts are kept
    """

    def __init__(self, medium: Medium | None = None):
        super().__init__(medium=medium)

    def play(self, G: nn.Module, batch: Batch) -> tuple[Data, Data]:
        output = wrap(output_of(G, batch.inputs, None))
        return output, F.one_hot(batch.real, output.fake.shape[-1]).to(output.fake)
