"""The plan of the house, held against the code: who may import whom, and how big things may be."""

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
FILES = sorted((SRC / "crosstune").rglob("*.py"))

# A file imports only from levels below its own. A folder's entry stands for all files in it.
LEVELS = [
    {"__init__", "schema", "errors", "whole", "conf", "asked", "importing"},
    {"manual", "mapped", "words", "forking", "pool", "products", "fused", "fused.meeting"},
    {
        "languages",
        "build",
        "record",
        "cost",
        "locks",
        "failures",
        "data.split",
        "data.encoded",
        "data.findings",
        "tagspans",
        "dropout",
        "fused.folding",
        "fused.settings",
    },
    {"metrics.rates", "tasks.prediction", "data.readers.files", "data.demo_grammars", "plans"},
    {"metrics", "tasks.pieces", "tasks.passages", "tasks.texts"},
    {"metrics.answers", "metrics.classes", "metrics.correlation", "metrics.overlap"},
    {"metrics.spans", "metrics.tokens", "metrics.words", "data.readers.tables", "values"},
    {"config", "data.readers.brat", "data.readers.conll", "data.readers.conllu"},
    {"data.readers.hub", "data.readers.markers", "data.readers.parallel", "data.readers.squad"},
    {"data.readers.clue", "data.readers.tacred"},
    {"data.readers.text", "data.demo_en", "data.demo_es", "data.demo_zh", "telling", "ranks"},
    {"launching"},
    {"data.readers", "data.demo", "data.splits", "tokenizers"},
    {"tasks.task", "tasks.schemes", "tasks.masking", "tasks.verbalizers", "tasks.boundary"},
    {"data.standin", "athand"},
    {"identity", "data.duplicates", "tasks.crf", "tasks.multilabel"},
    {"data.checks", "tuning", "tasks.lines", "fused.groups"},
    {"tasks.classification", "tasks.extraction", "tasks.generation", "tasks.masked_lm"},
    {"tasks.cloze", "tasks.entailment", "tasks.regression", "tasks.relation", "tasks.tagging"},
    {"tasks", "sweep", "methods.registry", "methods.anatomy"},
    {"data.batching", "models", "methods.bitfit", "methods.adapters", "data"},
    {"methods.adalora", "methods.bottleneck", "methods.prompts"},
    {"methods.madx", "unpadding"},
    {"features", "compiling"},
    {"data.module", "methods", "tracking", "callbacks", "prepare", "examine", "items"},
    {"learner", "saved", "inputs", "mirror"},
    {"checkpoints", "outcome"},
    {"card", "run", "together"},
    {"job", "fused.step"},
    {"worker", "tune", "predict", "export", "fused.company"},
    {"serve"},
    {"cli"},
    {"__main__"},
]
HEAVY = {"torch", "transformers", "pytorch_lightning", "peft", "torchmetrics"}
MAX_LINES, MAX_BODY, MAX_ARGUMENTS, MAX_METHODS = 300, 40, 6, 10


def module_of(path: Path) -> str:
    """Return the module of a file, without the package's name."""
    parts = path.relative_to(SRC / "crosstune").with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def imports_of(tree: ast.AST) -> set[str]:
    """Return the modules of ours that a file imports, without the package's name."""
    found: set[str] = set()
    known = {module_of(path) for path in FILES}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {
                f"{node.module}.{a.name}"
                if f"{node.module}.{a.name}".removeprefix("crosstune.") in known
                else node.module
                for a in node.names
            }
    return {name.removeprefix("crosstune.") for name in found if name.startswith("crosstune.")}


def level_of(module: str) -> int:
    """Return the level of a module."""
    for number, level in enumerate(LEVELS):
        if module in level:
            return number
    raise AssertionError(f"{module} stands on no level: put it into LEVELS")


def breaches(module: str, tree: ast.AST) -> list[str]:
    """Return the imports of a file that do not lead downwards."""
    if module.startswith("analysis"):
        allowed = {"errors", "record", "whole", "languages", "tagspans"}
        mine = imports_of(tree)
        return [name for name in mine if not name.startswith("analysis") and name not in allowed]
    own = level_of(module)
    return [
        name
        for name in imports_of(tree)
        if (not name.startswith("analysis") and level_of(name) >= own)
        or (name.startswith("analysis") and module != "cli")
    ]


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_lead_downwards(path: Path) -> None:
    assert breaches(module_of(path), parse(path)) == []


def test_an_import_that_leads_upwards_is_found() -> None:
    assert breaches("schema", ast.parse("from crosstune.run import train")) == ["run"]
    assert breaches("analysis.frame", ast.parse("import crosstune.models")) == ["models"]


def test_analysis_has_no_cycles() -> None:
    graph = {module_of(p): imports_of(parse(p)) for p in FILES if "analysis" in p.parts}
    done: set[str] = set()
    while ready := {m for m, uses in graph.items() if uses & set(graph) <= done} - done:
        done |= ready
    assert done == set(graph)


@pytest.mark.parametrize("path", [p for p in FILES if "analysis" in p.parts], ids=module_of)
def test_analysis_imports_nothing_heavy(path: Path) -> None:
    tree = parse(path)
    roots = {
        a.name.partition(".")[0]
        for n in ast.walk(tree)
        if isinstance(n, ast.Import)
        for a in n.names
    }
    roots |= {
        n.module.partition(".")[0]
        for n in ast.walk(tree)
        if isinstance(n, ast.ImportFrom) and n.module
    }
    assert not roots & HEAVY


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_only_the_command_line_imports_our_own_package_late(path: Path) -> None:
    if module_of(path) == "cli":
        return
    late = [
        name
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for name in imports_of(node)
    ]
    assert late == []


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_files_functions_and_classes_stay_small(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= MAX_LINES
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert body_lines(node) <= MAX_BODY, node.name
            names = [
                a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
            ]
            counted = [name for name in names if name not in ("self", "cls")]
            assert len(counted) <= MAX_ARGUMENTS, node.name
        if isinstance(node, ast.ClassDef) and node.name not in LIBRARY_SHAPED:
            is_kind = any(isinstance(base, ast.Name) and base.id == "Task" for base in node.bases)
            public = [
                n.name
                for n in node.body
                if isinstance(n, ast.FunctionDef) and not n.name.startswith("__")
                if not (is_kind and n.name in HOOKS)
            ]
            assert len(public) <= MAX_METHODS, node.name


# The library asks these for one method a hook, or a protocol lists what others offer.
LIBRARY_SHAPED = {"Learner", "CostMeter", "Task"}
(TASK,) = (
    node
    for node in ast.walk(parse(SRC / "crosstune" / "tasks" / "task.py"))
    if isinstance(node, ast.ClassDef)
)
HOOKS = {node.name for node in TASK.body if isinstance(node, ast.FunctionDef)} | {"from_rows"}


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function's body, its docstring left out."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


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
