"""python -m ganlab.export checkpoint=FILE: a trained generator as files for others, with a card that describes it."""

import hashlib
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from ganlab.conf import CONF
from ganlab.entry import run
from ganlab.limits import check_arguments


@hydra.main(version_base="1.3", config_path=CONF, config_name="export")
def main(cfg: DictConfig) -> None:
    run(cfg, export, checkpoint="outputs/.../checkpoints/best.ckpt")


def export(
    checkpoint: str, format: str = "safetensors", output: str | None = None, licence: str | None = None,
    preview: int = 32, trust: list[str] | None = None,
) -> Path:  # fmt: skip
    """Writes a checkpoint's G_ema in one format, and its card; returns the folder. Several formats of one model may lie
    in one folder.

    Raises:
        ValueError: the checkpoint can't be used, the folder holds another model, or the file does not make PyTorch's
            images
        ModuleNotFoundError: format=onnx, and onnx, onnxscript or onnxruntime is not installed
    """
    check_arguments("", locals(), export)
    from ganlab.checkpoint import Sampler
    from ganlab.files import atomic, write_text
    from ganlab.formats import WRITERS, inputs_of, output_of
    from ganlab.pictures import save_sheet
    from ganlab.report import relative
    from ganlab.sharing import CARD, FILES, folder_of, located, name_of, place_beside, read_card

    if format not in WRITERS:
        raise ValueError(f"format={format}: must be one of {', '.join(WRITERS)}")
    path = located(checkpoint)
    sampler = Sampler.load(path, trust or ())
    folder = Path(output).expanduser() if output else folder_of(path) or place_beside(path) / "exported" / name_of(path)
    card = sampler.card or described(path)
    identity = identity_of(sampler.G, card)
    before = read_card(folder) if folder_of(folder) else {}
    stray = not before and any((folder / name).exists() for name in FILES.values())
    if stray or (before and before.get("identity") != identity):
        raise ValueError(f"{folder} holds another model: give output=FOLDER, or remove that one first")
    content, checked = WRITERS[format](sampler, lambda: Sampler.load(path, trust or ()).G)
    told = {"name": FILES[format], "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), **checked}
    card |= {
        "identity": identity,
        "parameters": sum(p.numel() for p in sampler.G.parameters()),
        "licence": licence or before.get("licence") or card.get("licence"),
        "inputs": inputs_of(sampler),
        "output": output_of(sampler),
        "files": {**before.get("files", {}), format: told},
    }
    with atomic(folder / FILES[format]) as file:
        file.write(content)
    write_text(folder / CARD, json.dumps(finite(card), indent=1, allow_nan=False))
    preview = preview if hasattr(sampler.task, "draw") else 0  # of images, none are at hand
    if preview:
        save_sheet(sampler.task.show(sampler.generate(0, preview)), folder / "preview.png", 8)
    here = relative(str(folder))
    print(f"model     {here}/{FILES[format]}, {len(content) / 1e6:.3g} MB, {card['parameters']:,} parameters")
    if checked:
        sizes, worst = checked["check"]["batches"], checked["check"]["largest_difference"]
        print(f"checked   its images are PyTorch's within {worst:.1e}, in batches of {', '.join(map(str, sizes))}")
    print(f"card      {here}/{CARD}" + (f", {here}/preview.png" if preview else ""))
    if format == "safetensors":
        print(f'Python    ganlab.load("{here}")')
    else:
        inputs = [f"{name} [{', '.join(map(str, x['shape']))}] {x['type']}" for name, x in card["inputs"].items()]
        print(f"inputs    {', '.join(inputs)}")
    if not card["licence"]:
        print("licence   not said: others can't know what they may do with it; say it, as in licence=CC-BY-4.0")
    return folder


def described(path: Path) -> dict[str, Any]:
    """The card of a checkpoint, but for its files: plain values, none of which says where anything lies."""
    import ganlab
    from ganlab import checkpoint, sharing

    content = checkpoint.load(path)
    config = content["ganlab"]["config"]
    networks = (config.get("networks") or {}).get("G") or {}
    data = config.get("data") or {}
    kimg = content["clock"]["seen"] / 1000 if "clock" in content else None
    scores = scores_of(content, path, kimg)
    told: dict[str, Any] = next((s["protocol"] for s in scores if s["protocol"].get("reals")), {})
    kind = str(data.get("_target_", "")).rpartition(".")[2] or None
    return {
        "format": sharing.FORMAT,
        "ganlab": ganlab.__version__,
        "exported": time.strftime("%Y-%m-%d"),
        "model": model_name(path, config),
        "generator": config["generator"],
        "task": config["task"],
        "networks": {"spectral": bool(networks.get("spectral"))},
        "weights": "G_ema",
        "kimg": kimg,
        "class_names": data.get("class_names"),
        "data": {"title": told.get("reals") or kind, "fingerprint": told.get("fingerprint")},
        "scores": scores,
        "licence": None,
    }


def model_name(path: Path, config: Mapping[str, Any]) -> str:
    """As `model=` said it, where the run's folder tells; otherwise the module of its generator."""
    try:
        return str(json.loads((path.absolute().parent.parent / "run.json").read_text())["choices"]["model"])
    except (OSError, ValueError, KeyError, TypeError):
        return str(config["generator"]["_target_"]).split(".")[-2]


def scores_of(content: Mapping[str, Any], path: Path, kimg: float | None) -> list[dict[str, Any]]:
    """[{"scores", "protocol"}]: what training measured then, and later evaluations of G_ema at that time."""
    found = []
    for state in content.get("callbacks", {}).values():
        if isinstance(state, dict) and state.get("protocol"):
            for entry in state.get("history", []):
                if entry.get("kimg") == kimg:
                    values = {k: v for k, v in entry.items() if k != "kimg"}
                    found.append({"scores": values, "protocol": {**state["protocol"], "kimg": kimg}})
    for file in sorted((path.absolute().parent.parent / "evaluations").glob("*.json")):
        for result in json.loads(file.read_text()):
            protocol = result["protocol"]
            if protocol["fakes"] == "G_ema" and protocol["kimg"] == kimg:
                found.append({"scores": result["scores"], "protocol": protocol})
    return found


def identity_of(G: Any, card: Mapping[str, Any]) -> str:
    """16 hex digits of the weights and of what the network is: the same in all formats."""
    content = hashlib.blake2b(json.dumps([card["generator"], card["task"]], sort_keys=True).encode(), digest_size=8)
    for name, value in G.state_dict().items():
        content.update(f"{name} {list(value.shape)} {value.dtype}".encode())
        content.update(value.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()


def finite(value: Any) -> Any:
    """As JSON can hold it: what is no number becomes null."""
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    main()
