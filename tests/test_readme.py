"""What the README shows works as it stands there."""

import re
import runpy
import shlex
from pathlib import Path

import pytest
from composing import composed

from ganlab import compare, search
from ganlab.conf import CONF
from ganlab.space import split

HOME = Path(__file__).parent.parent
README = (HOME / "README.md").read_text()
PAGES = [README, *(path.read_text() for path in sorted((HOME / "docs").glob("*.md")))]
BLOCKS = [block for page in PAGES for block in re.findall(r"```(\w+)\n(.*?)```", page, re.DOTALL)]
COMMANDS = [
    shlex.split(line, comments=True)[2:]
    for kind, block in BLOCKS
    for line in block.splitlines()
    if kind == "bash" and line.startswith("python -m ganlab")
]


def test_the_two_commands_stand_at_the_top():
    first = README.index("In a clone, in a fresh virtual environment:")
    assert first < 600
    lines = README[first:].splitlines()[3:5]
    assert lines == ["pip install -e . && python -m ganlab", 'pip install -e ".[dev]" && pytest']


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_compose(command):
    module, *arguments = command
    if module == "ganlab.compare":
        compare.parser().parse_args(arguments)
    elif module == "ganlab.search":
        own, runs = search.divided(arguments)
        spaces = composed(*own, name="search").space
        fixed, space, _ = split([*(f"{key}={values}" for key, values in spaces.items()), *runs])
        assert space
        composed(*fixed, *(f"{key}={dimension.values[0]}" for key, dimension in space.items()))
    elif "--help" not in command and "--config-dir" not in command:
        overrides = [c for c in arguments if c != "-m"]
        first = [c.split(",")[0] + ("]" if "[" in c and "]" not in c.split(",")[0] else "") for c in overrides]
        composed(*first, name=module.partition(".")[2] or "train")


def test_there_are_commands():
    assert len(COMMANDS) >= 20


def test_plain_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (example,) = (block for kind, block in BLOCKS if kind == "python" and "from ganlab import GAN" in block)
    (tmp_path / "example.py").write_text(example)
    result = runpy.run_path(str(tmp_path / "example.py"))
    assert result["points"].shape == (100, 2)
    assert result["gan"].seen == 2 * 4096


def test_own_generator_works(tmp_path, monkeypatch):
    """The README's own-GAN example composes, builds and makes images."""
    import sys

    import yaml
    from hydra import compose, initialize_config_dir

    from ganlab.settings import made

    code = next(block for kind, block in BLOCKS if kind == "python" and "class Generator(nn.Sequential)" in block)
    config = next(block for kind, block in BLOCKS if kind == "yaml")
    (tmp_path / "mygan.py").write_text(code)
    (tmp_path / "my_conf" / "model").mkdir(parents=True)
    (tmp_path / "my_conf" / "model" / "mine.yaml").write_text(config)
    monkeypatch.syspath_prepend(str(tmp_path))
    with initialize_config_dir(version_base="1.3", config_dir=CONF):
        cfg = compose("train", [f"hydra.searchpath=[file://{tmp_path / 'my_conf'}]", "model=mine"])
    assert cfg.loss._target_ == "ganlab.losses.Hinge"
    generator = yaml.safe_load(config)["generator"] | {"shape": [1, 16, 16]}
    import torch

    assert made(generator)(torch.randn(2, 64)).shape == (2, 1, 16, 16)
    sys.modules.pop("mygan")
