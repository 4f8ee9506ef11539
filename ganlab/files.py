"""Files: atomic writing, the cache folder, and downloads that resume and are checked."""

import hashlib
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from filelock import FileLock
from tqdm import tqdm


class Unavailable(RuntimeError):
    """A file that is needed can't be had; the message says where to put it by hand."""


def cache_path(*parts: str) -> Path:
    """A place under $GANLAB_CACHE, or ~/.cache/ganlab."""
    return Path(os.environ.get("GANLAB_CACHE") or Path.home() / ".cache" / "ganlab").joinpath(*parts)


def cache_folder(*parts: str) -> Path:
    """The same, as a folder that is there."""
    folder = cache_path(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def atomic(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file to write to that takes `path`'s place at the end, whole: a reader never sees half of it.

    If writing fails, what was at `path` before is still there.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
        sync(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def sync(folder: Path) -> None:
    """Makes new names in `folder` survive a power cut, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError:  # some network file systems
            pass
        finally:
            os.close(handle)


def write_text(path: str | Path, text: str) -> None:
    with atomic(path) as file:
        file.write(text.encode())


def digest(path: str | Path, kind: str = "sha256") -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


@dataclass(frozen=True)
class Remote:
    """A file on the net.

    urls       the places to try, in this order
    checksum   "sha256:..." or "md5:...", or its first digits where the owner publishes no more
    """

    name: str
    urls: tuple[str, ...]
    checksum: str

    def is_at(self, path: Path) -> bool:
        kind, _, expected = self.checksum.partition(":")
        return path.is_file() and digest(path, kind).startswith(expected)


_online = ContextVar("online", default=True)


@contextmanager
def offline() -> Iterator[None]:
    """Meanwhile nothing is downloaded: what is not at hand is unavailable."""
    before = _online.set(False)
    try:
        yield
    finally:
        _online.reset(before)


def fetch(remote: Remote, folder: str | Path, hint: str = "") -> Path:
    """The path of `remote` in `folder`, downloaded if it is not there yet.

    A broken download is continued, also in the next call. Each file is checked before it gets its name.

    Raises:
        Unavailable: naming each address and what it answered, the checksum, and where to put the file by hand
    """
    path = Path(folder) / remote.name
    if remote.is_at(path):
        return path
    if not _online.get():
        raise Unavailable(f"{remote.name} is not at hand")
    answers = []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):  # of several processes one downloads, the others find the file
            for url in remote.urls:
                try:
                    if not remote.is_at(path):
                        _download_checked(remote, url, path)
                    return path
                except (OSError, urllib.error.URLError) as error:
                    answers.append(f"  {url}\n    {error}")
    except OSError as error:
        answers.append(f"  {path.parent} can't be written to: {error}")
    there = f"\nThe file that is there now has another checksum: {path}" if path.exists() else ""
    raise Unavailable(
        f"{remote.name} could not be downloaded:\n" + "\n".join(answers) + there + f"\nGet it by other means "
        f"(checksum {remote.checksum}) and put it here:\n  {path.absolute()}" + (f"\n{hint}" if hint else "")
    )


def _download_checked(remote: Remote, url: str, path: Path) -> None:
    part = path.with_name(path.name + ".part")
    _download(url, part)
    if not remote.is_at(part):
        found = digest(part, remote.checksum.partition(":")[0])
        part.unlink()
        raise OSError(f"another file than expected: its checksum is {found}")
    part.replace(path)


def _download(url: str, part: Path, chunk: int = 1 << 20) -> None:
    """Appends what is missing of `url` to `part`; starts over if the server can't continue."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(
        url, headers={"User-Agent": "ganlab"} | ({"Range": f"bytes={have}-"} if have else {})
    )
    try:
        answer = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is missing
            return
        raise
    with answer:
        continued = answer.status == 206
        total = int(answer.headers.get("Content-Length") or 0) + (have if continued else 0)
        with (
            open(part, "ab" if continued else "wb") as file,
            tqdm(
                total=total or None, initial=have if continued else 0, unit="B", unit_scale=True, desc=part.stem
            ) as bar,
        ):
            while data := answer.read(chunk):
                file.write(data)
                bar.update(len(data))
        if total and part.stat().st_size < total:
            raise OSError(f"the connection ended after {part.stat().st_size} of {total} bytes; call again to continue")


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a .tar.gz or .zip into `folder`. Each of its top-level entries appears there whole or not at all."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking-") as temporary:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(temporary)
        else:
            with tarfile.open(archive) as tar:
                tar.extractall(temporary, filter="data")
        for entry in Path(temporary).iterdir():
            target = folder / entry.name
            if target.is_dir():
                shutil.rmtree(target)
            os.replace(entry, target)
