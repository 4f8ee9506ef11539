"""Texts from one plain file, by characters or by words."""

import hashlib
import re
from collections import Counter
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ganlab.data.rounds import DataModule, InMemory
from ganlab.files import Unavailable

END, UNKNOWN = 0, 1  # the symbol that ends a text and fills what follows; what stands for rare symbols
NAMES = ["<end>", "<unknown>"]
WORD = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")
MOST = 1 << 30  # bytes of a file


class Lines(DataModule):
    """Texts of at most `length` symbols, int64 [N, length], filled up with 0, the end; 1 stands for what is not in the
    vocabulary.

    root         a plain text file, UTF-8
    unit         a symbol is one of the "characters", or of the "words": punctuation marks are words of their own
    length       symbols in a text; longer lines are left out
    vocabulary   how many symbols are known, the most frequent ones of the training part; None: all
    windows      False: a line is a text, empty lines are left out; True: all is running text, cut into pieces of
                 `length` symbols
    lower        small letters only
    unknown      lines that hold a symbol which is not in the vocabulary: "keep", with 1 in its place, or "skip" them
    held_out     share of the texts that is the split "test": of lines a choice by their content, so that no line is in
                 both parts; of running text its end
    """

    reference = "test"

    def __init__(
        self, root: str | None = None, unit: Literal["characters", "words"] = "characters", length: int = 16,
        vocabulary: int | None = None, windows: bool = False, lower: bool = False,
        unknown: Literal["keep", "skip"] = "keep", held_out: float = 0.1, batch_size: int = 64, rounds: int = 8,
        seed: int = 0, count: int | None = None,
    ):  # fmt: skip
        super().__init__(batch_size, rounds, seed, count=count)
        if unit not in ("characters", "words"):
            raise ValueError(f"data.unit={unit!r}: must be characters or words")
        if unknown not in ("keep", "skip"):
            raise ValueError(f"data.unknown={unknown!r}: must be keep or skip")
        if not 0 < held_out < 1:
            raise ValueError(f"data.held_out={held_out}: a share of the texts, above 0 and below 1")
        self.root, self.unit, self.length, self.vocabulary, self.windows = root, unit, length, vocabulary, windows
        self.lower, self.unknown, self.share = lower, unknown, held_out
        self.left_out: dict[str, int] = {}  # {why: lines}
        self.read: tuple[list[str], dict[str, Tensor]] | None = None

    @property
    def title(self) -> str:
        return f"{Path(str(self.root)).name} by {self.unit}"

    def facts(self) -> dict[str, Any]:
        """What networks, scores and media must know: the shape [T, V], the V symbols, what stands between two.

        Raises:
            Unavailable: the file can't be read as text
            ValueError: there is nothing to learn from in it
        """
        symbols = self.texts()[0]
        return {"shape": [self.length, len(symbols)], "classes": None, "class_names": None, "frequencies": None} | {
            "several": False, "symbols": symbols, "between": " " if self.unit == "words" else "",
        }  # fmt: skip

    def prepare_data(self) -> None:
        super().prepare_data()
        if why := ", ".join(f"{n:,} {reason}" for reason, n in self.left_out.items() if n):
            say(f"{self.root}: left out {why}")

    def load(self, split: str) -> InMemory:
        return InMemory(self.texts()[1][split])

    def texts(self) -> tuple[list[str], dict[str, Tensor]]:
        """(symbols, {split: [N, length]}), made when first asked for."""
        if self.read is None:
            self.read = self._made()
        return self.read

    def _made(self) -> tuple[list[str], dict[str, Tensor]]:
        whole = read_text(self.root)
        text = whole.lower() if self.lower else whole
        lines = [text] if self.windows else text.splitlines()
        cut = self.words if self.unit == "words" else list
        told = [cut(line if self.windows else line.strip()) for line in lines]
        found = [t for t in told if t]
        if not found:
            raise Unavailable(f"data.root={self.root}: the file is empty")
        parts = self.pieces(found[0]) if self.windows else self.split_lines(found)
        self.left_out = {} if self.windows else {"empty lines": len(told) - len(found)}
        if not self.windows:
            self.left_out[f"lines longer than data.length={self.length}"] = len(found) - sum(map(len, parts.values()))
        if not all(parts.values()):
            shortest = min(map(len, found))
            raise ValueError(
                f"data.length={self.length}: the shortest line of {self.root} has {shortest:,} {self.unit}, so that "
                "none is left: set data.length to more, or data.windows=true for running text"
                if shortest > self.length and not self.windows
                else f"data.root={self.root}: {sum(map(len, parts.values()))} texts are too few to hold some out"
            )
        counts = Counter(chain.from_iterable(parts["train"]))
        if len(counts) < 2:
            raise ValueError(
                f"data.root={self.root}: all text to learn from is the one symbol {next(iter(counts))!r}, and there is "
                "nothing to learn: give another file, or another data.unit"
            )
        known = sorted(counts, key=lambda s: (-counts[s], s))[: self.vocabulary]
        index = {symbol: i for i, symbol in enumerate(known, len(NAMES))}
        tensors = {split: self.as_tensor(texts, index) for split, texts in parts.items()}
        if self.unknown == "skip":
            kept = {split: x[(x != UNKNOWN).all(1)] for split, x in tensors.items()}
            rare = sum(len(x) - len(kept[split]) for split, x in tensors.items())
            if not all(map(len, kept.values())):
                raise ValueError(
                    f"data.vocabulary={self.vocabulary}: with data.unknown=skip no text is left, as each holds a rarer "
                    "symbol: set data.vocabulary to more, or data.unknown=keep"
                )
            self.left_out["texts with symbols that are not in the vocabulary"] = rare
            tensors = kept
        return [*NAMES, *known], tensors

    @staticmethod
    def words(line: str) -> list[str]:
        return WORD.findall(line)

    def pieces(self, symbols: list[str]) -> dict[str, list[list[str]]]:
        """Running text in pieces, of which the last are held out."""
        starts = range(0, len(symbols) - self.length + 1, self.length)
        pieces = [symbols[i : i + self.length] for i in starts]
        first = len(pieces) - max(1, round(self.share * len(pieces)))
        return {"train": pieces[:first], "test": pieces[first:]}

    def split_lines(self, lines: list[list[str]]) -> dict[str, list[list[str]]]:
        """Lines that are short enough: a line is held out by what it says, wherever and however often it stands."""
        short = [line for line in lines if len(line) <= self.length]
        of = lambda line: hashlib.blake2b(" ".join(line).encode(), digest_size=8).digest()
        different = sorted({of(line) for line in short})
        out = set(different[: max(1, round(self.share * len(different)))])
        return {
            "train": [line for line in short if of(line) not in out],
            "test": [line for line in short if of(line) in out],
        }

    def as_tensor(self, texts: list[list[str]], index: dict[str, int]) -> Tensor:
        rows = [[index.get(symbol, UNKNOWN) for symbol in text] for text in texts]
        return torch.tensor([row + [END] * (self.length - len(row)) for row in rows])


@cache
def say(line: str) -> None:
    """Once in a process."""
    print(line, flush=True)


def read_text(root: str | None) -> str:
    """A file's text.

    Raises:
        ValueError: no file is named
        Unavailable: it can't be read, or is no UTF-8: the line and the byte are named
    """
    if root is None:
        raise ValueError("data.root is not set: name a plain text file, as in data.root=names.txt")
    path = Path(root).expanduser()
    try:
        if path.stat().st_size > MOST:
            raise Unavailable(
                f"data.root={root}: {path.stat().st_size / MOST:.1f} GiB are too much, {MOST >> 30} at most"
            )
        content = path.read_bytes()
    except OSError as error:
        raise Unavailable(f"data.root={root} can't be read: {error.strerror}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Unavailable(
            f"data.root={root} is not UTF-8: line {line:,} has the byte 0x{content[error.start]:02x} (the file's "
            f"{error.start + 1:,}th). Convert it, as with iconv -f latin1 -t utf-8"
        ) from None
    if "\0" in text:
        raise Unavailable(f"data.root={root} is no text: it holds bytes of 0")
    return text
