"""Scores of tables: of filled-in cells beside the true ones, and of made rows beside real ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ganlab.columns import categories, decode, spans, total
from ganlab.metrics.fidelity import Compared, See
from ganlab.metrics.scores import Given, Kept, Score


class Imputed(Compared):
    """Of cells that were filled in although they were known: the root mean squared error of numbers, scaled to [0, 1]
    by the smallest and the largest of their column (Yoon et al. 2018, arXiv:1806.02920, section 5), and the share of
    categories that are wrong; of all rows together. nan where there was no such cell.

    Such a cell is one where the two rows differ: the others are copied, or nobody knows them. A cell that is filled in
    with no error at all would not be counted, but what networks make has one.

    columns   descriptions of the columns (`ganlab.columns`)
    """

    keys = ("rmse", "wrong_categories")
    reads = {"imputed": "rows"}

    def __init__(self, columns: Sequence[Mapping[str, Any]]):
        self._numbers = [span for i, span, _ in spans(columns) if columns[i]["kind"] == "number"]
        self._categories = [span for _, span in categories(columns)]

    def compare(self, fake: Tensor, target: Tensor, see: See) -> Tensor:
        """Sums of each row, [n, 4]: squared errors, numbers filled in, wrong categories, categories filled in."""
        differ = fake != target
        sums = fake.new_zeros(len(fake), 4)
        for span in self._numbers:
            sums[:, 0] += (fake - target)[:, span].square().sum(1)
            sums[:, 1] += differ[:, span].sum(1)
        for span in self._categories:
            filled = differ[:, span].any(1)
            sums[:, 2] += filled & (fake[:, span].argmax(1) != target[:, span].argmax(1))
            sums[:, 3] += filled
        return sums

    def __call__(self, real: Kept, fake: Kept) -> dict[str, float]:
        squares, numbers, wrong, filled = fake.rows("imputed").double().sum(0)
        return {"rmse": (squares / numbers).sqrt().item(), "wrong_categories": (wrong / filled).item()}


class Likeness(Score):
    """How far the made table is from the real one, from 0 to 1, with extractor=pixels: of columns (the mean over them),
    the largest difference of the two cumulative shares of a number, and half the sum of the differences of a category's
    shares; of pairs of columns, the mean absolute difference of what `association` measures.

    columns   descriptions of the columns (`ganlab.columns`)
    """

    keys = ("margins", "pairs")
    standard = 10_000

    def __init__(self, columns: Sequence[Mapping[str, Any]]):
        self._columns = list(columns)

    def check(self, given: Given) -> None:
        if given.dims and given.dims["features"] != total(self._columns):
            raise ValueError("scores.likeness looks at rows of a table as they are: set extractor=pixels")

    def __call__(self, real: Kept, fake: Kept) -> dict[str, float]:
        one, other = (decode(side.rows(), self._columns) for side in (real, fake))
        kept = [i for i, column in enumerate(self._columns) if column["kind"] != "constant"]
        apart = [margin(one[:, i], other[:, i], self._columns[i]) for i in kept]
        known, found = associations(one, self._columns), associations(other, self._columns)
        gaps = [abs(known[pair] - found[pair]) for pair in known]
        return {"margins": sum(apart) / len(apart), "pairs": sum(gaps) / max(1, len(gaps))}


def margin(a: Tensor, b: Tensor, column: Mapping[str, Any]) -> float:
    """Of two lists of values [n], [m]: Kolmogorov and Smirnov's distance of numbers, total variation of categories;
    that of missing cells, where it is larger."""
    gaps = abs(a.isnan().double().mean().item() - b.isnan().double().mean().item())
    a, b = a[~a.isnan()], b[~b.isnan()]
    if not len(a) or not len(b):
        return max(gaps, float(len(a) != len(b)))
    if column["kind"] == "category":
        shares = [torch.bincount(x.long(), minlength=len(column["values"])).double() / len(x) for x in (a, b)]
        return max(gaps, (shares[0] - shares[1]).abs().sum().item() / 2)
    at = torch.cat([a, b])
    below = [torch.searchsorted(x.sort().values, at, right=True).double() / len(x) for x in (a, b)]
    return max(gaps, (below[0] - below[1]).abs().max().item())


def associations(values: Tensor, columns: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], float]:
    """{(a column, another): how they hang together}, see `association`, of values [N, columns]; a category comes
    first."""
    order = sorted(range(len(columns)), key=lambda i: ("category", "number", "constant").index(columns[i]["kind"]))
    order = [i for i in order if columns[i]["kind"] != "constant"]
    pairs = [(i, k) for n, i in enumerate(order) for k in order[n + 1 :]]
    kinds = [column["kind"] for column in columns]
    return {
        (columns[i]["name"], columns[k]["name"]): association(values[:, i], values[:, k], kinds[i], kinds[k])
        for i, k in pairs
    }


def association(a: Tensor, b: Tensor, kind_a: str, kind_b: str) -> float:
    """Pearson's correlation of two numbers, the correlation ratio of a category and a number, Cramer's V of two
    categories; over rows that have both, 0 where one of them never changes."""
    both = ~(a.isnan() | b.isnan())
    a, b = a[both].double(), b[both].double()
    if not len(a) or (a == a[0]).all() or (b == b[0]).all():
        return 0.0
    if kind_a == "number":
        a, b = a - a.mean(), b - b.mean()
        return ((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt()).item()
    of_a = torch.nn.functional.one_hot(a.long()).double()
    of_a = of_a[:, of_a.sum(0) > 0]
    if kind_b == "number":
        share = of_a.mean(0)
        means = of_a.T @ b / of_a.sum(0)
        return ((share @ (means - b.mean()).square()) / b.var(unbiased=False)).sqrt().item()
    of_b = torch.nn.functional.one_hot(b.long()).double()
    of_b = of_b[:, of_b.sum(0) > 0]
    joint = of_a.T @ of_b / len(a)
    alone = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    return (((joint - alone).square() / alone).sum() / (min(joint.shape) - 1)).sqrt().item()
