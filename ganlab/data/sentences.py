"""Sentences of a small grammar whose probabilities are known, so that right and wrong ones can be counted."""

from typing import Any

import torch
from torch import Tensor

from ganlab.data.rounds import DataModule, InMemory
from ganlab.data.text import END, NAMES
from ganlab.rng import seed_of

Arc = tuple[int, int, int, float]  # state, symbol, next state, probability
NOUNS = [("cat", "cats"), ("dog", "dogs"), ("bird", "birds"), ("child", "children")]
VERBS = [("sees", "see"), ("likes", "like"), ("follows", "follow")]  # somebody
ALONE = [("sleeps", "sleep"), ("sings", "sing")]
ADJECTIVES = ["small", "quick", "happy"]
LENGTH = 8  # the longest sentence has 7 words


def shares(options: list[Any], total: float = 1.0) -> list[float]:
    """Probabilities that fall as 1, 1/2, 1/3, ... and sum to `total`."""
    weights = [1 / (i + 1) for i in range(len(options))]
    return [total * w / sum(weights) for w in weights]


def grammar() -> dict[str, list[tuple[str, str, float]]]:
    """{state: [(word, next state, probability)]}; number agrees: "a" stands with one, "two" with several, "the" with
    both; verbs follow their subject."""
    rules: dict[str, list[tuple[str, str, float]]] = {"end": [("<end>", "end", 1.0)]}

    def noun_phrase(start: str, singular: str, plural: str) -> None:
        articles = {"a": (singular,), "the": (singular, plural), "two": (plural,)}
        rules[start] = [(word, f"{start} {word}", p) for word, p in zip(articles, (0.4, 0.4, 0.2), strict=True)]
        for word, numbers in articles.items():
            nouns = [
                (noun[number == plural], number, p)
                for number in numbers
                for noun, p in zip(NOUNS, shares(NOUNS, 1 / len(numbers)), strict=True)
            ]
            bare, state = f"{start} {word} adjective", f"{start} {word}"
            adjectives = zip(ADJECTIVES, shares(ADJECTIVES, 0.4), strict=True)
            rules[state] = [(a, bare, p) for a, p in adjectives] + [(n, to, 0.6 * p) for n, to, p in nouns]
            rules[bare] = nouns

    noun_phrase("start", "one", "several")
    noun_phrase("object", "end", "end ")  # two names, so that plurals can be told; both end the sentence
    rules["end "] = rules["end"]
    for i, number in enumerate(("one", "several")):
        verbs = zip(VERBS, shares(VERBS, 0.6), strict=True)
        alone = zip(ALONE, shares(ALONE, 0.4), strict=True)
        rules[number] = [(v[i], "object", p) for v, p in verbs] + [(v[i], "end", p) for v, p in alone]
    return rules


class Sentences(DataModule):
    """Sentences as "two small dogs see the cat", int64 [N, 8], filled up with 0, the end.

    number   of sentences in each split
    """

    reference = "test"

    def __init__(
        self, number: int = 20_000, batch_size: int = 64, rounds: int = 8, seed: int = 0, count: int | None = None
    ):  # fmt: skip
        super().__init__(batch_size, rounds, seed, count=count)
        self.number = number
        rules = grammar()
        states = ["start", *(state for state in rules if state != "start")]
        words = sorted({word for options in rules.values() for word, _, _ in options} - {NAMES[END]})
        self.symbols = [*NAMES, *words]
        self.arcs: list[Arc] = [
            (states.index(state), self.symbols.index(word), states.index(to), p)
            for state, options in rules.items()
            for word, to, p in options
        ]
        self.states = len(states)

    def facts(self) -> dict[str, Any]:
        """What networks, scores and media must know; `arcs` are the grammar: [state, symbol, next state, probability],
        sentences beginning in state 0."""
        return {"shape": [LENGTH, len(self.symbols)], "classes": None, "class_names": None, "frequencies": None} | {
            "several": False, "symbols": self.symbols, "between": " ", "arcs": [list(arc) for arc in self.arcs],
        }  # fmt: skip

    def entropy(self) -> float:
        """Of a sentence, in nats: the likelihood that no model can be better than."""
        p, _, step = self.matrices()
        at, total = torch.eye(self.states, dtype=torch.float64)[0], 0.0
        for _ in range(LENGTH):
            total += (at @ torch.special.entr(p).sum(1)).item()
            at = at @ step
        return total

    def matrices(self) -> tuple[Tensor, Tensor, Tensor]:
        """(probability [states, V], next state [states, V], probability [states, states])"""
        p = torch.zeros(self.states, len(self.symbols), dtype=torch.float64)
        to, step = torch.zeros_like(p, dtype=torch.int64), torch.zeros(self.states, self.states, dtype=torch.float64)
        for state, symbol, after, share in self.arcs:
            p[state, symbol], to[state, symbol] = share, after
            step[state, after] += share
        return p, to, step

    def load(self, split: str) -> InMemory:
        generator = torch.Generator().manual_seed(seed_of("sentences", split))  # the same set in every run
        p, to, _ = self.matrices()
        state, columns = torch.zeros(self.number, dtype=torch.int64), []
        for _ in range(LENGTH):
            columns.append(torch.multinomial(p[state], 1, generator=generator)[:, 0])
            state = to[state, columns[-1]]
        return InMemory(torch.stack(columns, 1))
