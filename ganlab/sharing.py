"""Exported models: a folder with a card and the files it is about, and a generator built from it without trust.

`card.json` says what the model is, in plain values; `model.safetensors` holds its weights. Neither can run anything.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ganlab.checkpoint import Sampler

FORMAT = 1  # of the card
CARD = "card.json"
FILES = {"safetensors": "model.safetensors", "onnx": "model.onnx", "torch_export": "model.pt2"}
LARGEST, DEEPEST = 1 << 20, 32  # a card's bytes and levels, at most
KEYS = {"format": int, "ganlab": str, "generator": dict, "task": dict, "files": dict}


def load(path: str | Path, trust: Sequence[str] = ()) -> "Sampler":
    """The generator of an exported model, of a checkpoint, or of a run (its best one): on the CPU, in eval mode, with
    `generate(start, n, seed)`. Nothing in the file is run.

    trust   packages, besides ganlab, whose classes may be built

    Raises:
        ValueError: there is none, it is damaged, or it would need a package that is not trusted
    """
    from ganlab.checkpoint import Sampler

    return Sampler.load(located(path), trust)


def located(path: str | Path) -> Path:
    """The checkpoint of a run's folder, the best if it has one; any other path as it is."""
    path = Path(path).expanduser()
    checkpoints = path / "checkpoints"
    if not checkpoints.is_dir():
        return path
    return next((p for p in (checkpoints / "best.ckpt",) if p.is_file()), checkpoints / "last.ckpt")


def folder_of(path: str | Path) -> Path | None:
    """The folder of an exported model, if `path` is one or one of its files."""
    path = Path(path).expanduser()
    if path.is_dir():
        return path if (path / CARD).is_file() else None
    return path.parent if path.name == CARD or path.suffix in (".safetensors", ".onnx", ".pt2") else None


def place_beside(path: str | Path) -> Path:
    """Where pictures of a model go by default: beside the folder of its checkpoint, or beside that of the export."""
    return (folder_of(path) or Path(path).parent).absolute().parent


def name_of(path: str | Path) -> str:
    """What a model is called where its files are: "best" of best.ckpt, and of exported/best."""
    folder = folder_of(path)
    return Path(path).stem if folder is None else folder.absolute().name


def read_card(folder: Path) -> dict[str, Any]:
    """A folder's card, as far as a generator is built from it checked for its form.

    Raises:
        ValueError: there is none, or it is none
    """
    path = folder / CARD
    try:
        with open(path, "rb") as file:
            text = file.read(LARGEST + 1)
    except OSError:
        raise ValueError(
            f"{path} can't be opened: an exported model is a folder with {CARD} and {FILES['safetensors']}, "
            "as python -m ganlab.export makes it"
        ) from None
    if len(text) > LARGEST:
        raise ValueError(f"{path} is larger than any card, and is not read")
    try:
        card = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(card, dict) or not isinstance(card.get("format"), int) or card["format"] < 1:
        raise ValueError(f"{path} is no card of an exported model: it has no format")
    if card["format"] > FORMAT:
        raise ValueError(
            f"{path} is of format {card['format']}, written by ganlab {str(card.get('ganlab'))[:20]}, newer than this "
            f"one, which reads up to {FORMAT}: update ganlab"
        )
    level = [card]
    for _ in range(DEEPEST):
        level = [v for x in level if isinstance(x, (dict, list)) for v in (x.values() if isinstance(x, dict) else x)]
    if level:
        raise ValueError(f"{path} has more than {DEEPEST} levels, and is not read")
    for key, kind in KEYS.items():
        if not isinstance(card.get(key), kind):
            raise ValueError(f"{path}: its {key} is {'missing' if key not in card else f'no {kind.__name__}'}")
    networks, kimg, files = card.get("networks"), card.get("kimg"), card["files"]
    if not isinstance(networks or {}, dict) or not isinstance((networks or {}).get("spectral", False), bool):
        raise ValueError(f"{path}: its networks must be null or an object, with spectral true or false")
    if kimg is not None and (isinstance(kimg, bool) or not isinstance(kimg, (int, float))):
        raise ValueError(f"{path}: its kimg must be null or a number")
    if (
        not all(isinstance(f, dict) and isinstance(f.get("sha256"), str) for f in files.values())
        or files.keys() - FILES
    ):
        raise ValueError(f"{path}: its files must be some of {', '.join(FILES)}, each with its sha256")
    return card


def stored(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(card, weights) of an exported model.

    Raises:
        ValueError: it is not one, or a file is not the one that the card is about
    """
    import safetensors.torch

    path, folder = Path(path).expanduser(), folder_of(path)
    assert folder is not None
    if path.suffix == ".onnx":
        raise ValueError(
            f"{path}: an ONNX file is run, not loaded: onnxruntime.InferenceSession('{path}').run(None, {{'z': z}}); "
            "ganlab.load reads model.safetensors, from format=safetensors"
        )
    if path.suffix == ".pt2":
        raise ValueError(
            f"{path}: torch.export.load may unpickle, and run what it finds; use it on files that you trust. "
            "ganlab.load reads model.safetensors, from format=safetensors"
        )
    file = folder / FILES["safetensors"]
    if path.suffix == ".safetensors" and path.name != file.name:
        raise ValueError(f"{path}: the weights of an exported model are called {file.name}, with {CARD} beside them")
    card = read_card(folder)
    if "safetensors" not in card["files"]:
        have = " and ".join(FILES[kind] for kind in card["files"]) or "no model"
        raise ValueError(f"{folder} has {have}; a generator is built from {file.name}: export with format=safetensors")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ValueError(f"{file} can't be opened: {error.strerror}") from None
    if hashlib.sha256(content).hexdigest() != card["files"]["safetensors"]["sha256"]:
        raise ValueError(
            f"{file} is not the file that {CARD} is about (its sha256 is another): it is damaged, or another model's"
        )
    try:
        return card, safetensors.torch.load(content)
    except Exception as error:  # SafetensorError, and what a tensor of a strange kind or size raises
        raise ValueError(f"{file} is no safetensors file: {error}") from None


def config_of(card: Mapping[str, Any]) -> dict[str, Any]:
    """What a generator is built from, as a checkpoint has it."""
    return {"generator": card["generator"], "task": card["task"], "networks": {"G": card.get("networks")}}
