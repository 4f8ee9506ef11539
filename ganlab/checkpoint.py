"""Checkpoints: written whole or not at all, read without unpickling, and a generator built from one without trust."""

import hashlib
import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm import tqdm

from ganlab import sharing
from ganlab.files import atomic
from ganlab.networks import normalise
from ganlab.phase import full, micro, size, wrap
from ganlab.ranks import rank
from ganlab.rng import IndexedRNG, SampleRNG, TruncatedRNG
from ganlab.untrusted import build, check_content, check_room, described

FORMAT = 2  # 1 had no digest and no overrides


class NotSaved(RuntimeError):
    """A checkpoint could not be written; the message says what is left and what to do."""


class AtomicIO(TorchCheckpointIO):
    """How Lightning writes checkpoints here: to a temporary file that takes the old one's place when it is complete.
    They carry a digest of their content, by which damage is found."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if "ganlab" in checkpoint:
            checkpoint["ganlab"].pop("digest", None)
            checkpoint["ganlab"]["digest"] = digest(checkpoint)
        with atomic(path) as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # torch's own words in place of the file's
                raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def digest(content: Any) -> str:
    """SHA-256, as 64 hex digits, of plain values and tensors, their order and types included."""
    told = hashlib.sha256()

    def tell(value: Any) -> None:
        if isinstance(value, Mapping):
            told.update(f"{{{len(value)}".encode())
            for key, child in value.items():
                tell(key)
                tell(child)
        elif isinstance(value, (list, tuple)):
            told.update(f"{type(value).__name__}{len(value)}".encode())
            for child in value:
                tell(child)
        elif isinstance(value, Tensor):
            told.update(f"{value.dtype}{tuple(value.shape)}".encode())
            flat = value.detach().cpu().contiguous().as_strided((value.numel(),), (1,))  # one element: any stride
            told.update(flat.view(torch.uint8).numpy().data)
        else:
            told.update(f"{type(value).__name__}{value!r};".encode())

    tell(content)
    return told.hexdigest()


def finite(gan: nn.Module) -> bool:
    """Whether all weights and buffers are."""
    values = [v for v in (*gan.parameters(), *gan.buffers()) if v.is_floating_point() and v.numel()]
    return bool(torch.stack([v.detach().isfinite().all() for v in values]).all()) if values else True


def sync_buffers(gan: Any) -> None:
    """Gives every process rank 0's buffers (batch norm's statistics differ): before scores and checkpoints."""
    if gan.trainer.world_size > 1:
        for buffer in gan.buffers():
            torch.distributed.broadcast(buffer, 0)


def load(path: str | Path) -> dict[str, Any]:
    """A checkpoint's content, read without running anything that it holds.

    Raises:
        ValueError: there is no such file, it is damaged, or it is no checkpoint of ganlab
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"checkpoint={path}: there is no such file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        foreign, said = "Weights only" in str(error), str(error).splitlines() or ["it is cut off"]
        known = said[0] if " " in said[0] else "it is damaged, or no checkpoint"
        why = "it holds more than tensors and plain values, and is not opened" if foreign else known
        raise ValueError(f"checkpoint={path} can't be read: {why}") from None
    about = content.get("ganlab") if isinstance(content, dict) else None
    if (
        not isinstance(about, dict)
        or not {"format", "version", "config"} <= about.keys()
        or "state_dict" not in content
    ):
        raise ValueError(f"checkpoint={path} was not written by ganlab")
    if type(about["format"]) is not int or about["format"] < 1:
        raise ValueError(f"checkpoint={path} has an unknown format: {about['format']!r}")
    if about["format"] > FORMAT:
        raise ValueError(
            f"checkpoint={path} was written by ganlab {about['version']}, newer than this one: update ganlab"
        )
    try:
        check_content(content, f"checkpoint={path}")
        whole = about["format"] == 1 or about.pop("digest", None) == digest(content)
    except RecursionError:
        raise ValueError(f"checkpoint={path} was not written by ganlab: it has no bottom") from None
    if not whole:
        raise ValueError(f"checkpoint={path} is damaged: its content does not fit its checksum")
    return content


def names(folder: Path) -> list[Path]:
    """The checkpoints that may be in a folder, the newest first."""
    older = sorted(folder.glob("last-*.ckpt"), key=lambda path: int(re.sub(r"\D", "", path.stem) or 0))
    return [folder / "next.ckpt", folder / "last.ckpt", *older, folder / "best.ckpt"]


def find(resume: str | None, key: str = "resume", folder: str | Path | None = None) -> str | None:
    """The checkpoint that `resume` means: a file, the newest whole one of a run's folder, or, if it is "auto", of
    `folder`; None if the run had written none yet. A damaged one is passed over, and that is said.

    Raises:
        ValueError: there is none
    """
    if resume is None:
        return None
    automatic = resume == "auto" and folder is not None
    path = Path(folder if automatic else resume).expanduser()  # type: ignore[arg-type]
    if path.is_file() or not (path.is_dir() or automatic):
        if not path.is_file():
            raise ValueError(f"{key}={resume}: there is no such file or folder")
        return str(path)
    damaged = []
    there = [candidate for candidate in names(path / "checkpoints") if candidate.is_file()]
    for candidate in there:
        try:
            load(candidate)
        except ValueError as error:
            damaged.append(str(error).removeprefix("checkpoint="))
            continue
        if damaged and rank() == 0:
            print(*damaged, f"{key}: so it is {candidate} that is used", sep="\n")
        return str(candidate)
    if not there and (automatic or (key == "resume" and (path / "run.json").is_file())):
        return None
    raise ValueError(f"{key}={resume}: " + ("\n".join(damaged) or f"there is no checkpoint in {path / 'checkpoints'}"))


def weights(path: str, key: str) -> dict[str, Tensor]:
    """The weights of a checkpoint, or of a run's last one; `key` is who asks."""
    return load(find(path, key) or "")["state_dict"]


def reshape(net: nn.Module, config: Mapping[str, Any], player: str) -> None:
    """Gives a network the parameters that the run's changes to it brought along."""
    if ((config.get("networks") or {}).get(player) or {}).get("spectral") is True:
        normalise(net)


def discriminator(path: str | Path, trust: Sequence[str] = ()) -> tuple[nn.Module, nn.Module]:
    """(D of a checkpoint, the same D before any training), on the CPU, in eval mode.

    trust   packages, besides ganlab, whose classes may be built

    Raises:
        ValueError: it has none, or see `load` and `build`
    """
    if sharing.folder_of(path) is not None:
        raise ValueError(f"checkpoint={path} is an exported generator, which has no discriminator")
    content = load(path)
    config = content["ganlab"]["config"]
    if not isinstance(config, Mapping) or not isinstance(config.get("discriminator"), Mapping):
        raise ValueError(f"checkpoint={path} has no discriminator")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        nets = [build(config["discriminator"], ("ganlab.models", *trust), "discriminator") for _ in range(2)]
    state = {k.removeprefix("D."): v for k, v in content["state_dict"].items() if k.startswith("D.")}
    for net in nets:
        reshape(net, config, "D")
    try:
        nets[0].load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(f"checkpoint={path}: its weights do not fit the discriminator: {str(error)[:1000]}") from None
    clocks = {k: v for k, v in state.items() if k.endswith("_extra_state")}  # a growing network is as far grown
    nets[1].load_state_dict({**nets[1].state_dict(), **clocks})
    return nets[0].eval().requires_grad_(False), nets[1].eval().requires_grad_(False)


class Truncated(nn.Module):
    """A task that draws its normal noise from within [-threshold, threshold]; all else is the task's own."""

    def __init__(self, task: Any, threshold: float):
        super().__init__()
        self.task: Any = task
        self.threshold = threshold

    def draw(self, rng: SampleRNG, cond: Any = None) -> Any:
        return self.task.draw(TruncatedRNG(rng, self.threshold), cond)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.task, name)


class Sampler(nn.Module):
    """A trained generator with its task: makes the samples that `GAN.generate` makes."""

    def __init__(self, G: nn.Module, task: Any):
        super().__init__()
        self.G, self.task = G.eval().requires_grad_(False), task
        self.options: dict[str, Any] = {}
        self.kimg: float | None = None  # how long it was trained, where that is known
        self.card: dict[str, Any] | None = None  # of an exported model
        self.arguments: Mapping[str, Any] = {}  # what G was made with, where that is known
        if hasattr(task, "check"):
            task.check(self)

    @classmethod
    def load(cls, path: str | Path, trust: Sequence[str] = (), ema: bool = True) -> "Sampler":
        """G_ema of a checkpoint or of an exported model, on the CPU.

        trust   packages, besides ganlab, whose classes may be built
        ema     False: G itself in its place

        Raises:
            ValueError: see `load`, `sharing.stored` and `build`
        """
        if sharing.folder_of(path) is not None:
            if not ema:
                raise ValueError(f"generator=G: {path} holds G_ema alone; the run's checkpoints have both")
            card, state = sharing.stored(path)
            config, kimg = sharing.config_of(card), card.get("kimg")
        else:
            content, part, card = load(path), "G_ema." if ema else "G.", None
            config = content["ganlab"]["config"]
            state = {k.removeprefix(part): v for k, v in content["state_dict"].items() if k.startswith(part)}
            kimg = content["clock"]["seen"] / 1000 if "clock" in content else None
        if not isinstance(config, Mapping) or not {"generator", "task"} <= config.keys():
            raise ValueError(f"checkpoint={path} does not say what its generator is")
        models = ("ganlab.models", *trust)
        kind, arguments = described(config["generator"], models, "generator")
        parts = {"degradation": ("ganlab.degrade", *trust), "medium": ("ganlab.media", *trust)}
        task = build(config["task"], ("ganlab.tasks", *trust), "task", parts)
        try:
            with torch.random.fork_rng(devices=[]):
                check_room(kind, arguments, state)
                G = build(config["generator"], models, "generator")
                reshape(G, config, "G")
            G.load_state_dict(state)
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"checkpoint={path}: its weights do not fit the generator: {str(error)[:1000]}") from None
        sampler = cls(G, task)
        sampler.kimg, sampler.card, sampler.arguments = kimg, card, arguments
        return sampler

    def at(self, device: str) -> "Sampler":
        """On this device, "auto" being the best there is.

        Raises:
            ValueError: there is no such device here
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        try:
            return self.to(device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"device={device} can't be used here: {error}") from None

    @property
    def dtype(self) -> torch.dtype:
        return next(self.G.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return next(self.G.parameters()).device

    def truncate(self, truncation: float) -> None:
        """Trades variety for typicality in all further samples: G's own truncation where its forward takes one, else
        normal noise from within [-truncation, truncation] (Brock et al. 2019, arXiv:1809.11096, section 3.1).

        Raises:
            ValueError: it is no such number, or the task draws no normal noise
        """
        if not isinstance(truncation, (int, float)) or isinstance(truncation, bool):
            raise ValueError(f"truncation={truncation!r}: must be a number")
        if "truncation" in inspect.signature(self.G.forward).parameters:
            self.options = {"truncation": truncation}
            return
        if not truncation > 0:
            raise ValueError(f"truncation={truncation}: normal noise is cut off there, so it must be above 0")
        rng = TruncatedRNG(IndexedRNG(0, range(1)), truncation)
        self.task.draw(rng)
        if not rng.used:
            raise ValueError(
                f"truncation={truncation}: {type(self.G).__name__} has none of its own, and its noise is not normal"
            )
        self.task = Truncated(self.task, truncation)

    @torch.no_grad()
    def standing(self, n: int, batch_size: int = 256, seed: int = 0) -> None:
        """Makes batch norm's averages anew, as they are over samples 0 .. n - 1 in equal batches of about `batch_size`:
        "standing statistics" (Brock et al. 2019, arXiv:1809.11096, section 3.1 and appendix B). After `truncate`, they
        are those of truncated samples.

        Raises:
            ValueError: G has no batch norm, or n is below 2
        """
        layers = [layer for layer in self.G.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
        if not layers:
            raise ValueError(f"standing={n}: {type(self.G).__name__} has no batch norm: set standing=0")
        if not isinstance(n, int) or n < 2:
            raise ValueError(f"standing={n!r}: must be a whole number of at least 2, or 0 for the averages of training")
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # the plain average of all batches
            layer.train()
        batches = micro(n, min(-(-n // batch_size), n // 2))
        for rows in tqdm(batches, desc="standing statistics", leave=False, disable=None):
            self.generate(rows.start, rows.stop - rows.start, seed)
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()

    @torch.no_grad()
    def forward(self, inputs: Any, cond: Any = None) -> Any:
        return wrap(self.G(inputs, **self.options) if cond is None else self.G(inputs, cond, **self.options)).fake

    def generate(self, start: int, n: int, seed: int = 0, cond: Any = None) -> Any:
        """Samples start .. start + n - 1; sample i depends on (seed, i) alone.

        Raises:
            ValueError: the task does not start from noise
        """
        if not hasattr(self.task, "draw"):
            raise ValueError("this generator starts from images and makes no samples from noise: use reconstruct")
        return self(*self.task.draw(IndexedRNG(seed, range(start, start + n), self.device, self.dtype), cond))

    @torch.no_grad()
    def reconstruct(self, batch: Any, start: int = 0, seed: int = 0) -> dict[str, Any]:
        """What `GAN.reconstruct` gives of a data batch."""
        prepared = self.task.prepare(
            batch, IndexedRNG(seed, range(start, start + size(batch)), self.device, self.dtype)
        )
        fake, real = self.task.play(self.G, prepared)
        return {"inputs": prepared.inputs, "real": real, "fake": full(wrap(fake).fake), "cond": prepared.cond}
