"""Weights of networks that scores and terms look through: found, checked, read without running anything in the file."""

import io
import math
import pickle
import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganlab.files import Remote, Unavailable, cache_folder, digest, fetch, inflates


def obtain(
    remote: Remote, given: str | None = None, checksum: str | None = None, key: str = "extractor",
    instead: str = "train without scores: metrics.enabled=false",
) -> tuple[dict[str, Tensor], str]:  # fmt: skip
    """(state dict, first 8 digits of the file's sha256) of a file of the user's, or of the usual one, downloaded.

    checksum   of the given file, "sha256:..."; None: it is taken as it is
    key        whose `weights` and `checksum` these are
    instead    what else to do where there are none

    Raises:
        Unavailable: there is no such file, it is another one, or it can't be read
        ValueError: the checksum is none
    """
    expected = (checksum or "").lower().removeprefix("sha256:")
    if checksum is not None and (not given or not re.fullmatch(r"[0-9a-f]{8,64}", expected)):
        raise ValueError(f"{key}.checksum={checksum}: must be sha256:..., of the file in {key}.weights")
    hint = f"Or give its path as {key}.weights=FILE; or {instead}"
    path = Path(given).expanduser() if given else fetch(remote, cache_folder("weights"), hint)
    if not path.is_file():
        raise Unavailable(f"{key}.weights={given}: there is no such file")
    found = digest(path)
    if not found.startswith(expected):
        raise Unavailable(f"{key}.weights={given} is another file than expected: sha256:{found}, not {checksum}")
    return read(path), found[:8]


def read(path: Path) -> dict[str, Tensor]:
    """The state dict in a safetensors, PyTorch or TorchScript file.

    Raises:
        Unavailable: it is none, or it holds more than tensors
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        elif inflates(path):
            raise ValueError("unpacked it would have more than twice its size")
        elif is_script(path):
            content = read_script(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Unavailable(f"{path} can't be read as weights: {reason[:300]}") from None
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(isinstance(k, str) and real(v) for k, v in content.items()):
        raise Unavailable(f"{path} holds no weights: a dictionary of tensors was expected")
    return {k.removeprefix("module."): v for k, v in content.items()}


def real(value: Any) -> bool:
    """Whether it is a tensor with all its numbers in memory: a file of a few bytes can describe one that is as large as
    it likes, by repeating a number, or by having none."""
    plain = (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )
    return plain and value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def load_into(net: torch.nn.Module, state: dict[str, Tensor], given: str | None = None) -> torch.nn.Module:
    """Puts the weights into the network, as float32 and frozen, in eval mode.

    Raises:
        ValueError: they are another network's
    """
    try:
        net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    except (RuntimeError, TypeError) as error:
        lines = str(error).splitlines() * 3
        raise ValueError(
            f"extractor.weights={given}: the weights are another network's: {' '.join(lines[1:3])}"
        ) from None
    return net.eval().requires_grad_(False)


def is_script(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as file:
        return any(name.endswith("constants.pkl") for name in file.namelist())


def read_script(path: Path) -> dict[str, Tensor]:
    """The tensors of a TorchScript archive, as CLIP's owners publish it. Its code is not looked at: of what its pickle
    may name, only tensors are made, all else becomes an empty object that holds attributes."""
    with zipfile.ZipFile(path) as file:
        top = next(name.removesuffix("data.pkl") for name in file.namelist() if name.endswith("/data.pkl"))
        content = file.read(top + "data.pkl")
        for code, argument, _ in pickletools.genops(content):  # one number can make an unpickler's memory any size
            if code.name.endswith("PUT") and int(argument or 0) > len(content):
                raise pickle.UnpicklingError("its numbers are not those of its objects")
        root = _Tensors(io.BytesIO(content), file, top).load()
    found: dict[str, Tensor] = {}
    _collect(root, "", found)
    return found


class _Shell:
    """Stands for any TorchScript class."""

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {})


class _Tensors(pickle.Unpickler):
    DTYPES = {"FloatStorage": torch.float32, "HalfStorage": torch.float16, "LongStorage": torch.int64}

    def __init__(self, data: Any, file: zipfile.ZipFile, top: str):
        super().__init__(data)
        self.file, self.top = file, top

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return rebuilt
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch" and name in self.DTYPES:
            return self.DTYPES[name]
        if module.startswith("__torch__"):
            return _Shell
        if module == "torch.jit._pickle":  # lists of plain values
            return lambda *values: values
        raise pickle.UnpicklingError(f"{module}.{name} is not a tensor")

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, _, _ = pid
        return torch.frombuffer(bytearray(self.file.read(f"{self.top}data/{key}")), dtype=dtype)


def rebuilt(storage: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    if math.prod(size) > storage.numel():
        raise pickle.UnpicklingError("a tensor is larger than its memory")
    return storage.as_strided(size, stride, offset).clone()


def _collect(value: Any, prefix: str, found: dict[str, Tensor]) -> None:
    if isinstance(value, Tensor):
        found[prefix.removesuffix(".")] = value
    elif isinstance(value, _Shell):
        for name, child in vars(value).items():
            _collect(child, f"{prefix}{name}.", found)
