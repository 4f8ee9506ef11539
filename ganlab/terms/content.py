"""Terms that compare what G made with what it was to make."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from ganlab.files import Remote
from ganlab.phase import Phase, full
from ganlab.terms import Term
from ganlab.weights import obtain

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and deviation of its colours, in 0 .. 1


class L1(Term):
    """Mean |G(x) - y| over all numbers of a sample, which blurs less than squares do (Isola et al. 2017,
    arXiv:1611.07004, eq. 3; the weight is lambda, 100 there)."""

    player = "G"

    def __init__(self, weight: Any = 100.0, every: int = 1, **kwargs: Any):
        super().__init__(weight, every, **kwargs)

    def forward(self, phase: Phase) -> Tensor:
        return (phase.fake - phase.real).abs().flatten(1).mean(1)


class L2(L1):
    """Mean (G(x) - y)^2 over all numbers of a sample."""

    def forward(self, phase: Phase) -> Tensor:
        return (phase.fake - phase.real).square().flatten(1).mean(1)


class CrossEntropy(Term):
    """-log P(class of a pixel), the mean over all pixels that count, of logits that are G's aux (task=segment)."""

    player = "G"
    VOID = 255

    def forward(self, phase: Phase) -> Tensor:
        counted = (phase.batch.real != self.VOID).sum().clamp(min=1)
        return F.cross_entropy(phase.aux, phase.batch.real, ignore_index=self.VOID, reduction="sum") / counted


class Content(Term):
    """Mean |f(G(x)) - f(y)|, or the mean of its square, over all numbers of each map f of a classifier that was trained
    on ImageNet and stays as it is (Ledig et al. 2017, arXiv:1609.04802, eq. 5, squared, after the activation; Wang et
    al. 2018, arXiv:1809.00219, section 3.3, before it).

    net        its name in torchvision
    layers     nodes of it whose outputs are compared, the mean over them; None: of VGG19 the last convolution, as in
               both papers, of SqueezeNet 1.1 the last two, which lie side by side
    activated  where `layers` is None: the same after their ReLU
    squared    squares in place of absolute values
    weights    a file to use in place of the usual one: safetensors, or what torch.save writes
    checksum   of that file, "sha256:..."; None: it is taken as it is
    """

    scale: Tensor
    player = "G"
    LAST = {
        "vgg19": (["features.34"], ["features.35"]),
        "squeezenet1_1": (["features.12.expand1x1", "features.12.expand3x3"], ["features.12.cat"]),
    }

    def __init__(
        self, weight: Any = 1.0, every: int = 1, net: str = "vgg19", layers: Sequence[str] | None = None,
        activated: bool = False, squared: bool = False, weights: str | None = None, checksum: str | None = None,
        **kwargs: Any,
    ):  # fmt: skip
        super().__init__(weight, every, **kwargs)
        if net not in torchvision.models.list_models(torchvision.models):
            raise ValueError(f"terms.content.net={net!r}: torchvision has no classifier of that name")
        if layers is None and net not in self.LAST:
            raise ValueError(f"terms.content.layers: say which of {net}, or take net={' or '.join(self.LAST)}")
        self.layers = list(layers) if layers is not None else self.LAST[net][activated]
        self.net, self.squared, self.weights, self.checksum = net, squared, weights, checksum
        with torch.device("meta"):  # shapes alone: weights come later
            whole = torchvision.models.get_model(net, weights=None)
        for layer in whole.modules():
            if isinstance(layer, nn.ReLU):
                layer.inplace = False  # it would change the maps before it
        try:
            network = create_feature_extractor(whole.eval(), {name: name for name in self.layers})
        except ValueError as error:
            raise ValueError(f"terms.content.layers={self.layers}: of {net} it can't be: {error}") from None
        self.register_buffer("scale", torch.tensor(IMAGENET)[:, :, None, None], persistent=False)  # mean, deviation
        self.network = [network.eval().requires_grad_(False)]  # in a list, it is no part of checkpoints

    def prepare(self) -> None:
        """Gets the weights, if it has none yet.

        Raises:
            Unavailable: there are none
            ValueError: they are another network's
        """
        (network,) = self.network
        if not any(p.is_meta for p in network.parameters()):
            return
        url = torchvision.models.get_model_weights(self.net).DEFAULT.url
        file = url.rsplit("/", 1)[-1]
        remote = Remote(file, (url,), f"sha256:{file.rsplit('-', 1)[-1].split('.')[0]}")
        instead = "compare in another network: terms.content.net=squeezenet1_1; or leave the term out: ~terms.content"
        state, _ = obtain(remote, self.weights, self.checksum, "terms.content", instead)
        try:
            own = network.state_dict()
            network.load_state_dict({k: state[k].to(v.dtype) for k, v in own.items()}, assign=True)
        except (LookupError, RuntimeError):
            told = f"terms.content.weights={self.weights}: the weights are another network's, not {self.net}'s"
            raise ValueError(told) from None
        network.requires_grad_(False)

    def set_clock(self, seen: int) -> None:
        self.prepare()  # before the first move, also where the term starts later

    def steady(self) -> None:
        """Nothing of it changes."""

    def maps(self, x: Tensor) -> list[Tensor]:
        """What the network makes of images in [-1, 1], in grey or colour; of others it sees no alpha."""
        (network,) = self.network
        x = x[:, :3] if x.shape[1] > 2 else x[:, :1].expand(-1, 3, -1, -1)
        try:
            seen = network.to(x.device, x.dtype)(((x + 1) / 2 - self.scale[0]) / self.scale[1])
        except RuntimeError:
            size = list(x.shape[2:])
            if min(size) >= 32:  # something else
                raise
            raise ValueError(f"terms.content: {self.net} can't look at images of {size}: set data.size=32") from None
        return [full(seen[name]) for name in self.layers]

    def forward(self, phase: Phase) -> Tensor:
        fake = self.maps(phase.fake)
        with torch.no_grad():
            real = self.maps(phase.real)
        gaps = [(x - y).square() if self.squared else (x - y).abs() for x, y in zip(fake, real, strict=True)]
        return torch.stack([gap.flatten(1).mean(1) for gap in gaps]).mean(0)
