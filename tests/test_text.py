"""Texts: from files and a grammar to symbols, generators that tell their own likelihood, and the scores of what they
write."""

import math
from itertools import pairwise, product

import pytest
import torch
import torch.nn.functional as F
from composing import prepared
from made import SHARED, scored
from play import game
from play import phase as one_phase
from torchmetrics.functional.text import bleu_score

from ganlab.data.sentences import Sentences
from ganlab.data.text import END, Lines
from ganlab.files import Unavailable
from ganlab.gan import GAN
from ganlab.media.text import Text
from ganlab.metrics.language import Texts
from ganlab.metrics.text import BLEU, NLL, Grammar, Novelty, bleu, grammar_log_prob, ngrams
from ganlab.models.text import Discriminator, Generator, gumbel
from ganlab.policy import PolicyGradient, quantile
from ganlab.rng import BatchRNG
from ganlab.tasks import Write
from ganlab.terms.likelihood import Likelihood

NAMES = ["emma", "olivia", "ava", "isabella", "sophia", "charlotte", "mia", "amelia", "harper", "evelyn"]


def file(folder, content, name="texts.txt"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def texts_of(data, split):
    return Text(data.facts()["symbols"], data.facts()["between"]).lines(data.split(split).real)


# ----------------------------------------------------------------------------------------------------------- from files


def test_lines_become_symbols_and_back(tmp_path):
    data = Lines(file(tmp_path, "\n".join([*NAMES, "", "maximiliana", " mia "])), length=9, held_out=0.2)
    train, test = texts_of(data, "train"), texts_of(data, "test")
    assert set(train) <= set(NAMES)
    assert len(train) + len(test) == len(NAMES) + 1
    assert len(test) in (2, 3)  # a fifth of ten different lines
    assert not set(train) & set(test)  # "mia", which is there twice, is in one part
    x = data.split("train").real
    assert (x.dtype, x.shape[1]) == (torch.int64, 9)
    symbols = data.facts()["symbols"]
    assert data.facts()["shape"] == [9, len(symbols)]
    frequency = [sum(line.count(s) for line in train) for s in symbols[2:]]
    assert frequency == sorted(frequency, reverse=True)  # the most frequent first
    assert data.left_out == {"empty lines": 1, "lines longer than data.length=9": 1}


def test_held_out_lines_are_the_same_whatever_else_changes(tmp_path):
    one = Lines(file(tmp_path, "\n".join(NAMES), "a.txt"), held_out=0.3, seed=1)
    other = Lines(file(tmp_path, "\r\n".join(reversed(NAMES)), "b.txt"), held_out=0.3, seed=2)
    assert set(texts_of(one, "test")) == set(texts_of(other, "test"))


def test_words_marks_and_rare_words(tmp_path):
    common = [f"A {one}, a {other}." for one in ("cat", "dog", "bird") for other in ("cat", "dog's", "bird")]
    lines = [*common * 3, *(f"a thing{i}" for i in range(8))]
    root = file(tmp_path, "\n".join(lines))
    keys = {"unit": "words", "length": 6, "lower": True, "vocabulary": 7, "held_out": 0.3}
    data = Lines(root, **keys)
    both = [*texts_of(data, "train"), *texts_of(data, "test")]
    assert set(data.facts()["symbols"][2:]) == {"a", ",", ".", "cat", "dog", "dog's", "bird"}
    assert "a cat , a dog's ." in both
    assert both.count("a <unknown>") == 8
    data = Lines(root, **keys, unknown="skip")
    assert len(texts_of(data, "train")) + len(texts_of(data, "test")) == len(lines) - 8
    assert data.left_out["texts with symbols that are not in the vocabulary"] == 8


def test_running_text_is_cut_into_windows_and_its_end_is_held_out(tmp_path):
    data = Lines(file(tmp_path, "abcd\nefgh\n" * 10), length=5, windows=True, held_out=0.25)
    assert texts_of(data, "train") == ["abcd\u23ce", "efgh\u23ce"] * 7 + ["abcd\u23ce"]
    assert len(texts_of(data, "test")) == 5


@pytest.mark.parametrize(
    ("content", "keys", "says"),
    [
        (b"", {}, "the file is empty"),
        (b"\n  \n\n", {}, "the file is empty"),
        ("emma\nren\u00e9e\n".encode("latin1"), {}, "not UTF-8: line 2 has the byte 0xe9.*9th.*iconv"),
        (b"em\0ma\nava\n", {}, "no text: it holds bytes of 0"),
        ("\n".join(NAMES), {"length": 2}, "data.length=2: the shortest line .* has 3 characters.*data.windows=true"),
        ("aaaa\naa\naaa\n", {}, "the one symbol 'a'.*another file"),
        ("a b c\nd e f\n", {"unit": "words", "vocabulary": 1, "unknown": "skip"}, "data.vocabulary=1: .*unknown=keep"),
        ("emma\n", {}, "too few to hold some out"),
    ],
)  # fmt: skip
def test_files_that_can_not_be_learnt_from_are_refused(content, keys, says, tmp_path):
    with pytest.raises((ValueError, Unavailable), match=f"(?s){says}"):
        Lines(file(tmp_path, content), **keys).facts()


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"root": None}, "data.root is not set"),
        ({"root": "/nowhere/x.txt"}, "data.root=/nowhere/x.txt can't be read"),
        ({"unit": "letters"}, "data.unit='letters'"),
        ({"unknown": "drop"}, "data.unknown='drop'"),
        ({"held_out": 1.0}, r"data.held_out=1.0"),
    ],
)
def test_wrong_keys_are_refused(keys, says):
    with pytest.raises((ValueError, Unavailable), match=says):
        Lines(**{"root": __file__, **keys}).facts()


def test_a_byte_order_mark_is_no_symbol(tmp_path):
    assert "\ufeff" not in Lines(file(tmp_path, b"\xef\xbb\xbfemma\nava\nmia\n")).facts()["symbols"]


@pytest.mark.skipif(not (SHARED / "text").is_dir(), reason="the real texts are not here")
def test_real_texts(tmp_path):
    import zipfile

    with zipfile.ZipFile(SHARED / "text" / "text.zip") as archive:
        root = archive.extract("names/names.txt", tmp_path)
    data = Lines(root, length=12)
    assert data.facts()["shape"] == [12, 28]
    assert len(data.split("train")) + len(data.split("test")) == 32_033 - 38


# -------------------------------------------------------------------------------------------------------- the grammar


def all_sentences(data):
    """{tokens: probability}, by writing every sentence out."""
    options = {}
    for state, symbol, to, p in data.arcs:
        options.setdefault(state, []).append((symbol, to, p))
    found, open_ends = {}, [((), 0, 1.0)]
    while open_ends:
        tokens, state, p = open_ends.pop()
        if len(tokens) == 8:
            found[tokens] = found.get(tokens, 0.0) + p
        else:
            open_ends += [((*tokens, symbol), to, p * share) for symbol, to, share in options[state]]
    return found


def test_the_grammars_probabilities_are_what_they_say():
    data = Sentences(number=5000)
    known = all_sentences(data)
    assert sum(known.values()) == pytest.approx(1)
    entropy = -sum(p * math.log(p) for p in known.values())
    assert data.entropy() == pytest.approx(entropy)
    tokens = torch.tensor(list(known)[:500])
    expected = torch.tensor([math.log(known[tuple(row)]) for row in tokens.tolist()], dtype=torch.float64)
    torch.testing.assert_close(grammar_log_prob(tokens, data.arcs), expected)
    assert all(tokens[-1] == END for tokens in known)  # every sentence has an end


def test_right_sentences_are_told_from_wrong_ones():
    data = Sentences(number=4000)
    symbols = data.facts()["symbols"]
    values = scored(Grammar(data.facts()["arcs"]), None, torch.zeros(4000, 1), tokens=(None, data.split("test").real))
    assert values["grammatical"] == 1
    assert values["grammar_nll"] == pytest.approx(data.entropy(), abs=0.1)
    wrong = ["a dogs sleeps", "two dogs sees a cat", "the small quick cat sings", "the cat sees", "cat sleeps"]
    right = ["the cats sleep", "two dogs see a cat"]
    rows = [[symbols.index(word) for word in text.split()] for text in wrong + right]
    tokens = torch.tensor([row + [END] * (8 - len(row)) for row in rows])
    assert grammar_log_prob(tokens, data.arcs).isfinite().tolist() == [False] * 5 + [True] * 2


# ---------------------------------------------------------------------------------------------------------- the medium


def test_texts_are_written_shown_and_logged(tmp_path):
    medium = Text(["<end>", "<unknown>", "a", "\n", "b"], between="")
    tokens = torch.tensor([[2, 4, 0, 2], [2, 3, 4, 4], [0, 0, 0, 0]])
    assert medium.lines(tokens) == ["ab", "a\u23cebb", ""]
    assert medium.lines(F.one_hot(tokens, 5).float()) == medium.lines(tokens)
    (path,) = medium.write(tokens, tmp_path, prefix="class_1_")
    assert path == tmp_path / "class_1_samples.txt"
    assert path.read_text(encoding="utf-8") == "ab\na\u23cebb\n\n"
    picture = medium.picture(tokens)
    assert picture.dim() == 4
    assert picture.min() < 0 < picture.max() == 1  # dark on white
    logged = []
    medium.log(type("Writer", (), {"add_text": lambda _, *args: logged.append(args)})(), "fakes", tokens, 3)
    assert logged == [("fakes", "    ab\n    a\u23cebb\n    \n", 3)]


# -------------------------------------------------------------------------------------------------------- the generator


def small(length=3, symbols=3, **kwargs):
    """Weights large enough that its texts are far from uniform."""
    torch.manual_seed(0)
    G = Generator([length, symbols], width=6, embed=4, **kwargs)
    with torch.no_grad():
        for p in G.parameters():
            p.mul_(3)
    return G


def all_texts(length=3, symbols=3):
    """Each text once: after its end nothing but ends."""
    every = torch.tensor(list(product(range(symbols), repeat=length)))
    after_end = torch.tensor([any(a == END != b for a, b in pairwise(row)) for row in every.tolist()])
    return every[~after_end]


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_likelihood_sums_to_one_and_is_that_of_the_samples(cell):
    G = small(cell=cell).eval()
    texts = all_texts()
    p = G.log_prob(texts).sum(1).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-5)
    n = 20_000
    with torch.no_grad():
        fakes = G(torch.randn(n, G.z_dim, generator=torch.Generator().manual_seed(0))).argmax(2)
    counts = (fakes[:, None] == texts[None]).all(2).sum(0)
    assert counts.sum() == n  # none else
    chi_squared = ((counts - n * p).square() / (n * p)).sum().item()
    assert chi_squared < 2 * len(texts)


def test_noise_is_gumbels():
    z = torch.linspace(-6, 6, 1001, dtype=torch.float64)
    normal = 0.5 * (1 + torch.erf(z / math.sqrt(2)))
    torch.testing.assert_close((-(-gumbel(z)).exp()).exp(), normal)  # its distribution function: exp(-exp(-x))


def test_a_sample_depends_on_its_number_alone():
    gan = GAN(small(), None, None, {"likelihood": Likelihood()}, optimizer=torch.optim.Adam, task=Write())
    whole = gan.generate(0, 8)
    assert whole.shape == (8, 3, 3)
    assert torch.equal(whole[3:5], gan.generate(3, 2))
    assert torch.equal(whole.sum(2), torch.ones(8, 3))  # a one and zeros
    assert set(whole.unique().tolist()) == {0.0, 1.0}


def test_relaxed_texts_look_like_draws_and_have_gradients():
    G = small(temperature=[0.7, 0.7])
    z = torch.randn(64, G.z_dim, generator=torch.Generator().manual_seed(1))
    relaxed, drawn = G.train()(z), G.eval()(z)
    torch.testing.assert_close(relaxed, drawn)
    weight = torch.randn(3, 3, generator=torch.Generator().manual_seed(2))
    (relaxed * weight).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in G.parameters())
    discrete = small(relaxed=False).train()(z)
    assert torch.equal(discrete, drawn)
    assert not discrete.requires_grad


def test_the_first_symbol_is_relaxed_as_in_the_paper():
    G = small(length=1, hard=False, temperature=[0.5, 0.5]).train()
    z = torch.randn(5, 3, generator=torch.Generator().manual_seed(3))
    logits = G.log_prob(torch.arange(3)[:, None])[:, 0]  # up to a constant, which softmax does not see
    expected = ((logits - torch.log(-torch.special.log_ndtr(z))) / 0.5).softmax(1)
    torch.testing.assert_close(G(z)[:, 0], expected)


def test_the_temperature_falls_exponentially():
    G = small(temperature=[1.0, 0.01], anneal_kimg=10)
    for seen, tau in ((0, 1.0), (5000, 0.1), (10_000, 0.01), (99_000, 0.01)):
        G.set_clock(seen)
        assert G.tau.item() == pytest.approx(tau)
    assert "tau" in G.state_dict()


def test_completing_keeps_what_is_given_and_ends_stay():
    G = small(length=5)
    tokens = torch.tensor([[1, 2, 1, 1, 1], [1, 0, 2, 2, 2]])
    done = G.complete(tokens, 2, lambda logits, t: torch.full((2,), t - 1))
    assert done.tolist() == [[1, 2, 1, 2, 3], [1, 0, 0, 0, 0]]


def test_the_likelihood_term_is_the_texts_cross_entropy():
    G = small(length=4)
    tokens = torch.tensor([[1, 2, 0, 0], [2, 2, 1, 1]])
    logits = G.read(tokens[:, :-1])[0]
    expected = [F.cross_entropy(logits[0, :3], tokens[0, :3], reduction="sum"),  # its end counts, what follows does not
                F.cross_entropy(logits[1], tokens[1], reduction="sum")]  # fmt: skip
    phase = one_phase("G", real=tokens, fake=None, D=None, G=G, n=2)
    torch.testing.assert_close(Likelihood()(phase), torch.stack(expected))


def test_a_critic_of_short_texts_sees_them_whole():
    D = Discriminator([2, 5], width=4, embed=3)
    assert D(F.one_hot(torch.tensor([[1, 0], [2, 3], [4, 4]]), 5).float()).shape == (3,)


# ---------------------------------------------------------------------------------------------------- policy gradient


class Judge(torch.nn.Module):
    """Its opinion of each text is given."""

    def __init__(self, texts, logits):
        super().__init__()
        self.texts, self.logits = texts, logits

    def forward(self, x):
        return self.logits[(x.argmax(2)[:, None] == self.texts[None]).all(2).long().argmax(1)]


@pytest.mark.parametrize("baseline", [False, True])
def test_the_policy_gradient_is_that_of_the_expected_reward(baseline):
    """Against autograd through the sum over all texts, p(text) D(text)."""
    G, texts, n = small(length=2, relaxed=False), all_texts(2), 40_000
    reward = torch.linspace(-3, 3, len(texts))[torch.randperm(len(texts), generator=torch.Generator().manual_seed(5))]
    expected = torch.autograd.grad(-(G.log_prob(texts).sum(1).exp() * reward.sigmoid()).sum(), list(G.parameters()))
    z = torch.randn(n, G.z_dim, generator=torch.Generator().manual_seed(6))
    phase = one_phase("G", real=torch.zeros(n, 2, 3), fake=z, D=Judge(texts, reward), G=G, n=n)
    loss = PolicyGradient(rollouts=1, baseline=baseline).generator(phase).mean()
    got = torch.autograd.grad(loss, list(G.parameters()))
    a, b = (torch.cat([g.flatten() for g in part]) for part in (expected, got))
    assert (a - b).norm() < 0.1 * a.norm()


def test_symbols_are_drawn_by_their_cumulative_probability():
    logits = torch.tensor([0.1, 0.6, 0.3]).log().expand(4, 3)
    assert quantile(logits, torch.tensor([0.05, 0.11, 0.69, 0.9999])).tolist() == [0, 1, 1, 2]


def test_rollouts_are_the_samples_own_however_the_batch_is_split():
    G, texts = small(length=4, relaxed=False), all_texts(4)
    D = Judge(texts, torch.linspace(-2, 2, len(texts)))
    z = torch.randn(6, G.z_dim, generator=torch.Generator().manual_seed(0))

    def rewards(rows):
        phase = one_phase("G", real=torch.zeros(6, 4, 3)[rows], fake=z[rows], D=D, G=G, n=6)
        phase.rng = BatchRNG(7, 6, rows)
        return PolicyGradient(rollouts=3).rewards(phase, phase.fake, phase.fake.argmax(2))

    whole = rewards(slice(0, 6))
    torch.testing.assert_close(torch.cat([rewards(slice(0, 2)), rewards(slice(2, 6))]), whole)


def test_the_critic_may_begin_alone():
    loss = PolicyGradient(start=10, ahead=0.5)
    assert [loss.due("D", 0, seen) for seen in (9_999, 10_000)] == [False, True]
    assert [loss.due("G", 0, seen) for seen in (10_000, 14_999, 15_000)] == [False, False, True]


# ------------------------------------------------------------------------------------------------------------- scores


def random_texts(n, seed, symbols=6, length=9):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, symbols, (n, length), generator=generator)
    ends = torch.randint(4, length + 1, (n, 1), generator=generator)
    return tokens * (torch.arange(length) < ends)


def as_words(tokens):
    return [" ".join(map(str, row[: row.index(0)] if 0 in row else row)) for row in tokens.tolist()]


def test_bleu_is_torchmetrics_bleu_where_that_needs_no_smoothing():
    texts, references = random_texts(40, 0), random_texts(300, 1)
    found = bleu(texts, references, [1, 2, 4])
    for n in (1, 2, 4):
        other = [bleu_score([text], [as_words(references)], n_gram=n).item() for text in as_words(texts)]
        same = torch.tensor([value > 0 for value in other])
        assert same.sum() > 20
        torch.testing.assert_close(found[n][same].float(), torch.tensor(other)[same], atol=1e-5, rtol=1e-4)


def test_bleu_by_hand():
    reference = torch.tensor([[1, 2, 3, 4, 0]])
    texts = torch.tensor([[1, 2, 3, 4, 0], [1, 1, 1, 0, 0], [1, 2, 0, 0, 0], [5, 5, 5, 5, 0], [0, 0, 0, 0, 0]])
    expected = [1, math.sqrt(1 / 3 * 0.1 / 2) * math.exp(1 - 4 / 3), math.exp(1 - 4 / 2), 0, 0]  # clipped, short, empty
    assert bleu(texts, reference, [2])[2].tolist() == pytest.approx(expected)


def test_bleu_is_nltks_with_its_first_smoothing():
    translate = pytest.importorskip("nltk.translate.bleu_score")
    smooth = translate.SmoothingFunction().method1
    texts, references = random_texts(60, 2), random_texts(25, 3)
    known = [words.split() for words in as_words(references)]
    for n in (2, 3, 4):
        other = [
            translate.sentence_bleu(known, words.split(), [1 / n] * n, smoothing_function=smooth)
            for words in as_words(texts)
        ]
        assert bleu(texts, references, [n])[n].tolist() == pytest.approx(other)


def test_backward_bleu_notices_what_is_never_written():
    held = random_texts(200, 4)
    values = scored(BLEU([3]), torch.zeros(200, 1), torch.zeros(200, 1), tokens=(held, held[:1].expand(200, -1)))
    assert values["bleu3_forward"] == pytest.approx(1)
    assert values["bleu3_backward"] < 0.5


def test_runs_of_symbols_are_told_apart():
    tokens = torch.tensor([[1, 2, 1, 2, 0], [2, 1, 0, 0, 0], [1, 1, 1, 1, 1]])
    rows, numbers = ngrams(tokens, 2)
    assert rows.tolist() == [0, 0, 0, 1, 2, 2, 2, 2]
    a, b, c, d, *e = numbers.tolist()
    assert a == c
    assert b == d
    assert len({a, b, *e}) == 3
    assert ngrams(tokens, 6)[0].numel() == 0
    many = torch.randint(1, 50, (3000, 5), generator=torch.Generator().manual_seed(0))
    assert len(ngrams(many, 4)[1].unique()) == len(many.unfold(1, 4, 1).reshape(-1, 4).unique(dim=0))


class Given(Lines):
    """These texts."""

    def __init__(self, train, test):
        super().__init__("given", length=train.shape[1])
        self.read = ([*"abcdefghijkl"], {"train": train, "test": test})


@pytest.fixture
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path))


def test_novelty_counts_texts_and_runs():
    extractor = Texts(language_model=False, ngrams=2)
    extractor.prepare(Given(torch.tensor([[1, 2, 3, 0], [3, 4, 0, 0]]), torch.tensor([[1, 2, 0, 0]])))
    fakes = torch.tensor([[1, 2, 3, 0], [1, 2, 4, 0], [3, 4, 0, 5], [3, 4, 0, 0]])  # what follows an end does not count
    outputs = extractor(F.one_hot(fakes, 12).float())
    values = scored(Novelty(), None, torch.zeros(4, 1), new=(None, outputs["new"]), tokens=(None, outputs["tokens"]))
    assert values == {"new": 0.25, "new_ngrams": pytest.approx(1 / 6), "different": 0.75}


@pytest.mark.usefixtures("_cache")
def test_the_language_model_learns_held_out_texts_and_is_kept(monkeypatch):
    which = torch.randint(2, (1000,), generator=torch.Generator().manual_seed(0))
    texts = torch.tensor([[1, 2, 3, 4, 0, 0], [4, 3, 2, 1, 0, 0]])[which]  # one bit each
    extractor = Texts(width=16, epochs=12)
    extractor.prepare(Given(texts, texts))
    values = lambda x: scored(NLL(), None, torch.zeros(len(x), 1), nll=(None, extractor(x)["nll"]))["nll"]
    assert values(texts) == pytest.approx(math.log(2) / 5, abs=0.1)
    assert values(torch.tensor([[1, 3, 1, 3, 0, 0]] * 2)) > 1
    monkeypatch.setattr("ganlab.metrics.language.fit_language_model", lambda *_, **__: pytest.fail("trained again"))
    again = Texts(width=16, epochs=12)
    again.prepare(Given(texts, texts))
    assert again.describe() == extractor.describe()


# ----------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["model=mle", "data=digits"], "writes texts.*data=sentences"),
        (["model=dcgan", "data=sentences"], "texts.*model=mle"),
        (["model=dcgan", "data=text"], "data.root is not set"),
        (["model=mlp", "data=sentences"], "texts.*model=mle"),
        (["extractor=text", "scores=[novelty]"], "extractor=text looks at texts"),
        (["model=mle", "data=text", "data.length=0"], "data.length=0"),
        (["model=mle", "data=text", "data.held_out=2"], "data.held_out=2"),
    ],
)
def test_what_does_not_go_together_is_refused(overrides, says):
    with pytest.raises((ValueError, Unavailable), match=says):
        prepared(*overrides)


def test_losses_and_terms_say_what_they_need():
    with pytest.raises(ValueError, match="tells no likelihood"):
        game(terms={"likelihood": Likelihood()})
    with pytest.raises(ValueError, match=r"generator\.relaxed=false: .*loss=policy_gradient"):
        game(small(relaxed=False), Discriminator([3, 3]), task=Write())
    with pytest.raises(ValueError, match="draws one symbol after the other"):
        game(loss=PolicyGradient())
    for kwargs, says in (({"cell": "rnn"}, "cell"), ({"temperature": [1.0, 0.0]}, "temperature")):
        with pytest.raises(ValueError, match=says):
            small(**kwargs)
    with pytest.raises(ValueError, match=r"loss\.rollouts=0"):
        PolicyGradient(rollouts=0)
