"""Adaptation to a domain without labels: what the players see, what is learned from which side, what is scored."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from composing import composed, prepared
from omegaconf import OmegaConf
from torch import nn

from ganlab.data.domains import Both, Domains, ShiftedDigits
from ganlab.data.rounds import InMemory
from ganlab.data.sets import Digits
from ganlab.losses import Bidirectional
from ganlab.metrics.fidelity import Accuracy
from ganlab.models.dann import Discriminator, Generator
from ganlab.phase import GeneratorOutput, Phase, output_of
from ganlab.rng import IndexedRNG
from ganlab.settings import build, complete, made
from ganlab.tasks import Adapt
from ganlab.terms.content import CrossEntropy


class Linear(nn.Module):
    """Features are the two numbers of an "image", logits those of three classes: all can be computed by hand."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.head = nn.Parameter(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]))

    def forward(self, x):
        features = self.scale * x
        return GeneratorOutput(features @ self.head.T, features)


TARGET, SOURCE, LABEL = torch.tensor([[0.5, 0.1], [0.2, -0.3]]), torch.tensor([[1.0, 0.0], [0.3, 0.7]]), [0, 2]


def phase(player, D=None):
    task = Adapt()
    batch = task.prepare({"inputs": TARGET, "real": SOURCE, "label": torch.tensor(LABEL)}, IndexedRNG(0, range(2)))
    return Phase(player, batch, Linear(), D or Discriminator(2, 4), task.play, (), IndexedRNG(0, range(2)))


def test_fakes_are_of_the_target_and_reals_of_the_source():
    """Logits and features of the one, right classes and features of the other; aux are the source's logits."""
    it = phase("G")
    logits = lambda x: 2 * x @ it.G.head.T
    assert torch.allclose(it.fake[0], logits(TARGET))
    assert torch.allclose(it.fake[1], 2 * TARGET)
    assert it.real[0].tolist() == [[1, 0, 0], [0, 0, 1]]
    assert torch.allclose(it.real[1], 2 * SOURCE)
    assert torch.allclose(it.aux, logits(SOURCE))


def test_labels_are_learned_from_the_source_alone():
    it = phase("G")
    value = CrossEntropy()(it)
    assert torch.allclose(value, F.cross_entropy(2 * SOURCE @ it.G.head.T, torch.tensor(LABEL)))
    changed = phase("G").again(inputs=(TARGET + 9, SOURCE))
    assert torch.equal(CrossEntropy()(changed), value)


def test_g_learns_from_both_sides_of_the_game_and_d_from_features_alone():
    """G's loss is that of inverted labels, whose gradient reaches it through the source's features, too; in D's phase
    none reaches G; and D says the same whatever the classes."""
    D = Discriminator(2, 4)
    it = phase("G", D)
    s = lambda x: nn.Sequential.forward(D, 2 * x)
    loss = Bidirectional()(it)
    assert torch.allclose(loss, F.softplus(-s(TARGET)).mean() + F.softplus(s(SOURCE)).mean())
    loss.backward()
    one_sided = torch.autograd.grad(F.softplus(-nn.Sequential.forward(D, it.G.scale * TARGET)).mean(), it.G.scale)[0]
    other = torch.autograd.grad(F.softplus(nn.Sequential.forward(D, it.G.scale * SOURCE)).mean(), it.G.scale)[0]
    assert torch.allclose(it.G.scale.grad, one_sided + other)
    assert other.abs() > 1e-6
    theirs = phase("D", D)
    Bidirectional()(theirs).backward()
    assert theirs.G.scale.grad is None
    features = torch.randn(3, 2)
    assert torch.equal(D((torch.zeros(3, 3), features)), D((torch.randn(3, 3), features)))


@pytest.mark.parametrize("inputs", [(1, 16, 16), (3, 28, 20), (4, 5, 7)])
def test_any_size_and_channel_count(inputs):
    G = Generator([7], inputs, width=16, features=12)
    output = output_of(G, torch.randn(3, *inputs), None)
    assert output.fake.shape == (3, 7)
    assert output.aux.shape == (3, 12)
    assert Discriminator(12, 8)((output.fake, output.aux)).shape == (3,)
    with pytest.raises(ValueError, match="images of 3x16 are too small"):
        Generator([7], [1, 3, 16])


# ---------------------------------------------------------------------------------------------------------------- data


def sets(n=4, m=6):
    x = torch.arange(n + m, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    return InMemory(x[:n], torch.arange(n)), InMemory(x[n:], torch.arange(m) + 50)


def test_a_batch_has_the_sources_labels_and_the_targets_images():
    """The shorter set begins again at its end, and no label of the target is in a batch."""
    source, target = sets()
    taken = Both({"inputs": target, "real": source}, partners=False).take(torch.tensor([1, 5]))
    assert taken["real"][:, 0, 0, 0].tolist() == [1, 1]
    assert taken["label"].tolist() == [1, 1]
    assert taken["inputs"][:, 0, 0, 0].tolist() == [5, 9]


def domains(**kwargs):
    return Domains(Digits(size=16), ShiftedDigits(size=16), **kwargs)


def test_rounds_serve_both_sides_in_orders_of_their_own():
    data = domains(batch_size=20, rounds=2)
    data.trainer = SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device("cpu")), global_rank=0, world_size=1, lightning_module=None
    )
    first = next(iter(data.train_dataloader()))
    assert len(first) == 2
    assert first[0].keys() == {"inputs", "real", "label"}
    known = {tuple(x.flatten().tolist()): int(c) for x, c in zip(*vars(data.source.split("train")).values())}
    shown = ((first[0]["real"] + 1) * 127.5).round().to(torch.uint8)
    assert [known[tuple(x.flatten().tolist())] for x in shown] == first[0]["label"].tolist()
    assert first[0]["inputs"].shape == (20, 1, 16, 16)


def test_the_test_part_is_the_targets_with_its_answers_and_training_sees_none_of_it():
    data = domains()
    test, train = data.split("test"), data.split("train")
    assert (test.partners, train.partners) == (True, False)
    rows = test.take(torch.arange(359))
    assert torch.equal(rows["inputs"], rows["real"])
    assert torch.equal(rows["label"], Digits(size=16).split("test").label)
    assert len(train) == 1438
    held = data.held_out().take(torch.arange(5))
    assert torch.equal(held["real"], Digits(size=16).split("test").real[:5])


def test_another_set_may_be_tested_on():
    """Where the target has no test part: all of its training part, with its answers."""
    data = Domains(Digits(size=16), Digits(size=16), test=ShiftedDigits(size=16))
    assert data.facts()["inputs"] == [1, 16, 16]
    assert torch.equal(data.split("test").take(torch.arange(4))["inputs"], data.test.split("train").real[:4])
    with pytest.raises(ValueError, match=r"data.test \[1, 8, 8\]: set data.source.size and data.test.size"):
        Domains(Digits(size=16), Digits(size=16), test=Digits()).facts()


def test_the_target_made_of_digits_is_moved_by_a_pixel():
    """Of eight, down and to the right; the test part likewise, and nothing else is changed."""
    for split in ("train", "test"):
        moved, plain = (kind().split(split) for kind in (ShiftedDigits, Digits))
        assert torch.equal(moved.real[..., 1:, 1:], plain.real[..., :-1, :-1])
        assert not moved.real[..., 0, :].any()
        assert not moved.real[..., 0].any()
        assert torch.equal(moved.label, plain.label)


def test_accuracy_counts_right_answers():
    said, right = torch.eye(3)[[0, 1, 2, 2]] * 0.4, torch.eye(3)[[0, 1, 2, 0]]
    assert Accuracy().compare(said, right, lambda x: x)[:, 0].tolist() == [1, 1, 1, 0]


def test_a_score_sees_what_g_takes_the_target_for():
    cfg = composed("model=dann", "generator.width=16", "metrics.enabled=false")
    data = made(OmegaConf.to_container(cfg.data, resolve=True))
    complete(cfg, data.facts())
    gan = build(OmegaConf.to_container(cfg, resolve=True))
    batch = {k: v.float() / 255 if k != "label" else v for k, v in data.split("test").take(torch.arange(6)).items()}
    made_of = gan.reconstruct(batch)
    assert torch.allclose(made_of["fake"][0], gan.G_ema(batch["inputs"]).fake)
    assert made_of["real"][0].argmax(1).tolist() == batch["label"].tolist()
    columns = gan.task.columns(gan.G_ema, made_of)
    assert [list(x.shape) for x in columns] == [[6, 1, 16, 16], [6, 1, 1, 10], [6, 1, 1, 10]]
    assert columns[2].argmax(3).flatten().tolist() == batch["label"].tolist()
    assert columns[1].argmax(3).flatten().tolist() == made_of["fake"][0].argmax(1).tolist()
    assert columns[1].sum(3).flatten().tolist() == [1 - 9] * 6


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["data.target.size=20"],
            r"data.source has shape \[1, 16, 16\], and data.target \[1, 20, 20\]: set data.source.size",
        ),
        (["data.target._target_=ganlab.data.sets.CIFAR100", "data.target.size=16"], "data.source has classes 10"),
        (["data.target._target_=ganlab.data.sets.STL10"], "data.target: images of one class each are needed"),
        (["data=digits"], "task=adapt needs two sets of images.*data=domains"),
        (["loss=none"], "D has nothing to minimise"),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_fix(overrides, message):
    with pytest.raises(ValueError, match=message):
        prepared("model=dann", "metrics.enabled=false", *overrides)
