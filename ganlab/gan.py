"""The two-player game: the one training step that every system in ganlab shares.

::

    for each round (one batch):
        D moves:  minimise  loss.discriminator(phase) + D's terms
        G moves:  minimise  loss.generator(phase) + G's terms        (every n_critic rounds)
        G_ema follows G
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import lightning as L
import torch
from torch import nn

from ganlab.capture import Recorder
from ganlab.checks import check_game
from ganlab.curves import Curves
from ganlab.ema import EMA
from ganlab.gradient import clear, frozen, weighted_sum, without_autocast
from ganlab.losses import Loss
from ganlab.networks import align
from ganlab.phase import Data, Phase, full, mean, micro, output_of, size, take, wrap
from ganlab.rates import factors, set_rates
from ganlab.recording import after, amid, clock
from ganlab.rng import BatchRNG, IndexedRNG, reseed, seed_of
from ganlab.schedule import Schedule, within
from ganlab.strategy import averaging
from ganlab.tasks import Generate, Task
from ganlab.terms import Term
from ganlab.together import Together

MakeOptimizer = Callable[..., torch.optim.Optimizer]  # parameters -> optimizer


class GAN(L.LightningModule):
    """G and D, what they minimise, and whose move it is.

    generator      G(inputs, cond) -> fake, or a GeneratorOutput; without labels G(inputs) is called
    discriminator  D(x, cond) -> logits, or a DiscriminatorOutput; None: a one-player game, played by terms alone
    loss           the adversarial loss, a pair (`ganlab.losses`)
    terms          {name: Term}: everything else that is minimised (`ganlab.terms`)
    optimizer      parameters -> optimizer, or {"G": ..., "D": ...}
    task           what a data batch means; default: `Generate()`, noise to {"real": x}
    augment        {name: (x, rng) -> x}: D sees everything through these, one after the other (`ganlab.augment`)
    ema            how G_ema follows G
    n_critic       D moves every round, G every `n_critic` rounds
    micro_batches  each move is accumulated over this many parts of the batch
    clip_norm      largest gradient norm of a player's move; None: as it is
    share_fake     both players see the same fakes in a round, made once; otherwise each move draws its own
    lr_schedule    factor on the learning rates as a function of `seen`, or {"G": ..., "D": ...}; None: constant
    beta2          of Adam as a function of `seen`; None: as the optimizer has it
    start, stop    {"G": kimg, "D": kimg}: when a player starts and stops moving
    together       D looks at reals and fakes in one forward; None: where that changes nothing but rounding
    seed           of everything that belongs to samples; how networks are initialised is the caller's

    Made for precision 32-true, bf16-mixed and 64-true: bare optimizers are stepped here, without a loss scaler.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module | None = None,
        loss: Loss | None = None,
        terms: Mapping[str, Term] | None = None,
        *,
        optimizer: MakeOptimizer | Mapping[str, MakeOptimizer],
        task: Task | None = None,
        augment: Mapping[str, nn.Module] | None = None,
        ema: EMA | None = None,
        n_critic: int = 1, micro_batches: int = 1, clip_norm: float | None = None, share_fake: bool = False,
        lr_schedule: Schedule | Mapping[str, Schedule | None] | None = None, beta2: Schedule | None = None,
        start: Mapping[str, float] | None = None, stop: Mapping[str, float | None] | None = None,
        together: bool | None = None, seed: int = 0,
    ):  # fmt: skip
        super().__init__()
        self.automatic_optimization = False
        self.players = ("G",) if discriminator is None else ("D", "G")
        self.task: Any = task or Generate()
        self.ema, self.loss, self.augment = ema or EMA(), loss, nn.ModuleDict(augment or {})
        self.G, self.D, self.G_ema = generator, discriminator, self.ema.copy_of(generator)
        self.terms = nn.ModuleDict(terms or {})
        self.optimizer, self.lr_schedule = per_player(optimizer), per_player(lr_schedule)
        self.beta2, self.start, self.stop = beta2, start or {}, stop or {}
        self.every, self.micro_batches, self.clip_norm = {"D": 1, "G": n_critic}, micro_batches, clip_norm
        self.share_fake, self.together, self.seed, self.curves = share_fake, Together(together), seed, Curves()
        self.recorder: Recorder | None = None  # plays rounds from recordings
        self.rounds = self.seen = 0  # rounds played; real samples shown to D over all devices: the one clock
        self.clocked: list[Any] = [part for part in self.modules() if hasattr(part, "set_clock")]
        self.moving = {player: list[nn.Parameter]() for player in "DG"}  # what each player's own moves change
        check_game(self)

    # ------------------------------------------------------------------------------------------------------ the game

    def training_step(self, batches: Any, _: int) -> None:
        """Plays one round per batch; a loader may serve several at once, in a list."""
        for batch in batches if isinstance(batches, (list, tuple)) else [batches]:
            self.round(batch)

    def round(self, batch: Any) -> None:
        samples = size(batch) * self.trainer.world_size
        for part in self.clocked:
            part.set_clock(self.seen)
        (self.moves if self.recorder is None else partial(self.recorder, self))(batch)
        self.rounds, self.seen = self.rounds + 1, self.seen + samples
        if self.rounds % self.every["G"] == 0:
            self.ema.update(self.G_ema, self.G, samples=samples * self.every["G"])

    def moves(self, batch: Any) -> None:
        made: list[Phase] = []  # with share_fake: D's phase, whose fakes G's phase uses
        for player in self.players:
            made = self.move(player, goals, batch, made) if (goals := self.due(player)) else made

    def due(self, player: str) -> dict[str, Any]:
        """What a player minimises in this round; nothing: it does not move."""
        plays = within(self.start.get(player, 0.0), self.stop.get(player), self.seen)
        turn, number = (self.rounds + 1) % self.every[player] == 0, self.number(player)
        goals: dict[str, Any] = {"adversarial": self.loss, **self.terms} if plays and turn else {}
        return {k: goal for k, goal in goals.items() if goal is not None and goal.due(player, number, self.seen)}

    def number(self, player: str) -> int:
        """Moves of a player before this round."""
        return self.rounds // self.every[player]

    def move(self, player: str, goals: Mapping[str, Any], batch: Any, made: list[Phase]) -> list[Phase]:
        """One optimizer step of one player, accumulated over micro-batches."""
        augments = tuple(self.augment.values())
        watching: list[Any] = [part for part in (*goals.values(), *augments) if hasattr(part, "after_move")]
        n, phases = size(batch), []
        amid(lambda: reseed(seed_of(self.seed, "networks", self.global_rank, player, self.number(player)), self.device))
        prepared = made[0].batch if made else self.task.prepare(batch, self.rng("z", player, slice(0, n), n))
        # Lightning's hooks around a backward pass take longer than a small network; several processes need them
        backward = torch.Tensor.backward if self.trainer.world_size == 1 else self.manual_backward
        idle = self.moving["D" if player == "G" else "G"]
        with frozen([] if player == "D" and self.share_fake else idle):
            for rows in micro(n, self.micro_batches):
                phase = Phase(
                    player, prepared if self.micro_batches == 1 else take(prepared, rows), self.G, self.D,
                    self.task.play, augments, self.rng("phase", player, rows, n), clock(self.seen), self.share_fake,
                    self.together, grad_inputs=frozenset().union(*(goal.grad_inputs for goal in goals.values())),
                )  # fmt: skip
                if made:
                    phase.played = made[0].played
                share = (rows.stop - rows.start) / n
                losses = {name: mean(goal(phase)) for name, goal in goals.items()}
                total = weighted_sum(zip(factors(self, player, goals, losses, share), losses.values(), strict=True))
                with averaging(self.trainer.strategy, idle, last=rows.stop == n), without_autocast(self.device.type):
                    backward(total)
                self.curves.watch(phase, losses, share, boundary=getattr(self.loss, "boundary", None))
                phases += [phase] if watching or self.share_fake else []
        self.step(player)
        with torch.no_grad():
            finished = Phase.finished(phases, self.rng("after", player, slice(0, n), n)) if watching else None
            for part in watching:
                part.after_move(finished)
        return phases if self.share_fake else []

    def step(self, player: str) -> None:
        optimizer: Any = self.trainer.optimizers[self.players.index(player)]
        set_rates(self, player, optimizer)
        if self.clip_norm is not None or player in self.curves.pending:
            moving = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            norm = nn.utils.get_total_norm([p.grad for p in moving])
            self.curves.add(f"gradient_norm/{player}", norm)
            if self.clip_norm is not None:
                nn.utils.clip_grads_with_norm_(moving, self.clip_norm, norm)
            after(partial(self.curves.taken, player))
        optimizer.step()
        clear(optimizer)

    def rng(self, purpose: str, player: str, rows: slice, n: int) -> BatchRNG:
        """What `rows` of this process's n samples draw, of the whole run's batch."""
        first, seed = self.global_rank * n, lambda: seed_of(self.seed, purpose, player, self.number(player))
        return BatchRNG(seed, self.trainer.world_size * n, slice(first + rows.start, first + rows.stop), self.device)

    # ----------------------------------------------------------------------------------------------------- its results

    def forward(self, inputs: Data, cond: Data = None) -> Data:
        """G_ema's fakes."""
        return full(output_of(self.G_ema.eval(), inputs, cond).fake)

    @torch.no_grad()
    def generate(self, start: int, n: int, seed: int = 0, cond: Data = None) -> Data:
        """Samples start .. start + n - 1 of G_ema; sample i depends on (seed, i) alone. cond: labels, None to draw."""
        return self(*self.task.draw(IndexedRNG(seed, range(start, start + n), self.device, self.dtype), cond))

    @torch.no_grad()
    def reconstruct(self, batch: Any, start: int = 0, seed: int = 0) -> dict[str, Data]:
        """What G_ema makes of a data batch, for tasks whose G starts from data: samples start, start + 1, ..."""
        drawn = IndexedRNG(seed, range(start, start + size(batch)), self.device, self.dtype)
        fake, real = self.task.play(self.G_ema.eval(), prepared := self.task.prepare(batch, drawn))
        return {"inputs": prepared.inputs, "real": real, "fake": full(wrap(fake).fake), "cond": prepared.cond}

    # ------------------------------------------------------------------------------------------------------- around it

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        optimizers = []
        for player in self.players:
            own = [p for p in getattr(self, player).parameters() if p.requires_grad]
            theirs = [p for t in self.terms.values() if t.player == player for p in t.parameters() if p.requires_grad]
            optimizers.append(self.optimizer[player](list(dict.fromkeys([*own, *theirs]))))
            self.moving[player] = own  # and a term's trainable parts, which nobody freezes
        return optimizers

    def on_train_start(self) -> None:
        align(self.trainer.optimizers)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["clock"] = {"rounds": self.rounds, "seen": self.seen, "curves": self.curves.state()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.rounds, self.seen = checkpoint["clock"]["rounds"], checkpoint["clock"]["seen"]
        self.curves.restore(checkpoint["clock"]["curves"])


def per_player(value: Any) -> dict[str, Any]:
    return {"D": None, "G": None} | dict(value) if isinstance(value, Mapping) else {"D": value, "G": value}
