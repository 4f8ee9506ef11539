"""Tasks: what the data serves becomes what the game is played with."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ganlab.phase import Batch, Data, GeneratorOutput, full, output_of
from ganlab.rng import SampleRNG


class Task(nn.Module, ABC):
    """Knows the keys of a data batch. A task with state (a pool of past fakes) keeps it in buffers."""

    @abstractmethod
    def prepare(self, batch: dict[str, Any], rng: SampleRNG) -> Batch:
        """Makes the game's batch; touches no network."""

    def play(self, G: nn.Module, batch: Batch) -> tuple[Data, Data]:
        """(fake, real) as D will see them; `fake` may be a GeneratorOutput."""
        return output_of(G, batch.inputs, batch.cond), batch.real

    def show(self, x: Data) -> Tensor:
        """x as pictures [N, C, H, W] in [-1, 1]."""
        return x


class Generate(Task):
    """From noise to data.

    z_dim         length of the noise; None: G's own `z_dim`
    z             "normal", or "uniform" in [-1, 1]
    labels        both players are told the label. Of the fakes it is: "data", those of the batch's reals; "uniform",
                  drawn on their own. None: no labels are told, even where the data has them
    classes       number of labels
    frequencies   how often each label occurs, for samples made without data; None: equally often
    several       a label is a vector of attributes [N, classes], 0 or 1, of which a sample may have several;
                  `frequencies` then is how often each is 1, on its own
    extent        half the width of the picture that `show` draws of points in the plane
    """

    def __init__(
        self,
        z_dim: int | None = None,
        z: Literal["normal", "uniform"] = "normal",
        labels: Literal["data", "uniform"] | None = None,
        classes: int | None = None,
        frequencies: Sequence[float] | None = None,
        several: bool = False,
        extent: float = 1.5,
    ):
        super().__init__()
        if z not in ("normal", "uniform"):
            raise ValueError(f"task.z={z!r}: must be normal or uniform")
        if labels not in (None, "data", "uniform"):
            raise ValueError(f"task.labels={labels!r}: must be data, uniform or null")
        if labels is not None and not classes:
            raise ValueError(
                f"task.labels={labels}: this model is told labels, and the data has none: use another model"
            )
        self.z_dim, self.z, self.labels, self.extent = z_dim, z, labels, extent
        self.classes = classes if labels is not None else None
        self.several = several and labels is not None
        self.frequencies = list(frequencies) if frequencies is not None and labels == "data" else None

    def check(self, gan: Any) -> None:
        self.z_dim = self.z_dim or getattr(gan.G, "z_dim", None)
        if not self.z_dim:
            raise ValueError("the length of the noise is not known: give Generate(z_dim=...) or let G have a z_dim")
        for key, net in (("generator", gan.G), ("discriminator", getattr(gan, "D", None))):
            if net is not None and self.classes and not takes_labels(net):
                raise ValueError(
                    f"task.labels={self.labels}: {type(net).__name__}.forward takes no label: set task.labels=null"
                )
            wants = getattr(net, "classes", self.classes)
            if (wants or None) != self.classes:
                raise ValueError(
                    f"{key}.classes={wants} and task.labels={self.labels}, of {self.classes or 'no'} labels: both "
                    "players are told the same labels (generator.classes, discriminator.classes and task.labels=data "
                    "or uniform), or none"
                )

    def noise(self, rng: SampleRNG) -> Tensor:
        assert self.z_dim is not None
        return rng.normal(self.z_dim) if self.z == "normal" else 2 * rng.uniform(self.z_dim) - 1

    def prepare(self, batch: dict[str, Any], rng: SampleRNG) -> Batch:
        z, real = self.noise(rng), batch["real"]
        if self.classes is None:
            return Batch(z, real)
        if self.labels == "data":
            return Batch(z, real, batch["label"])
        return Batch(z, real, self.drawn_label(rng), batch["label"])

    def draw(self, rng: SampleRNG, cond: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(inputs, cond) for making samples without data."""
        z = self.noise(rng)
        return z, self.drawn_label(rng) if cond is None and self.classes is not None else cond

    def drawn_label(self, rng: SampleRNG) -> Tensor:
        assert self.classes is not None
        if self.several:
            u = rng.uniform(self.classes)
            return (u < torch.tensor(self.frequencies or [0.5] * self.classes).to(u)).to(u)
        return rng.choice(self.frequencies) if self.frequencies else rng.integers(self.classes)

    def show(self, x: Tensor) -> Tensor:
        return points_as_picture(x, self.extent) if x.dim() == 2 else x


class Autoencode(Generate):
    """From data to themselves, for a G that also makes samples from noise."""

    def __init__(self, z_dim: int | None = None):
        super().__init__(z_dim)

    def prepare(self, batch: dict[str, Any], rng: SampleRNG) -> Batch:
        return Batch(batch["real"], batch["real"])


class Bidirectional(Generate):
    """From noise to data, and by G's `encode` from data to codes: D sees pairs (data, code)."""

    def __init__(self, z_dim: int | None = None, z: Literal["normal", "uniform"] = "uniform"):
        super().__init__(z_dim, z)

    def check(self, gan: Any) -> None:
        super().check(gan)
        if not hasattr(gan.G, "encode"):
            raise ValueError(f"{type(gan.G).__name__} has no encode, which task=bidirectional needs: use model=bigan")

    def play(self, G: nn.Module, batch: Batch) -> tuple[Data, Data]:
        return (G(batch.inputs), batch.inputs), (batch.real, G.encode(batch.real))  # type: ignore[operator]


def takes_labels(net: nn.Module) -> bool:
    kinds = [p.kind for p in inspect.signature(net.forward).parameters.values()]
    return inspect.Parameter.VAR_POSITIONAL in kinds or len(kinds) > 1


def points_as_picture(x: Tensor, extent: float, resolution: int = 256) -> Tensor:
    """[N, 2] points in the plane -> one picture [1, 1, resolution, resolution] in [-1, 1] of how densely they lie."""
    cell = ((x[:, :2] / extent + 1) / 2 * resolution).floor().long()
    cell = cell[((cell >= 0) & (cell < resolution)).all(1)]
    counts = torch.zeros(resolution, resolution, device=x.device)
    counts.index_put_(
        (resolution - 1 - cell[:, 1], cell[:, 0]), torch.ones(len(cell), device=x.device), accumulate=True
    )
    return 2 * (counts / 3).clamp(max=1)[None, None] - 1


class Codes(Generate):
    """From noise and codes, which D is to read off the fakes (`ganlab.terms.information`). G's input [N, z_dim] is
    noise, then for each categorical code its one-hot vector, then the continuous codes, uniform in [-1, 1].

    z_dim        length of it all; None: G's own `z_dim`
    z            the noise: "normal", or "uniform" in [-1, 1]
    categories   number of values of each categorical code
    continuous   number of continuous codes
    """

    def __init__(
        self,
        z_dim: int | None = None,
        z: Literal["normal", "uniform"] = "uniform",
        categories: Sequence[int] = (10,),
        continuous: int = 2,
    ):
        super().__init__(z_dim, z)
        self.categories, self.continuous = list(categories), continuous
        if not self.codes or continuous < 0 or min(self.categories, default=2) < 2:
            raise ValueError(
                f"task.categories={self.categories}, task.continuous={continuous}: there must be a code, and each "
                "category at least 2 values"
            )

    @property
    def codes(self) -> int:
        """Length of all codes together."""
        return sum(self.categories) + self.continuous

    def check(self, gan: Any) -> None:
        super().check(gan)
        if self.z_dim < self.codes:  # type: ignore[operator]
            raise ValueError(f"z_dim={self.z_dim} is all that G starts from, and the codes take {self.codes} of it")

    def noise(self, rng: SampleRNG) -> Tensor:
        z = super().noise(rng)
        chosen = [F.one_hot(rng.integers(n), n).to(z) for n in self.categories]
        continuous = 2 * rng.uniform(self.continuous) - 1
        return torch.cat([z[:, : z.shape[1] - self.codes], *chosen, continuous.to(z)], 1)


class Progressive(Generate):
    """From noise to data, with a G that grows: the reals have as much detail as G's fakes have by then."""

    def check(self, gan: Any) -> None:
        super().check(gan)
        if not hasattr(gan.G, "faded"):
            raise ValueError(f"{type(gan.G).__name__} does not grow, as task=progressive needs it: use model=progan")
        G, D = (
            [getattr(net, k, None) for k in ("stage_kimg", "fade_kimg")] for net in (gan.G, getattr(gan, "D", gan.G))
        )
        if G != D:
            raise ValueError(f"generator and discriminator grow together: stage_kimg and fade_kimg are {G} and {D}")

    def play(self, G: nn.Module, batch: Batch) -> tuple[Data, Data]:
        return output_of(G, batch.inputs, batch.cond), G.faded(batch.real)  # type: ignore[operator]


class MultiScale(Generate):
    """From noise to data at several scales: D sees (largest, ..., smallest), of the fakes as G makes them, with the
    smaller ones as its aux; of the reals by averaging pixels."""

    def check(self, gan: Any) -> None:
        super().check(gan)
        if not hasattr(gan.G, "scales"):
            raise ValueError(f"{type(gan.G).__name__} makes images of one size: task=multiscale needs model=msggan")

    def play(self, G: nn.Module, batch: Batch) -> tuple[Data, Data]:
        output = output_of(G, batch.inputs, batch.cond)
        smaller = [F.avg_pool2d(batch.real, batch.real.shape[-1] // x.shape[-1]) for x in output.aux]
        return (output.fake, *output.aux), (batch.real, *smaller)


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
            raise ValueError("task=segment learns from label maps, which the data have not: use data=label_maps")
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
        ones = F.one_hot(batch.real * counts[:, 0], logits.shape[1]).movedim(-1, 1).to(logits)
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
