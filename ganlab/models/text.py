"""Texts, one symbol after the other: a recurrent generator that is its own likelihood, and a convolutional critic.

GANs for Sequences of Discrete Elements with the Gumbel-softmax Distribution (Kusner & Hernandez-Lobato 2016),
arXiv:1611.04051; RelGAN (Nie, Narodytska & Patel 2019, ICLR), whose relational memory is a GRU or LSTM here; SeqGAN (Yu
et al. 2017), arXiv:1609.05473, whose critic is the convolutional classifier of Kim 2014, arXiv:1408.5882.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganlab.phase import one_hot

END = 0  # the symbol that ends a text and fills what follows


class Generator(nn.Module):
    """Noise z [N, T * V], normal -> texts [N, T, V]; after the end symbol, 0, all are the end.

    Each step draws from the softmax of its logits by the Gumbel-max trick: the largest of logits plus Gumbel noise is
    such a draw. z, through its distribution function, is that noise. While G trains, the draw is relaxed to
    softmax((logits + noise) / temperature), through which gradients pass (Kusner & Hernandez-Lobato, section 3); in
    eval mode it is a one and zeros.

    shape         [T, V]
    width         units of the recurrent layer
    embed         length of a symbol's vector
    relaxed       False: also while it trains a text is a one and zeros each, without a gradient
    hard          relaxed draws look like a one and zeros, to D and to the next step, and have the soft ones' gradient
                  (straight-through); False: they are shown as they are
    temperature   at the start, and after `anneal_kimg`: between them it falls exponentially, as in RelGAN
    """

    tau: Tensor

    def __init__(
        self, shape: Sequence[int], width: int = 128, embed: int = 64, cell: Literal["lstm", "gru"] = "lstm",
        relaxed: bool = True, hard: bool = True, temperature: Sequence[float] = (1.0, 0.1), anneal_kimg: float = 100.0,
    ):  # fmt: skip
        super().__init__()
        self.shape = text_shape(shape)
        if cell not in ("lstm", "gru"):
            raise ValueError(f"generator.cell={cell!r}: must be lstm or gru")
        if len(temperature) != 2 or min(temperature) <= 0:
            raise ValueError(f"generator.temperature={list(temperature)}: two numbers above 0, at first and at last")
        length, symbols = self.shape
        self.z_dim, self.relaxed, self.hard = length * symbols, relaxed, hard
        self.temperature, self.anneal_kimg = tuple(temperature), anneal_kimg
        self.embedding = nn.Parameter(torch.randn(symbols, embed) * embed**-0.5)
        self.cell = (nn.GRU if cell == "gru" else nn.LSTM)(embed, width, batch_first=True)
        self.out = nn.Linear(width, symbols)
        self.register_buffer("tau", torch.tensor(float(temperature[0])))

    def set_clock(self, seen: int) -> None:
        progress = min(1.0, seen / 1000 / self.anneal_kimg) if self.anneal_kimg else 1.0
        first, last = self.temperature
        self.tau.fill_(first ** (1 - progress) * last**progress)

    def steady(self) -> None:
        """tau is a tensor, which recorded rounds read anew."""

    def forward(self, z: Tensor) -> Tensor:
        noise = gumbel(z.unflatten(1, self.shape))  # [N, T, V]
        if self.training and self.relaxed:
            return self.relaxed_texts(noise)
        tokens = torch.zeros(noise.shape[:2], dtype=torch.int64, device=z.device)
        tokens = self.complete(tokens, 0, lambda logits, t: (logits + noise[:, t]).argmax(1))
        return one_hot(tokens, self.shape[1], like=noise)

    def relaxed_texts(self, noise: Tensor) -> Tensor:
        """[N, T, V], with gradients through every draw."""
        x, state, texts = noise.new_zeros(len(noise), self.embedding.shape[1]), None, []
        ended = torch.zeros(len(noise), dtype=torch.bool, device=noise.device)
        end = one_hot(torch.full((), END, device=noise.device), self.shape[1], like=noise)
        for t in range(self.shape[0]):
            h, state = self.cell(x[:, None], state)
            soft = ((self.out(h[:, 0]) + noise[:, t]) / self.tau).softmax(1)
            largest = soft.argmax(1)
            y = one_hot(largest, self.shape[1], like=soft) + soft - soft.detach() if self.hard else soft
            y = torch.where(ended[:, None], end, y)
            texts.append(y)
            ended = ended | (largest == END)
            x = y @ self.embedding
        return torch.stack(texts, 1)

    @torch.no_grad()
    def complete(self, tokens: Tensor, known: int, choose: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Texts int64 [N, T] of which the first `known` symbols are given and the others drawn.

        choose   (logits [N, V], position) -> symbols [N]
        """
        tokens = tokens.clone()
        logits, state = self.read(tokens[:, :known])
        ended = (tokens[:, :known] == END).any(1)
        for t in range(known, self.shape[0]):
            tokens[:, t] = torch.where(ended, END, choose(logits[:, -1], t))
            ended = ended | (tokens[:, t] == END)
            if t + 1 < self.shape[0]:
                logits, state = self.read(tokens[:, t, None], state)
        return tokens

    def read(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """(logits, state): what may follow each of the symbols [N, t], [N, t, V]; without a state they begin the text,
        and the logits are [N, t + 1, V], of its first symbol before all."""
        x = F.embedding(tokens, self.embedding)
        if state is None:
            x = F.pad(x, (0, 0, 1, 0))  # before the first symbol: zeros
        h, state = self.cell(x, state)
        return self.out(h), state

    def log_prob(self, tokens: Tensor) -> Tensor:
        """Log-probability of each symbol [N, T] given those before it, in nats; 0 after the end.

        tokens   int64 [N, T]
        """
        log_p = self.read(tokens[:, :-1])[0].float().log_softmax(2).gather(2, tokens[..., None])[..., 0]
        return log_p * counts(tokens)


class Discriminator(nn.Module):
    """Texts [N, T, V] -> logits [N]: convolutions over symbols' vectors, the largest response of each over the text.

    width     channels of each convolution
    embed     length of a symbol's vector
    kernels   symbols that each convolution sees; a text of fewer is seen whole
    dropout   probability on what the convolutions found
    """

    def __init__(
        self, shape: Sequence[int], width: int = 64, embed: int = 64, kernels: Sequence[int] = (2, 3, 4, 5),
        dropout: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        length, symbols = text_shape(shape)
        self.embedding = nn.Linear(symbols, embed, bias=False)
        nn.init.normal_(self.embedding.weight, std=embed**-0.5)
        self.convolutions = nn.ModuleList([nn.Conv1d(embed, width, min(k, length)) for k in kernels])
        self.hidden = nn.Linear(width * len(kernels), width)
        self.dropout, self.out = nn.Dropout(dropout), nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embedding(x).transpose(1, 2)  # [N, embed, T]
        found = [F.leaky_relu(layer(h), 0.2).amax(2) for layer in self.convolutions]
        h = F.leaky_relu(self.hidden(self.dropout(torch.cat(found, 1))), 0.2)
        return self.out(h).flatten(0)


def text_shape(shape: Sequence[int]) -> tuple[int, int]:
    """(T, V)

    Raises:
        ValueError: the data are no texts
    """
    if len(shape) != 2:
        raise ValueError(
            f"this model writes texts, and the data's samples have the shape {list(shape)}: use data=sentences, or "
            "data=text data.root=FILE"
        )
    return shape[0], shape[1]


def gumbel(z: Tensor) -> Tensor:
    """Normal noise as Gumbel noise, both from the same quantile."""
    return -(-torch.special.log_ndtr(z)).log()


def counts(tokens: Tensor) -> Tensor:
    """Which symbols [N, T] belong to a text: all up to its end, that one included."""
    ended = (tokens == END).cumsum(1) - (tokens == END).long()
    return ended == 0
