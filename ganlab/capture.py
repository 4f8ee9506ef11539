"""Rounds recorded once and replayed: what a round does to tensors, without the Python that led to it (`speed.graph`).

On a CPU a recording is a `Tape` of PyTorch's operators, on a GPU it is `Graphs`, a chain of CUDA graphs. It is trusted
when two rounds gave the same operations with the same numbers on the same tensors, and nothing in them read a number
from a tensor. Where it is not, the game is played on as it is, and a line says why.
"""

import gc
import sys
import warnings
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten
from tqdm import tqdm

from ganlab.recording import Recording, Work
from ganlab.tape import Tape


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
        elif kind is None or self.met[kind] < self.WARM or len(self.recordings) >= self.MOST:
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
