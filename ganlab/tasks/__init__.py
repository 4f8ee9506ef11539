"""Tasks: what the data serves becomes what the game is played with."""

from ganlab.tasks.adapt import Adapt
from ganlab.tasks.images import Restore, Segment, Translate, TranslateUnpaired
from ganlab.tasks.noise import Autoencode, Bidirectional, Codes, Generate, MultiScale, Progressive
from ganlab.tasks.task import Task

__all__ = [
    "Adapt",
    "Autoencode",
    "Bidirectional",
    "Codes",
    "Generate",
    "MultiScale",
    "Progressive",
    "Restore",
    "Segment",
    "Task",
    "Translate",
    "TranslateUnpaired",
]
