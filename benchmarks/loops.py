"""What ganlab is raced against: a bare PyTorch loop, Lightning as its documentation shows it, and peers' own loops."""

import argparse
import contextlib
import inspect
import io
import os
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import lightning as L
import torch
import torch.nn.functional as F
from packaging.version import parse
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


SHAPES = {"dcgan64": (3, 64, 64), "sngan32": (3, 32, 32), "tiny": (2,)}


def images(name: str) -> torch.Tensor:
    """As many made images as the set has that ganlab is raced with, and of its kind."""
    make = torch.Generator().manual_seed(0)
    if name == "tiny":
        return torch.rand(1024, 2, generator=make)
    return torch.randint(0, 256, (1797, *SHAPES[name]), dtype=torch.uint8, generator=make)


def as_floats(x: torch.Tensor) -> torch.Tensor:
    return x.float().div_(127.5).sub_(1) if x.dtype == torch.uint8 else x


def batch(name: str, size: int) -> torch.Tensor:
    return as_floats(images(name)[:size])


def adversaries(name: str) -> tuple[Any, Any, Any]:
    """(D's loss of logits on reals and on fakes apart, G's)"""
    if name == "sngan32":
        return lambda y: F.relu(1 - y).mean(), lambda y: F.relu(1 + y).mean(), lambda y: -y.mean()
    real = lambda y: F.binary_cross_entropy_with_logits(y, torch.ones_like(y))
    fake = lambda y: F.binary_cross_entropy_with_logits(y, torch.zeros_like(y))
    return real, fake, real


def bare(name: str, size: int, bf16: bool, plain: bool) -> None:
    """A loop as one writes it by hand. Fakes are shared by both players in dcgan64, and drawn anew by each otherwise.

    plain   as PyTorch's own DCGAN example; otherwise with fused Adam, and D frozen while G moves
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    (G, D), everything, gate = (net.to(device) for net in nets(name)), images(name).to(device), Gate()
    make = lambda net: torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999), fused=None if plain else True)
    moves, (on_real, on_fake, on_own) = {"G": make(G), "D": make(D)}, adversaries(name)
    shared, noise = name == "dcgan64", lambda: torch.randn(size, G.z_dim, device=device)
    while True:
        real = as_floats(everything[torch.randint(len(everything), (size,), device=device)])
        with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
            moves["D"].zero_grad()
            on_real(D(real).float()).backward()
            with torch.set_grad_enabled(shared):
                fake = G(noise())
            on_fake(D(fake.detach()).float()).backward()
            moves["D"].step()
            moves["G"].zero_grad()
            D.requires_grad_(plain)
            on_own(D(fake if shared else G(noise())).float()).backward()
            D.requires_grad_(True)
            moves["G"].step()
        gate.passed()


def gflop(name: str, size: int) -> float:
    """Of one round, D frozen while G moves."""
    from torch.utils.flop_counter import FlopCounterMode

    (G, D), real, (on_real, on_fake, on_own) = nets(name), batch(name, size), adversaries(name)
    with FlopCounterMode(display=False) as counter:
        fake = G(torch.randn(size, G.z_dim))
        (on_real(D(real)) + on_fake(D(fake.detach()))).backward()
        D.requires_grad_(False)
        on_own(D(fake)).backward()
    return counter.get_total_flops() / 1e9


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
        L.Trainer(max_epochs=1, logger=logger, default_root_dir=folder).fit(Documented(name, gate), loader)


class Feed:
    """In place of a peer's data loader: the same batch again and again, through the gate."""

    def __init__(self, data: Any):
        self.data, self.gate, self.batch_size = data, Gate(), len(data[0])

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
        sys.argv += ["--accel"] * torch.cuda.is_available()
        file = Path(path) / "dcgan" / "main.py"
        exec(compile(file.read_text(), str(file), "exec"), {"__name__": "__main__"})


def mimicry(path: str, size: int) -> None:
    """mimicry's SNGAN with its own Trainer, unmodified, one move of D for each of G."""
    sys.path.insert(0, path)
    for name in ("metrics", "metrics.compute"):  # of scores, which need TensorFlow
        sys.modules[f"torch_mimicry.{name}"] = mock.MagicMock()
    from torch_mimicry.nets.sngan.sngan_32 import SNGANDiscriminator32, SNGANGenerator32
    from torch_mimicry.training.trainer import Trainer

    G, D, device = SNGANGenerator32(), SNGANDiscriminator32(), "cuda" if torch.cuda.is_available() else "cpu"
    make = lambda net: torch.optim.Adam(net.parameters(), 2e-4, betas=(0.0, 0.9))
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        Trainer(
            netD=D, netG=G, optD=make(D), optG=make(G), n_dis=1, num_steps=1 << 20, lr_decay="linear",
            dataloader=Feed((batch("sngan32", size), torch.zeros(size))), log_dir=folder, device=torch.device(device),
        ).train()  # fmt: skip


STUDIOGAN_SNGAN = """
DATA: {name: CIFAR10, img_size: 32, num_classes: 1}
MODEL: {apply_d_sn: true, g_cond_mtd: W/O, d_cond_mtd: W/O}
LOSS: {adv_loss: hinge}
OPTIMIZATION: {batch_size: %d, acml_steps: 1, d_updates_per_step: 1, g_lr: 0.0002, d_lr: 0.0002, beta1: 0.0, beta2: 0.9}
"""


def studiogan(path: str, size: int) -> None:
    """PyTorch-StudioGAN's SNGAN without labels, trained by its own WORKER, unmodified, one move of D for each of G; a
    line of its log every 100 steps. Its main.py wants a GPU, its WORKER takes any device."""
    sys.path.insert(0, str(Path(path) / "src"))
    for name in ("wandb", "seaborn", "h5py", "kornia", "kornia.filters", "timm"):  # of curves, files, other models
        sys.modules[name] = mock.MagicMock()
    sys.modules["pkg_resources"] = mock.MagicMock(parse_version=parse)  # which setuptools has no more
    from config import Configurations
    from models.model import load_generator_discriminator
    from worker import WORKER

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        (file := Path(folder) / "sngan.yaml").write_text(STUDIOGAN_SNGAN % size)
        cfgs, logger = Configurations(str(file)), mock.MagicMock()
        told: Any = {"mixed_precision": False, "distributed_data_parallel": False, "synchronized_bn": False}
        told |= {"batch_statistics": False, "freezeD": -1, "empty_cache": False, "save_dir": folder, "print_freq": 100}
        cfgs.update_cfgs(told | {"project": "", "entity": "", "train": True}, super="RUN")
        cfgs.OPTIMIZATION.world_size = 1
        parts = (cfgs.DATA, cfgs.OPTIMIZATION, cfgs.MODEL, cfgs.STYLEGAN, cfgs.MODULES, cfgs.RUN)
        names = ("Gen", "Gen_mapping", "Gen_synthesis", "Dis", "Gen_ema", "Gen_ema_mapping", "Gen_ema_synthesis", "ema")
        given = dict(zip(names, load_generator_discriminator(*parts, device, logger), strict=True))
        cfgs.define_optimizer(given["Gen"], given["Dis"])
        given |= {"cfgs": cfgs, "run_name": "race", "global_rank": 0, "local_rank": device, "logger": logger}
        given |= {"train_dataloader": Feed((batch("sngan32", size), torch.zeros(size, dtype=torch.long)))}
        given |= {"best_step": 0, "loss_list_dict": {"gen_loss": [], "dis_loss": [], "cls_loss": []}}
        rest = dict.fromkeys(list(inspect.signature(WORKER.__init__).parameters)[1:])
        worker = WORKER(**(rest | given))
        worker.training, worker.topk = True, "N/A"
        worker.prepare_train_iter(epoch_counter=0)
        for step in range(1 << 20):  # as its loader.py has it
            cond_loss, d_loss = worker.train_discriminator(current_step=step)
            g_loss = worker.train_generator(current_step=step)
            if (step + 1) % cfgs.RUN.print_freq == 0:
                worker.log_train_statistics(step, cond_loss, g_loss, d_loss)


def matmul(bf16: bool, n: int = 4096) -> None:
    """The machine's own pace: a product of two n x n matrices a round."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x, gate = torch.randn(n, n, device=device, dtype=torch.bfloat16 if bf16 else torch.float32), Gate()
    while True:
        torch.mm(x, x)
        gate.passed()


def convolution(bf16: bool) -> None:
    """The same of convolutions, channels last."""
    device, dtype = "cuda" if torch.cuda.is_available() else "cpu", torch.bfloat16 if bf16 else torch.float32
    layer = torch.nn.Conv2d(256, 256, 3, padding=1, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    x = torch.randn(64, 256, 32, 32, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    gate = Gate()
    with torch.no_grad():
        while True:
            layer(x)
            gate.passed()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "loop", choices=["bare", "documented", "examples", "mimicry", "studiogan", "matmul", "convolution"]
    )
    parser.add_argument("--nets", default="dcgan64")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--path", default="")
    given = parser.parse_args()
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"  # Lightning's import sets 1, which costs 0.3 ms a round on a CPU
    if given.loop == "documented":
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    if given.loop == "bare":
        bare(given.nets, given.size, given.bf16, given.plain)
    elif given.loop == "matmul":
        matmul(given.bf16)
    elif given.loop == "convolution":
        convolution(given.bf16)
    elif given.loop == "documented":
        documented(given.nets, given.size)
    else:
        {"examples": examples, "mimicry": mimicry, "studiogan": studiogan}[given.loop](given.path, given.size)
