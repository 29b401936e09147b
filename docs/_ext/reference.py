"""Directives that write reference tables from `conf/` and `config/schema.py` while Sphinx builds.

`{methods}`: what each file of `conf/method` says. `{published-tables}`: the tables of `conf/table`
and the headers of their recipes. `{options}`: every option of the schema.
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from crosstune.config import schema
from crosstune.config.paths import find_conf
from crosstune.config.schema import MISSING, OPTIONS, Option, Run

_LINK = re.compile(r"https://[^\s),]+[^\s),.;]")
_COMMAND = re.compile(r"crosstune [a-z]+ [^;]*[^;\s]")
_KEYS = ("Run", "Fill", "Rehearse", "Cost", "Licence", "Expected", "Departs")


def read_header(path: Path) -> str:
    """Return the comment at the top of a YAML file as one line of text."""
    lines = path.read_text("utf-8").splitlines()
    lines = lines[1:] if lines[0].startswith("# @package") else lines
    end = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return " ".join(line.removeprefix("#").strip() for line in lines[:end])


def escape(text: str) -> str:
    r"""Return text as Markdown shows it literally, but with its addresses as links.

    >>> escape("a|b {x} (He 2022, https://example.org/y).")
    'a\\|b \\{x\\} (He 2022, <https://example.org/y>).'
    """
    parts = re.split(r"(`[^`]+`)", text)  # code stays as it is
    parts[::2] = [re.sub(r"([\\`*_{}\[\]<>|$~])", r"\\\1", part) for part in parts[::2]]
    escaped = "".join(parts)
    return _LINK.sub(lambda link: "<" + re.sub(r"\\(.)", r"\1", link[0]) + ">", escaped)


def write_methods() -> str:
    """Return a section for each method: what it is, its paper, its default rate, its options."""
    parts = []
    for path in sorted((find_conf() / "method").glob("*.yaml")):
        method = yaml.safe_load(path.read_text("utf-8"))
        parts += [f"## {method['name']}", escape(read_header(path))]
        facts = {"default learning rate": f"`{float(method['learning_rate']):g}`"}
        if targets := method.get("targets"):
            facts["adapted modules"] = f"`{targets}`"
        if layers := method.get("layers"):
            facts["fully trained layers"] = f"the last {layers}"
        options = dict(method.get("peft") or {})
        if target := options.pop("_target_", ""):
            facts["implementation"] = f"`{target}`"
        if options:
            facts["options, below `method.peft`"] = ", ".join(
                f"`{key}: {json.dumps(value)}`" for key, value in options.items()
            )
        parts.append("\n".join(f"- {name}: {value}" for name, value in facts.items()))
    return "\n\n".join(parts)


def write_published_tables() -> str:
    """Return a section for each table of `conf/table`, with what its recipe's header says."""
    parts = []
    for path in sorted((find_conf() / "table").glob("*.yaml")):
        table = yaml.safe_load(path.read_text("utf-8"))
        recipe = find_conf() / "experiment" / path.name
        header = read_header(recipe if recipe.is_file() else path)
        title, *facts = re.split(rf"\s*\b({'|'.join(_KEYS)}): ", header)
        parts += [f"## {path.stem}", escape(title)]
        parts.append("Numbers and their sources: " + ", ".join(map(_code, _list_sources(table))))
        for key, text in zip(facts[::2], facts[1::2], strict=True):
            commands = _COMMAND.findall(text) if key in ("Run", "Fill", "Rehearse") else []
            code = "\n\n```bash\n" + "\n".join(commands) + "\n```" if commands else ""
            parts.append(f"**{key}:**{code}" if code else f"**{key}:** {escape(text)}")
    return "\n\n".join(parts)


def _list_sources(table: dict[str, Any]) -> list[str]:
    named = table.get("published")
    names = named if isinstance(named, list) else [named]
    return [f"conf/published/{name}.yaml" for name in names if name]


def _code(text: str) -> str:
    return f"`{text}`"


def write_options() -> str:
    """Return a table of options for the root and for each group of the schema."""
    groups = {"": Run} | {
        field.name: field.type for field in fields(Run) if is_dataclass(field.type)
    }
    parts = []
    for group, owner in groups.items():
        parts.append(f"## {group or 'The run itself'}")
        hints = get_type_hints(owner)
        keys = [key for key in OPTIONS if key.rpartition(".")[0] == group]
        rows = [_write_option(key, hints[key.rpartition(".")[2]], OPTIONS[key]) for key in keys]
        header = ("option", "type", "default", "bounds", "what it is", "changes the result")
        parts.append("\n".join(_write_table(header, rows)))
    return "\n\n".join(parts)


def _write_option(key: str, hint: Any, facts: Option) -> tuple[str, ...]:
    kind = "one of " + ", ".join(hint.__members__) if _is_enum(hint) else _name_type(hint)
    default = facts.default.name if isinstance(facts.default, Enum) else facts.default
    shown = default if isinstance(default, str) else json.dumps(default)
    bounds = [
        f"{sign} {bound:g}" if bound < 10**6 else f"{sign} {bound:,.0f}"
        for sign, bound in (("≥", facts.minimum), (">", facts.exclusive_minimum))
        if bound is not None
    ]
    bounds += [f"≤ {facts.maximum:,.0f}"] if facts.maximum is not None else []
    bounds += ["one of " + ", ".join(facts.allowed)] if facts.allowed else []
    # a path changes no result, what it leads to does; `data.root` is part of run ids all the same
    changes = "its content" if facts.is_path and key != "data.root" else "yes"
    changes = changes if facts.changes_result else "no"
    given = "*(must be set)*" if default == MISSING else f"`{shown}`"
    return (
        f"`{key}`",
        escape(kind),
        given,
        escape(", ".join(bounds)),
        escape(facts.sentence),
        changes,
    )


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Enum)


def _name_type(hint: Any) -> str:
    name = hint.__name__ if isinstance(hint, type) and "[" not in str(hint) else str(hint)
    return name.replace("typing.", "").replace(" | None", ", or null").replace("Any", "any")


def _write_table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    names = list(header)
    lines = [names, ["---"] * len(names), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _make_directive(write: Callable[[], str], folders: tuple[str, ...]) -> type[SphinxDirective]:
    """Return a directive that puts what `write` returns in its place.

    The page is built again where a file of the folders of `conf/`, or the schema, has changed.
    """

    class Generated(SphinxDirective):
        def run(self) -> list[nodes.Node]:
            sources = [path for name in folders for path in (find_conf() / name).glob("*.yaml")]
            for path in [*sources, Path(schema.__file__), Path(__file__)]:
                self.env.note_dependency(str(path))
            return self.parse_text_to_nodes(write(), allow_section_headings=True)

    return Generated


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    for name, write, folders in (
        ("methods", write_methods, ("method",)),
        ("published-tables", write_published_tables, ("table", "experiment")),
        ("options", write_options, ()),
    ):
        app.add_directive(name, _make_directive(write, folders))
    return {"parallel_read_safe": True}
