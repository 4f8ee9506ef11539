"""From noise to data."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganlab.media import Medium
from ganlab.phase import Batch, Data, one_hot, output_of
from ganlab.rng import SampleRNG
from ganlab.tasks.task import Task, takes_labels


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
    medium        how samples are kept that are neither pictures nor points; None: there are none
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
        medium: Medium | None = None,
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
        self.z_dim, self.z, self.labels, self.extent, self.medium = z_dim, z, labels, extent, medium
        self.classes = classes if labels is not None else None
        self.several = several and labels is not None
        self.frequencies = list(frequencies) if frequencies is not None and labels == "data" else None

    def facts(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """Nothing to add to what is known of the data.

        Raises:
            ValueError: they are texts
        """
        if "symbols" in known:
            raise ValueError("the data are texts, which this model does not write: use model=mle, gumbel or seqgan")
        return {}

    def check(self, gan: Any) -> None:
        self.z_dim = self.z_dim or getattr(gan.G, "z_dim", None)
        if not self.z_dim:
            raise ValueError("the length of the noise is not known: give Generate(z_dim=...) or let G have a z_dim")
        if (own := getattr(gan.G, "z_dim", self.z_dim)) != self.z_dim:
            raise ValueError(f"task.z_dim={self.z_dim}: G starts from {own} numbers: set task.z_dim=null")
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
        return points_as_picture(x, self.extent) if x.dim() == 2 and self.medium is None else super().show(x)


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
        chosen = [one_hot(rng.integers(n), n, like=z) for n in self.categories]
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


def points_as_picture(x: Tensor, extent: float, resolution: int = 256) -> Tensor:
    """[N, 2] points in the plane -> one picture [1, 1, resolution, resolution] in [-1, 1] of how densely they lie."""
    cell = ((x[:, :2] / extent + 1) / 2 * resolution).floor().long()
    cell = cell[((cell >= 0) & (cell < resolution)).all(1)]
    counts = torch.zeros(resolution, resolution, device=x.device)
    counts.index_put_(
        (resolution - 1 - cell[:, 1], cell[:, 0]), torch.ones(len(cell), device=x.device), accumulate=True
    )
    return 2 * (counts / 3).clamp(max=1)[None, None] - 1
