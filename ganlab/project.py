"""python -m ganlab.project checkpoint=FILE input=IMAGES: the latents from which a generator makes given images.

Analyzing and Improving the Image Quality of StyleGAN (Karras et al. 2020), arXiv:1912.04958, appendix D: the noise that
is ramped down, and the start. Its regularised noise maps are left out: G's own noise is fixed here.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from ganlab.conf import CONF
from ganlab.entry import run
from ganlab.limits import check_arguments

SPACES = ("auto", "z", "w", "ws")


@hydra.main(version_base="1.3", config_path=CONF, config_name="project")
def main(cfg: DictConfig) -> None:
    run(cfg, project, checkpoint="outputs/.../checkpoints/best.ckpt", input="my/picture.png")


@dataclass(frozen=True)
class Found:
    """What was found for N images.

    latent   [N, z_dim], [N, w_dim] or [N, layers, w_dim]
    start    images of the latents that the search began with
    result   images of those that were found
    loss     [N]; psnr, psnr_start: [N], dB
    """

    latent: Any
    start: Any
    result: Any
    loss: Any
    psnr: Any
    psnr_start: Any


def search(
    gan: Any, targets: Any, *, space: str = "auto", label: int | None = None, steps: int = 500, lr: float = 0.1,
    starts: int = 256, noise: float = 0.05, pixels: float = 1.0, features: float = 1.0, see: Any = None,
    seed: int = 0, first: int = 0, told: Callable[[], Any] = lambda: None,
) -> Found:  # fmt: skip
    """Moves one latent for each target until G makes that image of it; an image is searched for alone, whatever others
    there are.

    targets    [N, C, H, W] in [-1, 1]
    space      "z"; "w", one style for all layers; "ws", one for each; "auto": ws where G has styles
    starts     random samples, of which the nearest to a target (in w and ws also their mean) is where it begins
    noise      of w at the beginning, in units of w's own deviation; it is gone after three quarters of the steps
    pixels     weight of the mean squared error; features: of the squared distance that `see` gives
    see        images in [-1, 1] -> features [N, d]; None: only pixels count
    first      number of the first target: its noise depends on (seed, number)
    told       called after each step
    """
    import torch

    from ganlab.phase import wrap
    from ganlab.rng import IndexedRNG, seed_of
    from ganlab.styles import has_styles, mapped, style_layers

    n, styled = len(targets), has_styles(gan.G)
    space = ("ws" if styled else "z") if space == "auto" else space
    shown = None if see is None else see(targets).detach()
    cond_of = lambda count: None if label is None else torch.full((count,), label, device=gan.device)
    rng_of = lambda part, numbers: IndexedRNG(seed_of(seed, "projection", part), numbers, gan.device, gan.dtype)

    def image(latent: Any) -> Any:
        if space == "z":
            cond = cond_of(len(latent))
            return wrap(gan.G(latent) if cond is None else gan.G(latent, cond)).fake
        ws = latent if latent.dim() == 3 else latent[:, None].expand(-1, layers, -1)
        return wrap(gan.G.synthesis(ws)).fake

    def losses(x: Any, of: Any) -> Any:
        """[len(x)]: of images x as targets number `of`."""
        loss = pixels * (x - targets[of]).square().flatten(1).mean(1)
        return loss if shown is None else loss + features * (see(x) - shown[of]).square().sum(1)

    with torch.no_grad():
        latents, cond = gan.task.draw(rng_of("starts", range(starts)), cond_of(starts))
        sigma, layers = torch.zeros((), device=gan.device), style_layers(gan) if space != "z" else 0
        if space != "z":
            latents = mapped(gan, latents, cond)
            mean = latents.mean(0, keepdim=True)
            sigma = (latents - mean).square().sum(1).mean().sqrt()
            latents = torch.cat([mean, latents])
        candidates = torch.cat([image(part) for part in latents.split(64)])
        rows = torch.arange(n, device=gan.device)
        best = torch.stack([losses(candidates, rows[[i]]).argmin() for i in range(n)])
        start, begun = candidates[best], latents[best]
        begun = begun[:, None].repeat(1, layers, 1) if space == "ws" else begun
    latent = begun.clone().requires_grad_()
    optimizer = torch.optim.Adam([latent], lr)
    rng = rng_of("noise", range(first, first + n))
    for step in range(steps):
        done = step / steps
        optimizer.param_groups[0]["lr"] = lr * min(1, (step + 1) / (0.05 * steps)) * (1 + math.cos(math.pi * done)) / 2
        strength = noise * sigma * max(0.0, 1 - done / 0.75) ** 2
        moved = latent + strength * rng.normal(*latent.shape[1:]) if strength > 0 else latent
        optimizer.zero_grad(set_to_none=True)
        losses(image(moved), rows).sum().backward()
        optimizer.step()
        told()
    with torch.no_grad():
        before, after = losses(start, rows), losses(image(latent), rows)
        better = (after < before).view(-1, *[1] * (begun.dim() - 1))  # a search that failed gives what it began with
        latent = torch.where(better, latent, begun)
        result = image(latent)
        psnr = lambda x: 10 * (4 / (x - targets).square().flatten(1).mean(1)).log10()
        return Found(latent, start, result, losses(result, rows), psnr(result), psnr(start))


def project(
    checkpoint: str, input: str, output: str | None, space: str, label: int | None, steps: int, lr: float,
    starts: int, noise: float, pixels: float, features: float, extractor: Any, seed: int, batch_size: int,
    device: str, trust: list[str],
) -> Path:  # fmt: skip
    """Searches for the images at `input`; writes the latents, a table, and a sheet with a row for each image: the
    target, what the search began with, what it found.

    Raises:
        ValueError: the checkpoint can't be used, or it can't do what is asked
        Unavailable: there are no images
    """
    check_arguments("", locals(), project)
    import numpy as np
    import torch
    from tqdm import tqdm

    from ganlab.checkpoint import Sampler
    from ganlab.checks import check_targets
    from ganlab.data.decode import Bad, decode
    from ganlab.data.folder import refuse, tried
    from ganlab.files import atomic, write_text
    from ganlab.metrics.fit import as_floats
    from ganlab.metrics.scorer import named
    from ganlab.pictures import save_sheet
    from ganlab.settings import made
    from ganlab.sharing import place_beside
    from ganlab.styles import check as check_styles
    from ganlab.tables import as_csv

    if space not in SPACES:
        raise ValueError(f"space={space}: must be {', '.join(SPACES)}")
    if not pixels and (extractor is None or not features):
        raise ValueError("pixels=0 leaves nothing to go by: set extractor=..., or pixels=1")
    paths = images_in(Path(input).expanduser())
    sampler = Sampler.load(checkpoint, trust).at(device)
    if space in ("w", "ws"):
        check_styles(sampler.G, f"space={space}")
    classes = getattr(sampler.task, "classes", None)
    if classes and (not isinstance(label, int) or not 0 <= label < classes):
        raise ValueError(f"label={label}: this generator is told a class: say which, 0 to {classes - 1}")
    if label is not None and not classes:
        raise ValueError(f"label={label}: this generator is told none: leave label out")
    shape = list(sampler.generate(0, 1).shape[1:])
    if len(shape) != 3:
        raise ValueError(f"checkpoint={checkpoint}: its generator makes samples of shape {shape}, not images")
    see = None
    if extractor is not None and features:
        check_targets("extractor", extractor, hydra.utils.get_object)
        net = made(extractor)
        net.check({"shape": shape, "classes": None})
        net.prepare()
        net = net.to(sampler.device).eval().requires_grad_(False)
        see = lambda x: named(net(x))["features"].flatten(1)
    folder = Path(output) if output else place_beside(checkpoint) / "projected" / Path(input).stem
    images: list[Any] = list(tried(lambda i: decode(paths[i], shape), paths, "reading images"))
    if bad := [image for image in images if isinstance(image, Bad)]:
        refuse(bad, len(paths))
    targets = as_floats(torch.stack(images)).to(sampler.device)
    found = []
    batches = range(0, len(paths), batch_size)
    with tqdm(total=len(batches) * steps, desc="projecting", unit="step", disable=None) as bar:
        for first in batches:
            found.append(
                search(
                    sampler, targets[first : first + batch_size], space=space, label=label, steps=steps, lr=lr,
                    starts=starts, noise=noise, pixels=pixels, features=features, see=see, seed=seed, first=first,
                    told=bar.update,
                )
            )  # fmt: skip
    whole = Found(*(torch.cat([getattr(f, name) for f in found]).cpu() for name in Found.__dataclass_fields__))
    rows = [
        {"image": str(path), "psnr": p.item(), "psnr_start": s.item(), "loss": v.item()}
        for path, p, s, v in zip(paths, whole.psnr, whole.psnr_start, whole.loss, strict=True)
    ]
    with atomic(folder / "latents.npz") as file:
        np.savez(file, latent=whole.latent.numpy(), image=np.array([str(path) for path in paths]))
    write_text(folder / "table.csv", as_csv(rows))
    save_sheet(torch.stack([targets.cpu(), whole.start, whole.result], 1).flatten(0, 1), folder / "sheet.png", 3)
    print(f"PSNR {whole.psnr.mean():.1f} dB, {whole.psnr_start.mean():.1f} at the start, mean of {len(rows)}")
    print(f"target | start | result in {folder / 'sheet.png'}")
    return folder


def images_in(path: Path) -> Sequence[Path]:
    """The image file, or all below the folder.

    Raises:
        Unavailable: there are none
    """
    from ganlab.data.scan import images_below
    from ganlab.files import Unavailable

    if path.is_file():
        return [path]
    found = images_below(path)
    if not found.names:
        raise Unavailable(f"input={path}: there is no such image, nor a folder with any {found.told()}".rstrip())
    return found.names


if __name__ == "__main__":
    main()
