"""Limits of size and shape that `make check` holds; who may import whom is import-linter's."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
FILES = sorted((SRC / "crosstune").rglob("*.py"))
MAX_LINES, MAX_BODY, MAX_ARGUMENTS = 400, 40, 6


def module_of(path: Path) -> str:
    """Return the module of a file, without the package's name."""
    parts = path.relative_to(SRC / "crosstune").with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function's body, its docstring left out."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_files_and_functions_stay_small(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= MAX_LINES
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert body_lines(node) <= MAX_BODY, node.name
            arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
            names = [a.arg for a in arguments if a.arg not in ("self", "cls")]
            assert len(names) <= MAX_ARGUMENTS, node.name


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_only_the_command_line_imports_our_own_package_late(path: Path) -> None:
    if module_of(path).startswith("cli"):
        return
    late = [
        name
        for function in ast.walk(parse(path))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for name in imports_of(function)
        if name.startswith("crosstune")
    ]
    assert late == []


def imports_of(tree: ast.AST) -> set[str]:
    """Return the modules that the code below a node imports."""
    nodes = list(ast.walk(tree))
    names = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
    return names | {n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module}


def test_our_own_classes_are_not_stacked() -> None:
    ours = {n.name: n for p in FILES for n in ast.walk(parse(p)) if isinstance(n, ast.ClassDef)}
    stacked = [
        f"{name}({base.id})"
        for name, node in ours.items()
        for base in node.bases
        if isinstance(base, ast.Name) and base.id in ours
        if any(isinstance(b, ast.Name) and b.id in ours for b in ours[base.id].bases)
        and ours[base.id].name != "RunError"
    ]
    assert stacked == []


def test_every_module_says_what_lives_in_it() -> None:
    silent = [module_of(p) for p in FILES if not ast.get_docstring(parse(p))]
    assert silent == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("tasks/prediction.py", "import crosstune.training.train"),
        ("reporting/records.py", "import torch"),
        ("reporting/html/page.py", "import crosstune.training.results"),
        ("config/paths.py", "import hydra_plugins.crosstune_pool"),
    ],
)
def test_an_import_against_the_layers_fails_the_check(file: str, line: str, tmp_path: Path) -> None:
    shutil.copytree(SRC, tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(SRC.parent / "pyproject.toml", tmp_path)
    planted = tmp_path / "src" / "crosstune" / file
    planted.write_text(planted.read_text("utf-8") + f"\n{line}\n", "utf-8")
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "BROKEN" in done.stdout
    assert planted.relative_to(tmp_path / "src").stem in done.stdout
