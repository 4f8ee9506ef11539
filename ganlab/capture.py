"""Rounds recorded once and replayed: what a round does to tensors, without the Python that led to it (`speed.graph`).

On a CPU a recording is a `Tape` of PyTorch's operators, on a GPU it is `Graphs`, a chain of CUDA graphs. Both repeat
what was recorded with the numbers of that time, and only tensors change. So what else changes from round to round goes
through one of these, which do their work at once where nothing is recorded:

generator  a generator, seeded anew in each round
amid       work at this place of the round
after      work with what the round computed, after it
varying    a number that may follow the clock

A recording is trusted when two rounds gave the same operations with the same numbers on the same tensors, and nothing
in them read a number from a tensor. Where it is not, the game is played on as it is, and a line says why.
"""

import gc
import os
import sys
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import torch
from torch import Tag, Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary
from tqdm import tqdm

Work = Callable[..., Any]
aten = torch.ops.aten
_recording: "Recording | None" = None


def generator(device: torch.device | str, seed: Callable[[], int]) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed()) if _recording is None else _recording.generator(device, seed)


def amid(work: Work) -> None:
    work() if _recording is None else _recording.amid(work)


def after(work: Work, *tensors: Tensor) -> None:
    work(*tensors) if _recording is None else _recording.ends.append((work, tensors))


def varying(f: Callable[[int], float], gan: Any, dtype: torch.dtype) -> float | Tensor:
    """f(seen); a tensor, where a recording is to hold it and it follows the clock."""
    return f(gan.seen) if _recording is None else _recording.number(f, gan, dtype)


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


_KEPT = {"__new__", "__getattribute__", "__getnewargs__", "__doc__", "__sizeof__"}
for _name in {name for name in vars(int) if name.startswith("__")} - _KEPT:
    setattr(Clock, _name, _looked_at(_name))


class Recorder:
    """Plays the rounds of a game: of each kind the first as it is, two while they are recorded, and then from the
    recording. A kind is what decides on the operations: what both players minimise, what curves ask for, structure and
    shapes of the batch, and `steady()` of each part that follows the clock: what of it a recording holds fast.

    why   rounds are no longer recorded; None: they are
    """

    WARM, MOST = 1, 64  # rounds of a kind before one is recorded; kinds

    def __init__(self) -> None:
        self.forget()
        self.why: str | None = None
        self.steady: Any = None
        self.place: tuple[Any, Any] | None = None  # of CUDA graphs: memory and stream

    def forget(self) -> None:
        """Records anew: for who changed something of the game that is no tensor, as a callback may."""
        self.met: Counter[Hashable] = Counter()
        self.tapes: dict[Hashable, Tape] = {}  # recorded once, or on a GPU twice
        self.recordings: dict[Hashable, Recording] = {}

    def __call__(self, gan: Any, batch: Any) -> None:
        kind = self.kind(gan, batch) if self.why is None else None
        recording = self.recordings.get(kind)
        if recording is not None and recording.holds(gan.seen):
            recording.replay(batch)
        elif kind is None or self.met[kind] < self.WARM or len(self.recordings) > self.MOST:
            self.met[kind] += 1
            gan.moves(batch)
        else:
            self.recordings.pop(kind, None)
            self.record(gan, batch, kind)

    def kind(self, gan: Any, batch: Any) -> Hashable:
        leaves, structure = tree_flatten(batch)
        if not all(isinstance(x, Tensor) for x in leaves):
            self.give_up("a batch holds something that is no tensor")
            return None
        if unsteady := [type(part).__name__ for part in gan.clocked if not hasattr(part, "steady")]:
            self.give_up(f"{unsteady[0]} has set_clock and no steady")
            return None
        if (steady := [part.steady() for part in gan.clocked]) != self.steady:
            self.forget()
            self.steady = steady
        due = [(player, *gan.due(player)) for player in gan.players]
        return *due, frozenset(gan.curves.pending), structure, *((x.shape, x.dtype) for x in leaves)

    def record(self, gan: Any, batch: Any, kind: Hashable) -> None:
        first = self.tapes.pop(kind, None)
        if first is not None and first.checked:
            self.capture(gan, batch, kind, first)
            return
        tape = Tape()
        tape.record(gan, batch, first)
        if (why := tape.why or (tape.unlike(first) if first is not None else None)) is not None:
            self.give_up(why)
        elif first is None:
            self.tapes[kind] = tape
        elif self.captures(gan):
            tape.checked, self.tapes[kind] = True, tape
        else:
            tape.compile()
            self.recordings[kind] = tape

    def capture(self, gan: Any, batch: Any, kind: Hashable, checked: "Tape") -> None:
        self.place = self.place or (torch.cuda.graph_pool_handle(), torch.cuda.Stream())
        graphs = Graphs(*self.place)
        graphs.record(gan, batch, checked)
        if graphs.why is not None:  # what Python did in this round can't be taken back
            raise ValueError(
                f"speed.graph=true: CUDA can't capture a round of this game: {graphs.why}. Go on without it: "
                "resume=RUN speed.graph=false"
            )
        self.recordings[kind] = graphs
        graphs.replay(batch)

    @staticmethod
    def captures(gan: Any) -> bool:
        """Whether rounds become CUDA graphs."""
        return gan.device.type == "cuda"

    def give_up(self, why: str) -> None:
        self.forget()
        self.why = why
        tqdm.write(f"speed.graph=true: this game's rounds can't be recorded, and are played as ever: {why}", sys.stderr)


class Recording(ABC):
    """One round.

    why   it can't be replayed; None: it can
    """

    def __init__(self) -> None:
        self.starts: list[Work] = []
        self.ends: list[tuple[Work, tuple[Tensor, ...]]] = []
        self.constants: list[tuple[Callable[[int], float], float]] = []
        self.generators: list[torch.Generator] = []
        self.clocks: list[Clock] = []
        self.why: str | None = None

    def record(self, gan: Any, batch: Any, earlier: "Recording | None") -> None:
        """earlier: of the same kind, with which it has in common where replays look for the batch"""
        global _recording
        self.device = gan.device
        self.batch: Any = tree_map(torch.empty_like, batch) if earlier is None else earlier.batch
        self.take(batch)
        _recording = self
        try:
            with self.running(gan):
                gan.moves(self.batch)
        finally:
            _recording = None
        if any(clock.read for clock in self.clocks):
            self.fail("something in a round looks at the clock, and is neither a weight nor a learning rate")

    def holds(self, seen: int) -> bool:
        """Whether the numbers that it holds are still those of the game."""
        return all(f(seen) == value for f, value in self.constants)

    def replay(self, batch: Any) -> None:
        self.take(batch)
        for work in self.starts:
            work()
        for (work, _), values in zip(self.ends, self.run(), strict=True):
            work(*values)

    def take(self, batch: Any) -> None:
        for kept, now in zip(tree_leaves(self.batch), tree_leaves(batch), strict=True):
            kept.copy_(now)

    def generator(self, device: torch.device | str, seed: Callable[[], int]) -> torch.Generator:
        with self.paused():
            made = torch.Generator(device).manual_seed(seed())
            self.generators.append(made)
        self.starts.append(lambda: made.manual_seed(seed()))
        return made

    def number(self, f: Callable[[int], float], gan: Any, dtype: torch.dtype) -> float | Tensor:
        value = f(watched := Clock(gan.seen))
        if not watched.read:
            self.constants.append((f, value))
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
    def run(self) -> Sequence[Sequence[Tensor]]:
        """Replays; returns what each work at the end asked for."""


class Tape(Recording):
    """The operators of a round below autograd, one after the other, as a Python function that does nothing else. The
    round is played while it is recorded.

    checked   whether another round gave the same
    """

    checked = False

    def __init__(self) -> None:
        super().__init__()
        # of tensors: c... there from the start, v... made of Python's numbers, n... varying, t... made in the round
        self.names: Any = WeakTensorKeyDictionary()
        self.held: dict[str, Any] = {}  # what the function refers to; besides, g... generators and w... work
        self.lines: list[tuple[str, set[str], str]] = []  # which t... are in it, and where it was asked for
        self.shared: set[str] = set()  # names of more than one tensor
        self.made, self.off = 0, False
        self.chance: Tensor | None = None  # where PyTorch's own random numbers are

    @contextmanager
    def running(self, gan: Any) -> Iterator[None]:
        with _Reads(self), _Operators(self):
            yield
        for work, tensors in self.ends:
            work(*tensors)

    @contextmanager
    def paused(self) -> Iterator[None]:
        self.off = True
        try:
            yield
        finally:
            self.off = False

    def number(self, f: Callable[[int], float], gan: Any, dtype: torch.dtype) -> float | Tensor:
        if isinstance(x := super().number(f, gan, dtype), Tensor):
            self.names[x] = self.hold(x, "n")
        return x

    def amid(self, work: Work) -> None:
        with self.paused():
            work()
            self.chance = self.random_state()
        self.lines.append((f"{self.hold(work, 'w')}()", set(), ""))

    def random_state(self) -> Tensor:
        return torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else torch.get_rng_state()

    def operator(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Plays it and writes it down."""
        if function.namespace == "profiler":
            return function(*args, **kwargs)
        used: set[str] = set()
        if function is aten.lift_fresh.default:  # a constant, which the round may write into
            value = self.hold(args[0].clone(), "v")
            self.lines.append(
                (f"{self.target(args[0], used)} = {self.hold(aten.clone.default)}({value})", used, where())
            )
            return function(*args, **kwargs)
        given = [*(self.text(x, used) for x in args), *(f"{k}={self.text(x, used)}" for k, x in kwargs.items())]
        self.look(function, args, kwargs)
        result = function(*args, **kwargs)
        if Tag.nondeterministic_seeded in function.tags:
            self.chance = self.random_state()
        if any(isinstance(x, Tensor) and x.device.type != self.device.type for x in tree_leaves(result)):
            self.fail(f"{function} computes on another device{where()}")
        if function.is_view and isinstance(result, Tensor):
            if not used:  # of what lies where it lies
                self.names[result] = self.hold(result.detach())
                return result
            if function is aten.detach.default:
                self.names[result] = name = self.names[args[0]]
                self.shared.add(name)
                return result
        target = self.target(result, used)
        quick = getattr(function, "_op", function)  # what a call of it comes down to
        self.lines.append((f"{target} = {self.hold(quick)}({', '.join(given)})", used, where()))
        return result

    def look(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Notices what a replay would not do again."""
        indexed = function is aten.index.Tensor and all(x is None or not_a_mask(x) for x in args[1])
        if {Tag.data_dependent_output, Tag.dynamic_output_shape} & {*function.tags} and not indexed:
            self.fail(f"{function} depends on the values of a tensor{where()}")
        name = self.names[args[0]] if Tag.inplace_view in function.tags else "t"
        moved = name[0] != "t" or name in self.shared
        if moved or any(isinstance(x, torch.UntypedStorage) for x in args):
            self.fail(f"{function} changes where a tensor lies{where()}")
        draws = Tag.nondeterministic_seeded in function.tags and kwargs.get("generator") is None
        if draws and self.chance is not None and not torch.equal(self.chance, self.random_state()):
            self.fail(f"PyTorch's random numbers were set to another place before {function}{where()}")

    def text(self, x: Any, used: set[str]) -> str:
        """How the function says x."""
        if isinstance(x, Tensor):
            if (name := self.names.get(x)) is None:
                name = self.names[x] = self.hold(x)
            used |= {name} if name[0] == "t" else set()
            return name
        if isinstance(x, (list, tuple)):
            return f"[{', '.join(self.text(item, used) for item in x)}]"
        if isinstance(x, torch.Generator):  # another object each time that an operator is handed it
            if x.initial_seed() not in [known.initial_seed() for known in self.generators]:
                self.fail(f"a generator of its own draws{where()}")
            return self.hold(x, "g")
        return repr(x) if x is None or type(x) in (bool, int) else self.hold(x)

    def target(self, result: Any, used: set[str]) -> str:
        """What the function calls the results; those that have a name were changed in place."""
        if isinstance(result, (list, tuple)) and result:
            return f"({', '.join(self.target(item, used) for item in result)},)"
        if not isinstance(result, Tensor) or result in self.names:
            return "_"
        self.made += 1
        self.names[result] = name = f"t{self.made}"
        used.add(name)
        return name

    def hold(self, x: Any, kind: str = "c") -> str:
        name = f"{kind}{len(self.held)}"
        self.held[name] = x
        return name

    def unlike(self, other: "Tape") -> str | None:
        """Where another round of the same kind did something else; None: nowhere."""
        pairs = zip(self.lines, other.lines, strict=False)
        places = [place for (mine, _, place), (theirs, *_) in pairs if mine != theirs]
        differing = [name for name in self.held if name not in other.held or not alike(name, self.held, other.held)]
        places += [place for line, _, place in self.lines if any(f"{name}(" in line or f"{name}," in line
                   or f"{name})" in line or f"{name}]" in line for name in differing[:1])]  # fmt: skip
        if places or differing or len(self.lines) != len(other.lines):
            return f"a round differs from the one before{places[0] if places else ''}"
        return None

    def compile(self) -> None:
        """Writes the function, in which a tensor is let go after its last use."""
        kept: set[str] = set()
        asked = [f"[{', '.join(self.text(x, kept) for x in tensors)}]" for _, tensors in self.ends]
        self.ends = [(work, ()) for work, _ in self.ends]
        last = {name: i for i, (_, used, _) in enumerate(self.lines) for name in used - kept}
        gone: dict[int, list[str]] = {}
        for name, i in last.items():
            gone.setdefault(i, []).append(name)
        lines = [f"{line}; del {', '.join(gone[i])}" if i in gone else line for i, (line, *_) in enumerate(self.lines)]
        lines.append(f"return [{', '.join(asked)}]")
        exec("def function():\n " + "\n ".join(lines), self.held)
        self.function = self.held.pop("function")
        del self.names, self.lines

    def run(self) -> Sequence[Sequence[Tensor]]:
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            return self.function()


def not_a_mask(x: Tensor) -> bool:
    return x.dtype not in (torch.bool, torch.uint8)


def alike(name: str, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Whether two rounds refer to the same by this name; what is made anew for each round is the same by its place."""
    a, b = mine[name], theirs[name]
    if name[0] in "gnw":
        return True
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return bool(a is b or a == b or (a != a and b != b))
    if name[0] == "v":
        return a.dtype == b.dtype and torch.equal(a, b)
    return (a.data_ptr(), a.dtype, a.shape, a.stride()) == (b.data_ptr(), b.dtype, b.shape, b.stride())


def where() -> str:
    """The line that called PyTorch."""
    library = os.path.dirname(torch.__file__)
    frame = sys._getframe(1)
    while frame is not None and (frame.f_code.co_filename == __file__ or frame.f_code.co_filename.startswith(library)):
        frame = frame.f_back  # type: ignore[assignment]
    return "" if frame is None else f" ({frame.f_code.co_filename}, line {frame.f_lineno})"


class _Operators(TorchDispatchMode):
    def __init__(self, tape: Tape):
        super().__init__()
        self.tape = tape

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*args, **kwargs or {}) if self.tape.off else self.tape.operator(function, args, kwargs or {})


class _Reads(TorchFunctionMode):
    """Notices who reads a CPU tensor past all operators."""

    PAST = (Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.__dlpack__, Tensor.__repr__, Tensor.__format__)

    def __init__(self, tape: Tape):
        super().__init__()
        self.tape = tape

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.tape.off and function in self.PAST:
            self.tape.fail(f"Tensor.{function.__name__} depends on the values of a tensor{where()}")
        return function(*args, **kwargs or {})


class Graphs(Recording):
    """CUDA graphs, which are recorded without being played: https://docs.pytorch.org/docs/stable/notes/cuda.html,
    "CUDA Graphs". Work in the middle of a round lies between two of them, and so does the first use of a generator,
    which a graph must know from its beginning.

    pool, stream   memory of all recordings of a game, of which one is replayed at a time, and where they are recorded
    """

    def __init__(self, pool: Any, stream: Any) -> None:
        super().__init__()
        self.pool, self.stream = pool, stream
        self.parts: list[Work] = []

    @contextmanager
    def running(self, gan: Any) -> Iterator[None]:
        groups = [group for o in gan.trainer.optimizers for group in o.param_groups if "capturable" in group]
        before = [group["capturable"] for group in groups]
        for group in groups:
            group["capturable"] = True
        torch.cuda.synchronize()
        gc.collect()
        torch.cuda.empty_cache()
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The CUDA Graph is empty")
            self.begin()
            try:
                yield
                self.end()
            except BaseException as error:
                self.fail(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
                with suppress(RuntimeError):
                    self.graph.capture_end()
                if not isinstance(error, Exception):
                    raise
            finally:
                for group, capturable in zip(groups, before, strict=True):
                    group["capturable"] = capturable
        torch.cuda.current_stream().wait_stream(self.stream)

    def begin(self) -> None:
        self.graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            self.graph.register_generator_state(generator)
        self.graph.capture_begin(pool=self.pool, capture_error_mode="thread_local")  # another thread may read data

    def end(self) -> None:
        self.graph.capture_end()
        self.parts.append(self.graph.replay)

    @contextmanager
    def paused(self) -> Iterator[None]:
        self.end()
        yield
        self.begin()

    def amid(self, work: Work) -> None:
        with self.paused():
            self.parts.append(work)

    def run(self) -> Sequence[Sequence[Tensor]]:
        for part in self.parts:
            part()
        return [tensors for _, tensors in self.ends]
