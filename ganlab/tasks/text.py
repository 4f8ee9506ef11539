"""From noise to texts."""

from collections.abc import Mapping
from typing import Any

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

    def facts(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """Nothing to add to what is known of the data.

        Raises:
            ValueError: they are no texts
        """
        if "symbols" not in known:
            raise ValueError("this model writes texts, which the data are not: use data=sentences, or data=text")
        return {}

    def check(self, gan: Any) -> None:
        super().check(gan)
        loss = getattr(gan, "loss", None)
        if loss is not None and not getattr(gan.G, "relaxed", True) and not hasattr(loss, "rollouts"):
            raise ValueError(
                "generator.relaxed=false: no gradient passes through such texts, and the loss needs one: set it to "
                "true, or use loss=policy_gradient"
            )

    def play(self, G: nn.Module, batch: Batch) -> tuple[Data, Data]:
        output = wrap(output_of(G, batch.inputs, None))
        return output, F.one_hot(batch.real, output.fake.shape[-1]).to(output.fake)
