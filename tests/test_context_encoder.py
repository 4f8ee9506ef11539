"""The context encoder's networks, and what its config weighs."""

import pytest
import torch
from composing import composed
from omegaconf import OmegaConf
from play import phase
from torch import nn

from ganlab import degrade
from ganlab.models.context_encoder import ChannelwiseLinear, Generator
from ganlab.rng import IndexedRNG
from ganlab.tasks import Restore
from ganlab.terms.content import L2


def test_the_encoder_has_the_papers_maps():
    """Figure 9a: 128x128 to 64 maps of 64x64, 64 of 32x32, 128, 256, 512 of 4x4, and 4000 numbers, and back."""
    G = Generator([3, 128, 128], [4, 128, 128])
    shapes, x = [], torch.zeros(2, 4, 128, 128)
    for layer in G:
        x = layer(x)
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            shapes.append(tuple(x.shape[1:]))
    down = [(64, 64, 64), (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]
    assert shapes == [*down, (4000, 1, 1), *reversed(down), (3, 128, 128)]


def test_each_map_is_connected_with_itself_alone():
    """By its Jacobian: channels do not mix, and within one every pixel reaches every other."""
    torch.manual_seed(0)
    layer = ChannelwiseLinear(3, 2, 4).double()
    assert layer.weight.numel() == 3 * 8**2
    x = torch.randn(1, 3, 2, 4, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(layer, x)[0, :, :, :, 0].flatten(1, 2).flatten(3)  # [3, 8, 3, 8]
    for a in range(3):
        for b in range(3):
            assert (jacobian[a, :, b] != 0).all() if a == b else (jacobian[a, :, b] == 0).all()
    expected = torch.stack([x[0, c].flatten() @ layer.weight[c] for c in range(3)])
    assert torch.allclose(layer(x)[0].flatten(1), expected)


def test_signals_leave_the_fully_connected_maps_as_large_as_they_came():
    torch.manual_seed(0)
    made = ChannelwiseLinear(64, 6, 6)(torch.randn(32, 64, 6, 6))
    assert made.std().item() == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("bottleneck", ["units", "channelwise"])
@pytest.mark.parametrize("size", [(8, 8), (12, 20), (28, 28), (24, 64)])
def test_any_size_and_channels(bottleneck, size):
    """And what is known in one corner reaches the opposite one."""
    torch.manual_seed(0)
    G = Generator([2, *size], [3, *size], width=8, bottleneck=bottleneck).eval()
    x = torch.randn(1, 3, *size, requires_grad=True)
    assert G(x).shape == (1, 2, *size)
    (gradient,) = torch.autograd.grad(G(x)[0, :, 0, 0].sum(), x)
    assert gradient[0, :, -1, -1].abs().sum() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": [3, 30, 31]}, "data.size"),
        ({"shape": [3, 32, 32], "inputs": [3, 16, 16]}, r"generator.inputs=\[3, 16, 16\]"),
        ({"shape": [3, 32, 32], "bottleneck": "dense"}, "bottleneck='dense'"),
    ],
)
def test_refused_networks(arguments, message):
    with pytest.raises(ValueError, match=message):
        Generator(**arguments)


def test_the_weights_are_the_papers():
    """Equation 3: 0.999 times the mean square over what is missing and 0.001 times the adversarial loss; G learns 10
    times as fast as D."""
    cfg = composed("model=context_encoder")
    weight, player = cfg.terms.l2.weight, cfg.loss.weight
    task, x = Restore(degrade.Center(0.5)), torch.rand(2, 3, 16, 16) * 2 - 1
    assert cfg.task.degradation.share == 0.5
    inputs = task.prepare({"real": x}, IndexedRNG(0, range(2))).inputs
    made = torch.full_like(x, 0.25)
    given = phase("G", fake=task.degradation.merged(inputs, made), real=x, D=None)
    missing = (made - x)[:, :, 4:12, 4:12].square().flatten(1).mean(1)
    assert torch.allclose(weight * L2()(given), 0.999 * missing)
    assert player.G == 0.001
    assert cfg.optimizer.G.lr == 10 * cfg.optimizer.D.lr
    assert OmegaConf.to_container(composed("model=aegan").terms)["l2"]["weight"] == 0.999
