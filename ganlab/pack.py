"""python -m ganlab.pack data=folder data.root=FOLDER output=FOLDER: images as shards, for sets beyond memory."""

import io
import json
import sys
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import hydra
from omegaconf import DictConfig, OmegaConf

from ganlab.conf import CONF, cache
from ganlab.limits import PACK, check_values

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

OmegaConf.register_new_resolver("ganlab.cache", cache, replace=True)
Format = Literal["png", "webp", "jpg", "npy"]
PIXELS = 64 << 20  # bytes of them in a shard
KEPT = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}  # kinds of files that are packed as they are
AT_ONCE = 64  # images in memory


@hydra.main(version_base="1.3", config_path=CONF, config_name="pack")
def main(cfg: DictConfig) -> None:
    from ganlab.checks import check_targets
    from ganlab.files import Unavailable
    from ganlab.settings import made

    if OmegaConf.is_missing(cfg, "output"):
        sys.exit("error: output is not set: say where the shards shall be, as in output=my/shards")
    try:
        settings: Any = OmegaConf.to_container(cfg)
        check_values(settings, PACK, hydra.utils.get_object)
        given: Any = OmegaConf.to_container(cfg.data, resolve=True)
        check_targets("data", given, hydra.utils.get_object)
        pack(made(given), **{key: settings[key] for key in ("output", "format", "quality", "shard", "seed")})
    except (ValueError, Unavailable) as error:
        sys.exit(f"error: {error}")


def pack(
    data: Any, output: str, format: Format | None = None, quality: int = 95, shard: int | None = None, seed: int = 0,
) -> Path:  # fmt: skip
    """Writes the training part as shards, in a shuffled order, and at last the index, without which they are none.
    Stopped before, it goes on in the next call.

    shard   images in each; None: as many as make 64 MiB of pixels

    Raises:
        ValueError: the set has other samples than images, or there is something else at `output`
        Unavailable: an image can't be read, or nothing can be written
    """
    import torch
    from tqdm import tqdm

    from ganlab.data.shards import HALF, INDEX, LABELS, MEMBERS, VERSION, Index
    from ganlab.files import Unavailable, atomic, write_text
    from ganlab.rng import seed_of

    writer = tar_writer()
    facts, samples = images_of(data)
    shape = list(facts["shape"])
    if format in ("jpg", "webp") and shape[0] in (2, 4):
        raise ValueError(f"format={format} would not keep what is transparent: use png or npy, or set data.channels=3")
    each = shard or max(1, PIXELS // (shape[0] * shape[1] * shape[2]))
    job = {"fingerprint": samples.fingerprint(), "format": format, "quality": quality, "shard": each, "seed": seed}
    job |= {"source": data.title, "shape": shape}
    folder = Path(output).expanduser()
    if there(folder, job):
        print(f"{folder} holds these {len(samples):,} images already")
        return folder
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed_of(seed, "pack")))
    members, shards = [], []
    try:
        write_text(folder / HALF, json.dumps(job, indent=1))
        for half in folder.glob(".*.tmp"):  # of one who was killed
            half.unlink()
        with tqdm(desc="packing", total=len(samples), unit="image", disable=None) as bar, ThreadPoolExecutor() as pool:
            for number, rows in enumerate(order.split(each)):
                path = folder / f"shard-{number:06}.tar"
                if not path.exists():
                    with atomic(path) as file, writer(file, encoder=False, mtime=0) as tar:
                        for i, sample in enumerate(encoded(samples, rows, format, quality, pool), number * each):
                            tar.write({"__key__": f"{i:09}", **sample})
                            bar.update()
                else:
                    bar.update(len(rows))
                members.append(places(path))
                shards.append({"count": len(members[-1]), **Index.entry(path)})
        save(folder / MEMBERS, members)
        if samples.label is not None:
            save(folder / LABELS, [samples.label[order].numpy()])
        files = [Index.entry(folder / name) for name in (MEMBERS, LABELS) if (folder / name).exists()]
        told = {**facts, "version": VERSION, **job, "raw": format == "npy", "shards": shards, "files": files}
        write_text(folder / INDEX, json.dumps(told, indent=1))
        (folder / HALF).unlink()
    except OSError as error:
        raise Unavailable(f"output={folder} can't be written to: {error.strerror}") from None
    size = sum(shard["bytes"] for shard in shards)
    print(f"{len(samples):,} images in {len(shards):,} shards, {size / 2**20:,.0f} MiB: {folder}")
    print(f"train with  python -m ganlab data=shards data.root={folder}")
    return folder


def tar_writer() -> Any:
    """Raises ValueError where webdataset is not installed."""
    try:
        from webdataset import TarWriter
    except ImportError:
        raise ValueError('shards are written by webdataset: pip install "ganlab[shards]"') from None
    return TarWriter


def images_of(data: Any) -> tuple[dict[str, Any], Any]:
    """(facts, the training part) of a set; of a folder, as its files.

    Raises:
        ValueError: it has no images, or not all alike
    """
    import torch

    from ganlab.data.folder import Folder

    if getattr(data, "crop", None) == "random":
        raise ValueError("data.crop=random: shards hold images of one size: set data.crop=center")
    for key in ("count", "imbalance"):
        if (value := getattr(data, key, None)) is not None:
            raise ValueError(f"data.{key}={value}: all images are packed: set it when you train on them")
    facts = data.facts()
    samples = data.on_disk("train") if isinstance(data, Folder) else data.split("train")
    taken = samples.take(torch.zeros(1, dtype=torch.long)) if hasattr(samples, "take") else {}
    real = taken.get("real")
    if real is None or real.dtype != torch.uint8 or real.dim() != 4 or set(taken) - {"real", "label"}:
        raise ValueError(f"{data.title} has other samples than images, one by one: shards hold those only")
    return {key: facts[key] for key in ("shape", "classes", "class_names", "frequencies", "several")}, samples


def there(folder: Path, job: dict[str, Any]) -> bool:
    """Whether the folder holds these shards whole.

    Raises:
        ValueError: it holds something else
    """
    from ganlab.data.shards import HALF, INDEX

    found = next((folder / name for name in (INDEX, HALF) if (folder / name).exists()), None)
    if found is None:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(f"output={folder} is not empty: give a new folder")
        return False
    try:
        told = json.loads(found.read_text())
        differing = [key for key in job if told.get(key) != job[key]]
    except (OSError, ValueError, AttributeError):
        differing = [found.name]
    if differing:
        what = f"other shards ({', '.join(differing)} not the same)"
        raise ValueError(f"output={folder} holds {what}: remove them, or give another output")
    return found.name == INDEX


def encoded(samples: Any, rows: "Tensor", format: str | None, quality: int, pool: Any) -> Iterator[dict[str, bytes]]:
    """What is written of each: {ending: content}, the image and its label."""
    from ganlab.data.folder import OnDisk

    def one(row: int) -> dict[str, bytes]:
        if format is None and isinstance(samples, OnDisk) and (kept := as_it_is(samples.paths[row], samples.shape)):
            sample = kept
        else:
            ending, image = format or "png", samples.take(rows.new_tensor([row]))["real"][0].numpy()
            sample = {ending: content(image, ending, quality)}
        if samples.label is not None:
            label = samples.label[row]
            sample |= {"json": json.dumps(label.tolist()).encode()} if label.dim() else {"cls": b"%d" % int(label)}
        return sample

    for part in rows.split(AT_ONCE):
        yield from pool.map(one, part.tolist())


def as_it_is(path: Path, shape: Sequence[int]) -> dict[str, bytes] | None:
    """A file of the right size, after it was decoded once; None: it is not, or of no kind that others read."""
    from ganlab.data.decode import Bad, header, opened, whole

    with opened(path) as image:
        ending = KEPT.get(image.format or "")
    if ending is None or header(path)[:2] != tuple(shape[1:]):
        return None
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Bad(path, error.strerror or str(error)) from None
    whole(path, data)
    return {ending: data}


def content(image: "np.ndarray", ending: str, quality: int) -> bytes:
    """uint8 [C, H, W] as a file."""
    import numpy as np
    from PIL import Image

    file = io.BytesIO()
    if ending == "npy":
        np.lib.format.write_array(file, image, (1, 0))
        return file.getvalue()
    how: dict[str, Any] = {"quality": quality} if ending == "jpg" else {"lossless": True} if ending == "webp" else {}
    pixels = image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
    Image.fromarray(pixels).save(file, {"jpg": "JPEG"}.get(ending, ending.upper()), **how)
    return file.getvalue()


def places(path: Path) -> "np.ndarray":
    """int64 [n, 3] of the images in a shard: where each begins, its bytes, their CRC-32."""
    import numpy as np

    with tarfile.open(path, "r:") as tar, open(path, "rb") as file:
        rows = []
        for member in tar:
            if not member.name.endswith((".cls", ".json")):
                file.seek(member.offset_data)
                rows.append((member.offset_data, member.size, zlib.crc32(file.read(member.size))))
    return np.array(rows, np.int64).reshape(-1, 3)


def save(path: Path, parts: "list[np.ndarray]") -> None:
    import numpy as np

    from ganlab.files import atomic

    with atomic(path) as file:
        np.save(file, np.concatenate(parts))


if __name__ == "__main__":
    main()
