"""What scores see of texts: symbols, what is new in them, and their likelihood under a language model."""

import hashlib
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganlab.files import Unavailable, atomic, cache_folder
from ganlab.metrics.extractors import Extractor, weights_hash
from ganlab.metrics.fit import fit_language_model
from ganlab.metrics.text import END, lengths, ngrams
from ganlab.rng import reseed


class Language(nn.Module):
    """Texts int64 [N, T] -> [N, 2]: their negative log-likelihood in nats, and their symbols, the end included."""

    def __init__(self, symbols: int, width: int):
        super().__init__()
        self.embedding, self.cell = nn.Embedding(symbols, 64), nn.LSTM(64, width, batch_first=True)
        self.dropout, self.out = nn.Dropout(0.3), nn.Linear(width, symbols)

    def forward(self, tokens: Tensor) -> Tensor:
        x = F.pad(self.dropout(self.embedding(tokens[:, :-1])), (0, 0, 1, 0))
        logits = self.out(self.dropout(self.cell(x)[0]))
        nats = F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")  # [N, T]
        counts = torch.arange(tokens.shape[1], device=tokens.device) <= lengths(tokens)[:, None]
        return torch.stack([(nats * counts).sum(1), counts.sum(1)], 1)


class Texts(Extractor):
    """Texts, int64 [N, T] or numbers [N, T, V] whose largest are the symbols ->

    tokens   int64 [N, T]
    new      [N, 3]: whether no training text is the same, and how many runs of `ngrams` symbols no training text has,
             of how many
    nll      [N, 2]: the negative log-likelihood in nats, of how many symbols, under a language model that was trained
             once on the split "test" and is kept

    language_model   whether there is one
    width            its units
    epochs           at most; every tenth text says which of them was the best
    """

    name = "text"

    def __init__(
        self, language_model: bool = True, ngrams: int = 4, width: int = 128, epochs: int = 40, seed: int = 0
    ):  # fmt: skip
        super().__init__()
        self.language_model, self.ngrams, self.width, self.epochs, self.seed = (
            language_model,
            ngrams,
            width,
            epochs,
            seed,
        )
        self.known: list[Tensor] = []  # sorted: numbers of the training texts, and of their runs of symbols
        self.net = nn.Module()
        self.nats, self.about = math.nan, ""

    def check(self, facts: dict[str, Any]) -> None:
        if "symbols" not in facts:
            raise ValueError("extractor=text looks at texts, which the data are not: use another one")

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        tokens = (x.argmax(2) if x.dim() == 3 else x).long()
        tokens = tokens * (torch.arange(tokens.shape[1], device=x.device) < lengths(tokens)[:, None])
        text = ~torch.isin(whole(tokens), self.known[0].to(x.device))
        row, number = ngrams(tokens, self.ngrams)
        new = ~torch.isin(number, self.known[1].to(x.device))
        of = torch.bincount(row, minlength=len(tokens))
        outputs = {"tokens": tokens}
        outputs["new"] = torch.stack([text.float(), torch.bincount(row, new.float(), len(tokens)), of.float()], 1)
        return outputs | ({"nll": self.net(tokens)} if self.language_model else {})

    def prepare(self, data: Any = None) -> None:
        if self.about:
            return
        train = data.played()
        tokens = train.take(torch.arange(len(train)))["real"]
        self.known = [whole(tokens).unique(), ngrams(tokens, self.ngrams)[1].unique()]
        self.about = f"texts, new beside {data.title} train ({train.fingerprint()}), runs of {self.ngrams} symbols"
        if not self.language_model:
            return
        try:
            held = data.split("test")
        except Unavailable as error:
            raise ValueError(f"the language model of extractor=text learns from held-out texts: {error}") from None
        symbols = data.facts()["shape"][1]
        recipe = repr(("language", 1, self.width, self.epochs, self.seed, symbols, data.fingerprint("test")))
        path = cache_folder("language") / f"{hashlib.blake2b(recipe.encode(), digest_size=12).hexdigest()}.pt"
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            reseed(self.seed, torch.device("cpu"))
            self.net = Language(symbols, self.width)
            if not path.exists():
                nats = fit_language_model(
                    self.net, held.take(torch.arange(len(held)))["real"], epochs=self.epochs, seed=self.seed
                )
                with atomic(path) as file:
                    torch.save({"net": self.net.state_dict(), "nats": nats}, file)
        stored = torch.load(path, weights_only=True)
        self.net.load_state_dict(stored["net"])
        self.eval().requires_grad_(False)
        self.nats = stored["nats"]
        told = f"{self.nats:.3f} nats per symbol on texts that it has not seen, weights {weights_hash(self.net)}"
        self.about += f"; language model of held-out texts with {told}"

    def describe(self) -> str:
        return self.about


def whole(tokens: Tensor) -> Tensor:
    """[N]: a number for each text [N, T], the same for equal ones."""
    filled = tokens.where(tokens != END, torch.full_like(tokens, -2))  # counts as a symbol here
    return ngrams(filled, tokens.shape[1])[1]
