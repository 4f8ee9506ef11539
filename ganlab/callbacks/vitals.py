"""What a look at a run measures: numbers that tell a healthy game from a failing one, whatever its loss.

Most need a few samples to be made and judged. That leaves no trace: the run goes on bit for bit as without it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ganlab.metrics.fit import as_batch
from ganlab.phase import Data, Phase, output_of, size, wrap
from ganlab.rng import BatchRNG, reseed, seed_of

SIDE = 8  # pixels: images are compared at this resolution, where noise does not count
LEAST = 16  # samples that a measure needs


class Vitals:
    """A fixed choice of reals: a few times `n` that are trained on and as many that are not, where there are any. Each
    process has its own, and looks at them in turn.

    data   a DataModule: what it has of `played` and `held_out` is used
    """

    TURNS = 3

    def __init__(self, data: Any, n: int, rank: int, world: int, device: torch.device):
        self.rank, self.world, self.device = rank, world, device
        trained = data.played() if hasattr(data, "played") else None
        held_out = data.held_out() if hasattr(data, "held_out") else None
        there = [len(samples) // world for samples in (trained, held_out) if samples is not None]
        n = min([n, *(count for count in there if count >= LEAST)]) // LEAST * LEAST  # of both alike
        self.trained, self.held_out = (self.share(samples, n) for samples in (trained, held_out))
        real = getattr(trained, "real", None)
        self.all = real if real is not None and len(real) <= 50_000 else None  # in memory, and few
        self.known: Tensor | None = None  # the same, coarse, when it is first needed
        self.chance: Any = None  # the share of copies among held-out reals

    def share(self, samples: Any, n: int) -> list[dict[str, Tensor]]:
        """At most TURNS batches of n samples."""
        turns = min(self.TURNS, len(samples) // self.world // n) if samples is not None else 0
        if not turns:
            return []
        order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed_of("vitals")))
        rows = order[self.rank * n * turns :][: n * turns].view(turns, n)
        return [{k: v.to(self.device) for k, v in samples.take(row).items()} for row in rows]

    @torch.no_grad()
    def measure(self, gan: Any, turn: int = 0) -> dict[str, Tensor]:
        """{name: number} of this process, for what applies to this game.

        turn         which of the reals to look at

        margin       how many standard deviations D's logits on the reals lie above those on the fakes
        overfitting  the same, of the reals that D is trained on above others
        diversity    mean distance between two fakes over that between two reals
        duplicates   share of fakes that have a double: the nearest other one is ten times as near as among the reals,
                     both measured by the mean distance on their side
        copies       share of fakes that are a training image, beyond the share of held-out reals that are: nearer than
                     a third of the way to the second nearest (Yoon et al. 2023, "Diffusion probabilistic models
                     generalize when they fail to memorize")
        leak         how far along the way from the reals to augmented reals the fakes lie, in mean and deviation
        """
        if not self.trained:
            return {}
        trained = self.trained[turn % len(self.trained)]
        n, values = size(trained), {}
        rng = lambda: BatchRNG(
            seed_of("vitals"), self.world * n, slice(self.rank * n, (self.rank + 1) * n), self.device
        )
        batch = gan.task.prepare(as_batch(trained, self.device), rng())
        phase = Phase("D", batch, gan.G, gan.D, gan.task.play, (), rng=rng(), seen=gan.seen)
        if gan.D is not None and not getattr(gan.D, "is_autoencoder", False):  # whose logits are errors
            real, fake = opinion(phase.on_real.logits), opinion(phase.on_fake.logits)
            values["margin"] = above(real, fake)
            if self.held_out:
                batch = gan.task.prepare(as_batch(self.held_out[turn % len(self.held_out)], self.device), rng())
                other = phase.again(inputs=batch.inputs, real=batch.real, cond=batch.cond, real_cond=batch.real_cond)
                values["overfitting"] = above(real, opinion(other.on_real.logits))
        shown = phase.fake if gan.D is not None or not hasattr(gan.task, "draw") else drawn(gan, rng())
        real, fake = coarse(phase.real), coarse(shown)
        if real.shape[1:] == fake.shape[1:]:
            values |= self.compared(real, fake)
            if len(gan.augment) and gan.D is not None:
                seen = phase.real
                for augment in gan.augment.values():
                    seen = augment(seen, phase.rng)
                values |= leak(real, fake, coarse(seen))
        return {name: value.float() for name, value in values.items()}

    def compared(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        apart, among = torch.cdist(fake, fake), torch.cdist(real, real)  # [n, n]
        nearest = lambda d: d.clone().fill_diagonal_(torch.inf).amin(1) / d.mean().clamp(min=1e-30)
        values = {"diversity": apart.mean() / among.mean().clamp(min=1e-30)}
        values["duplicates"] = (nearest(apart) <= nearest(among).median() / 10).float().mean()
        if self.all is not None and self.held_out and fake.shape[1] >= LEAST:  # few numbers tell nothing
            if self.known is None:
                parts = [as_batch({"real": x}, self.device)["real"] for x in self.all.split(4096)]
                self.known = torch.cat([coarse(part) for part in parts])
                others = torch.cat([coarse(as_batch(batch, self.device)["real"]) for batch in self.held_out])
                self.chance = copies(others, self.known)
            if self.known.shape[1] == fake.shape[1]:  # the game is played with the data as they are
                values["copies"] = copies(fake, self.known) - self.chance
        return values


def drawn(gan: Any, rng: BatchRNG) -> Data:
    """What G makes of noise."""
    return wrap(output_of(gan.G, *gan.task.draw(rng))).fake


def opinion(logits: Data) -> Tensor:
    """[N]: the mean over a sample's logits."""
    return torch.stack([x.reshape(len(x), -1).mean(1) for x in tree_leaves(logits)]).mean(0)


def above(a: Tensor, b: Tensor) -> Tensor:
    """Difference of means over the common standard deviation, whatever the scale of the logits."""
    return (a.mean() - b.mean()) / ((a.var() + b.var()) / 2).sqrt().clamp(min=1e-12)


def coarse(x: Data) -> Tensor:
    """[N, d]: what D sees, or the first of it, images and clips at no more than 8 pixels a side."""
    x = tree_leaves(x)[0]
    if x.dim() >= 4:
        pool: Any = F.adaptive_avg_pool2d if x.dim() == 4 else F.adaptive_avg_pool3d
        x = pool(x, [min(SIDE, side) for side in x.shape[2:]])
    return x.flatten(1).float()


def copies(x: Tensor, known: Tensor) -> Tensor:
    """Share of x [n, d] at most a third as far from the nearest of `known` [m, d] as from the second nearest."""
    first, second = torch.cdist(x, known).topk(2, largest=False).values.unbind(1)
    return (first < second / 3).float().mean()


def leak(real: Tensor, fake: Tensor, augmented: Tensor) -> dict[str, Tensor]:
    """Where the fakes [n, d] lie on the way from the reals to the augmented reals, if that is longer than chance."""
    start, end = statistics(real), statistics(augmented)
    chance = 2 * real.var(0).sum() / len(real)
    if (end - start).square().sum() < 4 * chance:
        return {}
    return {"leak": along(statistics(fake), start, end)}


def statistics(x: Tensor) -> Tensor:
    """[2 d] mean and deviation of each coordinate."""
    return torch.cat([x.mean(0), x.std(0)])


def along(x: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """0 at the start, 1 at the end: where x lies on the line."""
    way = end - start
    return (x - start) @ way / way.square().sum().clamp(min=1e-12)


@contextmanager
def without_trace(gan: Any, device: torch.device) -> Iterator[None]:
    """Afterwards the buffers of both players and of the task, and torch's random numbers, are as they were."""
    owners = [m for net in (gan.G, gan.D, gan.task) if net is not None for m in net.modules()]
    kept = [(m, name, b, b.clone()) for m in owners for name, b in m.named_buffers(recurse=False)]
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        reseed(seed_of("vitals"), device)
        try:
            yield
        finally:
            with torch.no_grad():
                for module, name, buffer, value in kept:
                    module._buffers[name] = buffer.copy_(value)


MEASURES = ("margin", "overfitting", "diversity", "duplicates", "copies", "leak", "broken")


def averaged_by_name(measured: Mapping[str, Tensor], device: torch.device) -> dict[str, float]:
    """Over the processes that measured each: what does not apply to the samples of one may apply to another's."""
    there = torch.tensor([float(name in measured) for name in MEASURES], device=device)
    values = torch.stack([measured.get(name, there[0] * 0).float() for name in MEASURES])
    means = averaged(torch.cat([values, there]))
    pairs = zip(MEASURES, means[: len(MEASURES)], means[len(MEASURES) :], strict=True)
    return {name: value / share for name, value, share in pairs if share > 0}


def averaged(values: Tensor) -> list[float]:
    """Over all processes, so that all decide alike."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(values)
        values /= torch.distributed.get_world_size()
    return values.tolist()
