"""Scores of text generators beside real texts: python -m benchmarks.text RUN [RUN ...]

All runs are of the same texts. Of each run's G_ema, 2,000 samples: BLEU against held-out texts, and of those against
the samples; the share that is new; the likelihood under a language model of held-out texts; and how likely G itself
holds the held-out texts, in nats per symbol. Then the same of as many real texts, which is what a perfect generator
would get: BLEU and likelihood of training texts, as held-out ones are what is compared with; what is new, of held-out
texts.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

from ganlab.metrics.scorer import Scorer, chosen_of
from ganlab.metrics.scores import Kept
from ganlab.metrics.text import lengths
from ganlab.settings import made
from ganlab.sharing import load

N = 2000


@torch.no_grad()
def own_nll(G: Any, tokens: torch.Tensor) -> float:
    """Of texts under G itself, in nats per symbol, their ends included."""
    log_p = torch.cat([G.log_prob(part) for part in tokens.split(500)])
    return -(log_p.sum() / (lengths(tokens) + 1).clamp(max=tokens.shape[1]).sum()).item()


def row(name: str, values: dict[str, float], more: str) -> str:
    return f"| {' | '.join([name, *(f'{v:.3f}' for v in values.values()), more])} |"


def main() -> None:
    runs = [Path(run) for run in sys.argv[1:]]
    config = yaml.safe_load((runs[0] / "config.yaml").read_text())
    data, extractor = made(config["data"]), made(config["extractor"])
    scorer = Scorer(extractor, {name: made(node) for name, node in config["scores"].items()}, n=N)
    shape, cpu = data.facts()["shape"], torch.device("cpu")
    extractor.prepare(data)
    reference = scorer.reals(data, data.reference, cpu)
    held = data.split("test").real
    print(f"| run | {' | '.join(scorer.names)} | own nll, held-out | seconds |")
    print(f"|{'---|' * (len(scorer.names) + 3)}")
    for run in runs:
        sampler, result = load(run / "checkpoints" / "last.ckpt"), json.loads((run / "result.json").read_text())
        values = scorer.score(scorer.looking_at(sampler), shape, reference, cpu)
        print(row(run.name, values, f"{own_nll(sampler.G, held):.3f} | {result['seconds']:.0f}"), flush=True)
    trained, unseen = (of_reals(scorer, data.split(split).real, shape, reference) for split in ("train", "test"))
    own = list(zip(trained.items(), unseen.items(), strict=True))  # where fewer are held out, names tell how many
    print(row("real texts", {k: v if k.startswith(("new", "different")) else t for (_, t), (k, v) in own}, " | "))


def of_reals(scorer: Scorer, real: torch.Tensor, shape: list[int], reference: Kept) -> dict[str, float]:
    scorer.n = min(N, len(real))
    chosen = real[chosen_of(len(real), scorer.n)]
    return scorer.score(lambda first, n: {"real": chosen[first : first + n]}, shape, reference, torch.device("cpu"))


if __name__ == "__main__":
    main()
