"""What ganlab is raced against: a bare PyTorch loop, Lightning as its documentation shows it, and peers' own loops."""

import argparse
import contextlib
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import nn

from benchmarks.race import Gate


def nets(name: str) -> tuple[nn.Module, nn.Module]:
    """ganlab's own networks, for all loops here."""
    from ganlab.models import dcgan, mlp, resnet

    if name == "dcgan64":
        return dcgan.Generator([3, 64, 64]), dcgan.Discriminator([3, 64, 64])
    if name == "sngan32":
        return resnet.Generator([3, 32, 32]), resnet.Discriminator([3, 32, 32])
    return mlp.Generator([2], width=8), mlp.Discriminator([2], width=8)


def batch(name: str, size: int) -> torch.Tensor:
    shape = {"dcgan64": (3, 64, 64), "sngan32": (3, 32, 32), "tiny": (2,)}[name]
    return torch.rand(size, *shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def bare(name: str, size: int, bf16: bool, frozen: bool) -> None:
    """The loop of PyTorch's DCGAN example: fakes shared by both players, D not frozen unless asked."""
    (G, D), real, gate = nets(name), batch(name, size), Gate()
    make = lambda net: torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999), fused=frozen or None)
    moves = {"G": make(G), "D": make(D)}
    loss = nn.BCEWithLogitsLoss()
    label = {v: torch.full((size,), float(v)) for v in (0, 1)}
    while True:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            moves["D"].zero_grad()
            loss(D(real).float(), label[1]).backward()
            fake = G(torch.randn(size, G.z_dim))
            loss(D(fake.detach()).float(), label[0]).backward()
            moves["D"].step()
            moves["G"].zero_grad()
            D.requires_grad_(not frozen)
            loss(D(fake).float(), label[1]).backward()
            D.requires_grad_(True)
            moves["G"].step()
        gate.passed()


class Documented(L.LightningModule):
    """Manual optimization of two players as Lightning's documentation has it."""

    def __init__(self, name: str, gate: Gate):
        super().__init__()
        self.automatic_optimization = False
        (self.G, self.D), self.gate = nets(name), gate

    def training_step(self, real: torch.Tensor, _: int) -> None:
        g, d = self.optimizers()
        loss = nn.functional.binary_cross_entropy_with_logits
        fake = self.G(torch.randn(len(real), self.G.z_dim, device=self.device))
        on_real, on_fake = self.D(real), self.D(fake.detach())
        d_loss = loss(on_real, torch.ones_like(on_real)) + loss(on_fake, torch.zeros_like(on_fake))
        d.zero_grad()
        self.manual_backward(d_loss)
        d.step()
        on_fake = self.D(fake)
        g_loss = loss(on_fake, torch.ones_like(on_fake))
        g.zero_grad()
        self.manual_backward(g_loss)
        g.step()
        self.log_dict({"g_loss": g_loss, "d_loss": d_loss}, prog_bar=True)

    def on_train_batch_end(self, *_: Any) -> None:
        self.gate.passed()

    def configure_optimizers(self) -> Any:
        make = lambda net: torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999))
        return [make(self.G), make(self.D)], []


def documented(name: str, size: int) -> None:
    gate = Gate()
    loader = torch.utils.data.DataLoader([batch(name, size)] * (1 << 20), batch_size=None)
    with tempfile.TemporaryDirectory() as folder:
        logger = L.pytorch.loggers.TensorBoardLogger(folder)
        L.Trainer(max_epochs=1, logger=logger, default_root_dir=folder, accelerator="cpu").fit(
            Documented(name, gate), loader
        )


class Feed:
    """In place of a peer's data loader: the same batch again and again, through the gate."""

    def __init__(self, data: Any):
        self.data, self.gate, self.first = data, Gate(), True

    def __len__(self) -> int:
        return 1 << 20

    def __iter__(self) -> Any:
        for i in range(1 << 20):
            if i:
                self.gate.passed()
            yield self.data


def examples(path: str, size: int) -> None:
    """pytorch/examples' dcgan/main.py, unmodified."""
    feed = Feed((batch("dcgan64", size), torch.zeros(size)))
    torch.utils.data.DataLoader = lambda *args, **kwargs: feed  # type: ignore[assignment,misc]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        sys.argv = ["main.py", "--dataset", "fake", "--batchSize", str(size), "--outf", folder, "--niter", "1"]
        file = Path(path) / "dcgan" / "main.py"
        exec(compile(file.read_text(), str(file), "exec"), {"__name__": "__main__"})


def mimicry(path: str, size: int) -> None:
    """mimicry's SNGAN with its own Trainer, unmodified, one move of D for each of G."""
    sys.path.insert(0, path)
    from torch_mimicry.nets.sngan.sngan_32 import SNGANDiscriminator32, SNGANGenerator32
    from torch_mimicry.training.trainer import Trainer

    G, D = SNGANGenerator32(), SNGANDiscriminator32()
    make = lambda net: torch.optim.Adam(net.parameters(), 2e-4, betas=(0.0, 0.9))
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        Trainer(
            netD=D, netG=G, optD=make(D), optG=make(G), n_dis=1, num_steps=1 << 20, lr_decay="linear",
            dataloader=Feed((batch("sngan32", size), torch.zeros(size))), log_dir=folder, device=torch.device("cpu"),
        ).train()  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("loop", choices=["bare", "documented", "examples", "mimicry"])
    parser.add_argument("--nets", default="dcgan64")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--frozen", action="store_true")
    parser.add_argument("--path", default="")
    given = parser.parse_args()
    torch.set_num_threads(len(__import__("os").sched_getaffinity(0)))
    if given.loop == "bare":
        bare(given.nets, given.size, given.bf16, given.frozen)
    elif given.loop == "documented":
        documented(given.nets, given.size)
    else:
        {"examples": examples, "mimicry": mimicry}[given.loop](given.path, given.size)
