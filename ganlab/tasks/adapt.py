"""From labelled images of one domain to others of another, of which no label is known."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ganlab.phase import Batch, Data, GeneratorOutput, full, one_hot, output_of
from ganlab.rng import SampleRNG
from ganlab.tasks.task import Task


class Adapt(Task):
    """From images of a target to their classes, learned from a source: {"inputs", "real", "label"}, images of the
    target, images of the source and the labels of those.

    G gives class logits [N, classes], with features [N, d] as its aux. Of the target, the two are the fakes; of the
    source, the right classes and features are the reals. So D, which reads the features, learns to tell the domains
    apart, and scores, which look at the first of two things, see what G takes the target's images for. aux, for the
    term that learns the labels, are the logits of the source.
    """

    def facts(self, known: Mapping[str, Any]) -> dict[str, Any]:
        if not known.get("classes") or list(known["shape"]) != [known["classes"]]:
            raise ValueError("task=adapt needs two sets of images, of which one is labelled: use data=domains")
        return {}

    def prepare(self, batch: dict[str, Any], rng: SampleRNG) -> Batch:
        return Batch((batch["inputs"], batch["real"]), batch["label"])

    def play(self, G: nn.Module, batch: Batch) -> tuple[Data, Data]:
        target, source = (full(output_of(G, x, None)) for x in batch.inputs)
        right = one_hot(batch.real, target.fake.shape[1], like=target.fake)
        return GeneratorOutput((target.fake, target.aux), source.fake), (right, source.aux)

    def made(self, G: nn.Module, inputs: Tensor) -> Tensor:
        """What G takes images [N, *inputs] for: class logits [N, classes]."""
        return full(output_of(G, inputs, None).fake)

    def show(self, x: Data) -> Tensor:
        """Logits [N, classes] as stripes [N, 1, 1, classes], of which that of the class is bright."""
        logits = tree_leaves(x)[0]
        return 2 * one_hot(logits.argmax(1), logits.shape[1], like=logits)[:, None, None] - 1

    def columns(self, G: Any, made: Mapping[str, Data]) -> list[Tensor]:
        """Input, what G takes it for, what it is."""
        return [made["inputs"][0], self.show(made["fake"]), self.show(made["real"])]
