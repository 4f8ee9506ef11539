"""The one supervised training loop: for the networks that scores look through."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm


def as_floats(x: Tensor) -> Tensor:
    """uint8 images and clips, and int16 sounds, as floats in [-1, 1]; floats as they are."""
    if x.dtype == torch.int16:
        return x / 32768
    return x / 127.5 - 1 if x.dtype == torch.uint8 else x.float()


def as_shown(x: Tensor) -> Tensor:
    """Images in [-1, 1] as the uint8 that a viewer would see: rounded; other samples as they are."""
    if x.dim() != 4 or x.dtype == torch.uint8:
        return x
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def fit_classifier(
    net: nn.Module, x: Tensor, y: Tensor, *, epochs: int, batch_size: int = 128, lr: float = 3e-3, seed: int = 0,
    weight: Tensor | None = None,
) -> nn.Module:  # fmt: skip
    """Trains net(images in [-1, 1]) -> logits on labels y, in the same order for the same seed.

    Every batch is shifted by up to a pixel. Returns net in eval mode.

    weight   [classes] how much each class counts; None: all alike
    """
    steps = max(1, len(x) // batch_size)
    optimizer = torch.optim.AdamW(net.parameters(), lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * steps)
    generator = torch.Generator().manual_seed(seed)
    net.train()
    with tqdm(
        total=epochs * steps, desc="training the classifier that scores", unit="batch", leave=False, disable=None
    ) as bar:
        for _ in range(epochs):
            for rows in torch.randperm(len(x), generator=generator).split(batch_size)[:steps]:
                shift = torch.randint(-1, 2, (2,), generator=generator).tolist()
                loss = F.cross_entropy(net(as_floats(x[rows]).roll(shift, (-2, -1))), y[rows], weight)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.update()
    return net.eval()


@torch.no_grad()
def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of right answers of net(images in [-1, 1])."""
    right = sum(
        (net(as_floats(a)).argmax(1) == b).sum().item() for a, b in zip(x.split(500), y.split(500), strict=True)
    )
    return right / len(x)


def as_batch(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """A batch as training's loader hands it over: uint8 images and clips and int16 sounds as floats, uint8 maps of
    classes [N, H, W] as int64."""

    def shown(x: Tensor) -> Tensor:
        if x.dtype == torch.int16:
            return x.to(torch.get_default_dtype()) / 32768
        if x.dtype != torch.uint8:
            return x
        return x.long() if x.dim() == 3 else x.to(torch.get_default_dtype()) / 127.5 - 1

    return {name: shown(x.to(device)) for name, x in batch.items()}


def fit_language_model(
    net: nn.Module, tokens: Tensor, *, epochs: int, batch_size: int = 64, lr: float = 4e-3, seed: int = 0
) -> float:
    """Trains net(texts int64 [N, T]) -> [N, 2], negative log-likelihood and number of symbols, on nine of ten texts,
    and leaves it in eval mode as it was after the epoch that was best on the others.

    Returns the nats per symbol of those.
    """
    asked = torch.arange(len(tokens)) % 10 == 9
    learnt, others = (tokens[~asked], tokens[asked]) if asked.any() else (tokens, tokens)
    optimizer = torch.optim.AdamW(net.parameters(), lr, weight_decay=1e-2)
    generator = torch.Generator().manual_seed(seed)
    best, state, worse = float("inf"), {}, 0
    for _ in tqdm(
        range(epochs), desc="training the language model that scores", unit="epoch", leave=False, disable=None
    ):
        net.train()
        for rows in torch.randperm(len(learnt), generator=generator).split(batch_size):
            nats, symbols = net(learnt[rows]).sum(0)
            optimizer.zero_grad(set_to_none=True)
            (nats / symbols).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
        with torch.no_grad():
            nats, symbols = torch.stack([net.eval()(part).sum(0) for part in others.split(500)]).sum(0)
        now = (nats / symbols).item()
        worse = 0 if now < best else worse + 1
        if now < best:
            best, state = now, {name: value.clone() for name, value in net.state_dict().items()}
        if worse == 3:
            break
    net.load_state_dict(state)
    net.eval()
    return best
