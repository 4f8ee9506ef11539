"""How many clips are taken for the class that was asked for: python benchmarks/spoken_digits.py RUN [RUN ...]

Each RUN is a labelled run with data=sounds, as docs/sound.md has it. By the classifier of extractor=logmel, which is
trained on the run's training clips: the share of 2,000 clips of G_ema that it takes for the class that was asked for,
in all and class by class; the Frechet distance of them from the training clips; beside these the same of the
held-out clips, and of the held-out clips when each is asked for a class at random. Writes RUN/spoken.png: two real
clips of each class, and below them four that G_ema made.
"""

import json
import sys
from pathlib import Path

import torch
import yaml

from ganlab.checkpoint import Sampler, find
from ganlab.data.rounds import DataModule
from ganlab.media.sound import Sound
from ganlab.metrics.extractors import Classifier
from ganlab.metrics.fit import as_floats
from ganlab.metrics.frechet import frechet_distance
from ganlab.pictures import save_sheet
from ganlab.settings import made

N = 2000


def moments(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return features.double().mean(0), torch.cov(features.double().T)


class Judge:
    """The classifier of a run's config, and its table's rows."""

    def __init__(self, config: dict, data: DataModule):
        self.classifier: Classifier = made(config["extractor"])
        with torch.enable_grad():
            self.classifier.prepare(data)
        self.reals = moments(self.look(data.split("train").real)["features"])

    def look(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        parts = [self.classifier(part) for part in x.split(100)]
        return {k: torch.cat([part[k] for part in parts]) for k in ("features", "logits")}

    def row(self, name: str, x: torch.Tensor, label: torch.Tensor, *more: str) -> None:
        seen = self.look(x)
        right = (seen["logits"].argmax(1) == label).double()
        classes = " ".join(f"{right[label == c].mean():.0%}" for c in label.unique())
        fid = frechet_distance(*self.reals, *moments(seen["features"])).item()
        print(f"| {' | '.join([name, f'{right.mean():.1%}', classes, f'{fid:.1f}', *more])} |", flush=True)


@torch.no_grad()
def main(runs: list[Path]) -> None:
    for number, run in enumerate(runs):
        config = yaml.safe_load((run / "config.yaml").read_text())
        data, sampler = made(config["data"]), Sampler.load(find(str(run)) or "")
        judge, test, classes = Judge(config, data), data.split("test"), data.facts()["classes"]
        if number == 0:
            print(f"{judge.classifier.describe()}\n")
            print("| clips | recognised as asked | class by class | FID | kimg | seconds |")
            print("|---|---|---|---|---|---|")
            judge.row(f"{len(test)} held out", test.real, test.label, "", "")
            asked = torch.randint(classes, (len(test),), generator=torch.Generator().manual_seed(0))
            judge.row("the same, asked at random", test.real, asked, "", "")
        label = torch.arange(N) % classes
        fakes = torch.cat([sampler.generate(i, 100, 0, label[i : i + 100]) for i in range(0, N, 100)])
        seconds = json.loads((run / "result.json").read_text()).get("seconds", float("nan"))
        judge.row(f"G_ema, seed {config['seed']}", fakes, label, f"{sampler.kimg:g}", f"{seconds:.0f}")
        of_class = [(test.label == c).nonzero()[:2, 0] for c in range(classes)]
        shown = torch.cat([as_floats(test.real[torch.stack(of_class, 1).flatten()]), fakes[: 4 * classes]])
        pictures = torch.nn.functional.interpolate(Sound(data.facts()["rate"]).picture(shown), scale_factor=2)
        save_sheet(pictures, run / "spoken.png", classes, padding=2)


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
