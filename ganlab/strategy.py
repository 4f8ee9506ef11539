"""Several processes: the gradients of the player that moves are averaged, and no others travel."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import distributed
from torch.distributed import GradBucket
from torch.nn import Parameter


class PlayersDDP(DDPStrategy):
    """DDP that wraps both players, and sends only the gradients of the one that moves. Plain DDP would send zeros for
    the other: twice as much."""

    def __init__(self, **kwargs: Any):
        super().__init__(find_unused_parameters=True, broadcast_buffers=False, **kwargs)
        self.idle: frozenset[Parameter] = frozenset()

    def configure_ddp(self) -> None:
        super().configure_ddp()
        ddp: Any = self.model
        ddp.register_comm_hook(self, average)


def average(strategy: PlayersDDP, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
    """The mean over processes of the part of a bucket that holds gradients of the mover; the rest is left as it is."""
    buffer, parts = bucket.buffer(), zip(bucket.parameters(), bucket.gradients(), strict=True)
    ends = [(g.storage_offset(), g.storage_offset() + g.numel()) for p, g in parts if p not in strategy.idle]
    if not ends:
        done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
        done.set_result(buffer)
        return done
    first = buffer.storage_offset()
    part = buffer[min(start for start, _ in ends) - first : max(stop for _, stop in ends) - first]
    work: Any = distributed.all_reduce(part.div_(distributed.get_world_size()), async_op=True)
    return work.get_future().then(lambda _: buffer)


def averaging(strategy: Any, idle: Iterable[Parameter], last: bool) -> AbstractContextManager[None]:
    """Around a backward pass: gradients are averaged over processes, in the last micro-batch only.

    idle   parameters of the player that does not move
    """
    if isinstance(strategy, PlayersDDP):
        strategy.idle = frozenset(idle)
    return nullcontext() if last or getattr(strategy, "world_size", 1) == 1 else strategy.block_backward_sync()
