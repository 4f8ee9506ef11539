"""Samples in rounds: their order is a pure function of (seed, epoch), whatever the devices, workers and restarts."""

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any, Protocol

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ganlab.data.batches import as_input, cut
from ganlab.data.imbalance import Balanced, imbalanced
from ganlab.data.order import Order
from ganlab.files import Unavailable, offline
from ganlab.rng import seed_of
from ganlab.schedule import samples

GIB = 1 << 30
AHEAD = 4  # rounds that a thread takes at once
Taken = tuple[dict[str, Tensor], Tensor, Tensor]  # samples, whether mirrored, where a window is cut out


class Samples(Protocol):
    """A set of samples, in memory or on disk."""

    @property
    def label(self) -> Tensor | None:
        """int64 [N], where there are labels."""

    def __len__(self) -> int: ...

    def take(self, indices: Tensor) -> dict[str, Tensor]:
        """{"real": uint8 [n, C, H, W] or float, "label": int64 [n] where there are labels}"""

    def fingerprint(self) -> str:
        """16 hex digits that change when any sample does."""


class InMemory:
    """All samples in one tensor."""

    def __init__(self, real: Tensor, label: Tensor | None = None):
        self.real, self.label = real, label

    def __len__(self) -> int:
        return len(self.real)

    def to(self, device: torch.device | str) -> "InMemory":
        return InMemory(self.real.to(device), None if self.label is None else self.label.to(device))

    def take(self, indices: Tensor) -> dict[str, Tensor]:
        rows = lambda x: x.index_select(0, indices.to(x.device))  # on a CPU 20 times as fast as x[indices]
        return {"real": rows(self.real)} | ({} if self.label is None else {"label": rows(self.label)})

    def fingerprint(self) -> str:
        content = hashlib.blake2b(digest_size=8)
        for value in (self.real, self.label):
            if value is not None:
                content.update(repr(tuple(value.shape)).encode())
                content.update(value.contiguous().numpy().data)
        return content.hexdigest()


class DataModule(L.LightningDataModule):
    """A set of samples, served in rounds.

    batch_size   samples per round, over all devices
    rounds       rounds served at once at most
    flip         mirror each sample left to right with probability 1/2
    memory       GiB up to which a set that is in memory is kept on the device
    workers      processes that read samples from disk; 0: a thread of this one
    count        train on so many samples only, a choice that is the same in every run; None: on all. Scores still
                 compare with the whole split
    imbalance    train on so few samples of some classes that the last has this share of the first's, likewise (before
                 `count`); None: on all
    balanced     show each class equally often

    reference    the split that samples made from noise are compared with
    """

    reference = "train"

    def __init__(
        self, batch_size: int, rounds: int, seed: int, flip: bool = False, memory: float = 4.0, workers: int = 0,
        count: int | None = None, imbalance: float | None = None, balanced: bool = False,
    ):  # fmt: skip
        super().__init__()
        for key, value in (("data.batch_size", batch_size), ("speed.rounds", rounds), ("data.count", count)):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{key}={value!r}: must be a whole number of at least 1")
        if imbalance is not None and not 0 < imbalance <= 1:
            raise ValueError(f"data.imbalance={imbalance}: must be above 0 and at most 1, or null")
        self.batch_size, self.rounds, self.seed, self.flip = batch_size, rounds, seed, flip
        self.memory, self.workers, self.count = memory, workers, count
        self.imbalance, self.balanced = imbalance, balanced
        self.events: list[float] = []  # kimg: see Rounds
        self._splits: dict[str, Samples] = {}
        self._fingerprints: dict[str, str] = {}

    @property
    def title(self) -> str:
        """What a protocol calls the set."""
        return type(self).__name__

    @abstractmethod
    def load(self, split: str) -> Samples:
        """A split's samples, "train" or "test", on the CPU."""

    def split(self, name: str) -> Samples:
        """A split's samples, on the CPU, loaded when first asked for."""
        if name not in self._splits:
            self._splits[name] = self.load(name)
        return self._splits[name]

    def fingerprint(self, split: str) -> str:
        """16 hex digits that change when any sample of the split does."""
        if split not in self._fingerprints:
            self._fingerprints[split] = self.split(split).fingerprint()
        return self._fingerprints[split]

    def prepare_data(self) -> None:
        self.split("train")

    def played(self) -> Samples:
        """What is trained on: the split "train", or what `imbalance`, and of that `count`, leave of it."""
        return self._parts()[0]

    def _parts(self) -> tuple[Samples, Samples | None]:
        """(what is trained on, what `count` leaves out)"""
        samples = self.split("train")
        if self.imbalance is not None:
            samples = chosen(samples, imbalanced(self.label_of(samples), self.imbalance))
        if self.count is None or self.count >= len(samples):
            return samples, None
        kept, left = drawn(len(samples), self.count, "count")
        return chosen(samples, kept), chosen(samples, left)

    def held_out(self) -> Samples | None:
        """Samples that training never shows: those that `count` leaves out, or else the split "test" if its files are
        here. None: there are none."""
        left = self._parts()[1]
        try:
            with offline():
                return left or self._splits.get("test") or self.load("test")
        except Exception:  # a set without a test part may say so in any way
            return None

    def unseen(self) -> str:
        """The split by which to judge what G makes of images: "test", or "train" where there is no other."""
        try:
            self.split("test")
        except Unavailable:
            return "train"
        return "test"

    def state_dict(self) -> dict[str, Any]:
        return {"samples": len(self.played())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["samples"] != (now := len(self.played())):
            raise ValueError(
                f"resume: the run was begun with {state['samples']:,} samples, and {self.title} has {now:,} now, which "
                "would be shown in another order. Give the same ones, or begin a new run with finetune="
            )

    def label_of(self, samples: Samples) -> Tensor:
        """[N]

        Raises:
            ValueError: there are none, and `imbalance` or `balanced` ask for them
        """
        if samples.label is None or samples.label.dim() != 1:
            raise ValueError(self.needs_labels())
        return samples.label

    def drawn_by(self, samples: Samples) -> Balanced | None:
        """What an epoch shows; None: each sample once."""
        return Balanced(self.label_of(samples)) if self.balanced else None

    def order(self, samples: Samples, seed: int) -> Order:
        """In which they are shown."""
        return Order(len(samples), self.batch_size, seed, self.flip, self.drawn_by(samples))

    def needs_labels(self) -> str:
        key = "balanced=true" if self.balanced else f"imbalance={self.imbalance}"
        return f"data.{key} needs a set with one label for each sample, and {self.title} has none: remove the key"

    def train_dataloader(self) -> Any:
        return self.served(self.played(), self.seed)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch  # rounds are served on the device

    def served(self, samples: Samples, seed: int, window: Sequence[int] | None = None) -> "Rounds":
        """Rounds of these samples to this process, from where the run is."""
        trainer: Any = self.trainer
        device, order = trainer.strategy.root_device, self.order(samples, seed)
        if isinstance(samples, InMemory) and samples.real.nbytes <= self.memory * GIB:
            samples = samples.to(device)
        return Rounds(
            samples, order, window=window, device=device, rank=trainer.global_rank, world=trainer.world_size,
            workers=self.workers, start=getattr(trainer.lightning_module, "rounds", 0), at_once=self.rounds,
            events=self.events,
        )  # fmt: skip


class Chosen:
    """Some of the samples of a set."""

    def __init__(self, samples: Samples, rows: Tensor):
        self.samples, self.rows = samples, rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def label(self) -> Tensor | None:
        return None if self.samples.label is None else self.samples.label[self.rows]

    @property
    def announce(self) -> Any:  # where the set has it
        announce: Any = self.samples.announce  # type: ignore[attr-defined]
        return lambda indices: announce(self.rows[indices])

    def take(self, indices: Tensor) -> dict[str, Tensor]:
        return self.samples.take(self.rows[indices])

    def fingerprint(self) -> str:
        return hashlib.blake2b(
            self.samples.fingerprint().encode() + self.rows.numpy().tobytes(), digest_size=8
        ).hexdigest()


def chosen(samples: Samples, rows: Tensor) -> Samples:
    """These rows of a set."""
    if hasattr(samples, "subset"):
        return samples.subset(rows)
    if isinstance(samples, InMemory):
        taken = samples.take(rows)
        return InMemory(taken["real"], taken.get("label"))
    return Chosen(samples, rows)


def drawn(total: int, count: int, purpose: str) -> tuple[Tensor, Tensor]:
    """(`count` of `total` rows, the others): a choice that is the same in every run, in order."""
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed_of(purpose)))
    return order[:count].sort().values, order[count:].sort().values


class Rounds:
    """Serves rounds, up to `at_once` in a list, cut where the clock passes an event.

    samples    the set; in memory it is on the device already
    start      number of the first round
    events     kimg periods after which somebody wants to act: no list goes past a multiple of one
    rank, world   this process serves its rows of each batch of `order`
    window     (height, width) that is cut out of each sample at random; None: all of it
    """

    def __init__(
        self,
        samples: Samples,
        order: Order,
        *,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
        start: int = 0,
        at_once: int = 1,
        events: Sequence[float] = (),
        workers: int = 0,
        window: Sequence[int] | None = None,
    ):
        self.samples, self.order, self.device, self.start, self.window = samples, order, device, start, window
        self.at_once, self.events, self.workers, self.pin = at_once, events, workers, device.type == "cuda"
        share = order.batch_size // world
        self.rows = slice(rank * share, (rank + 1) * share)

    def __len__(self) -> int:
        return 1 << 40  # the run's budget ends it; a length keeps Lightning from reading one ahead

    def __iter__(self) -> Iterator[list[dict[str, Tensor]]]:
        number, served = self.start, self._served()
        while True:
            n = self.until_event(number)
            yield [next(served) for _ in range(n)]
            number += n

    def until_event(self, number: int) -> int:
        """How many rounds from `number` on go into one list."""
        size, seen = self.order.batch_size, number * self.order.batch_size
        left = [(samples(every) - seen % samples(every) + size - 1) // size for every in self.events]
        return min([self.at_once, *left])

    def _served(self) -> Iterator[dict[str, Tensor]]:
        for batch, mirrored, corner in self._taken():
            batch = {k: v.to(self.device, non_blocking=True) for k, v in batch.items()}
            if self.window is not None:
                batch["real"] = cut(batch["real"], corner, self.window)
            yield as_input(batch, mirrored)

    def _taken(self) -> Iterator[Taken]:
        if isinstance(self.samples, InMemory) and self.samples.real.device.type == self.device.type:
            yield from map(self._take, count(self.start))
        elif not self.workers and self.device.type == "cpu" and hasattr(self.samples, "announce"):
            yield from self._announced()
        elif not self.workers or getattr(self.samples, "in_memory", False):
            yield from self._taken_ahead()
        else:
            loader = DataLoader(
                _Taking(self.samples), sampler=_Indices(self.order, self.rows, self.start), batch_size=None,
                num_workers=self.workers, pin_memory=self.pin, prefetch_factor=4, persistent_workers=True,
            )  # fmt: skip
            for number, batch in enumerate(loader, self.start):
                if isinstance(batch, str):
                    raise Unavailable(batch)
                yield batch, *self.order.round(number, self.rows)[1:]

    def _take(self, number: int) -> Taken:
        indices, mirrored, corner = self.order.round(number, self.rows)
        return shown(self.samples, indices, corner), mirrored, corner

    def _announced(self) -> Iterator[Taken]:
        """What the disk was told of long before; a thread of its own would take the cores from networks."""
        announce: Any = lambda number: self.samples.announce(self.order.round(number, self.rows)[0])  # type: ignore[attr-defined]
        for number in range(self.start, self.start + AHEAD):
            announce(number)
        for number in count(self.start):
            announce(number + AHEAD)
            yield self._take(number)

    def _taken_ahead(self) -> Iterator[Taken]:
        """By a thread, which waits for the disk while networks are trained."""

        def some(first: int) -> list[Taken]:
            taken = [self._take(number) for number in range(first, first + AHEAD)]
            pinned = lambda batch: {k: v.pin_memory() for k, v in batch.items()} if self.pin else batch
            return [(pinned(batch), mirrored, corner) for batch, mirrored, corner in taken]

        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(some, self.start)
            for first in count(self.start + AHEAD, AHEAD):
                now, coming = coming.result(), pool.submit(some, first)
                yield from now


def shown(samples: Any, indices: Tensor, corner: Tensor) -> dict[str, Tensor]:
    """Of images of any size, each round has its own part."""
    return samples.windows(indices, corner) if hasattr(samples, "windows") else samples.take(indices)


class _Indices:
    def __init__(self, order: Order, rows: slice, start: int):
        self.order, self.rows, self.start = order, rows, start

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for number in count(self.start):
            indices, _, corner = self.order.round(number, self.rows)
            yield indices, corner


class _Taking(Dataset):
    """A set of samples as DataLoader workers want it: one index is a whole batch. That a file can't be read is handed
    on as text: an error would come out of a worker wrapped in its traceback."""

    def __init__(self, samples: Samples):
        self.samples = samples

    def __getitem__(self, asked: Any) -> dict[str, Tensor] | str:
        indices, corner = asked
        try:
            return shown(self.samples, indices, corner)
        except Unavailable as error:
            return str(error)


class Zipped:
    """Several sets served side by side: {name: what that set's rounds hold as "real"}."""

    def __init__(self, parts: Mapping[str, Rounds]):
        self.parts = parts

    def __len__(self) -> int:
        return 1 << 40

    def __iter__(self) -> Iterator[list[dict[str, Tensor]]]:
        for lists in zip(*self.parts.values(), strict=True):
            yield [
                {name: batch["real"] for name, batch in zip(self.parts, batches, strict=True)}
                for batches in zip(*lists, strict=True)
            ]
