"""What can't work is refused before anything is trained: each message names the key, what was given and the fix."""

import difflib
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any


def check_game(gan: Any) -> None:
    """Checks a GAN's arguments; every part of it may add its own `check(gan)`, which raises ValueError.

    Raises:
        ValueError: what is wrong, and what to do
    """
    for key, value in (("n_critic", gan.every["G"]), ("micro_batches", gan.micro_batches)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{key}={value!r}: must be a whole number of at least 1")
    if gan.clip_norm is not None and gan.clip_norm <= 0:
        raise ValueError(f"clip_norm={gan.clip_norm!r}: must be above 0")
    for key in ("lr_schedule", "start", "stop"):
        if not set(getattr(gan, key)) <= {"D", "G"}:
            raise ValueError(f"{key}={getattr(gan, key)}: has entries for D and G only")
    if gan.share_fake and gan.micro_batches > 1:
        raise ValueError(
            "share_fake=true keeps one graph of the fakes for both players, which can't be split into "
            f"micro_batches={gan.micro_batches}: set share_fake=false"
        )
    for name, term in gan.terms.items():
        if name == "adversarial":
            raise ValueError("terms.adversarial: that name is the loss's; call the term something else")
        if term.player not in gan.players:
            raise ValueError(f"terms.{name} is D's and there is no discriminator: remove it (~terms.{name})")
    for player in gan.players:
        if gan.optimizer.get(player) is None:
            raise ValueError(f"optimizer has no entry for {player}: give one for both players, or one each for G and D")
        if gan.loss is None and all(term.player != player for term in gan.terms.values()):
            raise ValueError(f"{player} has nothing to minimise: give a loss, or a term with player={player}")
    for part in (gan.task, gan.loss, *gan.terms.values(), *gan.augment.values()):
        if hasattr(part, "check"):
            part.check(gan)


# what Lightning's Trainer takes, and what is its place here
REFUSED = {
    "max_steps": "max_kimg, or g_steps for G's moves (Lightning would count the optimizer steps of both players)",
    "min_steps": "max_kimg",
    "max_epochs": "max_kimg (thousands of samples)",
    "min_epochs": "max_kimg",
    "limit_train_batches": "max_kimg",
    "overfit_batches": "a smaller set",
    "accumulate_grad_batches": "micro_batches (Lightning can't accumulate for two players)",
    "gradient_clip_val": "clip_norm (Lightning can't clip for two players)",
    "gradient_clip_algorithm": "clip_norm",
    "log_every_n_steps": "log_every (kimg)",
    "val_check_interval": "metrics.every (kimg)",
    "check_val_every_n_epoch": "metrics.every (kimg)",
    "limit_val_batches": "metrics.enabled",
    "num_sanity_val_steps": "metrics.every (kimg)",
    "fast_dev_run": "a small max_kimg",
    "callbacks": "the group callbacks",
    "logger": "the group logger",
    "default_root_dir": "hydra.run.dir",
    "enable_checkpointing": "callbacks.checkpoint",
    "enable_progress_bar": "callbacks.progress",
    "enable_model_summary": "nothing",
    "use_distributed_sampler": "nothing: samples are shared out by ganlab",
    "reload_dataloaders_every_n_epochs": "nothing",
    "plugins": "trainer.precision",
}
PRECISIONS = ("32-true", "bf16-mixed", "64-true")
STRATEGIES = ("auto", "ddp_find_unused_parameters_true")


def check_keys(settings: Mapping[str, Any], known: Mapping[str, Collection[str]], locate: Callable[[str], Any]) -> None:
    """Refuses keys that nothing would read.

    known    {"": top-level keys, group: keys of a group without a target}
    locate   a target's name -> what it names

    Raises:
        ValueError: names the key and the nearest known one
    """
    refuse_unknown("", settings, known[""])
    for group, node in settings.items():
        if group in known and isinstance(node, Mapping):
            refuse_unknown(group, node, known[group])
        check_targets(group, node, locate)


def check_targets(path: str, node: Any, locate: Callable[[str], Any]) -> None:
    """The same for arguments of whatever has a `_target_`, at any depth."""
    if isinstance(node, (list, tuple)):
        for i, child in enumerate(node):
            check_targets(f"{path}.{i}", child, locate)
    if not isinstance(node, Mapping):
        return
    if "_target_" in node:
        try:
            allowed = arguments_of(locate(node["_target_"]))
        except Exception as error:
            raise ValueError(
                f"{path}._target_={str(node['_target_'])[:200]} can't be found: {str(error)[:300]}"
            ) from None
        if allowed is not None:
            refuse_unknown(path, node, {*allowed, "_target_", "_partial_", "_args_", "_convert_", "_recursive_"})
    for key, child in node.items():
        entries = path in ("callbacks", "logger", "terms", "augment", "scores")
        if entries and isinstance(child, Mapping) and "_target_" not in child:
            raise ValueError(f"{path}.{key}: there is no such entry here, and a new one needs a _target_")
        check_targets(f"{path}.{key}", child, locate)


def arguments_of(target: Any) -> set[str] | None:
    """Names of all keyword arguments, those that a class hands to its bases included; None: anything goes."""
    names: set[str] = set()
    steps = (
        [vars(c)["__init__"] for c in target.__mro__ if "__init__" in vars(c)] if inspect.isclass(target) else [target]
    )
    for step in steps:
        parameters = inspect.signature(step).parameters.values()
        names |= {
            p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "self"
        }
        if not any(p.kind == p.VAR_KEYWORD for p in parameters):
            return names
    return None


def refuse_unknown(path: str, given: Iterable[str], known: Collection[str]) -> None:
    for key in given:
        if key not in known:
            full = f"{path}.{key}" if path else key
            lower = {k.lower(): k for k in known}
            near = difflib.get_close_matches(str(key).lower(), lower, 1)
            hint = f"did you mean {path + '.' if path else ''}{lower[near[0]]}? " if near else ""
            shown = ", ".join(sorted(k for k in known if not k.startswith("_")))
            raise ValueError(f"{full}: there is no such key; {hint}Known here: {shown}")


def check_run(settings: Mapping[str, Any], processes: int, gpus: int, world: int | None) -> None:
    """Refuses what a GAN can't be trained with, and splits of the batch that are not even.

    processes   on this machine
    gpus        of this machine, 0 if they are not to be used
    world       how many processes a launcher started; None: there is none

    Raises:
        ValueError: names the key and what to use instead
    """
    trainer = settings["trainer"]
    for key, instead in REFUSED.items():
        if trainer.get(key) is not None:
            raise ValueError(f"trainer.{key}={trainer[key]} is not used here; use {instead}")
    if settings["generator"] is None:
        raise ValueError("generator is not set: choose a model, as in model=dcgan")
    precision, strategy = str(trainer["precision"]), trainer["strategy"]
    if precision not in PRECISIONS:
        why = (
            "float16 needs a loss scaler, which two players and gradient penalties upset; " if "16" in precision else ""
        )
        raise ValueError(f"trainer.precision={precision}: {why}use one of {', '.join(PRECISIONS)}")
    if strategy not in STRATEGIES:
        raise ValueError(f"trainer.strategy={strategy}: two players need {STRATEGIES[1]}, which auto chooses")
    if trainer["accelerator"] in ("gpu", "cuda") and not gpus:
        raise ValueError(
            f"trainer.accelerator={trainer['accelerator']}, and there is no GPU here: use trainer.accelerator=cpu"
        )
    if gpus and processes > gpus:
        fix = f"use trainer.devices={gpus}, or trainer.accelerator=cpu for processes that share the CPU"
        raise ValueError(f"trainer.devices={trainer['devices']}, and this machine has {gpus} GPU(s): {fix}")
    nodes = trainer["num_nodes"]
    if world is None and nodes > 1:
        command = f"torchrun --nnodes={nodes} --nproc-per-node={processes} --node-rank=0 --master-addr=FIRST"
        more = f"-m ganlab trainer.num_nodes={nodes} trainer.devices={processes} hydra.run.dir=outputs/NAME ..."
        raise ValueError(f"trainer.num_nodes={nodes}: start it on each machine with torchrun: {command} {more}")
    if world is not None and world != processes * nodes:
        asked = f"trainer.devices={trainer['devices']} x trainer.num_nodes={nodes} are {processes * nodes}"
        raise ValueError(f"{world} processes were started, and {asked}: set trainer.devices={world // nodes}")
    if settings["speed"]["graph"]:
        if processes * nodes > 1:
            raise ValueError("speed.graph=true: rounds of several processes can't be recorded; leave it out")
        if settings["beta2"] is not None:
            raise ValueError("speed.graph=true: a beta2 that changes can't be recorded; leave one of them out")
        if settings["speed"]["compile"] and not gpus:
            raise ValueError("speed.graph=true and speed.compile=true: on a CPU it is one of them; leave one out")
    samples = settings["callbacks"].get("samples") or {}
    for key, value in (
        ("log_every", settings["log_every"]),
        ("metrics.every", settings["metrics"]["every"]),
        ("callbacks.samples.every", samples.get("every", 1)),
    ):
        if value is None or value < 1 or value != int(value):
            raise ValueError(f"{key}={value}: must be a whole number of kimg, at least 1, as the curves' axis has it")
    batch, parts = settings["data"]["batch_size"], settings["micro_batches"]
    total = processes * nodes
    if batch % (total * parts):
        step = total * parts
        fits = [n for n in (batch // step * step, (batch // step + 1) * step) if n]
        raise ValueError(
            f"data.batch_size={batch} is of the whole run and does not divide evenly over {total} process(es) x "
            f"micro_batches={parts}: use {' or '.join(map(str, fits))}"
        )
    if settings["metrics"]["enabled"] and not settings["scores"]:
        raise ValueError("scores is empty: name a score, or set metrics.enabled=false")


# what a run is made of: a resumed one must have the same
LASTING = (
    "generator", "discriminator", "task", "loss", "terms", "augment", "optimizer", "ema", "data", "seed", "n_critic",
    "micro_batches", "share_fake", "together", "clip_norm", "networks", "start", "stop", "lr_schedule", "beta2",
)  # fmt: skip
ALSO = ("trainer.precision", "metrics.n_real", "metrics.seed")  # the last two: scores of one history are comparable
FREE = (
    "data.root",
    "data.memory",
    "data.disk",
    "data.workers",
    "data.verify",
    "data.rounds",
    "data.on_bad",  # a set without bad files is the same, and one with some was refused
    "terms.content.weights",  # the same file elsewhere; terms.content.checksum holds it to that
    "lr_schedule.stop",
    "augment.noise.deviation.stop",
)  # the last two follow the budget


def check_resume(stored: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuses to go on with a run under other settings than those it was begun with; budget, devices, scores, pictures
    and the like may change.

    Raises:
        ValueError: names each key with its value then and now
    """
    then, now = (
        {k: v for k, v in flat(s).items() if k.split(".")[0] in LASTING or k in ALSO} for s in (stored, settings)
    )
    differing = [k for k in sorted({*then, *now} - set(FREE)) if then.get(k) != now.get(k)]
    if differing:
        lines = "\n".join(f"  {key} was {then.get(key)} and is {now.get(key)} now" for key in differing)
        raise ValueError(
            f"resume={settings['resume']} was begun with other settings; give the same ones again:\n{lines}"
        )


def flat(node: Any, path: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; lists are kept whole."""
    if not isinstance(node, Mapping):
        return {path: node}
    return {k: v for key, child in node.items() for k, v in flat(child, f"{path}.{key}" if path else str(key)).items()}
