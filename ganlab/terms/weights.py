"""Terms on a player's weights alone."""

from typing import Any

import torch
from torch import Tensor, nn

from ganlab.phase import Phase
from ganlab.terms import Term


class Orthogonal(Term):
    """Sum over layers of |W W^T * (1 - I)|_F^2, a filter being a row of W: filters of a layer are to be orthogonal, at
    any length (Brock et al. 2019, arXiv:1809.11096, eq. 3; the weight is beta). Embeddings are left out.

    Weights under spectral norm count as they are before it.
    """

    player = "G"

    def __init__(self, weight: Any = 1e-4, every: int = 1, **kwargs: Any):
        super().__init__(weight, every, **kwargs)

    def forward(self, phase: Phase) -> Tensor:
        net = phase.G if self.player == "G" else phase.D
        assert net is not None
        tables = {id(p) for m in net.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
        turned = {id(p) for m in net.modules() if isinstance(m, nn.ConvTranspose2d) for p in m.parameters()}
        filters = [p for p in net.parameters() if p.dim() > 1 and id(p) not in tables]
        rows = [(p.transpose(0, 1) if id(p) in turned else p).flatten(1) for p in filters]
        with torch.autocast(rows[0].device.type, enabled=False):
            products = [w @ w.T for w in rows]
            return torch.stack([(p - p.diag().diag()).square().sum() for p in products]).sum()


class History(Term):
    """Historical averaging: |w - mean of all past w|^2, over all weights w of the player (Salimans et al. 2016,
    arXiv:1606.03498, section 3.3)."""

    moves: Tensor

    def __init__(self, weight: Any = 0.01, every: int = 1, **kwargs: Any):
        super().__init__(weight, every, **kwargs)
        self.register_buffer("moves", torch.zeros((), dtype=torch.long))

    def check(self, gan: Any) -> None:
        for i, w in enumerate(getattr(gan, self.player).parameters()):
            self.register_buffer(f"mean{i}", w.detach().clone())

    def weights(self, phase: Phase) -> list[tuple[Tensor, Tensor]]:
        net: Any = getattr(phase, self.player)
        return [(w, getattr(self, f"mean{i}")) for i, w in enumerate(net.parameters())]

    def forward(self, phase: Phase) -> Tensor:
        past = self.moves > 0  # in the first move there is none
        return torch.stack([(w - mean).square().sum() for w, mean in self.weights(phase)]).sum() * past

    def after_move(self, phase: Phase) -> None:
        if phase.player == self.player:
            self.moves += 1
            for w, mean in self.weights(phase):
                mean += (w - mean) / self.moves
