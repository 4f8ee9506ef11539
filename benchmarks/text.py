"""Scores of text generators beside real texts: python -m benchmarks.text RUN [RUN ...]

All runs are of the same texts. Of each run's G_ema, 2,000 samples: BLEU against held-out texts, and of those against the
samples; the share that is new; the likelihood under a language model of held-out texts; and how likely G itself holds
the held-out texts, in nats per symbol. Then the same of as many real texts: what a perfect generator would get. BLEU and
the likelihood are those of training texts, as held-out ones were learnt from or compared with; what is new in them, is of
held-out texts.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

from ganlab.metrics.scorer import Scorer, chosen_of
from ganlab.metrics.scores import Kept
from ganlab.settings import made
from ganlab.sharing import load

N = 2000


@torch.no_grad()
def own_nll(G: Any, tokens: torch.Tensor) -> float:
    """Of texts under G itself, in nats per symbol, their ends included."""
    log_p = torch.cat([G.log_prob(part) for part in tokens.split(500)])
    return -(log_p.sum() / (log_p != 0).sum()).item()


def row(name: list[str], values: dict[str, float], nll: str) -> str:
    return f"| {' | '.join([*name, *(f'{v:.3f}' for v in values.values()), nll])} |"


def main() -> None:
    runs = [Path(run) for run in sys.argv[1:]]
    config = yaml.safe_load((runs[0] / "config.yaml").read_text())
    data, extractor = made(config["data"]), made(config["extractor"])
    scorer = Scorer(extractor, {name: made(node) for name, node in config["scores"].items()}, n=N)
    shape, cpu = data.facts()["shape"], torch.device("cpu")
    extractor.prepare(data)
    reference = scorer.reals(data, data.reference, cpu)
    held = data.split("test").real
    print(f"| model | seed | {' | '.join(scorer.names)} | own nll, held-out | s per kimg |")
    print(f"|{'---|' * (len(scorer.names) + 4)}")
    for run in runs:
        config, sampler = yaml.safe_load((run / "config.yaml").read_text()), load(run / "checkpoints" / "last.ckpt")
        name = [config["hydra_model"] if "hydra_model" in config else run.name, str(config["seed"])]
        values = scorer.score(scorer.looking_at(sampler), shape, reference, cpu)
        seconds = json.loads((run / "result.json").read_text()).get("seconds_per_kimg", float("nan"))
        print(row(name, values, f"{own_nll(sampler.G, held):.3f} | {seconds:.2f}"), flush=True)
    of = lambda split: (
        lambda first, count: {"real": (x := data.split(split).real)[chosen_of(len(x), N)[first : first + count]]}
    )
    trained, unseen = (scored(scorer, of(split), shape, reference) for split in ("train", "test"))
    values = trained | {k: v for k, v in unseen.items() if k.startswith(("new", "different"))}
    print(row(["real texts", ""], values, " | "))


def scored(scorer: Scorer, look: Any, shape: list[int], reference: Kept) -> dict[str, float]:
    n = min(N, len(look(0, N)["real"]))
    scorer.n = n
    return scorer.score(look, shape, reference, torch.device("cpu"))


if __name__ == "__main__":
    main()
