"""How fast a game is on this machine, and in how much memory: by playing some rounds of it on made samples."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from tqdm import tqdm

from ganlab.report import quiet


class Graph:
    """Counts what autograd keeps for the backward pass: the largest number of bytes at any one time.

    apart   tensors that do not count: parameters are there anyway
    """

    def __init__(self, apart: Iterator[Tensor]):
        self.apart = {p.untyped_storage().data_ptr() for p in apart}
        self.held: Counter[int] = Counter()
        self.now = self.most = 0

    def hooks(self) -> saved_tensors_hooks:
        return saved_tensors_hooks(lambda x: Held(x, self), lambda held: held.tensor)

    def add(self, storage: Any, times: int) -> None:
        where = storage.data_ptr()
        if where in self.apart:
            return
        before, self.held[where] = self.held[where], self.held[where] + times
        if bool(before) != bool(self.held[where]):
            self.now += times * storage.nbytes()
            self.most = max(self.most, self.now)


class Held:
    """A tensor in a graph, until the graph is gone."""

    def __init__(self, tensor: Tensor, graph: Graph):
        self.tensor, self.graph = tensor, graph
        graph.add(tensor.untyped_storage(), 1)

    def __del__(self) -> None:
        self.graph.add(self.tensor.untyped_storage(), -1)


class Watch(L.Callback):
    """Ends after `seconds`, not counting the first cycle, in which memory is looked at.

    cycle   rounds after which both players have moved
    """

    def __init__(self, seconds: float, cycle: int):
        self.limit, self.cycle = seconds, cycle
        self.rounds, self.began, self.seconds = 0, 0.0, 0.0
        self.graph: Graph | None = None
        self.bar = tqdm(
            total=round(seconds, 1), desc="playing", unit="s", leave=False, disable=None, bar_format="{l_bar}{bar}|"
        )

    def on_train_batch_start(self, trainer: Any, gan: Any, *_: Any) -> None:
        if self.graph is None:
            self.graph = Graph(gan.parameters())
            self.hooks = self.graph.hooks()
            self.hooks.__enter__()

    def on_train_batch_end(self, trainer: Any, gan: Any, *_: Any) -> None:
        self.rounds += 1
        if self.rounds % self.cycle:
            return
        if gan.device.type == "cuda":
            torch.cuda.synchronize(gan.device)
        if self.rounds == self.cycle:
            self.hooks.__exit__(None, None, None)
            self.began = time.perf_counter()
            return
        self.seconds = time.perf_counter() - self.began
        self.bar.n = min(round(self.seconds, 1), self.bar.total)
        self.bar.refresh()
        trainer.should_stop = self.seconds >= self.limit

    def on_train_end(self, trainer: Any, gan: Any) -> None:
        self.bar.close()


class Again:
    """The same batch, for ever."""

    def __init__(self, batch: Mapping[str, Tensor]):
        self.batch = batch

    def __len__(self) -> int:
        return 1 << 40

    def __iter__(self) -> Iterator[Mapping[str, Tensor]]:
        while True:
            yield self.batch


def made_batch(facts: Mapping[str, Any], n: int) -> dict[str, Tensor]:
    """Reals of noise, with labels, or partners, where the data have some."""
    generator, classes = torch.Generator().manual_seed(0), facts["classes"]
    image = lambda shape: torch.rand(n, *shape, generator=generator) * 2 - 1
    batch = {name: image(facts[key]) for name, key in (("real", "shape"), ("inputs", "inputs")) if key in facts}
    if facts.get("maps"):
        batch["real"] = batch["real"].argmax(1)
    if classes and facts.get("several"):
        batch["label"] = torch.randint(2, (n, classes), generator=generator).float()
    elif classes:
        batch["label"] = torch.arange(n) % classes
    return batch


def tried(gan: Any, settings: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Plays rounds on one device, from the middle of the budget on: growing networks are half grown there.

    Returns {"device", "rounds" that were timed, "sec_per_kimg", "bytes" of memory: "fixed" (weights, gradients,
    averages of Adam) and "per_sample" (what a sample of the batch adds)}.
    """
    quiet(settings)
    n, cycle = settings["data"]["batch_size"], settings["n_critic"]
    gan.rounds = int(settings["max_kimg"] * 500 / n) // (cycle * 64) * (cycle * 64)  # lazy terms are due there
    gan.seen = gan.rounds * n
    given = {k: v for k, v in settings["trainer"].items() if v is not None} | {"devices": 1, "num_nodes": 1}
    given.pop("timeout")
    watch = Watch(seconds, cycle)
    trainer = L.Trainer(
        **given, max_epochs=-1, callbacks=[watch], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(gan, Again(made_batch(settings["data"], n)))
    assert watch.graph is not None
    bytes_of = lambda net: sum(p.nbytes for p in net.parameters()) if net is not None else 0
    fixed = 4 * (bytes_of(gan.G) + bytes_of(gan.D)) + bytes_of(gan.G_ema)
    kind = trainer.strategy.root_device.type
    threads = torch.get_num_threads()
    device = f"{kind}, {threads} thread{'s' * (threads > 1)}" if kind == "cpu" else kind
    rounds = watch.rounds - cycle
    return {
        "device": device,
        "rounds": rounds,
        "sec_per_kimg": 1000 * watch.seconds / (rounds * n),
        "bytes": {"fixed": fixed, "per_sample": watch.graph.most / n},
    }
