"""Feature extractors with published weights: Inception, ImageNet classifiers, DINOv2, CLIP, LPIPS."""

import math
import warnings
from abc import abstractmethod
from typing import Any, Literal
from unittest import mock

import torch
import torch_fidelity.feature_extractor_clip as fidelity_clip
import torch_fidelity.feature_extractor_inceptionv3 as fidelity_inception
import torchvision
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchmetrics.functional.image.lpips import _LPIPS
from torchvision.models.feature_extraction import create_feature_extractor

from ganlab.files import Remote
from ganlab.metrics.extractors import Extractor
from ganlab.metrics.fit import as_floats
from ganlab.metrics.resize import WAYS, How, check_way, resized
from ganlab.metrics.vit import DINOv2Network
from ganlab.weights import load_into, obtain

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP_SCALE = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
Precision = Literal[32, "bf16"]


class Pretrained(Extractor):
    """A network whose weights somebody published.

    resize     how images get its size: see `ganlab.metrics.resize`
    precision  32; or "bf16": the network under autocast, twice as fast on a processor that has it, whose features are
               off by some thousandths: its scores have a name of their own
    weights    a file to use in place of the usual one: safetensors, or what torch.save writes
    checksum   of that file, "sha256:..."; None: it is taken as it is
    """

    network: str  # its name, whatever its precision
    size: int
    remote: Remote
    scale: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET  # mean and deviation per channel, of values in 0 .. 1

    def __init__(
        self, resize: How = "tf1", precision: Precision = 32, weights: str | None = None, checksum: str | None = None
    ):
        super().__init__()
        check_way(resize)
        if precision not in (32, "bf16"):
            raise ValueError(f"extractor.precision={precision}: must be 32 or bf16")
        self.resize, self.precision, self.weights, self.checksum = resize, precision, weights, checksum
        self.net: Any = None

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.network if self.precision == 32 else f"{self.network}-{self.precision}"

    def check(self, facts: dict[str, Any]) -> None:
        shape = facts["shape"]
        if len(shape) != 3 or shape[0] not in (1, 3):
            raise ValueError(
                f"extractor={self.network} looks at images of 1 or 3 channels, not at {shape}: use extractor=pixels"
            )

    def prepare(self, data: Any = None) -> None:
        if self.net is None:
            state, self.hash = obtain(self.remote, self.weights, self.checksum)
            try:
                self.net = self.built(state)
            except (RuntimeError, LookupError, TypeError, AttributeError):  # each network looks at them in its own way
                told = f"extractor.weights={self.weights}: the weights are another network's, not {self.network}'s"
                raise ValueError(told) from None

    @abstractmethod
    def built(self, state: dict[str, Tensor]) -> nn.Module:
        """The network with these weights, frozen, in eval mode."""

    def seen(self, x: Tensor) -> Tensor:
        """What the network is shown: [N, 3, size, size], of images in grey or colour."""
        assert self.net is not None, "call prepare first"
        x = x if x.dtype == torch.uint8 else (x + 1) * 127.5
        x = resized(x if x.shape[1] == 3 else x.expand(-1, 3, -1, -1), self.size, self.resize)
        mean, deviation = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) * 255 for v in self.scale)
        return (x - mean).div_(deviation)

    def forward(self, x: Tensor) -> Any:
        x, cudnn = self.seen(x), torch.backends.cudnn
        exact = cudnn.flags(True, cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False)
        with exact, torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            outputs = self.look(x)
        return {k: v.float() for k, v in outputs.items()} if isinstance(outputs, dict) else outputs.float()

    def look(self, x: Tensor) -> Any:
        """What the network makes of what it is shown."""
        return self.net(x)

    def describe(self) -> str:
        return f"{self.name}, weights {self.hash}, {WAYS[self.resize]} to {self.size}"


class Inception(Pretrained):
    """The network of FID: torch-fidelity's conversion of the original one of December 2015.

    features: 2,048 of the last pooling layer. logits: 1,008, without bias, as Inception Score has them. spatial: 7 maps
    of 17x17 inside the network, as sFID has them (Nash et al. 2021, arXiv:2103.03841).
    """

    network, size = "inception", 299
    scale = ((128 / 255,) * 3, (128 / 255,) * 3)  # (x - 128) / 128
    remote = Remote(
        "weights-inception-2015-12-05-6726825d.pth",
        (
            "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
            "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        ),
        "sha256:6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    )

    def built(self, state: dict[str, Tensor]) -> nn.Module:
        # torch-fidelity would unpickle the file without restriction: it is handed what was read safely
        with mock.patch.object(fidelity_inception, "load_state_dict_from_url", return_value=state):
            net = fidelity_inception.FeatureExtractorInceptionV3("inception", ["2048"])
        for layer in net.modules():  # half of the time, to 1e-6: batch norm becomes a part of each convolution
            if isinstance(layer, fidelity_inception.BasicConv2d):
                layer.conv, layer.bn = fuse_conv_bn_eval(layer.conv, layer.bn), nn.Identity()
        return net.to(memory_format=torch.channels_last)

    def look(self, x: Tensor) -> dict[str, Tensor]:
        outputs = {}
        for name, layer in self.net.named_children():  # in the order of the network
            if name == "Mixed_6d":
                outputs["spatial"] = layer.branch1x1(x)[:, :7].flatten(1)
            if name == "AvgPool":
                x = x.float()  # a mean is not rounded
            if name != "fc":
                x = layer(x)
        outputs["features"] = x = x.flatten(1)
        with torch.autocast(x.device.type, enabled=False):
            return outputs | {"logits": x @ self.net.fc.weight.T}


class Torchvision(Pretrained):
    """A classifier of torchvision's, trained on ImageNet.

    net      its name there
    layer    node whose output are the features; maps are averaged
    size     pixels that it sees
    """

    def __init__(self, net: str, layer: str, size: int = 224, name: str | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        if net not in torchvision.models.list_models(torchvision.models):
            raise ValueError(f"extractor.net={net!r}: torchvision has no classifier of that name")
        self.architecture, self.layer, self.size, self.network = net, layer, size, name or net
        url = torchvision.models.get_model_weights(net).DEFAULT.url
        file = url.rsplit("/", 1)[-1]
        self.remote = Remote(file, (url,), f"sha256:{file.rsplit('-', 1)[-1].split('.')[0]}")

    def built(self, state: dict[str, Tensor]) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some draw their first weights slowly, and say so
            net = torchvision.models.get_model(self.architecture, weights=None)
        load_into(net, state, self.weights)
        try:
            last = list(dict(net.named_children()))[-1]
            if last == self.layer:
                raise ValueError(f"{last} is its last, which are the logits")
            net = create_feature_extractor(net, {self.layer: "features", last: "logits"}).eval()
        except ValueError as error:
            raise ValueError(f"extractor.layer={self.layer}: of {self.architecture} it can't be: {error}") from None
        return fuse(net, inplace=True, no_trace=True).eval().to(memory_format=torch.channels_last)  # the same, to 1e-4

    def look(self, x: Tensor) -> dict[str, Tensor]:
        outputs = self.net(x)
        return {k: v.float().mean((2, 3)) if v.dim() == 4 else v.flatten(1) for k, v in outputs.items()}

    def describe(self) -> str:
        return f"{super().describe()}, layer {self.layer}"


class DINOv2(Pretrained):
    """The class token of DINOv2 (Oquab et al. 2023, arXiv:2304.07193), for FD-DINOv2 (Stein et al. 2023,
    arXiv:2306.04675).

    net   "vits14", "vitb14" or "vitl14"
    """

    size = 224
    HASHES = {
        "vits14": "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
        "vitb14": "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
        "vitl14": "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
    }

    def __init__(self, net: str = "vitl14", **kwargs: Any):
        super().__init__(**kwargs)
        if net not in self.HASHES:
            raise ValueError(f"extractor.net={net!r}: must be one of {', '.join(self.HASHES)}")
        self.network, file = f"dinov2_{net}", f"dinov2_{net}_pretrain.pth"
        url = f"https://dl.fbaipublicfiles.com/dinov2/dinov2_{net}/{file}"
        self.remote = Remote(file, (url,), f"sha256:{self.HASHES[net]}")

    def built(self, state: dict[str, Tensor]) -> nn.Module:
        return load_into(DINOv2Network.like(state), state, self.weights)


class CLIP(Pretrained):
    """The image embedding of CLIP (Radford et al. 2021, arXiv:2103.00020), by torch-fidelity's networks.

    net   "vit-b-32", "vit-b-16", "vit-l-14" or "vit-l-14-336px" (CMMD's)
    """

    scale = CLIP_SCALE

    def __init__(self, net: str = "vit-l-14-336px", **kwargs: Any):
        super().__init__(**kwargs)
        known = fidelity_clip.MODEL_METADATA
        if f"clip-{net}" not in known or "rn" in net:
            names = [k.removeprefix("clip-") for k in known if "vit" in k]
            raise ValueError(f"extractor.net={net!r}: must be one of {', '.join(names)}")
        about = known[f"clip-{net}"]
        self.network, self.size = f"clip_{net.replace('-', '_')}", 336 if net.endswith("336px") else 224
        url = fidelity_clip.MODEL_URLS[f"clip-{net}"]
        self.remote = Remote(f"{about['filename']}.pt", (url,), f"sha256:{about['hash']}")

    def built(self, state: dict[str, Tensor]) -> nn.Module:
        return fidelity_clip.build_model(dict(state), torch.float32).visual


class LPIPS(Pretrained):
    """Features whose squared distance is LPIPS 0.1 (Zhang et al. 2018, arXiv:1801.03924, eq. 1): at each layer the
    normalised activations, weighted by the roots of the linear layer that torchmetrics ships. Images keep their size.

    net   "squeeze", "alex" or "vgg"
    """

    FILES = {"squeeze": "squeezenet1_1-b8a52dc0.pth", "alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}

    def __init__(
        self, net: str = "vgg", precision: Precision = 32, weights: str | None = None, checksum: str | None = None
    ):
        super().__init__("tf1", precision, weights, checksum)
        if net not in self.FILES:
            raise ValueError(f"extractor.net={net!r}: must be one of {', '.join(self.FILES)}")
        self.backbone: Any = net
        self.network, file = f"lpips_{net}", self.FILES[net]
        url = f"https://download.pytorch.org/models/{file}"
        self.remote = Remote(file, (url,), f"sha256:{file.rsplit('-', 1)[-1].split('.')[0]}")

    def check(self, facts: dict[str, Any]) -> None:
        super().check(facts)
        if min(facts["shape"][1:]) < 32:
            raise ValueError(f"extractor={self.network} needs images of at least 32x32, not {facts['shape']}")

    def built(self, state: dict[str, Tensor]) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the weights that are replaced here
            net = _LPIPS(pretrained=True, net=self.backbone, pnet_rand=True, eval_mode=True)
        layers = [v for k, v in state.items() if k.startswith("features.")]
        own = net.net.state_dict()
        if [v.shape for v in own.values()] != [v.shape for v in layers[: len(own)]]:
            raise ValueError(f"extractor.weights={self.weights}: the weights are another network's")
        load_into(net.net, dict(zip(own, layers, strict=False)), self.weights)
        return net.eval().requires_grad_(False)

    def seen(self, x: Tensor) -> Tensor:
        assert self.net is not None, "call prepare first"
        x = as_floats(x)
        return self.net.scaling_layer(x if x.shape[1] == 3 else x.expand(-1, 3, -1, -1))

    def look(self, x: Tensor) -> Tensor:
        parts = []
        for y, head in zip(map(Tensor.float, self.net.net(x)), self.net.lins, strict=True):
            unit = y / (y.square().sum(1, keepdim=True).sqrt() + 1e-8)
            weight = head.model[-1].weight.clamp_min(0).sqrt()  # [1, C, 1, 1]
            parts.append((unit * weight).flatten(1) / math.sqrt(y.shape[2] * y.shape[3]))
        return torch.cat(parts, 1)

    def describe(self) -> str:
        return f"LPIPS 0.1 on {self.name.removeprefix('lpips_')}, weights {self.hash}, images at their own size"
