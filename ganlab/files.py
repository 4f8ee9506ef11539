"""Files: atomic writing, the cache folder, downloads that are checked, archives that anybody may have made."""

import hashlib
import http.client
import os
import shutil
import stat
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from filelock import FileLock
from tqdm import tqdm


class Unavailable(RuntimeError):
    """A file that is needed can't be had; the message says where to put it by hand."""


def cache_path(*parts: str) -> Path:
    """A place under $GANLAB_CACHE, or ~/.cache/ganlab."""
    return Path(os.environ.get("GANLAB_CACHE") or Path.home() / ".cache" / "ganlab").joinpath(*parts)


def cache_folder(*parts: str) -> Path:
    """The same, as a folder that is there.

    Raises:
        Unavailable: it can't be made
    """
    folder = cache_path(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"{folder} can't be made: {error.strerror}. GANLAB_CACHE may name another place") from None
    return folder


def memory() -> int:
    """Bytes of memory that this machine has."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 1 << 40


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
                except (OSError, urllib.error.URLError, http.client.HTTPException, ValueError) as error:
                    answers.append(f"  {url}\n    {error or type(error).__name__}")
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


LARGEST = 16 << 30  # bytes: no set or network that is downloaded here has as many, and an answer need not end


def _download(url: str, part: Path, chunk: int = 1 << 20) -> None:
    """Appends what is missing of `url` to `part`; starts over if the server can't continue."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(
        url, headers={"User-Agent": "ganlab"} | ({"Range": f"bytes={have}-"} if have else {})
    )
    if request.type not in ("http", "https"):
        raise OSError("not an address on the web")
    try:
        answer = urllib.request.build_opener(OnTheWeb).open(request, timeout=30)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is missing
            return
        raise
    with answer:
        continued = answer.status == 206
        have = have if continued else 0
        total = int(answer.headers.get("Content-Length") or 0) + have
        most = min(LARGEST, have + shutil.disk_usage(part.parent).free)
        if total > most:
            raise OSError(f"{total:,} bytes are announced, and {most:,} would fit or be believed")
        with (
            open(part, "ab" if continued else "wb") as file,
            tqdm(total=total or None, initial=have, unit="B", unit_scale=True, desc=part.stem) as bar,
        ):
            while data := answer.read(chunk):
                have += len(data)
                if have > most:
                    raise OSError(f"the answer did not end after {have:,} bytes")
                file.write(data)
                bar.update(len(data))
        if total and part.stat().st_size < total:
            raise OSError(f"the connection ended after {part.stat().st_size} of {total} bytes; call again to continue")


class OnTheWeb(urllib.request.HTTPRedirectHandler):
    """Follows from one web address to another only."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
        if not newurl.startswith(("http://", "https://")):
            raise OSError(f"it leads to {newurl[:80]}, which is not on the web")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


# ------------------------------------------------------------------------------------------------------------- archives

MOST_ENTRIES = 2_000_000
RATIO = 200  # unpacked to packed, at most: images are packed already, and zeros a thousandfold


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a .tar.gz or .zip into `folder`. Each of its top-level entries appears there whole or not at all.

    Raises:
        Unavailable: it is damaged, too large, or holds more than files and folders of its own
    """
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking-") as temporary:
            most = min(RATIO * archive.stat().st_size + (64 << 20), shutil.disk_usage(folder).free)
            (_unzip if archive.suffix == ".zip" else _untar)(archive, temporary, most)
            for entry in Path(temporary).iterdir():
                target = folder / entry.name
                if target.is_dir() and not target.is_symlink():
                    shutil.rmtree(target)
                os.replace(entry, target)
    except Exception as error:  # the packers raise all sorts
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise Unavailable(f"{archive} can't be unpacked: {reason}") from None


def _unzip(archive: Path, folder: str, most: int) -> None:
    with open(archive, "rb") as file:  # a list of all entries is made when it is opened
        entries = sum(block.count(b"PK\1\2") for block in iter(lambda: file.read(1 << 24), b""))
    if entries > MOST_ENTRIES:
        raise ValueError(f"it has more than {MOST_ENTRIES:,} entries")
    with zipfile.ZipFile(archive) as packed:
        names = _Names(most)
        for info in packed.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            names.add(info.filename, info.is_dir(), kind in (0, stat.S_IFREG, stat.S_IFDIR), info.file_size)
        packed.extractall(folder)


def _untar(archive: Path, folder: str, most: int) -> None:
    with tarfile.open(archive) as packed:
        names = _Names(most)
        for member in packed:
            if len(names) >= MOST_ENTRIES:
                raise ValueError(f"it has more than {MOST_ENTRIES:,} entries")
            names.add(member.name, member.isdir(), member.isreg() or member.isdir(), member.size)
            packed.extract(member, folder, filter="data")


class _Names(set[str]):
    """Names of the files in an archive, each of which must be its own, lie inside, and leave room for the others."""

    def __init__(self, most: int):
        super().__init__()
        self.left = self.most = most

    def add(self, name: str, folder: bool = False, plain: bool = True, size: int = 0) -> None:
        """Raises ValueError for what must not be unpacked."""
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in (path.parts or [""])[0]:
            raise ValueError(f"{name[:80]!r} lies outside of it")
        if not plain:
            raise ValueError(f"{name[:80]!r} is neither a file nor a folder")
        if not folder and str(path).casefold() in self:
            raise ValueError(f"{name[:80]!r} is in it twice")
        self.left -= size
        if self.left < 0:
            raise ValueError(f"unpacked it has more than {self.most:,} bytes, which are too many")
        if not folder:
            super().add(str(path).casefold())


def arrays_in(path: Path, most: int = 16 << 30) -> dict[str, Any]:
    """The arrays in an .npz of numbers, of so many bytes at most; nothing is unpickled.

    Raises:
        Unavailable: it is none
    """
    from numpy.lib import format as npy

    try:
        found: dict[str, Any] = {}
        with zipfile.ZipFile(path) as packed:
            for info in packed.infolist():
                with packed.open(info) as file:  # an array's memory is taken as soon as its header was read
                    read = {1: npy.read_array_header_1_0, 2: npy.read_array_header_2_0}[npy.read_magic(file)[0]]
                    shape, _, dtype = read(file)
                size = dtype.itemsize
                for side in shape:
                    size *= side
                most -= size
                if dtype.hasobject or min(shape, default=0) < 0 or size > info.file_size or most < 0:
                    raise ValueError
                with packed.open(info) as file:
                    found[info.filename.removesuffix(".npy")] = npy.read_array(file, allow_pickle=False)
        return found
    except Exception:  # zipfile and numpy raise all sorts
        raise Unavailable(f"{path} can't be read as an .npz of arrays") from None


def inflates(path: Path) -> bool:
    """Whether a zip holds far more than its own size, as none of those does that torch.save writes."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as packed:
        return sum(info.file_size for info in packed.infolist()) > 2 * path.stat().st_size + (1 << 20)
