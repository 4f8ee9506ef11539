"""Sets beyond memory: 200,000 images written, and read as a folder, mapped, in memory, as shards, by ganlab and others.

python -m benchmarks.shards [check] [readers] [cold]: makes the images, packs them, reads epochs in 2 processes of 2
workers each and checks that every image comes once; lets the readers take turns; the same of files that the system has
not in memory. litdata takes part if it is installed.
"""

import argparse
import hashlib
import importlib.util
import io
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from benchmarks.inputs import BATCH, made
from benchmarks.race import Gate, race, table
from ganlab.data.folder import Folder
from ganlab.data.rounds import InMemory, Order, Rounds, Samples
from ganlab.data.shards import Shards
from ganlab.pack import pack

CPU, CLASSES, EACH, NEAR = torch.device("cpu"), 10, 8192, 8


def write_images(root: Path, count: int) -> None:
    """PNG files in class folders; the first pixel of each is its number."""
    for c in range(CLASSES):
        (root / str(c)).mkdir(parents=True)
    for i, image in enumerate(tqdm(made(count).permute(0, 2, 3, 1).numpy().copy(), "writing", unit="image")):
        image[0, 0] = i & 255, i >> 8 & 255, i >> 16
        Image.fromarray(image).save(root / str(i * CLASSES // count) / f"{i:07}.png")


def numbers(real: Tensor) -> list[int]:
    """Of images in [-1, 1], not mirrored, from their first pixels."""
    pixel = ((real[:, :, 0, 0] + 1) * 127.5).round().long()
    return (pixel * torch.tensor([1, 256, 65536])).sum(1).tolist()


def rounds(data: Any, **given: Any) -> Iterator[list[dict[str, Tensor]]]:
    samples = data.split("train")
    return iter(Rounds(samples, data.order(samples, data.seed), device=CPU, at_once=8, workers=data.workers, **given))


# ------------------------------------------------------------------------------------------------ once, and as promised


def resident() -> float:
    """MB of this process and its workers, shared pages counted in parts."""
    pids = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
    lines = (Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids)
    return sum(int(text.split("\nPss:")[1].split()[0]) for text in lines) / 1024


def read_epoch(root: str, rank: int, count: int, start: int = 0) -> dict[str, Any]:
    """What one of 2 processes is served from round `start` to the end of the epoch: numbers, and memory on the way."""
    data = Shards(root=root, memory=0, near=NEAR, batch_size=BATCH, workers=2)
    shown: list[int] = []
    memory: list[float] = []
    left, number = count // BATCH - start, 0
    for served in rounds(data, rank=rank, world=2, start=start):
        for batch in served[: left - number]:
            shown += numbers(batch["real"])
        number += len(served)
        if len(memory) <= 20 * number // left:
            memory.append(resident())
        if number >= left:
            break
    return {"shown": shown, "memory": memory}


def in_processes(root: str, count: int, start: int = 0) -> tuple[np.ndarray, list[list[float]]]:
    """(numbers [rounds, batch] as 2 processes of 2 workers were served, memory of each on the way)"""
    command = [sys.executable, "-m", "benchmarks.shards", "--read", root, "--count", str(count), "--start", str(start)]
    running = [subprocess.Popen([*command, "--rank", str(rank)], stdout=subprocess.PIPE) for rank in range(2)]
    told = [json.loads(process.communicate()[0]) for process in running]
    return np.concatenate([np.array(t["shown"]).reshape(-1, BATCH // 2) for t in told], 1), [t["memory"] for t in told]


def check(root: str, count: int) -> dict[str, Any]:
    """Raises AssertionError where a promise is not kept."""
    count -= count % BATCH
    shown, memory = in_processes(root, count)
    assert len(np.unique(shown)) == shown.size == count, "an image came twice or never"
    again, _ = in_processes(root, count)
    assert np.array_equal(again, shown), "the order did not come again"
    start = len(shown) // 2 + 1
    rest, _ = in_processes(root, count, start)
    assert np.array_equal(rest, shown[start:]), "it did not go on as it had begun"
    order = hashlib.sha256(np.ascontiguousarray(shown)).hexdigest()[:16]
    tenth = [m[len(m) // 10] for m in memory]
    return {"images": count, "order": order, "mb_after_a_tenth": tenth, "mb_at_most": [max(m) for m in memory]}


# -------------------------------------------------------------------------------------------------------------- readers


def served(data: Any) -> Iterator[int]:
    for some in rounds(data):
        yield len(some)


def in_memory(folder: Path) -> Iterator[int]:
    samples: Samples = Folder(str(folder / "png"), memory=1e3).split("train")
    assert isinstance(samples, InMemory)
    for some in Rounds(samples, Order(len(samples), BATCH, 0, flip=True), device=CPU, at_once=8):
        yield len(some)


def shown(images: Any) -> Tensor:
    """uint8 [N, H, W, C] as networks see them, each mirrored or not."""
    x = torch.as_tensor(np.asarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return torch.where((torch.rand(len(x)) < 0.5)[:, None, None, None], x.flip(-1), x)


def webdatasets(folder: Path) -> Iterator[int]:
    """webdataset's own pipeline: shards in a shuffled order, and a buffer as large as NEAR / 2 shards."""
    import webdataset

    urls = sorted(map(str, (folder / "shards").glob("*.tar")))
    data = webdataset.WebDataset(urls, shardshuffle=len(urls), seed=0).shuffle(NEAR * EACH // 2).decode("rgb8")
    batches = DataLoader(data.to_tuple("png", "cls").batched(BATCH), batch_size=None, num_workers=2)  # type: ignore[arg-type]
    while True:
        for images, _ in batches:
            shown(images)
            yield 1


def litdatas(folder: Path, name: str) -> Iterator[int]:
    import litdata

    class Images(litdata.StreamingDataset):
        def __getitem__(self, i: Any) -> Any:
            image = super().__getitem__(i)["image"]
            return image if isinstance(image, np.ndarray) else np.asarray(Image.open(io.BytesIO(image)))

    data = Images(str(folder / name), shuffle=True, drop_last=True)
    loader = litdata.StreamingDataLoader(data, batch_size=BATCH, num_workers=2)
    while True:
        for images in loader:
            shown(images)
            yield 1


def write_litdata(folder: Path, raw: bool) -> None:
    """The same files in the same shuffled order, as litdata's chunks."""
    import litdata

    files = sorted(map(str, (folder / "png").rglob("*.png")))
    order = [files[i] for i in np.random.default_rng(0).permutation(len(files))]
    place = str(folder / ("litdata_raw" if raw else "litdata"))
    litdata.optimize(partial(as_stored, raw=raw), order, place, chunk_bytes="32MB", num_workers=1, verbose=False)


def as_stored(file: str, raw: bool) -> dict[str, Any]:
    image = np.asarray(Image.open(file)) if raw else Path(file).read_bytes()
    return {"image": image, "label": int(Path(file).parent.name)}


def of_shards(folder: Path, name: str, workers: int) -> Iterator[int]:
    return served(Shards(root=str(folder / name), memory=0, near=NEAR, batch_size=BATCH, flip=True, workers=workers))


def of_folder(folder: Path, workers: int, **where: float) -> Iterator[int]:
    return served(Folder(str(folder / "png"), memory=0, batch_size=BATCH, flip=True, workers=workers, **where))  # type: ignore[arg-type]


READERS: dict[str, Callable[[Path], Iterator[int]]] = {
    "folder: PNG files, 2 workers": lambda folder: of_folder(folder, 2, disk=0.0),
    "folder: decoded once, mapped .npy": lambda folder: of_folder(folder, 0),
    "in memory": in_memory,
    "shards of the PNG files, 2 workers": lambda folder: of_shards(folder, "shards", 2),
    "shards, format=npy": lambda folder: of_shards(folder, "shards_npy", 0),
    "webdataset's pipeline on the same shards, 2 workers": webdatasets,
    "litdata of the PNG files, 2 workers": lambda folder: litdatas(folder, "litdata"),
    "litdata of pixels, 2 workers": lambda folder: litdatas(folder, "litdata_raw"),
}


# ----------------------------------------------------------------------------------------------------------------- cold


def forget(folder: Path) -> None:
    """Takes files out of the system's memory, as after a start of the machine."""
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def cold(folder: Path, turns: int, n: int = 200) -> dict[str, list[dict[str, float]]]:
    """Seconds a round, of the first n rounds, of files that are not in the system's memory."""
    shards = lambda near: Shards(root=str(folder / "shards"), memory=0, near=near, batch_size=BATCH, workers=2)
    subjects: dict[str, Callable[[], Any]] = {
        "folder: PNG files": lambda: Folder(str(folder / "png"), memory=0, disk=0, batch_size=BATCH, workers=2),
        "shards, in any order": lambda: shards(10**9),
        "shards, near=2": lambda: shards(2),
    }
    told: dict[str, list[dict[str, float]]] = {name: [] for name in subjects}
    for _ in range(turns):
        for name, make in subjects.items():
            data = make()
            data.split("train")
            forget(folder / ("png" if "PNG" in name else "shards"))
            began, number = time.perf_counter(), 0
            for some in rounds(data):
                number += len(some)
                if number >= n:
                    break
            told[name].append({"seconds": (time.perf_counter() - began) / number, "images": BATCH})
    return told


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shards", description=__doc__)
    parser.add_argument("parts", nargs="*", help="check, readers, cold; all of them if none is given")
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=512, help="of a turn")
    parser.add_argument("--folder", type=Path, default=None, help="where the images are, or are made and kept")
    parser.add_argument("--read", help=argparse.SUPPRESS)
    parser.add_argument("--play", choices=READERS, help=argparse.SUPPRESS)
    parser.add_argument("--rank", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--start", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.read:
        print(json.dumps(read_epoch(given.read, given.rank, given.count, given.start)))
        return
    if given.play:
        gate = Gate()
        for some in READERS[given.play](given.folder):
            gate.passed(some)
        return
    with tempfile.TemporaryDirectory() as place:
        folder = given.folder or Path(place)
        os.environ["GANLAB_CACHE"] = str(folder / "cache")
        if not (folder / "png").exists():
            write_images(folder / "png", given.count)
        others = importlib.util.find_spec("litdata") is not None
        for name, format in (("shards", None), ("shards_npy", "npy")):
            began = time.perf_counter()
            pack(Folder(str(folder / "png")), str(folder / name), shard=min(EACH, given.count // 8), format=format)  # type: ignore[arg-type]
            print(f"{name}: packed in {time.perf_counter() - began:.0f} s", flush=True)
        for raw in (False, True) if others else ():
            if not (folder / ("litdata_raw" if raw else "litdata")).exists():
                write_litdata(folder, raw)
        parts = given.parts or ["check", "readers", "cold"]
        if "check" in parts:
            for key, value in check(str(folder / "shards"), given.count).items():
                print(f"{key:<18} {value}", flush=True)
        if "readers" in parts:
            play = ["-m", "benchmarks.shards", "--folder", str(folder), "--play"]
            names = [name for name in READERS if others or "litdata" not in name]
            results = race({name: [*play, name] for name in names}, given.rounds, given.turns, pause=0.5, images=BATCH)
            print("\n" + table(f"{given.count:,} images 32x32, batch {BATCH}", results))
        if "cold" in parts:
            told = cold(folder, given.turns)
            print("\n" + table("Not in the system's memory yet, the first 200 rounds", told))
        print(
            f"\n{os.getloadavg()[2]:.1f} processes ran in the last 15 minutes on {len(os.sched_getaffinity(0))} cores"
        )


if __name__ == "__main__":
    main()
