"""python -m ganlab.evaluate and python -m ganlab.compare, as users have them."""

import csv
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from composing import composed
from made import inception_file, noise_images
from test_cli import QUIET, ROOT, TINY, ganlab
from torchvision.utils import save_image

from ganlab import compare
from ganlab.evaluate import evaluate as evaluate_here
from ganlab.evaluate import resolved, self_test
from ganlab.files import Unavailable


def evaluate(*arguments, cwd, code=0):
    return ganlab(*arguments, cwd=cwd, code=code, module="ganlab.evaluate")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A sweep of two seeds and two learning rates, a run of another protocol, a broken one, and one without scores."""
    cwd = tmp_path_factory.mktemp("home")
    short = [*TINY, "max_kimg=1", "metrics.every=1", "metrics.n=100", "data.size=16", "logger=csv"]
    ganlab("-m", "seed=1,2", "optimizer.lr=1e-3,1e-4", *short, "hydra.sweep.dir=runs/sweep", cwd=cwd)
    ganlab(*short, "metrics.n=120", "hydra.run.dir=runs/other", cwd=cwd)
    ganlab(*TINY, "max_kimg=0.1", "data.size=16", *QUIET, "hydra.run.dir=runs/blind", cwd=cwd)
    (cwd / "runs" / "broken").mkdir()
    (cwd / "runs" / "broken" / "run.json").write_text("{}")
    return cwd


def test_a_generator_is_scored_over_seeds_and_the_results_are_kept(home):
    run = home / "runs" / "sweep" / "0"
    text = evaluate(
        f"fakes={run}", "data=digits", "scores=[fid,prdc,is]", "scores.is.splits=2", "n=150", "seeds=[0,1]", cwd=home
    )
    (path,) = (run / "evaluations").iterdir()
    results = json.loads(path.read_text())
    evaluate(f"fakes={run}/checkpoints/last.ckpt", "data=digits", "n=150", cwd=home)
    assert len(list((run / "evaluations").iterdir())) == 2  # nothing is written over
    assert [r["seed"] for r in results] == [0, 1]
    assert results[0]["scores"] != results[1]["scores"]
    for name in ("fid150_classifier", "precision150_classifier", "is_std150_classifier"):
        assert name in text
        assert name in results[0]["scores"]
    told = results[0]["protocol"]
    assert (told["n_fake"], told["fakes"], told["scores"]["prdc"]) == (
        150,
        "G_ema",
        {"reals": True, "k": 3, "k_coverage": 5},
    )
    assert told["kimg"] == pytest.approx(1, abs=0.05)
    assert "mean" in text
    assert "spread" in text
    twice = json.loads(path.read_text())
    evaluate(
        f"fakes={run}", "data=digits", "scores=[fid,prdc,is]", "scores.is.splits=2", "n=150", "seeds=[0,1]",
        "devices=2", "accelerator=cpu", f"output={home / 'two.json'}", cwd=home,
    )  # fmt: skip
    for one, two in zip(twice, json.loads((home / "two.json").read_text()), strict=True):
        assert two["scores"] == pytest.approx(one["scores"], rel=1e-6)
    text = evaluate(
        f"fakes={run}", "data=digits", "n=150", "generator=G", "split=test", f"output={home}/G.json", cwd=home
    )
    other = json.loads((home / "G.json").read_text())[0]
    assert other["protocol"]["fakes"] == "G"
    assert other["scores"]["fid150_classifier"] != results[0]["scores"]["fid150_classifier"]
    assert "Digits test" in text


def test_images_are_scored_against_sets_folders_and_published_statistics(tmp_path):
    weights = f"extractor.weights={inception_file(tmp_path)}"
    x = noise_images(12, 24)
    (tmp_path / "a").mkdir()
    for i, image in enumerate(x):
        save_image(image / 255, tmp_path / "a" / f"{i:02}.png")
    shutil.make_archive(str(tmp_path / "b"), "zip", tmp_path / "a")
    np.savez(tmp_path / "c.npz", arr_0=(x // 2).permute(0, 2, 3, 1).numpy())
    common = [weights, "scores=[fid]", f"statistics={tmp_path / 'stats.npz'}"]
    text = evaluate("fakes=c.npz", "reals=b.zip", f"output={tmp_path / '1.json'}", *common, cwd=tmp_path)
    assert "12 images of array c.npz" in text
    evaluate("fakes=c.npz", "data=folder", "data.root=a", f"output={tmp_path / '2.json'}", weights, cwd=tmp_path)
    evaluate("fakes=c.npz", "reals=stats.npz", f"output={tmp_path / '3.json'}", weights, cwd=tmp_path)
    values = [json.loads((tmp_path / f"{i}.json").read_text())[0]["scores"]["fid12_inception"] for i in (1, 2, 3)]
    assert values[0] > 1
    assert values[1:] == pytest.approx([values[0]] * 2, rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "fakes is not set"),
        (["fakes=nowhere"], "fakes=nowhere: there is no such file or folder"),
        (["fakes=test"], "say which, as in data=cifar10"),
        (["fakes=grey.npz"], "nothing to compare with"),
        (
            ["fakes=grey.npz", "data=digits"],
            r"fakes are 1 channel\(s\) of 20x20 and the reals 1 channel\(s\) of 16x16",
        ),
        (["fakes=grey.npz", "reals=colour.npz"], r"the fakes are 1 channel\(s\) of 20x20 and the reals 3 channel\(s\)"),
        (["fakes=grey.npz", "reals=grey.npz", "n=5", "extractor=pixels"], "there are only 4 images"),
        (["fakes=grey.npz", "reals=grey.npz", "scores=[prdc]", "extractor=pixels"], "there are only 4"),
        (["fakes=grey.npz", "reals=grey.npz", "scores=[sfid]", "extractor=pixels"], "reads spatial"),
        (["fakes=grey.npz", "reals=small.npz", "extractor=pixels"], "made through another extractor"),
        (["fakes=grey.npz", "reals=grey.npz", "extractor.weights=grey.npz"], "can't be read as weights"),
        (["fakes=grey.npz", "reals=grey.npz", "extractor=clip", "extractor.net=vit"], "must be one of vit-b-32"),
        (["fakes=grey.npz", "generator=D"], "generator='D': must be G_ema or G"),
        (["fakes=run.ckpt", "data=digits"], "no such file"),
        (["fakes=grey.npz", "reals=grey.npz", "scores=[ppl]", "extractor=pixels"], "asks a generator"),
        (["fakes=grey.npz", "seeds=[]"], "must be a list of whole numbers"),
        (["fakes=grey.npz", "seeds=1"], "seeds=1: must be a list of a whole number"),
        (["fakes=grey.npz", "n=1"], "^n=1: must be a whole number from 2 to"),
        (["fakes=grey.npz", "truncation=0.5"], "truncation, standing, seeds and generator are for generators"),
        (["fakes=grey.npz", "standing=100"], "truncation, standing, seeds and generator are for generators"),
        (["fakes=grey.npz", "standing=-1"], "standing=-1: must be a whole number at least 0"),
        (["fakes=test", "data=digits", "split=valid"], "split='valid': must be train or test"),
        (["fakes=grey.npz", "devices=0"], "^devices=0"),
        (["fakes=grey.npz", "accelerator=gpu"], "there is no GPU here"),
        (
            ["fakes=grey.npz", "reals=grey.npz", "extractor=pixels", "scores=[vendi]", "statistics=s.npz"],
            "scores=.fid.",
        ),
        (["fakes=grey.npz", "reals=flat.npz", "scores=[memorization]", "extractor=pixels"], "serve for FID alone"),
        (["fakes=colour.npz", "reals=labelled", "extractor=classifier", "scores=[intra_fid]"], "reads labels"),
    ],
)
def test_what_can_not_be_evaluated_is_refused_with_the_reason(arguments, message, tmp_path, monkeypatch):
    for name, channels in (("grey", 1), ("colour", 3)):
        np.savez(tmp_path / f"{name}.npz", arr_0=noise_images(4, 20, 0, channels).permute(0, 2, 3, 1).numpy())
    np.savez(tmp_path / "small.npz", mu=np.zeros(4), sigma=np.eye(4))
    np.savez(tmp_path / "flat.npz", mu=np.zeros(400), sigma=np.eye(400))
    for i, image in enumerate(noise_images(8, 20, 0, 1)):
        (tmp_path / "labelled" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        save_image(image / 255, tmp_path / "labelled" / "ab"[i % 2] / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path))
    settings = resolved(composed(*arguments, name="evaluate"))
    with pytest.raises((ValueError, Unavailable), match=message):
        evaluate_here(settings)


def test_the_self_test_says_why_it_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    arguments = [f"extractor.weights={tmp_path / 'none.pth'}", f"paths.data={tmp_path}", "accelerator=cpu"]
    settings = resolved(composed(*arguments, name="evaluate"))
    assert self_test(settings).startswith("skipped: ")


# ------------------------------------------------------------------------------------------------------------- compare


def test_runs_are_compared_over_seeds_under_one_protocol(home):
    out = [f"--{kind}={home / name}" for kind, name in (("markdown", "t.md"), ("csv", "t.csv"), ("html", "t.html"))]
    done = subprocess.run(
        [sys.executable, "-m", "ganlab.compare", "runs/sweep", "runs/other", "runs/blind", "runs/broken", *out],
        cwd=home, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "runs/broken: it did not end" in done.stderr
    assert "runs/blind: it has no score" in done.stderr
    assert compare.SEVERAL in done.stdout
    with open(home / "t.csv") as file:
        rows = list(csv.DictReader(file))
    pairs = [row for row in rows if row["seeds"] == "2"]
    assert {row["run"] for row in pairs} == {"dcgan digits optimizer.lr=0.001", "dcgan digits optimizer.lr=0.0001"}
    assert [row["run"] for row in rows if row not in pairs] == ["dcgan digits"]
    assert float(pairs[0]["final mean"]) < float(pairs[1]["final mean"])  # the better first
    results = [json.loads(p.read_text()) for p in (home / "runs" / "sweep").glob("*/result.json")]
    fast = [r for r in results if "optimizer.lr=0.001" in r["overrides"]]
    row = next(r for r in rows if r["run"].endswith("0.001"))
    assert float(row["final mean"]) == pytest.approx(np.mean([r["final"] for r in fast]))
    assert float(row["final spread"]) == pytest.approx(np.std([r["final"] for r in fast], ddof=1))
    assert float(row["best mean"]) == pytest.approx(np.mean([r["best"] for r in fast]))
    page = (home / "t.html").read_text()
    assert page.count("<img") == 3
    assert "http" not in page.replace("http://www.w3.org", "")  # it needs nothing from elsewhere
    assert "| run | seeds |" in (home / "t.md").read_text()


def test_what_is_not_a_number_comes_last(home, tmp_path, capsys):
    for name, value in (("good", 5.0), ("broken", float("nan"))):
        for seed in (1, 2):
            folder = tmp_path / name / str(seed)
            shutil.copytree(home / "runs" / "sweep" / "0", folder)
            result = json.loads((folder / "result.json").read_text()) | {"final": value, "best": value}
            (folder / "result.json").write_text(json.dumps(result | {"overrides": [f"loss={name}"]}))
            config = (folder / "config.yaml").read_text().replace("seed: 1", f"seed: {seed}")
            (folder / "config.yaml").write_text(config.replace("n_critic: 1", f"n_critic: {len(name)}"))
    compare.main([str(tmp_path)])
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "fid100" in line]
    assert ["good" in line[2] for line in lines] == [True, False]
    assert "nan" in lines[1]
    shutil.copytree(tmp_path / "good" / "1", tmp_path / "good" / "again")
    compare.main([str(tmp_path / "good")])
    told = capsys.readouterr()
    assert "seed 1 was run more than once" in told.err
    assert "  2      fid100" in told.out  # two seeds, not three


def test_processes_that_others_started_score_together(tmp_path):
    np.savez(tmp_path / "x.npz", arr_0=noise_images(12, 16).permute(0, 2, 3, 1).numpy())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    arguments = ["fakes=x.npz", "reals=x.npz", "extractor=pixels", "scores=[prdc]", "accelerator=cpu"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "ganlab.evaluate", *arguments], cwd=tmp_path, env=env, check=True, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.stdout.count("precision12_pixels  1") == 1  # one table


def test_nothing_to_compare_is_said(tmp_path):
    with pytest.raises(SystemExit, match="no finished run with a score"):
        compare.main([str(tmp_path)])


def test_torch_is_not_needed_to_say_how_compare_is_used():
    code = "import sys, ganlab.compare; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
