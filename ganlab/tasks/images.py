"""From images to images."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ganlab.phase import Batch, Data, GeneratorOutput, full, one_hot, output_of, wrap
from ganlab.rng import SampleRNG
from ganlab.tasks.task import Task, takes_labels


class Translate(Task):
    """From one image to another: {"inputs", "real"}.

    conditional   D is shown what G started from, beside what G made of it
    """

    def __init__(self, conditional: bool = True):
        super().__init__()
        self.conditional = conditional

    def facts(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """What networks must know besides what is known of the data: inputs, the shape of what G starts from.

        Raises:
            ValueError: the data have no pairs
        """
        if "inputs" not in known or known.get("maps") or not known.get("partners", True):
            raise ValueError(
                "task=translate learns from pairs of images, which the data are not: use data=pairs or "
                "data=side_by_side; for label maps task=segment; to repair images of any set task=denoise or the like; "
                "for two sets without pairs model=cyclegan"
            )
        return {}

    def check(self, gan: Any) -> None:
        D = getattr(gan, "D", None)
        if self.conditional and D is not None and not takes_labels(D):
            raise ValueError(
                f"task.conditional=true shows D what G started from, and {type(D).__name__}.forward takes one argument "
                "only: set task.conditional=false"
            )
        if D is not None and hasattr(D, "inputs") and self.conditional != (D.inputs is not None):
            raise ValueError(
                f"task.conditional={str(self.conditional).lower()} and discriminator.inputs={D.inputs or 'null'}: D is "
                "either shown what G started from, or not (discriminator.inputs=null task.conditional=false)"
            )

    def prepare(self, batch: dict[str, Any], rng: SampleRNG) -> Batch:
        return Batch(batch["inputs"], batch["real"], batch["inputs"] if self.conditional else None)

    def play(self, G: nn.Module, batch: Batch) -> tuple[Data, Data]:
        return output_of(G, batch.inputs, None), batch.real

    def made(self, G: nn.Module, inputs: Tensor) -> Tensor:
        """What G makes of [N, *inputs], whatever it was to make of it."""
        nothing = inputs.new_zeros((inputs.shape[0], *inputs.shape[2:]), dtype=torch.int64)  # in place of a target
        return full(wrap(self.play(G, Batch(inputs, nothing))[0]).fake)

    def show_inputs(self, inputs: Data) -> Tensor:
        """What G starts from, as pictures [N, C, h, w] in [-1, 1]."""
        return inputs

    def columns(self, G: Any, made: Mapping[str, Data]) -> list[Tensor]:
        """What a grid shows side by side: input, output, target.

        G      G_ema: (inputs) -> fakes
        made   what `GAN.reconstruct` gave
        """
        return [self.show_inputs(made["inputs"]), self.show(made["fake"]), self.show(made["real"])]


class TranslateUnpaired(Translate):
    """From images of one kind to images of another, and back: {"inputs", "real"}, which have nothing to do with one
    another. G makes (fakes like the reals, fakes like the inputs) of both; scores and pictures are of the first."""

    def __init__(self) -> None:
        super().__init__(conditional=False)

    def facts(self, known: Mapping[str, Any]) -> dict[str, Any]:
        if "inputs" not in known or known.get("maps"):
            raise ValueError(
                "task=translate_unpaired learns from two sets of images, which the data are not: use data=unpaired"
            )
        return {}

    def check(self, gan: Any) -> None:
        if not hasattr(gan.G, "back"):
            raise ValueError(f"task=translate_unpaired: {type(gan.G).__name__} knows no way back: use model=cyclegan")
        if names := [name for name, part in getattr(gan, "augment", {}).items() if hasattr(part, "least")]:
            raise ValueError(f"augment.{names[0]} is for one image, and D is shown two: use augment=[] or [noise]")

    def prepare(self, batch: dict[str, Any], rng: SampleRNG) -> Batch:
        return Batch((batch["inputs"], batch["real"]), (batch["real"], batch["inputs"]))

    def show(self, x: Data) -> Tensor:
        """The first of two things, or the only one."""
        return tree_leaves(x)[0]

    def show_inputs(self, inputs: Data) -> Tensor:
        return self.show(inputs)

    def columns(self, G: Any, made: Mapping[str, Data]) -> list[Tensor]:
        """Input, output, and the input again by the way back."""
        return [self.show_inputs(made["inputs"]), self.show(made["fake"]), G(made["fake"][::-1])[1]]


class Segment(Translate):
    """From an image to a map of classes: real is int64 [N, H, W], 255 where nothing counts. G gives logits
    [N, classes, H, W], which are aux; D is shown probabilities, and ones and zeros of the map, zeros where nothing
    counts (Luc et al. 2016, arXiv:1611.08408, section 3)."""

    VOID = 255

    def facts(self, known: Mapping[str, Any]) -> dict[str, Any]:
        if not known.get("maps"):
            raise ValueError(
                "task=segment learns from label maps, which the data have not: use data=label_maps data.map_classes=N, "
                "the number of classes"
            )
        return {}

    def check(self, gan: Any) -> None:
        super().check(gan)
        if getattr(gan.G, "tanh", False):
            raise ValueError(
                "task=segment takes what G makes for logits, and generator.tanh=true keeps them in -1 to 1, where "
                "no class is ever sure: set generator.tanh=false terms=[cross_entropy] scores=[segmentation]"
            )

    def play(self, G: nn.Module, batch: Batch) -> tuple[Data, Data]:
        logits = full(output_of(G, batch.inputs, None).fake)
        counts = (batch.real != self.VOID)[:, None]  # [N, 1, H, W]
        ones = one_hot(batch.real * counts[:, 0], logits.shape[1], like=logits).movedim(-1, 1)
        return GeneratorOutput(logits.softmax(1) * counts, logits), ones * counts

    def show(self, x: Data) -> Tensor:
        """Scores [N, classes, H, W] in colours, black where all are 0."""
        colors = torch.stack(
            [0.5 + 0.5 * torch.cos(torch.arange(x.shape[1]) * 2.4 + shift) for shift in (0, 2.1, 4.2)], 1
        )
        return (2 * colors.to(x)[x.argmax(1)].movedim(-1, 1) - 1).where((x != 0).any(1, keepdim=True), -1)


class Restore(Translate):
    """From what a degradation left of an image back to the image: {"real"} of any set.

    degradation   (images, rng) -> what is left of them (`ganlab.degrade`)
    """

    def __init__(self, degradation: nn.Module, conditional: bool = False):
        super().__init__(conditional)
        self.degradation: Any = degradation

    def facts(self, known: Mapping[str, Any]) -> dict[str, Any]:
        if len(known["shape"]) != 3 or known.get("maps"):
            raise ValueError("this task repairs images, which the data are not: use another set")
        inputs = self.degradation.shape(known["shape"])
        if self.conditional and inputs[1:] != list(known["shape"])[1:]:
            raise ValueError(
                "task.conditional=true shows D both images, which have different sizes here: set it to false"
            )
        return {"inputs": inputs}

    def prepare(self, batch: dict[str, Any], rng: SampleRNG) -> Batch:
        inputs = self.degradation(batch["real"], rng)
        return Batch(inputs, batch["real"], inputs if self.conditional else None)

    def play(self, G: nn.Module, batch: Batch) -> tuple[Data, Data]:
        output = output_of(G, batch.inputs, None)
        return replace(output, fake=self.degradation.merged(batch.inputs, output.fake)), batch.real

    def show_inputs(self, inputs: Data) -> Tensor:
        return self.degradation.picture(inputs)
