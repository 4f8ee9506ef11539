"""Terms that tie samples to their labels."""

from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ganlab.phase import DiscriminatorOutput, Phase, full
from ganlab.terms import Term


class Classify(Term):
    """Cross entropy of the class that D's auxiliary head sees: -log P(label | x), of the fakes and in D's moves of the
    reals too (Odena et al. 2017, arXiv:1610.09585, eq. 3); of attributes the mean over them. `aux` of D's output must
    be class logits [N, classes].

    real, fake   whether reals, and fakes, count in D's moves; in G's it is the fakes
    """

    def __init__(self, weight: Any = 1.0, every: int = 1, real: bool = True, fake: bool = True, **kwargs: Any):
        super().__init__(weight, every, **kwargs)
        self.real, self.fake = real, fake
        if not real and not fake:
            raise ValueError("terms.classify: real=false and fake=false leave nothing to classify")

    def check(self, gan: Any) -> None:
        if not getattr(gan.task, "classes", None):
            raise ValueError("terms.classify needs labels: choose a model that is told them, as model=acgan")

    def forward(self, phase: Phase) -> Tensor:
        parts = []
        if phase.player == "D" and self.real:
            parts.append(cross_entropy(class_logits(phase.on_real), phase.batch.told_with_real))
        if phase.player == "G" or self.fake:
            parts.append(cross_entropy(class_logits(phase.on_fake), phase.batch.cond))
        return sum(parts[1:], start=parts[0])


class Contrastive(Term):
    """What 2C and D2D-CE share: in D's moves the reals of a batch are compared, in G's the fakes. `aux` of D's output
    must be two tensors [N, E] with rows of length 1: h, an embedding of each sample, and v, the proxy of its label.

    Compared are samples that D sees at once: those of one micro-batch of one process. Two attribute vectors are the
    same label where all their numbers are equal.

    temperature   by which similarities are divided
    """

    name: str  # of the term, and of a model that has it
    model: str

    def __init__(self, weight: Any = 1.0, every: int = 1, temperature: float = 1.0, **kwargs: Any):
        super().__init__(weight, every, **kwargs)
        if temperature <= 0:
            raise ValueError(f"terms.{self.name}.temperature={temperature}: must be above 0")
        self.temperature = temperature

    def check(self, gan: Any) -> None:
        if not getattr(gan.task, "classes", None):
            raise ValueError(f"terms.{self.name} needs labels: choose a model that is told them, as model={self.model}")

    @abstractmethod
    def contrast(self, pairs: Tensor, proxies: Tensor, same: Tensor) -> Tensor:
        """h_i . h_k [N, N], h_i . v_i [N], and which pairs have the same label [N, N] -> [N]"""

    def forward(self, phase: Phase) -> Tensor:
        real = phase.player == "D"
        output, label = (phase.on_real, phase.batch.told_with_real) if real else (phase.on_fake, phase.batch.cond)
        if not isinstance(output.aux, (tuple, list)):
            raise ValueError(f"terms.{self.name} needs a D that embeds samples: discriminator.embed=512 in biggan")
        h, v = full(output.aux)
        label = label.view(len(label), -1)
        with torch.autocast(h.device.type, enabled=False):
            return self.contrast(h @ h.T, (h * v).sum(1), (label[:, None] == label).all(2))


class Contrast(Contrastive):
    """The conditional contrastive loss 2C (Kang & Park 2020, arXiv:2006.12681, eq. 8), t being the temperature:

    -log (e(h_i.v_i) + sum over k != i of the same label of e(h_i.h_k)) / (e(h_i.v_i) + sum over all k != i of
    e(h_i.h_k)),  e(x) = exp(x / t)
    """

    name, model = "contrast", "contragan"

    def contrast(self, pairs: Tensor, proxies: Tensor, same: Tensor) -> Tensor:
        itself = torch.eye(len(pairs), dtype=torch.bool, device=pairs.device)
        likeness = torch.cat([proxies[:, None], pairs.masked_fill(itself, -torch.inf)], 1) / self.temperature
        attracted = likeness.masked_fill(F.pad(~same, (1, 0)), -torch.inf)  # the proxy, and those of the same label
        return likeness.logsumexp(1) - attracted.logsumexp(1)


class DataToDataCE(Contrastive):
    """Data-to-data cross entropy, D2D-CE (Kang et al. 2021, arXiv:2111.01118, section 3.3), t being the temperature:

    -log p / (p + sum over k of another label of exp(max(h_i.h_k - m_n, 0) / t)),  p = exp(min(h_i.v_i - m_p, 0) / t)

    What is near enough to its proxy attracts no more, and what is far enough apart is not pushed: m_n = 1 - m_p, as in
    the authors' code.

    margin   m_p, a cosine
    """

    name, model = "d2d_ce", "reacgan"

    def __init__(
        self, weight: Any = 0.5, every: int = 1, temperature: float = 0.5, margin: float = 0.98, **kwargs: Any
    ):
        super().__init__(weight, every, temperature, **kwargs)
        if not 0 <= margin <= 1:
            raise ValueError(f"terms.d2d_ce.margin={margin}: must be from 0 to 1")
        self.margin = margin

    def contrast(self, pairs: Tensor, proxies: Tensor, same: Tensor) -> Tensor:
        attraction = (proxies - self.margin).clamp(max=0) / self.temperature
        repulsion = (pairs - (1 - self.margin)).clamp(min=0) / self.temperature
        others = repulsion.masked_fill(same, -torch.inf)
        return torch.cat([attraction[:, None], others], 1).logsumexp(1) - attraction


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """[N], of labels [N] or attributes [N, classes]."""
    if label.dim() == 2:
        return F.binary_cross_entropy_with_logits(logits, label.to(logits.dtype), reduction="none").mean(1)
    return F.cross_entropy(logits, label, reduction="none")


def class_logits(output: DiscriminatorOutput) -> Tensor:
    if not isinstance(output.aux, Tensor):
        raise ValueError("terms.classify needs a D that names the class, as model=acgan has it")
    return full(output.aux)
