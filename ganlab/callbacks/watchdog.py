"""Is the run healthy? Looks at its curves and its players, says what is wrong and what to try, and acts.

docs/health.md has what each number is in healthy runs and in failing ones, and where the limits come from.
"""

import difflib
import json
import math
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ganlab.callbacks.clock import Every
from ganlab.callbacks.curves import record, recorded
from ganlab.callbacks.saving import SaveCheckpoint
from ganlab.callbacks.vitals import Vitals, averaged, averaged_by_name, without_trace
from ganlab.checkpoint import finite
from ganlab.files import write_text
from ganlab.schedule import crossed


class Unhealthy(RuntimeError):
    """The run must not go on: a rule says so. Every process raises it at the same round.

    rule   its name
    """

    everywhere = True
    exit_code = 3

    def __init__(self, rule: str, message: str):
        super().__init__(rule, message)
        self.rule, self.message = rule, message

    def __str__(self) -> str:
        return self.message


class RollBack(Unhealthy):
    """The run is to go on from its last checkpoint.

    number   of rollbacks of this run, with this one
    factor   on the learning rates
    said     what was said until now: {rule: kimg}
    """

    def __init__(self, rule: str, message: str, number: int, factor: float, said: Mapping[str, float]):
        super().__init__(rule, message)
        self.args = (rule, message, number, factor, said)
        self.number, self.factor, self.said = number, factor, said


@dataclass(frozen=True)
class Sign:
    """A number that tells of one kind of failure.

    says    what is wrong, in a few words
    hint    what to try
    below   whether it is small numbers that are bad
    """

    says: str
    hint: str
    below: bool = False

    def bad(self, value: float, limit: float) -> bool:
        return value < limit if self.below else value > limit


SIGNS = {
    "nan": Sign(
        "losses, gradient norms or weights are not finite",
        "a lower optimizer.lr, clip_norm=1, trainer.precision=32-true",
    ),
    "gradients": Sign(
        "a gradient norm is {value:.3g} times what it was lately",
        "clip_norm=1, a lower optimizer.lr, or a term that holds D back, as terms=[r1]",
    ),
    "steps": Sign(
        "the weights change by {value:.0%} in a move: the learning rate is too high",
        "a lower optimizer.lr, ten times lower perhaps",
    ),
    "still": Sign(
        "the weights of a player do not move, and the game goes on",
        "optimizer.G.lr and optimizer.D.lr above 0, no networks.D.freeze, stop.D=null",
    ),
    "strong": Sign(
        "D tells reals from fakes without effort, {value:.3g} deviations apart: G learns little from it",
        "a lower optimizer.D.lr, terms=[r1], augment=[diffaugment], or networks.D.dropout=0.3",
    ),
    "weak": Sign(
        "D takes the fakes for more real than the reals, by {value:.3g} deviations: G learns nothing from it",
        "a higher optimizer.D.lr, a larger discriminator.width, n_critic=2, or weaker terms",
        below=True,
    ),
    "overfitting": Sign(
        "D learns its training images by heart: they are {value:.3g} deviations above images that it never saw",
        "augment=[ada], augment=[diffaugment], terms=[r1], terms=[lecam], or more images",
    ),
    "diversity": Sign(
        "G's samples are nearly all the same: they differ {value:.2g} times as much as the reals do",
        "terms=[r1,r2] with loss=relativistic, model=pacgan, a lower optimizer.lr, or another seed",
        below=True,
    ),
    "collapse": Sign(
        "G has lost variety: its samples differ {value:.0%} of what they did",
        "the best checkpoint (checkpoints/best.ckpt), terms=[r1,r2] with loss=relativistic, or a lower optimizer.lr",
        below=True,
    ),
    "duplicates": Sign(
        "{value:.0%} of G's samples have a double",
        "terms=[r1,r2] with loss=relativistic, model=pacgan, a lower optimizer.lr, or another seed",
    ),
    "recall": Sign(
        "G has lost part of what it could make: recall is {value:.0%} of its best",
        "the best checkpoint (checkpoints/best.ckpt), and a lower optimizer.lr or lr_schedule=linear from here on",
        below=True,
    ),
    "copies": Sign(
        "{value:.0%} of G's samples are copies of training images",
        "more images, a smaller generator.width, an earlier end, and python -m ganlab.analyze to look at them",
    ),
    "leak": Sign(
        "augmentations leak into G's samples: they lie {value:.0%} of the way from the reals to augmented reals",
        "augment.ada.target=0.6 in place of a fixed p, augment.ada.p below 0.8, or fewer kinds of change, as "
        "augment.ada.policy=b",
    ),
    "p": Sign(
        "everything is augmented with p={value:.2g}, and from about {limit:.1g} on augmentations may leak into samples",
        "more images, terms=[r1], or fewer kinds of change, as augment.ada.policy=b",
    ),
}
ACTIONS = ("warn", "stop", "rollback")


@dataclass
class Rule:
    """limit     beyond it the number is bad
    patience  looks in a row that it must be bad for, and good for until it may be told of again
    start     kimg before which it does not count
    action    "warn"; "stop" the run, with exit code 3; or "rollback" to the last checkpoint with a lower learning rate
    """

    limit: float
    patience: int = 2
    start: float = 0.0
    action: str = "warn"
    held: int = 0  # looks in a row that were bad; below 0: good
    told: bool = False

    def begins(self, bad: bool) -> bool:
        """Whether an episode begins with this look."""
        self.held = max(self.held, 0) + 1 if bad else min(self.held, 0) - 1
        if self.told and self.held <= -self.patience:
            self.told = False
        begins = not self.told and self.held >= self.patience
        self.told |= begins
        return begins


class Watchdog(Every):
    """Looks at the curves every `every` kimg and at both players' doings every `probe` kimg (`Vitals.measure`), draws
    what it measures, and acts by rules. It must come after the curves.

    every      kimg; best that of the curves
    probe      kimg
    rules      {name: {limit, patience, start, action}} or None for a rule that is off; what each means: SIGNS, Rule
    folder     of the run, for health.jsonl: a line for all that was said
    n          samples to look at, in each process
    rollbacks  how often in a run, at most; then it is stopped
    factor     on the learning rates at a rollback
    """

    entries = {"rules": Rule}  # what entries of an argument are made into, for those who check values

    def __init__(
        self, every: float, rules: Mapping[str, Mapping[str, Any] | None], folder: str, probe: float = 5.0, n: int = 64,
        rollbacks: int = 2, factor: float = 0.5,
    ):  # fmt: skip
        super().__init__(every)
        if probe <= 0 or n < 16:
            raise ValueError(
                f"callbacks.watchdog: probe={probe} must be above 0 (kimg) and n={n} at least 16 (samples)"
            )
        if rollbacks < 0 or not 0 < factor <= 1:
            raise ValueError(f"callbacks.watchdog: rollbacks={rollbacks} must be at least 0, factor={factor} in (0, 1]")
        self.probe, self.n, self.most, self.factor, self.folder = probe, n, rollbacks, factor, Path(folder)
        self.rules = {name: rule_of(name, given) for name, given in rules.items() if given}
        self.rollbacks = 0  # so far
        self.said: dict[str, float] = {}  # rule: kimg at which it first spoke
        self.back: RollBack | None = None  # where the run comes from
        self.norms: dict[str, list[float]] = {}  # the last gradient norms of each player and what it minimised
        self.gaps: list[float] = []  # the last looks at overfitting
        self.top: dict[str, float] = {}  # recall and diversity so far
        self.armed: set[str] = set()  # players whose next move is to be measured
        self.before: dict[str, tuple[int, Tensor]] = {}  # number of moves, and some of the player's weights then
        self.moved: dict[str, Tensor] = {}  # by how much of their length they went on in a move
        self.vitals: Vitals | None = None
        self.looked = 0  # at the last look

    # ------------------------------------------------------------------------------------------------------- Lightning

    def on_train_start(self, trainer: Any, gan: Any) -> None:
        super().on_train_start(trainer, gan)
        self.vitals = Vitals(trainer.datamodule, self.n, trainer.global_rank, trainer.world_size, gan.device)
        path = self.folder / "health.jsonl"
        if self.back is None and trainer.is_global_zero and path.exists():  # nothing of a future that did not happen
            told = [line for line in path.read_text().splitlines() if json.loads(line)["kimg"] <= gan.seen / 1000]
            write_text(path, "".join(f"{line}\n" for line in told))
        if self.back is not None:
            if trainer.is_global_zero:
                rate = f"the learning rates times {self.back.factor:g}"
                where = f"from {gan.seen / 1000:g} kimg" if gan.seen else "from the beginning"
                tqdm.write(f"goes on {where} with {rate} (rollback {self.back.number} of {self.most})", file=sys.stderr)
            self.rollbacks, self.said = self.back.number, dict(self.back.said)
            for group in (group for optimizer in trainer.optimizers for group in optimizer.param_groups):
                group["initial_lr"] = group.get("initial_lr", group["lr"]) * self.back.factor
            self.back = None
            for callback in trainer.callbacks:  # a run that is resumed later keeps the lower rate
                if isinstance(callback, SaveCheckpoint):
                    callback.act(trainer, gan)

    def on_train_batch_start(self, trainer: Any, gan: Any, *_: Any) -> None:
        for player in self.armed:
            self.before[player] = (gan.rounds // gan.every[player], some_of(getattr(gan, player)))
        self.armed = set()

    def on_train_batch_end(self, trainer: Any, gan: Any, *args: Any) -> None:
        for player, (then, before) in list(self.before.items()):
            if moves := gan.rounds // gan.every[player] - then:
                before = before.to(gan.device)
                way = (some_of(getattr(gan, player)) - before).norm() / before.norm().clamp(min=1e-30)
                self.moved[player] = way.float() / moves
                del self.before[player]
        super().on_train_batch_end(trainer, gan, *args)

    def act(self, trainer: Any, gan: Any) -> None:
        values = self.of_curves(trainer, gan)
        if self.moved:
            steps = averaged(torch.stack([self.moved.pop(player).to(gan.device) for player in sorted(self.moved)]))
            values |= {"steps": max(steps), "still": float(min(steps) == 0)}
        due = crossed(self.looked, gan.seen, self.probe)
        if due or self.looked == 0:  # not at the very first moves, which some games begin by clipping the weights
            self.armed = {p for p in gan.players if gan.seen >= 1000 * gan.start.get(p, 0.0)}
        if due:
            values |= self.of_players(trainer, gan)
            values["nan"] += values.pop("broken")
        self.looked = gan.seen
        record(trainer, gan, {f"watchdog/{name}": value for name, value in values.items()})
        begun = [name for name in SIGNS if name in values and self.begins(name, values[name], gan.seen)]
        for name in begun:
            self.tell(name, values[name], trainer, gan)
        for name in begun:
            self.do(name, values[name], gan)

    def state_dict(self) -> dict[str, Any]:
        rules = {name: [rule.held, rule.told] for name, rule in self.rules.items()}
        clock = {"looked": self.looked, "armed": sorted(self.armed), "rollbacks": self.rollbacks, "said": self.said}
        return super().state_dict() | {
            "rules": rules,
            "norms": self.norms,
            "gaps": self.gaps,
            "top": self.top,
            "before": dict(self.before),
            "moved": dict(self.moved),
            **clock,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.norms, self.gaps, self.top = state["norms"], state["gaps"], state["top"]
        self.rollbacks = state["rollbacks"]
        self.before, self.moved = dict(state["before"]), dict(state["moved"])  # a move may be half measured
        self.looked, self.armed, self.said = state["looked"], set(state["armed"]), state["said"]
        for name, rule in self.rules.items():
            rule.held, rule.told = state["rules"].get(name, (0, False))

    # -------------------------------------------------------------------------------------------------------- measures

    def of_curves(self, trainer: Any, gan: Any) -> dict[str, float]:
        """From what callbacks before this one have recorded, which is the same in every process."""
        latest = recorded(trainer, gan)
        scores: dict[str, float] = next((c.history[-1] for c in trainer.callbacks if getattr(c, "history", None)), {})
        watched = [v for k, v in latest.items() if k.startswith(("loss/", "gradient_norm/", "D/"))]
        values = {"nan": float(sum(not math.isfinite(v) for v in watched))}
        growth = []
        for player in gan.players:
            norm = latest.get(f"gradient_norm/{player}", math.nan)
            game = " ".join([player, *sorted(k for k in latest if k.startswith(f"loss/{player}/"))])
            past = self.norms.setdefault(game, [])  # of another game, as before D begins, they tell nothing
            if math.isfinite(norm):
                if len(past) >= 5 and any(past):
                    growth.append(norm / statistics.fmean(past))
                self.norms[game] = [*past, norm][-20:]
        values |= {"gradients": max(growth)} if growth else {}
        for key, value in scores.items():
            if key.startswith("recall") and math.isfinite(value):
                self.top[key] = max(value, self.top.get(key, 0.0))
                values |= {"recall": value / self.top[key]} if self.top[key] > 0.1 else {}
        for key, value in latest.items():
            if key.startswith("augment/") and key.endswith("/p"):
                values["p"] = value
        return values

    def of_players(self, trainer: Any, gan: Any) -> dict[str, float]:
        assert self.vitals is not None
        with without_trace(gan, gan.device), trainer.precision_plugin.forward_context():
            measured = self.vitals.measure(gan, round(gan.seen / 1000 / self.probe))
        measured["broken"] = torch.tensor(0.0 if finite(gan) else 1.0, device=gan.device)
        values = averaged_by_name(measured, gan.device)
        if "overfitting" in values:  # the mean of three looks, at different reals
            self.gaps = [*self.gaps, values.pop("overfitting")][-Vitals.TURNS :]
            values |= {"overfitting": statistics.fmean(self.gaps)} if len(self.gaps) == Vitals.TURNS else {}
        late = gan.seen >= 1000 * self.rules["collapse"].start if "collapse" in self.rules else False
        if "diversity" in values and late:  # what an untrained G makes may be as varied as noise
            self.top["diversity"] = best = max(min(values["diversity"], 1.0), self.top.get("diversity", 0.0))
            values |= {"collapse": values["diversity"] / best} if best > 0.2 else {}
        if "margin" in values:
            values |= {"strong": values["margin"], "weak": values.pop("margin")}
        return values

    # ---------------------------------------------------------------------------------------------------------- action

    def begins(self, name: str, value: float, seen: int) -> bool:
        rule = self.rules.get(name)
        return rule is not None and seen >= 1000 * rule.start and rule.begins(SIGNS[name].bad(value, rule.limit))

    def tell(self, name: str, value: float, trainer: Any, gan: Any) -> None:
        rule, kimg = self.rules[name], gan.seen / 1000
        says = sentence(name, value, rule.limit)
        self.said.setdefault(name, kimg)
        if trainer.is_global_zero:
            tqdm.write(f"warning at {kimg:g} kimg ({name}): {says}", file=sys.stderr)
            told = {
                "kimg": kimg,
                "rule": name,
                "value": value,
                "limit": rule.limit,
                "action": rule.action,
                "says": says,
            }
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(self.folder / "health.jsonl", "a") as file:
                file.write(json.dumps(told) + "\n")

    def do(self, name: str, value: float, gan: Any) -> None:
        """Raises what the rule's action is."""
        rule = self.rules[name]
        what = f"{name} at {gan.seen / 1000:g} kimg: {sentence(name, value, rule.limit)}"
        if rule.action == "rollback" and self.rollbacks < self.most:
            raise RollBack(name, what, self.rollbacks + 1, self.factor, self.said)
        if rule.action == "rollback":
            raise Unhealthy(name, f"{what} (after {self.rollbacks} rollbacks)")
        if rule.action == "stop":
            raise Unhealthy(name, what)


def rule_of(name: str, given: Mapping[str, Any]) -> Rule:
    key = f"callbacks.watchdog.rules.{name}"
    if name not in SIGNS:
        near = difflib.get_close_matches(name, SIGNS, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"{key}: there is no such rule; {hint}Known here: {', '.join(SIGNS)}")
    known = ("limit", "patience", "start", "action")
    for wrong in sorted(set(given) - set(known)):
        raise ValueError(f"{key}.{wrong}: there is no such key; known here: {', '.join(known)}")
    rule = Rule(**given)
    if rule.action not in ACTIONS:
        raise ValueError(f"{key}.action={rule.action}: must be one of {', '.join(ACTIONS)}")
    if rule.limit is None or rule.patience < 1 or rule.start < 0:
        raise ValueError(f"{key}: it needs a limit, a patience of at least 1 (looks) and a start of at least 0 (kimg)")
    return rule


def sentence(name: str, value: float, limit: float) -> str:
    sign = SIGNS[name]
    return f"{sign.says.format(value=value, limit=limit)}. Try {sign.hint}"


def some_of(net: nn.Module) -> Tensor:
    """At most 1,000 weights of each matrix or kernel, in one vector; of a network without any, of whatever it has."""
    parameters = [p for p in net.parameters() if p.dim() > 1] or list(net.parameters())
    return torch.cat([p.detach().flatten()[:1000] for p in parameters])
