"""Directions of the latent space that change images most.

SeFa: Closed-Form Factorization of Latent Semantics in GANs (Shen & Zhou 2021), arXiv:2007.06600. PCA: GANSpace:
Discovering Interpretable GAN Controls (Härkönen et al. 2020), arXiv:2004.02546.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ganlab.styles import has_styles, mapped, style_layers, synthesised

Recorded = list[tuple[nn.Module, Tensor, Tensor]]  # (layer, what it was handed, what it made of that)


class Latents:
    """A generator as a function of one latent: of w, where it has styles, else of z.

    gan     has `G`, `task`, `options`, and (z, label) -> images
    label   the class that all images are of, where G is told one
    """

    def __init__(self, gan: Any, label: int | None = None):
        self.gan, self.label = gan, label
        self.layers = style_layers(gan) if has_styles(gan.G) else 0

    @property
    def name(self) -> str:
        return "w" if self.layers else "z"

    def of(self, z: Tensor) -> Tensor:
        return mapped(self.gan, z, self._cond(z)) if self.layers else z

    def images(self, latent: Tensor) -> Tensor:
        if self.layers:
            return synthesised(self.gan, latent[:, None].repeat(1, self.layers, 1))
        return self.gan(latent, self._cond(latent))

    def _cond(self, z: Tensor) -> Tensor | None:
        return None if self.label is None else torch.full((len(z),), self.label, device=z.device)

    @torch.no_grad()
    def recorded(self, latent: Tensor) -> Recorded:
        """What the layers without parts of their own were handed, and made, in the order of their calls."""
        record: Recorded = []

        def keep(layer: nn.Module, args: Any, made: Any) -> None:
            given = args[0] if args and isinstance(args[0], Tensor) and isinstance(made, Tensor) else None
            if given is not None and given.is_floating_point() and len(made) == len(latent):
                record.append((layer, given, made.flatten(1)))

        handles = [layer.register_forward_hook(keep) for layer in leaves(self.gan.G)]
        try:
            self.images(latent)
        finally:
            for handle in handles:
                handle.remove()
        return record


def leaves(net: nn.Module) -> list[nn.Module]:
    """The layers without parts of their own; a parametrised weight is no part."""
    layers = [layer for name, layer in net.named_modules() if "parametrizations" not in name]
    return [layer for layer in layers if all(name == "parametrizations" for name, _ in layer.named_children())]


@torch.no_grad()
def sefa(latents: Latents, dim: int) -> Tensor:
    """[dim, dim]: unit directions, one in each row, by how much the first layers answer: eigenvectors of A^T A, the
    largest eigenvalue first (SeFa, eq. 4). The first layers are all that are handed w itself; of z, the first one whose
    answer depends on it.

    Raises:
        ValueError: no such layer was found
    """
    like = next(latents.gan.G.parameters())
    zero, units = torch.zeros(1, dim).to(like), torch.eye(dim).to(like)
    points = torch.cat([zero, torch.ones_like(zero), torch.linspace(-1, 1, dim).to(like)[None]])
    weighted = [(i, *told) for i, told in enumerate(latents.recorded(points)) if hasattr(told[0], "weight")]
    if latents.layers:
        found = [i for i, _, given, _ in weighted if given.shape == points.shape and torch.equal(given, points)]
    else:
        found = [i for i, _, _, made in weighted if not torch.equal(made[1:], made[:1].expand(2, -1))][:1]
    if not found:
        raise ValueError(f"no layer was found that is handed {latents.name}")
    answers = []  # rows of A^T, whatever kind of layer it is
    for part in units.split(32):
        record = latents.recorded(torch.cat([zero, part]))
        answers.append(torch.cat([record[i][2][1:] - record[i][2][:1] for i in found], 1).cpu().double())
    transposed = torch.cat(answers)
    return signed(torch.linalg.eigh(transposed @ transposed.T).eigenvectors.flip(1).T).to(like)


@torch.no_grad()
def pca(latents: Latents, latent: Tensor, count: int) -> Tensor:
    """[count, dim]: unit directions, one in each row, along which latents [n, dim] vary most: of w themselves; of z,
    those that go with the principal components of the first activation, the first layer whose answer is not affine in
    z, by least squares (GANSpace, section 2.2).

    Raises:
        ValueError: there is no such layer
    """
    if latents.layers:
        return signed(principal(latent, count)[0]).to(latent)
    x = first_activation(latents, latent).cpu().double()
    components, _ = principal(x, count)
    coordinates = (x - x.mean(0)) @ components.T
    fitted = torch.linalg.lstsq(coordinates, (latent - latent.mean(0)).cpu().double()).solution
    return signed(nn.functional.normalize(fitted, dim=1)).to(latent)


def signed(directions: Tensor) -> Tensor:
    """A direction and its opposite are the same: the one is taken whose largest component is positive."""
    largest = directions.abs().argmax(1, keepdim=True)
    return directions * directions.gather(1, largest).sign()


def first_activation(latents: Latents, z: Tensor) -> Tensor:
    """[n, d]: what the first layer that is not affine in z makes of z [n, dim]."""
    a, b = z[:1], z[1:2]
    probes = latents.recorded(torch.cat([a, b, a + b, torch.zeros_like(a)]))
    for number, (_, _, made) in enumerate(probes):
        bent = (made[2] + made[3] - made[0] - made[1]).abs().max()
        if bent > 1e-3 * made.abs().max():
            return torch.cat([latents.recorded(part)[number][2] for part in z.split(64)])
    raise ValueError("no layer of the generator was found that is not affine in z")


def principal(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(components [count, d], one in each row; variances [count]) of x [n, d], in float64."""
    x = x.cpu().double()
    x = x - x.mean(0)
    n, d = x.shape
    count = min(count, n - 1, d)
    if d <= n:
        values, vectors = torch.linalg.eigh(x.T @ x)
        components = vectors.flip(1)[:, :count].T
    else:  # the same from the smaller matrix
        values, vectors = torch.linalg.eigh(x @ x.T)
        components = nn.functional.normalize(vectors.flip(1)[:, :count].T @ x, dim=1)
    return components, values.flip(0)[:count].clamp(min=0) / (n - 1)


@torch.no_grad()
def walked(latents: Latents, directions: Tensor, around: Tensor, unit: Tensor, reach: float, columns: int) -> Tensor:
    """Images [directions * samples * columns, C, H, W]: for each direction a few rows, one around each sample, from
    -reach to +reach.

    around   [samples, dim]
    unit     [directions] how far one step goes: the deviation of latents along the direction
    """
    steps = torch.linspace(-reach, reach, columns, device=around.device, dtype=around.dtype)
    moves = directions[:, None, None] * unit[:, None, None, None] * steps[:, None]  # [directions, 1, columns, dim]
    path = (around[:, None] + moves).flatten(0, 2)
    return torch.cat([latents.images(part) for part in path.split(64)])
