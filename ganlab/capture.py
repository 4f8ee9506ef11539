"""Rounds recorded once and replayed: what a round does to tensors, without the Python that led to it (`speed.graph`).

On a CPU a recording is a `Tape` of PyTorch's operators, on a GPU it is `Graphs`, a chain of CUDA graphs. Both repeat
what was recorded with the numbers of that time, and only tensors change. So what else changes from round to round goes
through one of these, which do their work at once where nothing is recorded:

before    work that a round needs, before it: filling a tensor, seeding a generator
amid      work at this place of the round
after     work with what the round computed, after it
varying   a number that may follow the clock

What can't be recorded is found out while it is: the game is then played on as it is, and says why.
"""

import gc
import os
import sys
import traceback
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary
from tqdm import tqdm

Work = Callable[..., Any]
aten = torch.ops.aten
_recording: "Recording | None" = None


def before(work: Work, generator: torch.Generator | None = None) -> None:
    """generator: which the work seeds"""
    work() if _recording is None else _recording.before(work, generator)


def amid(work: Work) -> None:
    work() if _recording is None else _recording.amid(work)


def after(work: Work, *tensors: Tensor) -> None:
    work(*tensors) if _recording is None else _recording.ends.append((work, tensors))


def varying(f: Callable[[int], float], gan: Any, dtype: torch.dtype | None = None) -> float | Tensor:
    """f(seen); a tensor where a recording is to hold it and it follows the clock. dtype: of that; None: the game's"""
    return f(gan.seen) if _recording is None else _recording.number(f, gan, dtype or gan.dtype)


def clock(seen: int) -> int:
    """`seen` for those who can't use `varying`: a round in which anybody looks at it is not recorded."""
    return seen if _recording is None else _recording.clock(seen)


class Clock(int):
    """Samples seen; remembers that it was looked at."""

    read = False


def _looked_at(name: str) -> Callable[..., Any]:
    def method(self: Clock, *others: Any) -> Any:
        self.read = True
        return getattr(int, name)(self, *others)

    return method


_BOTH = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow")  # a + b and b + a
_ONE = ("lt", "le", "gt", "ge", "bool", "int", "float", "index", "neg")
for _name in (*_BOTH, *(f"r{_name}" for _name in _BOTH), *_ONE):
    setattr(Clock, f"__{_name}__", _looked_at(f"__{_name}__"))


class Recorder:
    """Plays the rounds of a game: of each kind the first few as they are, one while it is recorded, and then from the
    recording. A kind is what decides on the operations: what both players minimise, what curves ask for, the shapes of
    the batch, and `steady()` of each part that follows the clock: what of it a recording holds fast.

    why   rounds are no longer recorded; None: they are
    """

    WARM, MOST = 2, 64  # rounds of a kind before one is recorded; kinds

    def __init__(self) -> None:
        self.met: Counter[Hashable] = Counter()
        self.recordings: dict[Hashable, Recording] = {}
        self.why: str | None = None

    def __call__(self, gan: Any, batch: Any) -> None:
        if self.why is None and (unsteady := [part for part in gan.clocked if not hasattr(part, "steady")]):
            self.give_up(f"{type(unsteady[0]).__name__} has set_clock and no steady")
        if self.why is not None:
            gan.moves(batch)
        elif (recording := self.recordings.get(kind := kind_of(gan, batch))) is not None:
            recording.replay(batch)
        elif self.met[kind] < self.WARM or len(self.recordings) == self.MOST:
            gan.moves(batch)
            if len(self.met) > 1000:  # as while a network grows
                self.met.clear()
            self.met[kind] += 1
        else:
            self.record(gan, batch, kind)

    def record(self, gan: Any, batch: Any, kind: Hashable) -> None:
        recording: Recording = Graphs() if gan.device.type == "cuda" else Tape()
        recording.record(gan, batch)
        if recording.why is not None:
            self.give_up(recording.why)
        else:
            self.recordings[kind] = recording
        if not recording.played:
            gan.moves(batch) if self.why is not None else recording.replay(batch)

    def give_up(self, why: str) -> None:
        self.why = why
        self.recordings.clear()
        tqdm.write(f"speed.graph=true: this game's rounds can't be recorded, and are played as ever: {why}", sys.stderr)


def kind_of(gan: Any, batch: Any) -> Hashable:
    shapes = [(x.shape, x.dtype) if isinstance(x, Tensor) else x for x in tree_leaves(batch)]
    due = [(player, *gan.due(player)) for player in gan.players]
    return tuple(due), frozenset(gan.curves.pending), tuple(shapes), tuple(part.steady() for part in gan.clocked)


class Recording(ABC):
    """One round.

    played   whether the round was played while it was recorded
    why      it can't be replayed; None: it can
    """

    played = True

    def __init__(self) -> None:
        self.starts: list[Work] = []
        self.ends: list[tuple[Work, tuple[Tensor, ...]]] = []
        self.clocks: list[Clock] = []
        self.why: str | None = None

    def record(self, gan: Any, batch: Any) -> None:
        global _recording
        self.device = gan.device
        self.batch = tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, batch)  # where replays look for it
        _recording = self
        try:
            with self.running(gan):
                gan.moves(self.batch)
        finally:
            _recording = None
        if any(clock.read for clock in self.clocks):
            self.fail("something in it looks at the clock, and is neither a weight nor a learning rate")
        self.finish()

    def replay(self, batch: Any) -> None:
        for kept, now in zip(tree_leaves(self.batch), tree_leaves(batch), strict=True):
            if isinstance(kept, Tensor):
                kept.copy_(now)
        for work in self.starts:
            work()
        for (work, _), values in zip(self.ends, self.run(), strict=True):
            work(*values)

    def before(self, work: Work, generator: torch.Generator | None) -> None:
        with self.paused():
            work()
        self.starts.append(work)

    def number(self, f: Callable[[int], float], gan: Any, dtype: torch.dtype) -> float | Tensor:
        value = f(watched := Clock(gan.seen))
        if not watched.read:
            return value
        with self.paused():
            kept = torch.full((), value, dtype=dtype, device=gan.device)
        self.starts.append(lambda: kept.fill_(f(gan.seen)))
        return kept

    def clock(self, seen: int) -> int:
        self.clocks.append(Clock(seen))
        return self.clocks[-1]

    def fail(self, why: str) -> None:
        self.why = self.why or why

    @abstractmethod
    def running(self, gan: Any) -> AbstractContextManager[Any]:
        """Around what is recorded."""

    @abstractmethod
    def paused(self) -> AbstractContextManager[Any]:
        """Meanwhile nothing is recorded."""

    @abstractmethod
    def amid(self, work: Work) -> None: ...

    @abstractmethod
    def finish(self) -> None: ...

    @abstractmethod
    def run(self) -> Sequence[Sequence[Tensor]]:
        """Replays; returns what each work at the end asked for."""


class Tape(Recording):
    """The operators of a round below autograd, one after the other, as a Python function that does nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Any = WeakTensorKeyDictionary()  # of tensors: c..., there from the start, and t..., made meanwhile
        self.held: dict[str, Any] = {}  # what the function refers to
        self.lines: list[tuple[str, set[str]]] = []  # and which of the tensors made meanwhile are in it
        self.off = False

    @contextmanager
    def running(self, gan: Any) -> Iterator[None]:
        with _Reads(self), _Operators(self):
            yield

    @contextmanager
    def paused(self) -> Iterator[None]:
        self.off = True
        yield
        self.off = False

    def amid(self, work: Work) -> None:
        with self.paused():
            work()
        self.lines.append((f"{self.hold(work)}()", set()))

    def operator(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Plays it and writes it down."""
        used: set[str] = set()
        given = [*(self.text(x, used) for x in args), *(f"{k}={self.text(x, used)}" for k, x in kwargs.items())]
        if {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(function.tags) and not (
            function is aten.index.Tensor and all(x is None or x.dtype == torch.int64 for x in args[1])
        ):
            self.fail(f"{function} depends on the values of a tensor{where()}")
        result = function(*args, **kwargs)
        if function.namespace == "profiler":
            return result
        if function is aten.lift_fresh.default:  # a constant, which the round may write into
            self.names.pop(args[0])
            function, given = aten.clone.default, [self.hold(args[0].clone())]
        elif function.is_view and isinstance(result, Tensor):
            if not used:  # of what lies where it lies
                self.names[result] = self.hold(result.detach())
                return result
            if function is aten.detach.default:
                self.names[result] = self.names[args[0]]
                return result
        target = self.target(result, used)
        quick = getattr(function, "_op", function)  # what a call of it comes down to
        self.lines.append((f"{target} = {self.hold(quick)}({', '.join(given)})", used))
        return result

    def text(self, x: Any, used: set[str]) -> str:
        """How the function says x."""
        if isinstance(x, Tensor):
            if (name := self.names.get(x)) is None:
                name = self.names[x] = self.hold(x)
            used |= {name} if name[0] == "t" else set()
            return name
        if isinstance(x, (list, tuple)):
            return f"[{', '.join(self.text(item, used) for item in x)}]"
        return repr(x) if x is None or type(x) in (bool, int) else self.hold(x)

    def target(self, result: Any, used: set[str]) -> str:
        """What the function calls the results; those that have a name were changed in place."""
        if isinstance(result, (list, tuple)) and result:
            return f"({', '.join(self.target(item, used) for item in result)},)"
        if not isinstance(result, Tensor) or result in self.names:
            return "_"
        self.count += 1
        self.names[result] = name = f"t{self.count}"
        used.add(name)
        return name

    count = 0

    def hold(self, x: Any) -> str:
        name = f"c{len(self.held)}"
        self.held[name] = x
        return name

    def finish(self) -> None:
        """Writes the function, in which a tensor is let go after its last use."""
        kept: set[str] = set()
        asked = [f"[{', '.join(self.text(x, kept) for x in tensors)}]" for _, tensors in self.ends]
        for work, tensors in self.ends:
            work(*tensors)
        self.ends = [(work, ()) for work, _ in self.ends]
        last = {name: i for i, (_, used) in enumerate(self.lines) for name in used - kept}
        gone: dict[int, list[str]] = {}
        for name, i in last.items():
            gone.setdefault(i, []).append(name)
        lines = [f"{line}; del {', '.join(gone[i])}" if i in gone else line for i, (line, _) in enumerate(self.lines)]
        lines.append(f"return [{', '.join(asked)}]")
        exec("def function():\n " + "\n ".join(lines), self.held)
        self.function = self.held.pop("function")
        del self.names, self.lines

    def run(self) -> Sequence[Sequence[Tensor]]:
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            return self.function()


class _Operators(TorchDispatchMode):
    def __init__(self, tape: Tape):
        super().__init__()
        self.tape = tape

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*args, **kwargs or {}) if self.tape.off else self.tape.operator(function, args, kwargs or {})


class _Reads(TorchFunctionMode):
    """Notices who reads a CPU tensor past all operators."""

    def __init__(self, tape: Tape):
        super().__init__()
        self.tape = tape

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.tape.off and function in (Tensor.tolist, Tensor.numpy, Tensor.__array__):
            self.tape.fail(f"Tensor.{function.__name__} depends on the values of a tensor{where()}")
        return function(*args, **kwargs or {})


def where() -> str:
    """The line that called PyTorch."""
    for frame in reversed(traceback.extract_stack()):
        if frame.filename != __file__ and f"{os.sep}torch{os.sep}" not in frame.filename:
            return f" ({frame.filename}:{frame.lineno}: {frame.line})"
    return ""


class Graphs(Recording):
    """CUDA graphs, which are recorded without being played: https://docs.pytorch.org/docs/stable/notes/cuda.html,
    "CUDA Graphs". Work in the middle of a round lies between two of them, and so does the first use of a generator,
    which a graph must know from its beginning."""

    played = False

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[Work] = []
        self.generators: list[torch.Generator] = []
        self.pool = torch.cuda.graph_pool_handle()

    @contextmanager
    def running(self, gan: Any) -> Iterator[None]:
        groups = [group for o in gan.trainer.optimizers for group in o.param_groups if "capturable" in group]
        for group in groups:
            group["capturable"] = True
        torch.cuda.synchronize()
        gc.collect()
        torch.cuda.empty_cache()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self.begin()
            try:
                yield
                self.end()
            except Exception as error:  # if it is not the recording's, it comes again as the round is played
                self.fail(str(error).split("\n")[0])
                with suppress(RuntimeError):
                    self.graph.capture_end()
                for group in groups:
                    group["capturable"] = False
                gan.zero_grad()
        torch.cuda.current_stream().wait_stream(stream)

    def begin(self) -> None:
        self.graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            self.graph.register_generator_state(generator)
        self.graph.capture_begin(pool=self.pool, capture_error_mode="thread_local")  # another one may read data

    def end(self) -> None:
        self.graph.capture_end()
        self.parts.append(self.graph.replay)

    @contextmanager
    def paused(self) -> Iterator[None]:
        self.end()
        yield
        self.begin()

    def before(self, work: Work, generator: torch.Generator | None) -> None:
        self.generators += [] if generator is None else [generator]
        super().before(work, generator)

    def amid(self, work: Work) -> None:
        with self.paused():
            self.parts.append(work)

    def finish(self) -> None:
        self.results = [tensors for _, tensors in self.ends]

    def run(self) -> Sequence[Sequence[Tensor]]:
        for part in self.parts:
            part()
        return self.results
