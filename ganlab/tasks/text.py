"""From noise to texts."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from ganlab.media import Medium
from ganlab.phase import Batch, Data, one_hot, output_of, wrap
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
            ValueError: they are no texts, or of other symbols than those that are written
        """
        if "symbols" not in known:
            raise ValueError("this model writes texts, which the data are not: use data=sentences, or data=text")
        if self.medium is not None and self.medium.symbols != list(map(str, known["symbols"])):  # type: ignore[attr-defined]
            raise ValueError(
                "the texts' symbols, or their order, are not those that this model learnt: give the file and all "
                "data.* keys of its run (they are in its config.yaml)"
            )
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
        return output, one_hot(batch.real, output.fake.shape[-1], like=output.fake)
