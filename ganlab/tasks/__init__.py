"""Tasks: what the data serves becomes what the game is played with."""

from ganlab.tasks.images import Restore, Segment, Translate, TranslateUnpaired
from ganlab.tasks.noise import Autoencode, Bidirectional, Codes, Generate, MultiScale, Progressive
from ganlab.tasks.task import Task
from ganlab.tasks.text import Write

__all__ = [
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
    "Write",
]
