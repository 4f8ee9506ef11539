"""Two machines play as one: network namespaces with an address each stand for them, torchrun starts the processes."""

import os
import shutil
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from ganlab.launch import lost_touch
from ganlab.signals import answered

RUN = [
    "model=dcgan", "data=digits", "experiment=tiny", "trainer.accelerator=cpu", "trainer.precision=64-true",
    "metrics.enabled=false", "callbacks.checkpoint.every=4", "data.batch_size=16",
]  # fmt: skip
TIMEOUT = 0.25  # minutes


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def machines():
    """(name, address) of two that are joined by a cable, whose end at the first is called left0."""
    if shutil.which("ip") is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("network namespaces are made by root, with iproute2")
    names = [f"ganlab{os.getpid()}{side}" for side in "ab"]
    try:
        for name in names:
            ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    try:
        ip("link", "add", "left0", "netns", names[0], "type", "veth", "peer", "name", "right0", "netns", names[1])
        for name, end, address in zip(names, ("left0", "right0"), ("10.77.0.1", "10.77.0.2"), strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", end, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def start(machines, folder, *overrides):
    """One process on each machine, as a user would start it there."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--master-addr=10.77.0.1",
        "--master-port=29500",
    ]  # fmt: skip
    here = [*RUN, "trainer.num_nodes=2", "trainer.devices=1", f"trainer.timeout={TIMEOUT}", f"hydra.run.dir={folder}"]
    return [
        subprocess.Popen(
            ["ip", "netns", "exec", name, *command, f"--node-rank={rank}", "-m", "ganlab", *here, *overrides],
            env={**os.environ, "GLOO_SOCKET_IFNAME": end}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank, (name, end) in enumerate(zip(machines, ("left0", "right0"), strict=True))
    ]  # fmt: skip


def weights(folder):
    content = torch.load(Path(folder) / "checkpoints" / "last.ckpt", weights_only=True)
    return {k: v for k, v in content["state_dict"].items() if torch.is_tensor(v)}


@pytest.fixture(scope="module")
def one_machine(tmp_path_factory):
    """The weights after 24 kimg of two processes of one machine."""
    folder = tmp_path_factory.mktemp("one")
    command = [sys.executable, "-m", "ganlab", *RUN, "max_kimg=24", "trainer.devices=2", f"hydra.run.dir={folder}"]
    subprocess.run(command, check=True, capture_output=True)
    return weights(folder)


@pytest.mark.slow
def test_two_machines_make_the_weights_of_one(machines, one_machine, tmp_path):
    for process in start(machines, tmp_path, "max_kimg=24"):
        told = process.communicate(timeout=300)[0]
        assert process.returncode == 0, told
    torch.testing.assert_close(weights(tmp_path), one_machine, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_a_pulled_cable_ends_both_machines_and_the_run_goes_on(machines, one_machine, tmp_path):
    """Within the timeout, with one line that says what happened; what was saved is whole."""
    both = start(machines, tmp_path, "max_kimg=100000")
    saved = tmp_path / "checkpoints" / "last.ckpt"
    while not saved.exists():
        assert all(process.poll() is None for process in both), [p.communicate()[0] for p in both]
        time.sleep(0.2)
    ip("-n", machines[0], "link", "set", "left0", "down")
    pulled = time.monotonic()
    for process in both:
        told = process.communicate(timeout=120)[0]
        assert process.returncode != 0
        assert "error: another process is gone, or did not answer within trainer.timeout minutes" in told
        assert "the same command, with resume=auto, goes on" in told
    assert time.monotonic() - pulled < TIMEOUT * 60 + 30  # torchrun takes some seconds to end
    seen = torch.load(saved, weights_only=True)["clock"]["seen"]
    ip("-n", machines[0], "link", "set", "left0", "up")
    end = 24 if seen < 24_000 else seen / 1000 + 4
    for process in start(machines, tmp_path, "resume=auto", f"max_kimg={end:g}"):
        told = process.communicate(timeout=300)[0]
        assert process.returncode == 0, told
    if end == 24:
        torch.testing.assert_close(weights(tmp_path), one_machine, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 30000ms for recv operation", "trainer.timeout"),
        ("Application timeout caused pair closure", "trainer.timeout"),
        ("[/gloo/transport/tcp/pair.cc:538] Connection closed by peer [10.77.0.2]:4311", "is gone"),
        (torch.distributed.DistStoreError("wait timeout after 15000ms"), "trainer.timeout"),
        (torch.distributed.DistNetworkError("port: 29500, code: -98, name: EADDRINUSE"), "--master-port"),
        ("Gloo connectFullMesh failed with [/gloo/transport/tcp/pair.cc:152] timed out", "GLOO_SOCKET_IFNAME"),
    ],
)
def test_errors_of_the_network_say_what_to_do(monkeypatch, text, told):
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert told in lost_touch(text if isinstance(text, Exception) else RuntimeError(text))
    assert lost_touch(RuntimeError("shapes do not fit")) is None


def test_a_store_that_does_not_answer_is_not_waited_for_for_ever():
    """PyTorch's own timeout tells the other side that it gives up, and waits for its answer."""
    gone = threading.Event()
    with pytest.raises(torch.distributed.DistStoreError, match="no answer from rank 0"):
        answered(timedelta(seconds=-0.9), gone.wait)
    gone.set()
    assert answered(timedelta(seconds=30), lambda: b"word") == b"word"
    with pytest.raises(KeyError, match="lost"):
        answered(timedelta(seconds=30), lambda: {}["lost"])
