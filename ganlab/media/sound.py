"""Sounds: as WAV files, as players in TensorBoard, and as spectrograms."""

import io
import wave
from pathlib import Path
from typing import Any

from torch import Tensor

from ganlab.files import atomic
from ganlab.media import Medium
from ganlab.spectra import LogMel


class Sound(Medium):
    """Sounds [n, C, L] in [-1, 1].

    rate   samples per second
    """

    def __init__(self, rate: int):
        self.rate = rate

    def write(self, x: Tensor, folder: Path, first: int = 0, prefix: str = "") -> list[Path]:
        """A WAV file of 16 bits each."""
        paths = []
        for i, sound in enumerate(x, first):
            paths.append(folder / f"{prefix}{i:06d}.wav")
            with atomic(paths[-1]) as file:
                file.write(self.encoded(sound))
        return paths

    def encoded(self, sound: Tensor) -> bytes:
        """[C, L] -> the content of a WAV file."""
        numbers = (sound.float().clamp(-1, 1) * 32767).round().cpu().numpy().astype("<i2")
        content = io.BytesIO()
        with wave.open(content, "wb") as file:
            file.setparams((len(sound), 2, self.rate, sound.shape[1], "NONE", "not compressed"))
            file.writeframes(numbers.T.tobytes())
        return content.getvalue()

    def picture(self, x: Tensor) -> Tensor:
        """Log-mel spectrograms, time to the right and frequency upwards."""
        return LogMel(self.rate).to(x.device)(x[:, :1]).flip(2)

    def log(self, writer: Any, name: str, x: Tensor, step: int) -> None:
        for i, sound in enumerate(x):
            writer.add_audio(f"{name}/{i}", sound.float().mean(0, keepdim=True).clamp(-1, 1), step, self.rate)
