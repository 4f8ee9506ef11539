"""Writes docs/models.md, the table of the catalogue, from the configs: python benchmarks/catalogue.py

At 32x32 with 3 channels and 10 classes; of models that make images larger, 32x32 is what they make. FLOPs are of one
forward pass with one image, counted by PyTorch (a multiplication and an addition are two). Scores stand there only
where docs/scores.json has one, which was measured.
"""

import json
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict
from torch.utils.flop_counter import FlopCounterMode

from ganlab.conf import CONF, _first_comment
from ganlab.phase import wrap
from ganlab.rng import IndexedRNG
from ganlab.settings import build, complete

HOME = Path(__file__).parent.parent
SHAPE = [3, 32, 32]


def name_of(node: dict | None) -> str:
    return node["_target_"].rpartition(".")[2] if node else "-"


def needs(task: dict, told: bool) -> str:
    """What a model learns from."""
    if "degradation" in task:
        kind = name_of(task["degradation"])
        return "images" if kind == "Nothing" else f"images; {kind} is undone"
    known = {"Translate": "pairs of images", "TranslateUnpaired": "two sets of images"}
    return known.get(name_of(task), "images and labels" if told else "images")


def flops(run) -> str:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return f"{counter.get_total_flops() / 1e9:.3g}"


def line(path: Path, measured: dict[str, dict]) -> list[str]:
    with initialize_config_dir(version_base="1.3", config_dir=CONF):
        cfg = compose("train", [f"model={path.stem}", "data=cifar10"])
    with open_dict(cfg):
        cfg.data.root = None
        cfg.update({key: {} for key in ("paths", "callbacks", "logger")})  # what only a run can fill in
    facts = {"classes": 10, "class_names": None, "frequencies": None, "several": False}
    complete(cfg, {"shape": SHAPE, "inputs": SHAPE, **facts})
    settings = OmegaConf.to_container(cfg, resolve=True)
    gan = build(settings)
    x, label = torch.zeros(2, *SHAPE), torch.zeros(2, dtype=torch.long)
    count = lambda net: f"{sum(p.numel() for p in net.parameters()) / 1e6:.2f}" if net is not None else "-"
    half = lambda text: f"{float(text) / 2:.3g}"
    batch = gan.task.prepare({"real": x, "inputs": x, "label": label}, IndexedRNG(0, range(2)))
    told = [] if batch.cond is None else [batch.cond]
    noise = hasattr(gan.task, "draw")
    start = [gan.task.draw(IndexedRNG(0, range(2)))[0], *told] if noise else [batch.inputs]
    with torch.no_grad():
        shown = wrap(gan.task.play(gan.G.eval(), batch)[0]).fake  # perhaps more than the image
    of_d = half(flops(lambda: gan.D.eval()(shown, *told))) if gan.D is not None else "-"
    terms = ", ".join(f"{k} {v['weight']:g}" for k, v in settings["terms"].items())
    score = measured.get(path.stem, {})
    return [
        f"`{path.stem}`", _first_comment(path), needs(settings["task"], noise and bool(told)),
        name_of(settings["loss"]), terms or "-", str(settings["n_critic"]),
        count(gan.G), count(gan.D), half(flops(lambda: gan.G.eval()(*start))), of_d,
        f"{score['value']:.2f} {score['name']}, {score['protocol']}" if score else "",
    ]  # fmt: skip


def main() -> None:
    stored = HOME / "docs" / "scores.json"
    measured = json.loads(stored.read_text()) if stored.exists() else {}
    columns = (
        "model=",
        "paper",
        "learns from",
        "loss",
        "terms",
        "n_critic",
        "G, million",
        "D, million",
        "G, GFLOPs",
        "D, GFLOPs",
        "score",
    )
    rows = [columns, ["---"] * len(columns), *(line(p, measured) for p in sorted(Path(CONF).glob("model/*.yaml")))]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    about = " ".join((__doc__ or "").split("\n\n")[1].split())
    text = f"# Models\n\nMade by `python benchmarks/catalogue.py` from the configs. {about}\n\n{table}\n\n"
    text += (
        "`python -m ganlab model=NAME data=cifar10` trains one that learns from images; [translate.md](translate.md) "
        "has pairs.\n"
    )
    (HOME / "docs" / "models.md").write_text(text)
    print(table)


if __name__ == "__main__":
    main()
