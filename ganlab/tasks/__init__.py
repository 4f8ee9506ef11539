"""Tasks: what the data serves becomes what the game is played with."""

from ganlab.tasks.adapt import Adapt
from ganlab.tasks.images import Restore, Segment, Translate, TranslateUnpaired
from ganlab.tasks.noise import Autoencode, Bidirectional, Codes, Generate, MultiScale, Progressive
from ganlab.tasks.tables import Impute, Synthesize
from ganlab.tasks.task import Task
from ganlab.tasks.text import Write

__all__ = [
    "Adapt",
    "Autoencode",
    "Bidirectional",
    "Codes",
    "Generate",
    "Impute",
    "MultiScale",
    "Progressive",
    "Restore",
    "Segment",
    "Synthesize",
    "Task",
    "Translate",
    "TranslateUnpaired",
    "Write",
]
