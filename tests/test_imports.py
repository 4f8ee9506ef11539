"""The house rules, read from the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).parent.parent / "ganlab"
FILES = {str(p.relative_to(HOME)): ast.parse(p.read_text()) for p in sorted(HOME.rglob("*.py"))}
LEAVES = {
    f"ganlab.{name}"
    for name in ("columns", "files", "ranks", "recording", "rng", "schedule", "signals", "spectra", "weights")
}  # import one another only


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def own(tree):
    return {name for name in imports(tree) if name == "ganlab" or name.startswith("ganlab.")}


def outside(tree):
    return {name.split(".")[0] for name in imports(tree)} - set(sys.stdlib_module_names) - {"ganlab"}


def within(names, *packages):
    return all(any(n == p or n.startswith(p + ".") for p in packages) for n in names)


@pytest.mark.parametrize("file", [f for f in FILES if f.startswith(("models/", "nn/"))])
def test_models_know_tensors_only(file):
    assert within(own(FILES[file]), "ganlab.nn", "ganlab.phase")
    assert outside(FILES[file]) <= {"torch"}


@pytest.mark.parametrize(
    "file",
    [
        f
        for f in FILES
        if f in ("losses.py", "pool.py", "policy.py", "ema.py", "augment.py", "ada.py")
        or f.startswith(("terms/", "tasks/"))
    ],
)
def test_losses_terms_tasks_know_a_phase_only(file):
    more = {"ada.py": {"ganlab.nn.filters", "ganlab.augment"}, "pool.py": {"ganlab.losses"}}
    more["policy.py"] = more["pool.py"]
    more |= {f: {"ganlab.media", "ganlab.tasks"} for f in FILES if f.startswith("tasks/")}
    known = ("ganlab.phase", "ganlab.gradient", "ganlab.terms", *more.get(file, ()), *LEAVES)
    assert within(own(FILES[file]), *known)
    assert outside(FILES[file]) <= {"torch"} | ({"torchvision"} if file == "terms/content.py" else set())


@pytest.mark.parametrize("file", [f for f in FILES if f.startswith(("data/", "metrics/"))])
def test_data_and_metrics_stand_alone(file):
    assert within(own(FILES[file]), f"ganlab.{file.split('/')[0]}", *LEAVES)


@pytest.mark.parametrize("file", [f for f in FILES if f.startswith("callbacks/")])
def test_callbacks_know_metrics_and_checkpoints(file):
    assert within(
        own(FILES[file]) - {"ganlab"},
        "ganlab.callbacks",
        "ganlab.metrics",
        "ganlab.checkpoint",
        "ganlab.pictures",
        "ganlab.phase",
        *LEAVES,
    )


def test_degradations_know_random_numbers_only():
    assert within(own(FILES["degrade.py"]), *LEAVES)
    assert outside(FILES["degrade.py"]) <= {"torch", "torchvision"}


@pytest.mark.parametrize("file", [f for f in FILES if f.startswith("media/")])
def test_media_know_files_only(file):
    assert within(own(FILES[file]), "ganlab.media", *LEAVES)


def test_leaves_import_one_another_only():
    for leaf in LEAVES:
        assert own(FILES[leaf.removeprefix("ganlab.") + ".py"]) <= LEAVES


def test_gan_names_no_gan_and_asks_no_kind():
    text = (HOME / "gan.py").read_text()
    for name in ("ganlab.models", "wgan", "dcgan", "stylegan", "cyclegan"):
        assert name not in text.lower().replace('"""', "")
    calls = [
        n for n in ast.walk(FILES["gan.py"]) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "isinstance"
    ]
    assert {ast.unparse(c.args[1]) for c in calls} <= {
        "Mapping",
        "(list, tuple)",
    }  # of arguments and of what a loader serves


def attribute_calls(tree):
    return {n.func.attr for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)}


@pytest.mark.parametrize("file", FILES)
def test_only_the_step_steps(file):
    # in project.py the networks are frozen: what moves there is a latent
    if file not in ("gan.py", "metrics/fit.py", "project.py"):
        assert not attribute_calls(FILES[file]) & {"backward", "manual_backward", "zero_grad", "step"}
    if file != "gradient.py":
        assert "autograd.grad" not in (HOME / file).read_text()
        assert "torch.autograd" not in set(imports(FILES[file]))


@pytest.mark.parametrize("file", FILES)
def test_hydra_is_for_entries_only(file):
    entries = (
        "train.py",
        "sample.py",
        "evaluate.py",
        "project.py",
        "translate.py",
        "impute.py",
        "analyze.py",
        "balance.py",
        "baseline.py",
        "export.py",
        "pack.py",
        "check.py",
        "sweep.py",
        "search.py",
        "space.py",
        "entry.py",
    )
    if file not in (*entries, "settings.py"):
        assert not outside(FILES[file]) & {"hydra", "omegaconf"}


@pytest.mark.parametrize("file", FILES)
def test_nobody_reads_lightnings_step_counter(file):
    assert not any(isinstance(n, ast.Attribute) and n.attr == "global_step" for n in ast.walk(FILES[file]))


@pytest.mark.parametrize("file", FILES)
def test_files_are_short_and_say_what_they_are(file):
    assert len((HOME / file).read_text().splitlines()) <= 400
    assert Path(file).name != "utils.py"
    assert ast.get_docstring(FILES[file]) or file == "__main__.py"


@pytest.mark.parametrize("file", FILES)
def test_base_classes_have_one_abstract_method_at_most(file):
    for node in ast.walk(FILES[file]):
        if isinstance(node, ast.ClassDef):
            abstract = [
                f
                for f in node.body
                if isinstance(f, ast.FunctionDef) and "abstractmethod" in map(ast.unparse, f.decorator_list)
            ]
            assert len(abstract) <= 1


def code_lines(tree):
    """Lines of code: no blank ones, comments or docstrings."""
    lines = {
        line for node in ast.walk(tree) if hasattr(node, "lineno") for line in range(node.lineno, node.end_lineno + 1)
    }
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


@pytest.mark.parametrize(("file", "most"), [("gan.py", 150), ("train.py", 100)])
def test_the_core_can_be_read_in_one_sitting(file, most):
    text = (HOME / file).read_text().splitlines()
    code = [i for i in code_lines(FILES[file]) if text[i - 1].strip() and not text[i - 1].strip().startswith("#")]
    assert len(code) <= most


def test_nothing_heavy_is_imported_before_the_config_is_composed():
    """The command line answers at once."""
    heavy = "{'torch', 'lightning', 'numpy'} & set(sys.modules)"
    entries = "train", "sample", "project", "translate", "impute", "analyze", "export", "sweep", "baseline", "balance"
    entries += "search", "space", "pack"
    code = f"import sys, {', '.join(f'ganlab.{name}' for name in entries)}; print(*({heavy}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
