"""The user's own sounds: a folder of wav, flac or ogg files of any rate, length and number of channels."""

import fnmatch
import hashlib
import importlib.util
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ganlab.data.folder import tell
from ganlab.data.rounds import DataModule, InMemory
from ganlab.files import Unavailable, cache_folder, write_text

EXTENSIONS = (".wav", ".flac", ".ogg")
MOST = 1 << 26  # numbers in a file: 256 MiB once read; a small file can announce any
RATES = range(1000, 768_001)
UNKNOWN = (0, 0x7FFFFFFF, 0xFFFFFFFF)  # sizes in headers that were written before the sound was


class Bad(Unavailable):
    """A file that can't be used as a sound.

    path, reason   which one, and why
    """

    def __init__(self, path: Path, reason: str, advice: str = ""):
        super().__init__(f"{path} can't be used as a sound ({reason}): remove or repair it{advice}")
        self.path, self.reason = path, reason


class Sounds(DataModule):
    """Every sound file below `root`: its channels averaged, resampled, its silent ends cut off, and padded with zeros
    or cut at the end. All are kept in memory, as int16 [N, 1, length].

    rate       samples per second
    length     samples
    trim       dB: a beginning and an end that are so much quieter than the loudest 10 ms are cut off; None: nothing is
    peak       what the largest absolute value of each sound becomes; None: sounds stay as loud as they are, and what
               is beyond 1 is clipped
    class_of   "folder": if no file lies in `root` itself, each of its subfolders is a class. "name": the class is what
               stands before the first _ in a file's name. With one class only there are no labels
    held_out   which files are not trained on: a share, of which a file's name alone decides whether it belongs to it,
               or a pattern of names, as "*_[0-4].wav"
    on_bad     "error": a file that can't be used (it can't be read, it ends early, it is empty or silent) is refused.
               "skip": they are left out, counted, and listed in the cache folder
    """

    def __init__(
        self, root: str | None = None, rate: int = 8000, length: int = 4096, trim: float | None = 40.0,
        peak: float | None = 0.9, class_of: Literal["folder", "name"] = "folder", held_out: float | str = 0.1,
        on_bad: Literal["error", "skip"] = "error", batch_size: int = 64, rounds: int = 8, seed: int = 0,
        memory: float = 4.0, count: int | None = None, imbalance: float | None = None, balanced: bool = False,
    ):  # fmt: skip
        super().__init__(batch_size, rounds, seed, memory=memory, count=count, imbalance=imbalance, balanced=balanced)
        if root is None:
            raise ValueError("data.root is not set: give the folder of sounds, as in data.root=my/sounds")
        if class_of not in ("folder", "name"):
            raise ValueError(f"data.class_of={class_of!r}: must be folder or name")
        if on_bad not in ("error", "skip"):
            raise ValueError(f"data.on_bad={on_bad!r}: must be error or skip")
        if not isinstance(held_out, str) and not 0 <= held_out < 1:
            raise ValueError(f"data.held_out={held_out}: must be a share below 1, or a pattern of names")
        if rate not in RATES or length < 1:
            raise ValueError(
                f"data.rate={rate}, data.length={length}: rates are {RATES[0]:,} to {RATES[-1]:,} samples per second, "
                "and a sound has at least one sample"
            )
        if importlib.util.find_spec("soundfile") is None:
            raise ValueError("data=sounds reads files by soundfile, which is not installed: pip install ganlab[sound]")
        self.root, self.rate, self.length, self.trim, self.peak = Path(root).expanduser(), rate, length, trim, peak
        self.class_of, self.held, self.on_bad = class_of, held_out, on_bad

    @property
    def title(self) -> str:
        return f"sounds {self.root.name}"

    def facts(self) -> dict[str, Any]:
        """What networks, scores and players must know: the shape [1, length], the rate, and the classes."""
        names, label = self.classes
        if (self.imbalance is not None or self.balanced) and label is None:
            raise ValueError(self.needs_labels())
        about: dict[str, Any] = {"classes": None, "class_names": None, "frequencies": None, "several": False}
        if label is not None:
            counts = self.label_of(self.played()).bincount(minlength=len(names))
            equal = self.balanced or len(set(counts.tolist())) == 1
            about |= {"classes": len(names), "class_names": names}
            about |= {"frequencies": None if equal else (counts / counts.sum()).tolist()}
        return {"shape": [1, self.length], "rate": self.rate, **about}

    def load(self, split: str) -> InMemory:
        paths, sounds = self.found
        label = self.classes[1]
        test = torch.tensor([self.is_held_out(path) for path in paths])
        rows = (test if split == "test" else ~test).nonzero()[:, 0]
        if not len(rows):
            raise Unavailable(f"data.held_out={self.held}: that leaves no sounds for the {split} part of {self.root}")
        return InMemory(sounds[rows], None if label is None else label[rows])

    def is_held_out(self, path: Path) -> bool:
        name = path.relative_to(self.root).as_posix()
        if isinstance(self.held, str):
            return fnmatch.fnmatch(name, self.held) or fnmatch.fnmatch(path.name, self.held)
        number = hashlib.blake2b(os.fsencode(name), digest_size=8).digest()
        return int.from_bytes(number, "little") < self.held * 2**64

    @cached_property
    def classes(self) -> tuple[list[str], Tensor | None]:
        """(their names, the class of each sound [N]); None: there are no labels"""
        inside = [path.relative_to(self.root) for path in self.found[0]]
        if self.class_of == "name":
            if bare := [path for path in inside if "_" not in path.stem]:
                raise Unavailable(
                    f"data.class_of=name: the class stands before the first _ in a file's name, and {len(bare):,} of "
                    f"{len(inside):,} have none, {bare[0]} is the first of them: rename them, or set "
                    "data.class_of=folder"
                )
            of = [path.name.partition("_")[0] for path in inside]
        else:
            of = [path.parts[0] if len(path.parts) > 1 else "" for path in inside]
        names = sorted(set(of))
        labelled = len(names) > 1 and "" not in names
        return (names, torch.from_numpy(np.searchsorted(names, of))) if labelled else ([], None)

    @cached_property
    def found(self) -> tuple[list[Path], Tensor]:
        """(the files that can be used, their sounds, int16 [N, 1, length])

        Raises:
            Unavailable: there is no such folder, fewer than two sounds are in it, or one can't be used
        """
        if not self.root.is_dir():
            raise Unavailable(f"data.root={self.root}: there is no such folder")
        named = sorted(p for p in self.root.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file())
        home = self.root.resolve()
        paths = [p for p in named if p.resolve().is_relative_to(home)]  # links may lead anywhere
        if len(paths) < len(named):
            tell(f"data.root={self.root}: {len(named) - len(paths):,} links lead out of it and are not followed")
        with ThreadPoolExecutor() as pool:
            bar = tqdm(pool.map(self.attempt, paths), "reading sounds", len(paths), leave=False, disable=None)
            results = list(bar)
        bad = [result for result in results if isinstance(result, Bad)]
        if bad and self.on_bad == "error":
            also = f", nor can {len(bad) - 1:,} others of {len(paths):,}" if len(bad) > 1 else ""
            raise Bad(bad[0].path, bad[0].reason + also, ", or leave out what can't be used: data.on_bad=skip")
        if bad:
            reasons = {b.path.relative_to(self.root).as_posix(): b.reason for b in bad}
            path = (
                cache_folder("folders") / f"{hashlib.blake2b(repr(reasons).encode(), digest_size=8).hexdigest()}.json"
            )
            write_text(path, json.dumps({"root": str(self.root), "bad": reasons}, indent=1))
            tell(f"data.on_bad=skip: {len(bad):,} of {len(paths):,} sounds can't be used, listed in {path}")
        good = [(path, result) for path, result in zip(paths, results, strict=True) if not isinstance(result, Bad)]
        if len(good) < 2:
            kinds = " ".join(EXTENSIONS)
            raise Unavailable(f"data.root={self.root}: {len(good)} sounds found in it, at least 2 are needed ({kinds})")
        long = sum(len(x) > self.length for _, x in good)
        if long:
            tell(f"data.length={self.length}: {long:,} of {len(good):,} sounds are longer, and their ends are cut off")
        return [path for path, _ in good], torch.from_numpy(np.stack([fitted(x, self.length) for _, x in good]))[
            :, None
        ]

    def attempt(self, path: Path) -> np.ndarray | Bad:
        """The whole sound as int16, but for its silent ends."""
        try:
            x = trimmed(resampled(*decoded(path), self.rate), self.rate, self.trim)
            scale = 1.0 if self.peak is None else self.peak / float(np.abs(x).max())
            return (x * (32767 * scale)).round().clip(-32768, 32767).astype(np.int16)
        except Bad as bad:
            return bad


def decoded(path: Path) -> tuple[np.ndarray, int]:
    """(float64 [samples], the mean of all channels; samples per second)

    Raises:
        Bad: it can't be used
    """
    import soundfile

    try:
        if path.stat().st_size == 0:
            raise ValueError("it is empty")
        check_whole(path)
        with soundfile.SoundFile(path) as file:
            if file.frames * file.channels > MOST:
                raise ValueError(f"{file.frames:,} samples are too many: cut it into several files")
            if file.samplerate not in RATES:
                raise ValueError(f"{file.samplerate:,} samples per second are not {RATES[0]:,} to {RATES[-1]:,}")
            x, rate = file.read(dtype="float64", always_2d=True).mean(1), file.samplerate
        if not len(x):
            raise ValueError("it has no samples")
        if not np.isfinite(x).all():
            raise ValueError("some of its numbers are not finite")
        if np.abs(x).max() < 1e-5:
            raise ValueError("it is silent")
        return x, rate
    except (OSError, ValueError, RuntimeError, MemoryError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Bad(path, " ".join(reason.split())[:200] or type(error).__name__) from None


def check_whole(path: Path) -> None:
    """Raises ValueError for a wav file that ends before its header says: it would be read as far as it goes."""
    with open(path, "rb") as file:
        head, at, end = file.read(12), 12, path.stat().st_size
        while head[:4] == b"RIFF" and at + 8 <= end:
            file.seek(at)
            name, size = file.read(4), int.from_bytes(file.read(4), "little")
            if name == b"data":
                if size not in UNKNOWN and at + 8 + size > end:
                    raise ValueError(
                        f"it ends early: {size:,} bytes of sound are announced, {end - at - 8:,} are there"
                    )
                return
            at += 8 + size + size % 2


def resampled(x: np.ndarray, have: int, rate: int) -> np.ndarray:
    if have == rate:
        return x
    from scipy.signal import resample_poly

    common = math.gcd(have, rate)
    return resample_poly(x, rate // common, have // common)


def trimmed(x: np.ndarray, rate: int, trim: float | None) -> np.ndarray:
    """Without the beginning and the end whose power is `trim` dB below that of the loudest 10 ms."""
    size = max(1, rate // 100)
    if trim is None or len(x) <= size:
        return x
    pieces = np.pad(x, (0, -len(x) % size)).reshape(-1, size)
    power = np.square(pieces).mean(1)
    loud = np.flatnonzero(power >= power.max() * 10 ** (-trim / 10))
    return x[loud[0] * size : (loud[-1] + 1) * size]


def fitted(x: np.ndarray, length: int) -> np.ndarray:
    return np.pad(x[:length], (0, max(0, length - len(x))))
