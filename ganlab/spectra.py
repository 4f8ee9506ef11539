"""What a sound looks like: the log-mel spectrogram that scores and pictures see."""

import torch
from torch import Tensor, nn


class LogMel(nn.Module):
    """Sounds [N, C, L] in [-1, 1] -> [N, C, bands, frames] in [-1, 1]: the power in triangular bands that lie at equal
    distances on the mel scale (2595 log10(1 + f / 700)) from 0 to rate / 2, in dB below that of a full-scale sine, 0
    being 1 and `floor`, or more, -1. Windows are Hann's, of about 32 ms, half of one apart.

    rate    samples per second
    bands   how many
    floor   dB below a sine of amplitude 1
    """

    window: Tensor
    filters: Tensor

    def __init__(self, rate: int, bands: int = 40, floor: float = 80.0):
        super().__init__()
        if not 1 <= rate <= 10**6 or bands < 1 or floor <= 0:
            raise ValueError(
                f"a spectrogram of rate={rate}, bands={bands}, floor={floor}: rates are at most 1,000,000 samples per "
                "second, bands at least 1, and the floor above 0 dB"
            )
        self.rate, self.bands, self.floor = rate, bands, floor
        self.size = 2 ** max(4, round(0.032 * rate).bit_length() - 1)
        self.register_buffer("window", torch.hann_window(self.size), persistent=False)
        self.register_buffer("filters", triangles(rate, bands, self.size + 1), persistent=False)  # [bands, bins]

    def forward(self, x: Tensor) -> Tensor:
        flat = x.float().flatten(0, 1)
        spectrum = torch.stft(
            flat, 2 * self.size, self.size // 2, self.size, self.window, pad_mode="constant", return_complex=True
        )
        power = (2 / self.window.sum() * spectrum.abs()).square()  # of a sine of amplitude 1, its peak is 1
        level = 10 * (self.filters @ power).clamp_min(10 ** (-self.floor / 10)).log10()
        return (1 + 2 * level.clamp_max(0) / self.floor).unflatten(0, x.shape[:2])


def triangles(rate: int, bands: int, bins: int) -> Tensor:
    """[bands, bins]: each rises from its lower neighbour's centre to 1 at its own and falls to its upper neighbour's;
    where bins lie further apart than centres, the nearest bin is 1."""
    mel = torch.linspace(0, 2595 * torch.log10(torch.tensor(1 + rate / 1400)).item(), bands + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    f = torch.linspace(0, rate / 2, bins)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    filters = torch.minimum((f - low) / (centre - low), (high - f) / (high - centre)).clamp_min(0)
    nearest = (f - centre).abs().argmin(1)
    return torch.where(filters.amax(1, keepdim=True) > 0, filters, torch.eye(bins)[nearest])
