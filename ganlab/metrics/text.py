"""Scores of texts: how much of them stands in held-out texts and the other way round, what is new, what is right."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ganlab.metrics.scores import Given, Kept, Score
from ganlab.rng import seed_of

END = 0  # the symbol that ends a text and fills what follows


def lengths(tokens: Tensor) -> Tensor:
    """[N]: symbols of texts int64 [N, T] before their end."""
    return ((tokens == END).cumsum(1) == 0).sum(1)


def ngrams(tokens: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """(row, number) of all runs of n symbols in texts int64 [N, T], in order: equal runs have equal 64-bit numbers, and
    others have others, but for chance."""
    if tokens.shape[1] < n:
        return tokens.new_zeros(0), tokens.new_zeros(0)
    factors = torch.tensor([seed_of("ngram", i) | 1 for i in range(n)], device=tokens.device)
    mixed = (tokens + 1) * 0x5851F42D4C957F2D  # modulo 2^64, as all that follows
    mixed = (mixed ^ (mixed >> 29)) * 0x14057B7EF767814F
    numbers = (mixed.unfold(1, n, 1) * factors).sum(2)  # [N, T - n + 1]
    there = torch.arange(numbers.shape[1], device=tokens.device) + n <= lengths(tokens)[:, None]
    return there.nonzero()[:, 0], numbers[there]


def counted(rows: Tensor, ids: Tensor, kinds: int) -> tuple[Tensor, Tensor, Tensor]:
    """(row, kind, how often the row has it)"""
    pairs, count = (rows * kinds + ids).unique(return_counts=True)
    return pairs // kinds, pairs % kinds, count


def bleu(texts: Tensor, references: Tensor, orders: Sequence[int]) -> dict[int, Tensor]:
    """{n: BLEU-n of each text [N], against all references at once} with equal weights for runs of 1 to n symbols
    (Papineni et al. 2002, "BLEU: a method for automatic evaluation of machine translation"); where a text has no run of
    a length in common with any reference, 0.1 takes the place of 0 (Chen & Cherry 2014, smoothing 1)."""
    n, size, logs = len(texts), lengths(texts).double(), []
    for order in range(1, max(orders) + 1):
        (row, number), (ref_row, ref_number) = ngrams(texts, order), ngrams(references, order)
        kinds, ids = torch.cat([number, ref_number]).unique(return_inverse=True)
        _, kind, count = counted(ref_row, ids[len(row) :], max(1, len(kinds)))
        most = torch.zeros(len(kinds), dtype=torch.int64, device=texts.device).scatter_reduce(0, kind, count, "amax")
        row, kind, count = counted(row, ids[: len(row)], max(1, len(kinds)))
        found = torch.bincount(row, torch.minimum(count, most[kind]).double(), n)  # clipped
        if order == 1:
            nothing = found == 0
        logs.append((found.where(found > 0, 0.1) / (size - order + 1).clamp(min=1)).log())
    known = lengths(references).unique().double()  # sorted, so that of two equally near lengths the shorter counts
    nearest = known[(known[None] - size[:, None]).abs().argmin(1)]
    brevity = (1 - nearest / size.clamp(min=1e-9)).clamp(max=0).exp()
    return {k: (brevity * torch.stack(logs[:k]).mean(0).exp()).masked_fill(nothing, 0.0) for k in orders}


class BLEU(Score):
    """Mean BLEU-n of the fakes against all reals together: how much of what G writes is good. And backward, of the
    reals against all fakes: how much of what there is to write G writes (Shi et al. 2018, arXiv:1804.11258).
    Both depend on how many texts they are compared with.

    ngrams   the values of n
    """

    reads = {"tokens": "rows"}
    higher_is_better = True

    def __init__(self, ngrams: Sequence[int] = (2, 3, 4)):
        if not ngrams or min(ngrams) < 1:
            raise ValueError(f"scores.bleu.ngrams={list(ngrams)}: whole numbers of at least 1")
        self.ngrams = list(ngrams)
        self.keys = tuple(f"bleu{n}_{way}" for way in ("forward", "backward") for n in self.ngrams)

    def __call__(self, real: Kept, fake: Kept) -> dict[str, float]:
        sides = real.rows("tokens").long(), fake.rows("tokens").long()
        ways = (*bleu(sides[1], sides[0], self.ngrams).values(), *bleu(*sides, self.ngrams).values())
        return {key: value.mean().item() for key, value in zip(self.keys, ways, strict=True)}


class Novelty(Score):
    """Share of the fakes that are no text of the training part (new), of their runs of symbols that no such text has
    (new_ngrams; the extractor says how long), and of different ones among the fakes (different). None is better high or
    low as such: held-out texts say what is right."""

    reads = {"new": "rows", "tokens": "rows"}
    reals = False
    keys = ("new", "new_ngrams", "different")

    def __call__(self, real: Kept, fake: Kept) -> dict[str, float]:
        text, runs, of = fake.rows("new").double().unbind(1)
        different = len(fake.rows("tokens").unique(dim=0)) / fake.n
        new = (runs.sum() / of.sum().clamp(min=1)).item()
        return {"new": text.mean().item(), "new_ngrams": new, "different": different}


class NLL(Score):
    """Negative log-likelihood of the fakes under a language model of held-out texts, in nats per symbol, their ends
    included. Low also where a G repeats a few likely texts: read it beside backward BLEU."""

    reads = {"nll": "rows"}
    reals = False
    keys = ("nll",)

    def __call__(self, real: Kept, fake: Kept) -> dict[str, float]:
        nats, symbols = fake.rows("nll").double().sum(0)
        return {"nll": (nats / symbols).item()}


class Grammar(Score):
    """Share of the fakes that a grammar allows, 1 at best, and the mean negative log-likelihood of those under it, in
    nats per text: the grammar's entropy, where they are as varied as they should be, and less where they are not. It is
    nan where none is right.

    arcs   [state, symbol, next state, probability], texts beginning in state 0
    """

    reads = {"tokens": "rows"}
    reals = False
    higher_is_better = True
    keys = ("grammatical", "grammar_nll")

    def __init__(self, arcs: Sequence[Sequence[float]]):
        self.arcs = [list(arc) for arc in arcs]

    def check(self, given: Given) -> None:
        if not self.arcs:
            raise ValueError("scores.grammar.arcs is empty: it is for data=sentences")

    def settings(self) -> dict[str, Any]:
        return {"arcs": len(self.arcs)}

    def __call__(self, real: Kept, fake: Kept) -> dict[str, float]:
        log_p = grammar_log_prob(fake.rows("tokens").long(), self.arcs)
        right = log_p.isfinite()
        return {"grammatical": right.double().mean().item(), "grammar_nll": -log_p[right].mean().item()}


def grammar_log_prob(tokens: Tensor, arcs: Sequence[Sequence[float]]) -> Tensor:
    """Log-probability of each text int64 [N, T], -inf where the grammar does not allow it."""
    table = torch.tensor(arcs, dtype=torch.float64)
    before, symbol, after = table[:, :3].long().unbind(1)
    states, symbols = int(torch.cat([before, after]).max()) + 1, max(int(symbol.max()), int(tokens.max())) + 1
    log_p = torch.full((states, symbols), -torch.inf, dtype=torch.float64)
    to = torch.zeros(states, symbols, dtype=torch.int64)
    log_p[before, symbol], to[before, symbol] = table[:, 3].log(), after
    state, total = torch.zeros(len(tokens), dtype=torch.int64), torch.zeros(len(tokens), dtype=torch.float64)
    for column in tokens.cpu().unbind(1):
        total, state = total + log_p[state, column], to[state, column]
    return total
