"""Results on disk: a JSON file with all figures, and its tables as Markdown.

One a day, a machine and a size: tables measured earlier that day stay, unless measured anew.
"""

import json
from pathlib import Path
from typing import Any

from pairs import show_table

MARK = "<!-- below: written by bench.py --whole -->"


def write_results(folder: Path, kind: str, result: dict[str, Any]) -> Path:
    """Write the figures and tables beside those of that day; return the path of the tables."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result['machine']['date']}-{kind}.json"
    known = json.loads(path.read_text("utf-8"))["tables"] if path.is_file() else {}
    result = {**result, "tables": {**known, **result["tables"]}}
    path.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", "utf-8")
    tables = path.with_suffix(".md")
    tables.write_text(render(result), "utf-8")
    return tables


def render(result: dict[str, Any]) -> str:
    """Return the tables of a result as Markdown, with what they were measured on.

    >>> table = {"title": "T", "columns": ["a"], "rows": [{"a": 1}], "note": "N."}
    >>> print(render({"machine": {"cores": 2}, "tables": {"one": table}}))
    cores 2
    <BLANKLINE>
    ### T
    <BLANKLINE>
    | a |
    | --- |
    | 1 |
    <BLANKLINE>
    N.
    <BLANKLINE>
    """
    parts = [", ".join(f"{name} {value}" for name, value in result["machine"].items())]
    for table in result["tables"].values():
        rows = show_table(table["columns"], table["rows"])
        parts += [f"### {table['title']}", rows, table["note"]]
    return "\n\n".join(parts) + "\n"


def publish(page: Path, tables: Path) -> None:
    """Put the tables of a result into a page, in place of those below its mark."""
    head, mark, _ = page.read_text("utf-8").partition(MARK)
    page.write_text(f"{head}{mark}\n\n{tables.read_text('utf-8')}", "utf-8")
