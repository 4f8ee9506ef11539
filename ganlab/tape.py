"""A recording of a round on a CPU: PyTorch's operators, and what shows that they can't be repeated."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tag, Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from ganlab import recording
from ganlab.recording import Recording, Work

aten = torch.ops.aten


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
        self.places: dict[str, str] = {}  # where each was asked for
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
        self.held[name], self.places[name] = x, where()
        return name

    def unlike(self, other: "Tape") -> str | None:
        """Where another round of the same kind did something else; None: nowhere."""
        places = [self.places[k] for k in self.held if k not in other.held or not alike(k, self.held, other.held)]
        pairs = zip(self.lines, other.lines, strict=False)
        places += [place for (mine, _, place), (theirs, *_) in pairs if mine != theirs]
        if not places and len(self.lines) == len(other.lines):
            return None
        return f"a round differs from the one before{places[0] if places else ''}"

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
        del self.names, self.lines, self.places

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
    library, own = os.path.dirname(torch.__file__), (__file__, recording.__file__)
    frame = sys._getframe(1)
    while frame is not None and ((file := frame.f_code.co_filename) in own or file.startswith(library)):
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
