"""Scores of what G made beside what it was to make: each sample has its own number, and the score is their mean."""

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix
from torchmetrics.functional.image import structural_similarity_index_measure

from ganlab.metrics.fit import as_shown
from ganlab.metrics.scores import Kept, Score

See = Callable[[Tensor], Tensor]  # images in [-1, 1] -> the extractor's features


class Compared(Score):
    """What these scores share: `compare` gives a row of numbers for each sample."""

    reals = False

    @abstractmethod
    def compare(self, fake: Tensor, target: Tensor, see: See) -> Tensor:
        """[n, d] of outputs and targets [n, C, H, W], as the task shows them to D."""

    def __call__(self, real: Kept, fake: Kept) -> dict[str, float]:
        (output,) = self.reads
        return {key: fake.rows(output).double().mean().item() for key in self.keys}


class OfLevels(Compared):
    """Of images as a viewer sees them, in 256 levels.

    luma     on Y of YCbCr (ITU-R 601, 16 to 235) alone, as super-resolution is judged; the score's name then ends in _y
    border   pixels at each edge that are left out, as many as the scale, there
    """

    higher_is_better = True
    name: str

    def __init__(self, luma: bool = False, border: int = 0):
        self.luma, self.border = luma, border
        self.keys = (f"{self.name}_y" if luma else self.name,)
        self.reads = {self.keys[0]: "rows"}

    def compare(self, fake: Tensor, target: Tensor, see: See) -> Tensor:
        if 2 * self.border >= min(fake.shape[2:]):
            raise ValueError(f"scores.{self.name}.border={self.border}: nothing is left of {list(fake.shape[2:])}")
        return self.of(self.levels(fake), self.levels(target))[:, None]

    @abstractmethod
    def of(self, x: Tensor, y: Tensor) -> Tensor:
        """[n], of levels 0 to 255."""

    def levels(self, x: Tensor) -> Tensor:
        x = as_shown(x.float()).float()
        if self.luma and x.shape[1] == 3:
            weights = torch.tensor([65.481, 128.553, 24.966], device=x.device) / 255
            x = 16 + (x * weights[:, None, None]).sum(1, keepdim=True)
        return x[..., self.border : x.shape[2] - self.border, self.border : x.shape[3] - self.border]


class PSNR(OfLevels):
    """Peak signal-to-noise ratio in dB, 100 at most: 10 log10(255^2 / mean squared error) of each image."""

    name = "psnr"

    def of(self, x: Tensor, y: Tensor) -> Tensor:
        return 10 * (255**2 / (x - y).square().flatten(1).mean(1)).clamp(max=1e10).log10()


class SSIM(OfLevels):
    """Structural similarity in windows of 11x11, Gaussian of deviation 1.5 (Wang et al. 2004, "Image quality
    assessment: from error visibility to structural similarity")."""

    name = "ssim"

    def of(self, x: Tensor, y: Tensor) -> Tensor:
        if min(x.shape[2:]) < 11:
            raise ValueError(f"scores.ssim: its window has 11x11 pixels, and images {list(x.shape[2:])}: leave it out")
        _, at = structural_similarity_index_measure(x, y, data_range=255.0, return_full_image=True)
        return at[..., 5:-5, 5:-5].flatten(1).mean(1)  # where windows lie inside the image


class L1(Compared):
    """Mean absolute difference, in [-1, 1] as the term has it."""

    keys, reads = ("l1",), {"l1": "rows"}

    def compare(self, fake: Tensor, target: Tensor, see: See) -> Tensor:
        return (fake.float() - target.float()).abs().flatten(1).mean(1, keepdim=True)


class LPIPS(Compared):
    """Distance in the features of a network that was trained on human judgements (Zhang et al. 2018, arXiv:1801.03924),
    with extractor=lpips, whose net is part of the name: lpips_vgg."""

    keys, reads = ("lpips",), {"lpips": "rows"}

    def compare(self, fake: Tensor, target: Tensor, see: See) -> Tensor:
        pairs = zip(fake.split(8), target.split(8), strict=True)  # features may be long
        return torch.cat([(see(x) - see(y)).square().sum(1, keepdim=True, dtype=torch.float64) for x, y in pairs])


class Segmentation(Compared):
    """Of maps of classes: the share of pixels that are right, and the mean over classes of intersection over union, of
    all images together. Pixels that are 0 in all of the target's classes do not count, nor do classes that are nowhere.
    """

    keys, reads = ("miou", "pixel_accuracy"), {"confusion": "rows"}
    higher_is_better = True
    VOID = 255

    def compare(self, fake: Tensor, target: Tensor, see: See) -> Tensor:
        """Counts of each image, [n, classes^2]: rows are right classes, columns G's."""
        classes, right = fake.shape[1], target.argmax(1)
        right = torch.where(target.sum(1) > 0, right, self.VOID)
        count = lambda p, t: multiclass_confusion_matrix(p, t, classes, ignore_index=self.VOID).flatten()
        return torch.stack([count(p, t) for p, t in zip(fake.argmax(1), right, strict=True)])

    def __call__(self, real: Kept, fake: Kept) -> dict[str, float]:
        counts = fake.rows("confusion").sum(0).double()
        counts = counts.view(2 * [round(len(counts) ** 0.5)])
        both, either = counts.diag(), counts.sum(0) + counts.sum(1) - counts.diag()
        there = either > 0
        values = {"miou": (both[there] / either[there]).mean(), "pixel_accuracy": both.sum() / counts.sum()}
        return {key: value.item() for key, value in values.items()}


class Accuracy(Compared):
    """Share of images whose class is right: both sides are logits, or zeros and a one, [n, classes]."""

    keys, reads = ("accuracy",), {"accuracy": "rows"}
    higher_is_better = True

    def compare(self, fake: Tensor, target: Tensor, see: See) -> Tensor:
        return (fake.argmax(1) == target.argmax(1)).float()[:, None]
