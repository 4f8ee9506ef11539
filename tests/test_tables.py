"""Tables: what is read, how cells become numbers and text again, how missing ones are filled in and rows are made."""

import csv
import json
import math
import zipfile

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from composing import prepared, run
from made import SHARED
from scipy import stats
from torch import nn

from ganlab.columns import decode, describe, encode, spans, text_of, total, values_of
from ganlab.data.mixed_table import MixedTable, made, truth
from ganlab.data.table import Table, Weighted, chances, read_csv
from ganlab.files import Unavailable
from ganlab.impute import impute
from ganlab.losses import Cells
from ganlab.media.rows import Rows
from ganlab.metrics.scores import Kept
from ganlab.metrics.tables import Imputed, Likeness, association, associations, margin
from ganlab.models import ctgan, gain
from ganlab.phase import Batch, Phase
from ganlab.rng import BatchRNG, IndexedRNG
from ganlab.sample import sample
from ganlab.tasks import Impute, Synthesize
from ganlab.terms.tables import Asked, Given

TEXT = {
    "age": ["31", "45", "", "62", "18"],
    "height of": ["1.80", "1.7", "NaN", "2.05", "1.5"],
    "town": ["Köln", "Paris, Texas", "?", "Köln", "Rome"],
    "code": ["2", "1", "2", "2", ""],
    "same": ["x", "x", "", "x", "x"],
    "none": ["", "NA", "null", "?", ""],
}

SMALL = ("trainer=cpu", "logger=csv", "max_kimg=1", "log_every=1", "callbacks.samples.every=1", "data.batch_size=50")


def written(path, text, separator=",", encoding="utf-8"):
    with open(path, "w", newline="", encoding=encoding) as file:
        rows = csv.writer(file, delimiter=separator)
        rows.writerow(text)
        rows.writerows(zip(*text.values(), strict=True))
    return path


# ---------------------------------------------------------------------------------------------------------- the columns


@pytest.mark.parametrize("encoding", ["minmax", "modes"])
def test_cells_survive_the_way_to_networks_and_back(encoding):
    """Types, decimals, categories and gaps; a constant column is written as it is, an empty one stays empty."""
    columns = describe(TEXT, ["code"], encoding)
    assert [column["kind"] for column in columns] == [
        "number",
        "number",
        "category",
        "category",
        "constant",
        "constant",
    ]
    x = encode(values_of(TEXT, columns), columns)
    assert x.shape == (5, total(columns))
    assert x.dtype == torch.float32
    back = text_of(decode(x, columns), columns)
    assert back["age"] == ["31", "45", "", "62", "18"]
    assert back["height of"] == ["1.80", "1.70", "", "2.05", "1.50"]
    assert back["town"] == ["Köln", "Paris, Texas", "", "Köln", "Rome"]
    assert back["code"] == ["2", "1", "2", "2", ""]
    assert back["same"] == ["x"] * 5
    assert back["none"] == [""] * 5


def test_numbers_keep_their_way_of_writing():
    """Exponents stay exponents, one number written in two ways is a constant, no zero gets a sign."""
    text = {"a": ["1e-7", "2.5e-7", "3e-7"], "b": ["1", "1.0", "1"], "c": ["-0.001", "0.004", "-2"]}
    columns = describe(text, (), "minmax")
    assert [column["kind"] for column in columns] == ["number", "constant", "number"]
    back = text_of(decode(encode(values_of(text, columns), columns), columns), columns)
    assert [float(cell) for cell in back["a"]] == pytest.approx([1e-7, 2.5e-7, 3e-7])
    assert back["b"] == ["1", "1", "1"]
    assert back["c"] == ["-0.001", "0.004", "-2.000"]
    assert text_of(torch.tensor([[-0.0, -0.0, -0.0]]), columns)["c"] == ["0.000"]


def test_descriptions_are_plain_values():
    """They are stored with a run: JSON holds them, and decodes as before."""
    columns = describe(TEXT, ["code"], "modes")
    assert json.loads(json.dumps(columns)) == columns


def test_minmax_is_the_papers_scaling():
    columns = describe({"a": ["2", "4", "10"]}, (), "minmax")
    assert encode(values_of({"a": ["2", "4", "10"]}, columns), columns).flatten().tolist() == [0, 0.25, 1]


def test_modes_are_found_and_offsets_are_in_quarter_deviations():
    """Two Gaussians far apart: nearly all weight on modes at their centres, and the offset is (x - mean) / (4 dev)."""
    generator = np.random.default_rng(0)
    x = np.concatenate([generator.normal(-10, 1, 600), generator.normal(20, 2, 400)])
    text = {"x": [repr(v) for v in x.tolist()]}
    (column,) = describe(text, (), "modes")
    modes = np.array(column["modes"])
    assert modes[modes[:, 0] < 5, 2].sum() == pytest.approx(0.6, abs=0.02)
    encoded = encode(values_of(text, [column]), [column]).double()
    chosen = encoded[:, 1:].argmax(1).numpy()
    assert (encoded[:, 1:].sum(1) == 1).all()
    assert np.abs(encoded[:, 0].numpy() - (x - modes[chosen, 0]) / (4 * modes[chosen, 1])).max() < 1e-3
    assert ((modes[chosen, 0] < 5) == (x < 5)).all()


def test_missing_cells_are_a_choice_of_their_own_where_numbers_have_modes():
    columns = describe({"x": ["1", "2", "", "3"], "y": ["a", "", "b", "a"]}, (), "modes")
    x = encode(values_of({"x": ["", "1"], "y": ["", "b"]}, columns), columns)
    assert x.isfinite().all()
    ((_, number, _), (_, modes, _), (_, town, _)) = spans(columns)
    assert x[0, number] == 0
    assert x[0, modes][-1] == x[0, town][-1] == 1


@pytest.mark.parametrize(
    ("text", "categories", "told"),
    [
        (
            {"a": ["1", "2", "low", "4"]},
            (),
            r"a has numbers, and 1 cells that are none, as 'low' in row 4.*\[a\]",
        ),
        ({"a": [f"n{i}" for i in range(501)]}, (), r"column a has 501 different texts.*data.drop=\[a\]"),
        ({"a": ["1e999", "2"]}, (), "beyond all bounds"),
    ],
)
def test_columns_that_can_not_be_learned_are_named(text, categories, told):
    with pytest.raises(ValueError, match=told):
        describe(text, categories)


# ------------------------------------------------------------------------------------------------------------- the file


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no rows below"),
        (b"a,b\n", "no rows below"),
        (b"a,b\n1,2\n1,2,3\n1\n", "line 3 has 3 cells, and there are 2 columns, and 1 others"),
        (b"a,a\n1,2\n", "more than one column is called 'a'"),
        (b"a,b\n1,M\xfcnchen\n", r"not utf-8 \(0xfc, about line 2\).*data.charset=latin-1"),
        (b"a;b\n1;2\n", "data.separator=';'"),
        (b'a,b\n1,"2\n', "can't be read as a table"),
        (b"a,b\n1,${x}\n", "rename"),
    ],
)
def test_broken_files_are_refused_in_one_line(tmp_path, content, told):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(Unavailable, match=told):
        Table(tmp_path / "t.csv").text()


def test_other_charsets_separators_and_byte_order_marks_are_read(tmp_path):
    written(tmp_path / "a.csv", {"ä": ["1", "2"], "b": ["ü", "v"]}, ";", "latin-1")
    assert read_csv(tmp_path / "a.csv", charset="latin-1", separator=";") == {"ä": ["1", "2"], "b": ["ü", "v"]}
    written(tmp_path / "b.csv", {"a": ["1"], "b": ["2"]}, encoding="utf-8-sig")
    assert list(read_csv(tmp_path / "b.csv")) == ["a", "b"]
    with pytest.raises(ValueError, match=r"data\.charset=klingon"):
        read_csv(tmp_path / "b.csv", charset="klingon")
    with pytest.raises(Unavailable, match=r"input=.*nowhere\.csv"):
        read_csv(tmp_path / "nowhere.csv", "input")


def test_constant_and_empty_columns_are_counted(tmp_path, capsys):
    table = Table(written(tmp_path / "t.csv", TEXT), categories=["code"])
    table.split("train")
    said = capsys.readouterr().out
    assert "1 column(s) are empty, and stay so: none" in said
    assert "1 column(s) are constant, and stay so: same" in said


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"label": "nothing"}, "data.label: there is no column nothing; there are age"),
        ({"label": "same"}, "data.label=same: all rows have one class, 'x'"),
        ({"label": "town"}, "data.label=town: rows without a class"),
        ({"drop": ["nothing"]}, "data.drop: there is no column nothing"),
        ({"drop": ["age", "height of", "town", "code"]}, "every column is constant or empty"),
        ({"by_category": True, "balanced": True}, "two ways to draw rows"),
    ],
)
def test_what_a_table_has_not_is_told(tmp_path, keys, told):
    with pytest.raises(ValueError, match=told):
        Table(written(tmp_path / "t.csv", TEXT), **keys).facts()


def test_hidden_cells_are_a_fifth_and_always_the_same():
    """Of a category all entries are hidden together."""
    table, again = (MixedTable(count=2000, encoding="minmax", hide=0.2) for _ in range(2))
    given = table.split("train").given
    assert torch.equal(given, again.split("train").given)
    assert (~given).float().mean().item() == pytest.approx(0.2, abs=0.01)
    for _, span, kind in spans(table.columns()):
        if kind == "choice":
            assert (given[:, span] == given[:, span][:, :1]).all()


# ------------------------------------------------------------------------------------------------------- the made table


def test_the_made_table_has_the_law_that_it_says_it_has():
    """Of 100,000 rows: means, shares and every association within four or so standard errors of the truth."""
    text = made(100_000, "another")
    columns = describe(text, (), "minmax")
    values = values_of(text, columns)
    known = truth()
    names = [column["name"] for column in columns]
    for name, mean in known["mean"].items():
        of = values[:, names.index(name)]
        assert of.mean().item() == pytest.approx(mean, abs=0.015 * known["deviation"][name])
        assert of.std().item() == pytest.approx(known["deviation"][name], rel=0.01)
    for name, shares in known["shares"].items():
        column = columns[names.index(name)]
        found = dict(zip(column["values"], column["counts"], strict=True))
        assert all(found[value] / 100_000 == pytest.approx(share, abs=0.006) for value, share in shares.items())
    found = associations(values, columns)
    assert len(found) == len(known["association"]) == 15
    for pair, value in found.items():
        true = known["association"].get(pair, known["association"].get(pair[::-1]))
        assert value == pytest.approx(true, abs=0.015)


# ----------------------------------------------------------------------------------------------------------- the scores


def test_associations_are_scipys():
    generator = np.random.default_rng(0)
    a, b = generator.integers(0, 3, 500), generator.integers(0, 4, 500)
    b[:200] = a[:200]
    x = generator.normal(size=500) + a
    y = generator.normal(size=500) - x
    t = lambda v: torch.tensor(v, dtype=torch.float64)
    assert association(t(x), t(y), "number", "number") == pytest.approx(stats.pearsonr(x, y)[0])
    counts = np.array([[np.sum((a == i) & (b == k)) for k in range(4)] for i in range(3)])
    assert association(t(a), t(b), "category", "category") == pytest.approx(
        stats.contingency.association(counts, method="cramer")
    )
    f = stats.f_oneway(*(x[a == i] for i in range(3))).statistic  # eta^2 = F / (F + (n - k) / (k - 1))
    assert association(t(a), t(x), "category", "number") == pytest.approx(math.sqrt(f / (f + 497 / 2)))


def test_margins_are_scipys_and_count_gaps():
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=300), generator.normal(0.5, 1.2, size=400)
    number = {"kind": "number"}
    assert margin(torch.tensor(x), torch.tensor(y), number) == pytest.approx(stats.ks_2samp(x, y).statistic)
    category = {"kind": "category", "values": ["a", "b", "c"]}
    assert margin(torch.tensor([0, 0, 1, 2.0]), torch.tensor([0, 1, 1, 1.0]), category) == pytest.approx(0.5)
    gaps = torch.tensor([1.0, math.nan, math.nan, math.nan])
    assert margin(gaps, torch.tensor([1.0, 1.0]), number) == 0.75


def test_the_imputation_score_counts_filled_cells_alone():
    """Two numbers and a category, by hand: three numbers filled in, with errors 0.1, 0.2 and 0.2, and two categories,
    one of them wrong."""
    columns = describe({"a": ["0", "1"], "b": ["0", "1"], "c": ["x", "y"]}, (), "minmax")
    target = torch.tensor([[0.5, 0.5, 1, 0], [0.2, 0.4, 0, 1], [0.9, 0.1, 1, 0]])
    fake = torch.tensor([[0.6, 0.5, 0.9, 0.1], [0.4, 0.6, 0.7, 0.3], [0.9, 0.1, 1, 0]])
    sums = Imputed(columns).compare(fake, target, None).double().sum(0)
    assert sums[1:].tolist() == [3, 1, 2]
    assert sums[0].item() == pytest.approx(0.09, rel=1e-5)


def test_likeness_of_a_table_to_itself_is_perfect_and_of_shuffled_columns_is_told_by_pairs():
    table = MixedTable(count=1000)
    rows = table.split("train").rows
    kept = lambda x: Kept(len(x), {"features_rows": x})
    score = Likeness(table.columns())
    assert score(kept(rows), kept(rows)) == {"margins": 0, "pairs": 0}
    values = decode(rows, table.columns())
    apart = torch.stack([values[torch.randperm(1000), i] for i in range(values.shape[1])], 1)
    found = score(kept(rows), kept(encode(apart, table.columns())))
    assert found["margins"] < 0.01
    assert found["pairs"] > 0.3


# ----------------------------------------------------------------------------------------------------------------- GAIN


def game(task, real, given, G, D, player="D", seed=0):
    batch = task.prepare({"real": real, "given": given}, BatchRNG(seed, len(real), slice(0, len(real))))
    return Phase(player, batch, G, D, task.play, (), BatchRNG(1, len(real), slice(0, len(real))))


class Half(nn.Module):
    """G fills in 0.5; D's logits are what it is shown plus the hint."""

    def forward(self, x, hint=None):
        return torch.full_like(x[0], 0.5) if hint is None else x + hint


def test_gains_losses_are_the_papers_sums():
    columns = describe({"a": ["0", "1"], "b": ["0", "1"], "c": ["0", "1"]}, (), "minmax")
    task = Impute(columns, hint=0.5)
    real = torch.tensor([[0.1, 0.9, math.nan], [0.3, 0.2, 0.7]])
    given = torch.tensor([[True, False, False], [True, True, False]])
    net = Half()
    for player in "DG":
        phase = game(task, real, given, net, net, player)
        hint = phase.batch.cond
        assert ((hint == 0) | ((hint == 1) & given)).all()
        completed = torch.where(given, real, 0.5)
        assert torch.equal(phase.fake, completed)
        assert torch.equal(phase.real, torch.tensor([[0.1, 0.9, 0.5], [0.3, 0.2, 0.7]]))
        p, m = torch.sigmoid(completed + hint).double(), given.double()
        if player == "D":
            expected = -(m * p.log() + (1 - m) * (1 - p).log()).mean()
        else:
            expected = -((1 - m) * p.log()).mean()
            squares = [0.4**2, (0.2**2 + 0.3**2) / 2]  # of given cells: 0.1 beside 0.5; 0.3 and 0.2 beside 0.5
            assert Given()(phase).tolist() == pytest.approx(squares)
        assert Cells()(phase).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_truth_of_hidden_cells_reaches_neither_player():
    """Other numbers in cells that are not given change no loss and nothing that G makes."""
    torch.manual_seed(0)
    columns = describe({name: ["0", "1"] for name in "abcd"}, (), "minmax")
    task, G, D = Impute(columns), gain.Generator([4], 8), gain.Discriminator([4], 8)
    real = torch.rand(6, 4)
    given = torch.rand(6, 4) < 0.7
    told = []
    for rows in (real, torch.where(given, real, 1 - real), torch.where(given, real, math.nan)):
        values = [game(task, rows, given, G, D, player) for player in "DG"]
        told.append(torch.stack([*(Cells()(phase) for phase in values), Given()(values[1]).mean()]))
    assert torch.equal(told[0], told[1])
    assert torch.equal(told[0], told[2])


def test_hints_tell_of_their_share_of_the_given_cells_and_of_categories_as_a_whole():
    columns = MixedTable(count=100, encoding="minmax").columns()
    task = Impute(columns, hint=0.9)
    given = torch.rand(4000, 1) < 0.5
    real = torch.rand(4000, total(columns))
    batch = task.prepare({"real": real, "given": given.expand_as(real)}, IndexedRNG(0, range(4000)))
    assert batch.cond[given.flatten()].mean().item() == pytest.approx(0.9, abs=0.01)
    assert batch.cond[~given.flatten()].sum() == 0
    for _, span, _ in spans(columns):
        assert (batch.cond[:, span] == batch.cond[:, span][:, :1]).all()
    row, there = batch.inputs
    assert (row[there == 0] < 0.01).all()
    assert torch.equal(row[there == 1], real[there == 1])


def test_gain_drops_cells_in_training_only():
    torch.manual_seed(0)
    G = gain.Generator([5], 16, drop=0.5)
    inputs = torch.rand(64, 5), torch.ones(64, 5)
    assert not torch.equal(G(inputs), G(inputs))
    G.eval()
    assert torch.equal(G(inputs), G(inputs))
    assert sum(p.numel() for p in gain.Generator([16]).parameters()) == 32 * 16 + 16 + 2 * (16 * 16 + 16)  # the paper's


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["model=dcgan", "task=impute"], "task=impute fills in cells of tables .*use data=table"),
        (["model=gain", "data.encoding=modes"], "data.encoding=minmax"),
        (["model=ctgan", "data.encoding=minmax"], "data.encoding=modes"),
        (["model=dcgan", "task=synthesize"], "use data=table"),
        (["model=mlp", "data=mixed_table", "loss=cells"], "goes with task=impute"),
        (["model=gain", "data=table"], "data.root is not set"),
        (["model=gain", "data.hide=1.5"], "data.hide=1.5: must be"),
    ],
)
def test_what_does_not_go_together_is_refused(overrides, told):
    with pytest.raises(ValueError, match=told):
        prepared(*overrides, "metrics.enabled=false")


# ---------------------------------------------------------------------------------------------------------------- CTGAN


def test_training_by_sampling_draws_rows_and_conditions_by_the_papers_law():
    """Section 4.3: a column evenly, of it a category by the logarithm of its count, a row of that category. Here rows
    are drawn first and the column given the row; the joint law of (column, category, row) is compared."""
    text = {"a": ["x"] * 6 + ["y"] * 2, "b": ["u", "v", "v", "v", "v", "v", "w", "u"]}
    columns = describe(text)
    rows = encode(values_of(text, columns), columns)
    law = {}
    for column in columns:
        logs = [math.log(1 + count) for count in column["counts"]]
        for value, count, log in zip(column["values"], column["counts"], logs, strict=True):
            for i, cell in enumerate(text[column["name"]]):
                if cell == value:
                    law[f"{column['name']}={value}", i] = log / sum(logs) / count / len(columns)
    assert sum(law.values()) == pytest.approx(1)
    of = [rows[:, span] @ chances(rows[:, span].sum(0)) for _, span, _ in spans(columns)]
    weighted, generator, n = Weighted(torch.stack(of).sum(0)), torch.Generator().manual_seed(0), 200_000
    drawn = torch.cat([weighted.epoch(generator) for _ in range(n // len(weighted))])
    task = Synthesize(columns, z_dim=2)
    cond = task.condition(rows[drawn], BatchRNG(1, n, slice(0, n)))
    assert (cond.sum(1) == 1).all()
    found = torch.bincount(cond.argmax(1) * 8 + drawn, minlength=5 * 8) / n
    for k, name in enumerate(task.names):
        for i in range(8):
            assert found[8 * k + i].item() == pytest.approx(law.get((name, i), 0), abs=0.004)


def test_without_data_conditions_are_drawn_as_categories_occur():
    columns = describe({"a": ["x"] * 6 + ["y"] * 2, "b": ["u", "v", "v", "v", "v", "v", "w", "u"]})
    task = Synthesize(columns, z_dim=2)
    (z, gumbel), cond = task.draw(BatchRNG(0, 50_000, slice(0, 50_000)))
    assert z.shape == (50_000, 2)
    shares = dict(zip(task.names, cond.mean(0).tolist(), strict=True))
    expected = {"a=x": 6 / 16, "a=y": 2 / 16, "b=u": 2 / 16, "b=v": 5 / 16, "b=w": 1 / 16}
    assert shares == pytest.approx(expected, abs=0.01)
    assert stats.kstest(gumbel.flatten()[:5000].numpy(), "gumbel_r").pvalue > 1e-3
    _, asked = task.draw(IndexedRNG(0, range(3)), torch.tensor([4, 0, 1]))
    assert asked.argmax(1).tolist() == [4, 0, 1]
    assert (asked.sum(1) == 1).all()


def test_gumbel_softmax_follows_its_logits():
    """The largest entry of a choice is drawn with the probabilities of its logits."""
    G = ctgan.Generator([4], [["number", 1], ["choice", 3]], z_dim=2, width=4, temperature=0.05)
    nn.init.zeros_(G.out.weight)
    with torch.no_grad():
        G.out.bias.copy_(torch.tensor([0.5, 0.0, 1.0, 2.0]))
    task = Synthesize(describe({"x": ["a", "b", "c"], "n": ["1", "1", "1"]}), z_dim=2)
    rng = BatchRNG(0, 40_000, slice(0, 40_000))
    gumbel = torch.cat([torch.zeros(40_000, 1), task.noise(rng)[1]], 1)
    x = G.eval()((torch.randn(40_000, 2), gumbel)).fake
    assert x[:, 0].unique().tolist() == pytest.approx([math.tanh(0.5)])
    assert torch.allclose(x[:, 1:].sum(1), torch.ones(40_000))
    shares = torch.bincount(x[:, 1:].argmax(1), minlength=3) / 40_000
    assert shares.tolist() == pytest.approx(torch.tensor([0.0, 1.0, 2.0]).softmax(0).tolist(), abs=0.01)


def test_the_asked_category_is_scored_by_cross_entropy():
    columns = describe({"a": ["x", "y", "z"], "b": ["u", "v", "u"]})
    task, logits = Synthesize(columns, z_dim=2), torch.randn(2, 5)
    cond = torch.tensor([[0, 0, 1.0, 0, 0], [0, 0, 0, 1.0, 0]])
    term = Asked()
    term.check(type("Game", (), {"task": task}))
    phase = type("Phase", (), {"aux": logits, "batch": Batch(None, None, cond)})
    expected = [F.cross_entropy(logits[0, :3], torch.tensor(2)), F.cross_entropy(logits[1, 3:], torch.tensor(0))]
    assert torch.allclose(term(phase), torch.stack(expected))


def test_packs_are_of_neighbours_and_the_last_is_filled_up():
    D = ctgan.Discriminator([2], width=8, pack=3).eval()
    x = torch.randn(7, 2)
    alone = [D.net(x[[a, b, c]].flatten()[None]).item() for a, b, c in ((0, 1, 2), (3, 4, 5), (6, 0, 1))]
    assert D(x).tolist() == pytest.approx(alone, abs=1e-6)


def test_a_table_without_categories_asks_for_nothing(tmp_path):
    x = np.random.default_rng(0).normal(size=(100, 2))
    path = written(tmp_path / "t.csv", {"a": [f"{v:.3f}" for v in x[:, 0]], "b": [f"{v:.3f}" for v in x[:, 1]]})
    given = ("model=ctgan", "data=table", f"data.root={path}", "metrics.n=50", *SMALL)
    with pytest.raises(ValueError, match=r"leave it out: ~terms\.asked"):
        run(tmp_path / "one", *given)
    run(tmp_path / "two", *given, "~terms.asked")
    assert json.loads((tmp_path / "two" / "scores.json").read_text())["history"]


def test_rows_of_a_rare_category_are_asked_for_from_the_command_line(tmp_path):
    """A checkpoint alone writes CSV with the table's names, types and categories."""
    run(tmp_path / "run", "model=ctgan", "metrics.n=50", "generator.width=16", "discriminator.width=16", *SMALL)
    assert (tmp_path / "run" / "samples" / "fakes_000001" / "rows.csv").exists()
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    told = {"n": 20, "start": 0, "seed": 0, "truncation": None, "interpolations": 0, "columns": 8, "batch_size": 8}
    told |= {"device": "cpu", "trust": []}
    names = ["group=a", "group=b", "group=c", "member=no", "member=yes", "risk=high", "risk=low"]
    for classes in ([5], ["risk=high"]):
        folder = sample(str(checkpoint), classes=classes, output=str(tmp_path / f"out{classes[0]}"), **told)
        (path,) = folder.glob("*rows.csv")
        text = read_csv(path)
        assert list(text) == ["group", "height", "weight", "visits", "member", "risk"]
        assert len(text["group"]) == 20
        assert all(len(cell.partition(".")[2]) == 1 for cell in text["height"])
        assert set(text["group"]) <= set("abc")
    assert (folder / path.name.replace("rows.csv", "sheet.png")).exists()
    with pytest.raises(ValueError, match=r"risk=huge.*" + ", ".join(names)):
        sample(str(checkpoint), classes=["risk=huge"], output=None, **told)


def test_a_heat_map_is_small_blue_large_yellow_and_missing_black():
    columns = describe({"a": ["0", "10"], "b": ["x", "y"]}, (), "minmax")
    x = encode(values_of({"a": ["0", "10", ""], "b": ["y", "x", ""]}, columns), columns)
    picture = Rows(columns).picture(x)[0]
    high, wide = picture.shape[1] // 3, picture.shape[2] // 2
    cell = lambda row, column: picture[:, row * high, column * wide].tolist()
    assert cell(0, 0) == cell(1, 1)
    assert cell(1, 0) == cell(0, 1)
    assert cell(2, 0) == cell(2, 1) == [-1, -1, -1]
    assert cell(0, 0)[2] > cell(0, 0)[0]
    assert min(cell(1, 0)[:2]) > cell(1, 0)[2]


@pytest.mark.skipif(not (SHARED / "tabular").exists(), reason="needs letter.csv")
def test_letter_is_read_as_its_owners_use_it(tmp_path):
    with zipfile.ZipFile(SHARED / "tabular" / "gain.zip") as archive:
        archive.extract("letter.csv", tmp_path)
    table = Table(tmp_path / "letter.csv", encoding="minmax", hide=0.2)
    samples = table.split("train")
    assert samples.rows.shape == (20_000, 16)
    own = np.loadtxt(tmp_path / "letter.csv", delimiter=",", skiprows=1)
    own = (own - own.min(0)) / (own.max(0) - own.min(0))
    assert np.abs(samples.rows.numpy() - own).max() < 1e-6
    assert (~samples.given).float().mean().item() == pytest.approx(0.2, abs=0.003)


# ----------------------------------------------------------------------------------------------------- the command line


def test_a_table_is_completed_and_nothing_else_changes(tmp_path, capsys):
    """CSV in, CSV out by a checkpoint alone: given cells, other columns and the order stay; what is filled in has the
    type, the decimals and the categories of its column."""
    generator = np.random.default_rng(0)
    x = generator.normal(10, 3, 200)
    text = {
        "Größe": [f"{v:.2f}" for v in x],
        "count": [str(int(v * 3)) for v in x],
        "kind": ["large, really" if v > 10 else "small" for v in x],
        "same": ["7"] * 200,
        "empty": [""] * 200,
    }
    holes = {name: [cell if generator.random() > 0.2 else "" for cell in cells] for name, cells in text.items()}
    train = written(tmp_path / "train.csv", holes)
    run(tmp_path / "run", "model=gain", "data=table", f"data.root={train}", "metrics.n=100", *SMALL)
    assert json.loads((tmp_path / "run" / "scores.json").read_text())["history"][-1]["rmse"] > 0
    assert list((tmp_path / "run" / "samples").glob("outputs_*.png"))
    train.unlink()
    new = {"id": [f"row {i}" for i in range(200)], **holes}
    new["kind"] = ["huge", *new["kind"][1:]]
    source = written(tmp_path / "new.csv", new)
    capsys.readouterr()
    done = impute(str(tmp_path / "run" / "checkpoints" / "last.ckpt"), str(source), str(tmp_path / "done.csv"))
    said = capsys.readouterr().out
    after = read_csv(done)
    assert list(after) == list(new)
    gaps = {name: [not cell for cell in cells] for name, cells in new.items()}
    assert all(old in (cell, "") for name in new for old, cell in zip(new[name], after[name], strict=True))
    made = {name: [c for c, gap in zip(after[name], gaps[name], strict=True) if gap] for name in new}
    assert all(len(made[name]) > 20 for name in ("Größe", "count", "kind", "same"))
    assert all(len(cell.partition(".")[2]) == 2 for cell in made["Größe"])
    assert all(cell.isdigit() for cell in made["count"])
    assert set(made["kind"]) <= {"large, really", "small"}
    assert set(made["same"]) == {"7"}
    assert set(after["empty"]) == {""}
    total = sum(map(sum, gaps.values())) - 200
    assert f"{total:,} missing cells of 200 rows were filled in" in said
    assert "1 columns are not of the run's table, and stay as they are: id" in said
    assert "1 cells the run's table has nothing like" in said


def test_what_can_not_be_completed_is_refused(tmp_path):
    train = written(tmp_path / "t.csv", {"a": ["1", "2", "3", ""] * 20, "b": ["x", "y", "", "y"] * 20})
    run(tmp_path / "run", "model=gain", "data=table", f"data.root={train}", "metrics.n=50", *SMALL)
    checkpoint = str(tmp_path / "run")
    with pytest.raises(ValueError, match="is the input, which would be overwritten"):
        impute(checkpoint, str(train), str(train))
    with pytest.raises(ValueError, match="the table has no column b"):
        impute(checkpoint, str(written(tmp_path / "other.csv", {"a": ["1"]})))
    run(tmp_path / "other", "model=mlp", "data=mixed_table", "metrics.n=50", *SMALL)
    with pytest.raises(ValueError, match="fills in no tables: train one with model=gain"):
        impute(str(tmp_path / "other"), str(train))
