"""The numbers of a move that may follow the clock: learning rates, Adam's beta2, weights of what is minimised."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ganlab.recording import after, varying
from ganlab.schedule import Schedule, at


def factors(
    gan: Any, player: str, goals: Mapping[str, Any], losses: Mapping[str, Tensor], share: float
) -> list[float | Tensor]:
    """Of each loss, in a micro-batch that is this share of the batch."""
    number = lambda name, seen: goals[name].factor(player, seen) * share
    return [varying(partial(number, name), gan, loss.dtype) for name, loss in losses.items()]


def set_rates(gan: Any, player: str, optimizer: torch.optim.Optimizer) -> None:
    schedule, exact = gan.lr_schedule[player], torch.float32 if gan.device.type == "cuda" else torch.float64
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
        group["lr"] = varying(rate := partial(scaled, group, schedule), gan, exact)
        if schedule is not None:  # a number again, where a recording made it a tensor
            after(lambda group=group, rate=rate: group.update(lr=rate(gan.seen)))
        if gan.beta2 is not None:
            group["betas"] = (group["betas"][0], gan.beta2(gan.seen))


def scaled(group: Mapping[str, Any], schedule: Schedule | None, seen: int) -> float:
    return group["initial_lr"] * at(schedule or 1.0, seen)
