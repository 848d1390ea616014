"""The house rules: import order, numbers, packaging, and a README whose examples run."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from examples import blocks, commands
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "ancestral"
README = ROOT / "README.md"

# Imports only ever point up this list.
LAYERS = (
    *("spec", "symbols", "files", "core", "draw", "families", "data", "causal", "networks", "latent", "objectives", "walking"),
    *("sampling", "evaluation", "coding", "bench", "models", "hub", "training", "testing", "report", "web", "cli", "__main__"),
)
LONGEST_FILE, LONGEST_FUNCTION = 400, 60  # lines; a function's docstring is not counted


def sources(*folders: Path) -> dict[Path, ast.Module]:
    """The syntax tree of every Python file under the folders."""
    return {path: tree(path) for folder in folders for path in sorted(folder.rglob("*.py"))}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sources(PACKAGE)}


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything a file imports, at its top, inside functions or for type checkers only."""
    name = module_name(path)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)


def layer_of(name: str) -> str:
    """The second word of a dotted module name: ``ancestral.causal.layer`` belongs to causal."""
    return name.split(".")[1] if "." in name else ""


def import_faults(path: Path) -> Iterator[str]:
    layer = layer_of(module_name(path))
    where = path.relative_to(ROOT)
    if layer not in LAYERS:
        yield f"{where}: {layer!r} is not in LAYERS; give it its place there"
        return
    for line, name in imported(path):
        top, target = name.split(".")[0], layer_of(name)
        if top in ("lightning", "pytorch_lightning") and layer != "training":
            yield f"{where}:{line}: only training/ imports Lightning"
        elif top == "ancestral" and target not in LAYERS:
            yield f"{where}:{line}: imports {name}; inside the package import from the module that defines it"
        elif top == "ancestral" and LAYERS.index(target) > LAYERS.index(layer):
            yield f"{where}:{line}: {layer} imports {target}, which is below it"


def test_imports_only_point_up() -> None:
    files = [path for name, path in MODULES.items() if name != "ancestral"]
    assert [fault for path in files for fault in import_faults(path)] == []


@pytest.mark.parametrize(
    ("layer", "statement", "good"),
    [
        ("causal", "from ancestral.core import State", True),
        ("causal", "from ancestral.causal.layer import Layer", True),
        ("causal", "from .layer import Layer", True),
        ("causal", "def f():\n    from ancestral import hub", False),
        ("causal", "import ancestral.training.fit", False),
        ("causal", "from ..networks import made", False),
        ("report", "from ancestral import load", False),
        ("report", "import ancestral", False),
        ("report", "import lightning.pytorch as pl", False),
        ("training", "import lightning.pytorch as pl", True),
        ("nowhere", "import math", False),
    ],
)
def test_the_import_rule_sees_faults(
    layer: str, statement: str, good: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "ancestral" / layer / "example.py"
    path.parent.mkdir(parents=True)
    path.write_text(statement)
    assert (list(import_faults(path)) == []) is good


def run(command: list[str], cwd: Path = ROOT, **environment: str) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_configurations_and_command_line_load_without_torch() -> None:
    probe = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    heavy = {"torch", "lightning"} & set(sys.modules)
    if heavy:
        sys.exit(f"importing {name} imports {' and '.join(sorted(heavy))}")
"""
    light = [name for name in MODULES if name in ("ancestral", "ancestral.spec", "ancestral.cli") or name.endswith("configs")]
    assert len(light) > 1
    run([sys.executable, "-c", probe, *light])


def functions(module: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function, its docstring not counted."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def bare_arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    every = function.args
    named = [*every.posonlyargs, *every.args, *every.kwonlyargs, *filter(None, (every.vararg, every.kwarg))]
    return [each.arg for each in named if each.annotation is None and each.arg not in ("self", "cls")]


def test_files_and_functions_are_short() -> None:
    faults = []
    for path, module in sources(PACKAGE, *(ROOT / name for name in ("tests", "benchmarks", "docs"))).items():
        where, lines = path.relative_to(ROOT), len(path.read_text(encoding="utf-8").splitlines())
        if lines > LONGEST_FILE:
            faults.append(f"{where} has {lines} lines")
        long = [function for function in functions(module) if length(function) > LONGEST_FUNCTION]
        faults += [f"{where}:{each.lineno}: {each.name} has {length(each)} lines" for each in long]
    assert faults == []


def test_every_argument_is_typed_and_nothing_is_asserted() -> None:
    faults = []
    for path, module in sources(PACKAGE).items():
        where = path.relative_to(ROOT)
        for function in functions(module):
            faults += [f"{where}:{function.lineno}: {function.name}({name}) has no type" for name in bare_arguments(function)]
        asserts = [node for node in ast.walk(module) if isinstance(node, ast.Assert)]
        faults += [f"{where}:{each.lineno}: raise an error that names cause and remedy instead of assert" for each in asserts]
    assert faults == []


def texts() -> Iterator[tuple[Path, str]]:
    """Every text file of the repository, whether or not git is there to list them."""
    trees = (PACKAGE, *(ROOT / name for name in ("tests", "benchmarks", "docs", ".ci")))
    files = [path for folder in trees for path in folder.rglob("*") if "__pycache__" not in path.parts]
    for path in sorted([*files, *ROOT.glob("*")]):
        if path.is_file() and path.name != ".git":
            data = path.read_bytes()
            if b"\0" not in data:
                yield path.relative_to(ROOT), data.decode("utf-8")


# Written so that no pattern matches itself.
UNFINISHED = re.compile(r"\b(T[O]DO|F[I]XME|X[X]X)\b")
MACHINE = re.compile(r"(?<![\w.~-])/(work|tmp|root)\b|pypi\.[o]rg|download\.[p]ytorch")


@pytest.mark.parametrize("pattern", [UNFINISHED, MACHINE], ids=["unfinished", "machine"])
def test_text_is_finished_and_names_no_machine(pattern: re.Pattern[str]) -> None:
    found = [(path, line) for path, text in texts() for line in text.splitlines() if pattern.search(line)]
    assert found == []


@cache
def project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_constraints_pin_what_the_project_asks_for() -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())
    assert not [pin for pin in pins.items() if not re.fullmatch(r"[\w.-]+==[\w.]+", "==".join(pin))]  # no +local build, no path
    table = project()["project"]
    assert isinstance(table, dict)
    asked = [
        *table["dependencies"],
        *(each for extra in ("audio", "docs", "tensorboard", "dev") for each in table["optional-dependencies"][extra]),
    ]
    requirements = [requirement for requirement in map(Requirement, asked) if requirement.name != "ancestral"]
    assert [str(each) for each in requirements if not each.specifier.contains(pins.get(each.name, "0"))] == []
    assert "ancestral" not in pins


def test_the_wheel_works_away_from_the_source_tree(tmp_path: Path) -> None:
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(ROOT)])
    [wheel] = (tmp_path / "dist").glob("*.whl")
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = [path.relative_to(ROOT) for path in PACKAGE.rglob("*") if path.is_file()]
    assert shipped == {str(path) for path in files if "__pycache__" not in path.parts}

    site = tmp_path / "site"
    run([sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", str(site), str(wheel)])
    probe = "import importlib, sys\nfor name in sys.argv[1:]: print(importlib.import_module(name).__file__)"
    lines = run([sys.executable, "-c", probe, *MODULES], cwd=tmp_path, PYTHONPATH=str(site)).split("\n")
    assert [line for line in lines if line and not Path(line).is_relative_to(site)] == []
    assert "train" in run([sys.executable, str(site / "bin" / "ancestral"), "--help"], cwd=tmp_path, PYTHONPATH=str(site))


PYTHON: dict[str, list[tuple[int, str]]] = {}
for _heading, _line, _text in blocks(README, "python"):
    PYTHON.setdefault(_heading, []).append((_line, _text))


COMMANDS = commands(README)


def test_the_readme_has_examples() -> None:
    assert PYTHON, "README.md has no Python example"
    assert COMMANDS, "README.md shows no ancestral command"


@pytest.mark.parametrize("heading", PYTHON)
def test_readme_python(heading: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks under one heading run in order in one namespace, as a user's would: float32, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    torch.set_default_dtype(torch.float32)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for line, text in PYTHON[heading]:
        exec(compile("\n" * line + text, str(README), "exec"), namespace)  # blank lines, so that tracebacks show README's own


@cache
def help_text(words: tuple[str, ...]) -> str:
    call = "import sys; from ancestral.cli import main; sys.exit(main())"
    return run([sys.executable, "-c", call, *words, "--help"], COLUMNS="200", NO_COLOR="1", TERM="dumb")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_readme_command(command: list[str]) -> None:
    """The command's own help exists and knows every option that the README gives it."""
    first = next((i for i, word in enumerate(command) if word.startswith("-")), len(command))
    text = help_text(tuple(command[:first]))
    options = {word.split("=")[0] for word in command[first:] if re.match(r"--?[a-z]", word)}
    assert {option for option in options if not re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text)} == set()
