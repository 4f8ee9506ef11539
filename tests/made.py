"""What several tests of scores need: features, weights in the published formats, and scores of given features."""

from pathlib import Path
from unittest import mock

import torch
import torch_fidelity.feature_extractor_inceptionv3 as fidelity_inception
import torchvision

from ganlab.metrics.scores import Scores

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"


def features(n, dim, seed, rank=None, like=None):
    """Gaussian with a mean and a covariance of its own, or with those of the seed `like`."""
    law = torch.Generator().manual_seed(seed if like is None else like)
    mix = torch.randn(rank or dim, dim, generator=law)
    drawn = torch.randn(n, rank or dim, generator=torch.Generator().manual_seed(1000 + seed))
    return drawn @ mix + 0.3 * (seed if like is None else like)


def scored(score, real, fake, pieces=1, **outputs):
    """{key: value} of one score of these features. outputs: name=(real, fake)"""
    sides = {"features": (real, fake), **outputs}
    sides = {k: v for k, v in sides.items() if v[1] is not None}
    metric = Scores({"it": score}, {k: v[1].flatten(1).shape[1] for k, v in sides.items()})
    for i, is_real in enumerate((True, False)):
        if sides["features"][i] is not None:
            for rows in torch.arange(len(sides["features"][i])).chunk(pieces):
                metric.update({k: v[i][rows] for k, v in sides.items()}, real=is_real)
    return metric.compute()


def inception_file(folder):
    """An Inception network of random weights in the format of the real file, which lets signals through: its features
    differ from image to image, and its logits are of order 1."""
    torch.manual_seed(0)
    with (
        mock.patch.object(fidelity_inception, "load_state_dict_from_url"),
        mock.patch.object(fidelity_inception.FeatureExtractorInceptionV3, "load_state_dict"),
    ):
        net = fidelity_inception.FeatureExtractorInceptionV3("inception", ["2048"])
    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # the statistics of one pass
            layer.reset_running_stats()
            layer.train()
    torch.nn.init.normal_(net.fc.weight, std=0.1)
    net(noise_images(8))
    path = Path(folder) / "inception.pth"
    torch.save(net.state_dict(), path)
    return path


def squeezenet_file(folder):
    """SqueezeNet 1.1 of random weights."""
    torch.manual_seed(1)
    path = Path(folder) / "squeezenet.pth"
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), path)
    return path


def noise_images(n, size=32, seed=0, channels=3):
    """Low-pass noise, so that neighbouring pixels are alike as in photographs."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(n, channels, size // 4, size // 4, generator=generator)
    x = torch.nn.functional.interpolate(small, (size, size), mode="bicubic", align_corners=False)
    return (x * 255).round().clamp(0, 255).to(torch.uint8)
