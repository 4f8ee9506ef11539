"""What sampling can do besides drawing: truncation, standing statistics, walks, mixed styles."""

import math

import pytest
import torch
from scipy import stats
from torch import nn

from ganlab.checkpoint import Sampler
from ganlab.metrics.protocol import Protocol
from ganlab.models import dcgan, stylegan2
from ganlab.pictures import WALKS, interpolated
from ganlab.rng import IndexedRNG, TruncatedRNG
from ganlab.styles import layers_at, mixed, style_layers
from ganlab.tasks import Generate


class Same(nn.Module):
    """z itself: what the task drew."""

    z_dim = 6

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, z):
        return z


class Shown(nn.Module):
    def forward(self, ws):
        return ws[:, None]


class Affine(nn.Linear):
    def forward(self, z, label=None):
        return super().forward(z)


class Styled(nn.Module):
    """A generator of styles whose images show them: pixel (l, d) is number d of the style of layer l."""

    z_dim, w_dim, layers = 4, 5, 6

    def __init__(self):
        super().__init__()
        self.mapping, self.synthesis = Affine(self.z_dim, self.w_dim), Shown()

    def forward(self, z, label=None):
        return self.synthesis(self.mapping(z, label)[:, None].repeat(1, self.layers, 1))


# ----------------------------------------------------------------------------------------------------------- truncation


@pytest.mark.parametrize("threshold", [0.04, 0.5, 1.0, 2.0])
def test_truncated_noise_follows_the_truncated_normal_law(threshold):
    """The law is SciPy's, and each number is the one of the same probability as before."""
    plain = Sampler(Same(), Generate())
    short = Sampler(Same(), Generate())
    short.truncate(threshold)
    z, cut = plain.generate(0, 500, seed=3), short.generate(0, 500, seed=3)
    law = stats.truncnorm(-threshold, threshold)
    expected = law.ppf(stats.norm.cdf(z.double().numpy()))
    assert torch.allclose(cut.double(), torch.as_tensor(expected), atol=1e-5 * threshold)
    assert cut.abs().max() <= threshold
    assert stats.kstest(cut.flatten().numpy(), law.cdf).pvalue > 0.01


def test_a_truncated_sample_is_a_function_of_seed_and_number():
    sampler = Sampler(Same(), Generate())
    sampler.truncate(0.7)
    whole = sampler.generate(0, 5, seed=1)
    assert torch.equal(whole[3:], sampler.generate(3, 2, seed=1))
    assert not torch.equal(whole, sampler.generate(0, 5, seed=2))


def test_far_out_noise_stays_finite_and_inside():
    class Far(IndexedRNG):
        def _draw(self, kind, shape):
            return torch.tensor([[-40.0, -9.0, 0.0, 9.0, 40.0]])

    for threshold in (0.5, 3.0, 50.0):
        z = TruncatedRNG(Far(0, range(1)), threshold).normal(5)
        assert z.isfinite().all()
        assert z.abs().max() <= threshold
        assert z[0, 2] == 0


def test_what_can_not_be_truncated_is_refused():
    with pytest.raises(ValueError, match="its noise is not normal"):
        Sampler(Same(), Generate(z="uniform")).truncate(0.5)
    for wrong in (0, -1.0, math.nan):
        with pytest.raises(ValueError, match="must be above 0"):
            Sampler(Same(), Generate()).truncate(wrong)
    with pytest.raises(ValueError, match="must be a number"):
        Sampler(Same(), Generate()).truncate("much")


# -------------------------------------------------------------------------------------------------- standing statistics


class Normed(nn.Module):
    z_dim = 3

    def __init__(self):
        super().__init__()
        self.norm, self.linear = nn.BatchNorm1d(3, momentum=0.3), nn.Linear(3, 2)
        self.norm.running_mean.fill_(7)  # of training
        self.drop = nn.Dropout(0.5)

    def forward(self, z):
        return self.drop(self.linear(self.norm(z)))


def test_standing_statistics_are_those_of_the_samples():
    """Equal batches: the mean is that of all samples, the variance the mean of the batches'."""
    sampler, z = Sampler(Normed(), Generate()), IndexedRNG(5, range(12)).normal(3)
    before = sampler.generate(0, 2)
    sampler.standing(12, batch_size=4, seed=5)
    norm = sampler.G.norm
    assert torch.allclose(norm.running_mean, z.mean(0), atol=1e-6)
    assert torch.allclose(norm.running_var, torch.stack([part.var(0) for part in z.split(4)]).mean(0), atol=1e-6)
    assert norm.momentum == 0.3
    assert not any(layer.training for layer in sampler.G.modules())
    assert not torch.equal(before, sampler.generate(0, 2))
    assert torch.equal(sampler.generate(0, 4)[:2], sampler.generate(0, 2))  # eval mode: a sample is alone again
    sampler.standing(12, batch_size=100, seed=5)
    assert torch.allclose(norm.running_var, z.var(0), atol=1e-6)


def test_standing_statistics_see_truncated_samples_and_batches_of_one_are_joined():
    sampler = Sampler(Normed(), Generate())
    sampler.truncate(0.1)
    sampler.standing(9, batch_size=1)
    assert sampler.G.norm.num_batches_tracked == 4
    assert sampler.G.norm.running_mean.abs().max() < 0.1


def test_standing_needs_batch_norm():
    with pytest.raises(ValueError, match="Same has no batch norm"):
        Sampler(Same(), Generate()).standing(10)
    with pytest.raises(ValueError, match="at least 2"):
        Sampler(Normed(), Generate()).standing(1)


def test_a_protocol_without_standing_is_as_it_was():
    """Values that were stored before stay comparable, and those with it are of another protocol."""
    given = {"reals": None, "fingerprint": None, "n_real": None, "fakes": "G_ema", "n_fake": 5, "extractor": "x"}
    given["scores"] = {"is": {}}
    plain, standing = Protocol(**given), Protocol(**given, standing=[1000, 256])
    assert "standing" not in plain.plain()
    assert "standing" not in plain.text()
    assert plain.id("is") == "adc60a63"
    assert "standing statistics of 1,000 by 256" in standing.text()
    assert Protocol.read(standing.plain()).id("is") == standing.id("is") != plain.id("is")


# ----------------------------------------------------------------------------------------------------- walks and styles


def test_a_straight_walk_has_equal_steps():
    sampler = Sampler(Same(), Generate())
    walk = interpolated(sampler, 2, 5, along=WALKS["lerp"]).view(2, 5, 6)
    ends = sampler.generate(0, 4).view(2, 2, 6)
    assert torch.allclose(walk[:, [0, -1]], ends)
    assert torch.allclose(walk.diff(dim=1), (ends[:, 1] - ends[:, 0])[:, None].expand(2, 4, 6) / 4, atol=1e-6)
    arc = interpolated(sampler, 2, 5).view(2, 5, 6)
    assert not torch.allclose(arc[:, 2], walk[:, 2], atol=1e-2)


@pytest.mark.parametrize(("scale", "of_left"), [("coarse", [0, 1]), ("middle", [2, 3]), ("fine", [4, 5])])
def test_mixed_styles_come_from_the_left_and_from_the_top(scale, of_left):
    sampler = Sampler(Styled(), Generate())
    table = mixed(sampler, 2, 3, scale=scale).view(3, 4, Styled.layers, Styled.w_dim)
    sources = sampler.generate(0, 5)[:, 0]
    assert torch.equal(table[1:, 0], sources[:2])
    assert torch.equal(table[0, 1:], sources[2:])
    for row in range(2):
        for column in range(3):
            for layer in range(Styled.layers):
                source = sources[row] if layer in of_left else sources[2 + column]
                assert torch.equal(table[1 + row, 1 + column, layer], source[layer])


def test_thirds_cover_all_layers_once():
    for layers in range(1, 20):
        covered = [i for scale in ("coarse", "middle", "fine") for i in range(layers)[layers_at(scale, layers)]]
        assert covered == list(range(layers))


def test_styles_of_stylegan2_are_mixed_and_truncated():
    """Its 6 styles at 16x16; with truncation 0 all styles are the average, and all pictures alike."""
    torch.manual_seed(0)
    sampler = Sampler(stylegan2.Generator([1, 16, 16], z_dim=8, width=8, w_dim=8, mapping=2), Generate())
    assert style_layers(sampler) == 6
    table = mixed(sampler, 2, 3)
    assert table.shape == (12, 1, 16, 16)
    assert torch.allclose(table[1:4], sampler.generate(2, 3), atol=1e-5)  # the top ones
    assert not torch.allclose(table[5], table[6], atol=1e-3)
    sampler.truncate(0.0)
    assert torch.allclose(mixed(sampler, 2, 3)[5:8], sampler.generate(0, 1).expand(3, -1, -1, -1), atol=1e-5)


def test_styles_are_counted_and_their_generator_left_as_it_was():
    sampler = Sampler(Styled(), Generate())
    assert style_layers(sampler) == 6
    assert not sampler.G.synthesis._forward_pre_hooks
    with pytest.raises(ValueError, match="has no mapping and synthesis, so no styles"):
        mixed(Sampler(dcgan.Generator([1, 16, 16], width=8), Generate()), 1, 1)
    with pytest.raises(ValueError, match="must be coarse, middle, fine"):
        mixed(sampler, 1, 1, scale="large")
