"""The pages of the documentation and the commands in them.

A ``bash`` block holds commands that run as they are written: concrete paths, no placeholders. What
cannot run as it stands, and what is printed, is fenced as ``text``.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# A word in capitals, an ellipsis, or a name in angle brackets stands for something else.
PLACEHOLDER = re.compile(r"…|\.\.\.|<\w+>|(?<![\w$])[A-Z]{2,}(?![\w.])")
_FILE = re.compile(r"`(my_conf/[\w/]+\.yaml)`(?:(?!```).)*```yaml\n(.*?)```", re.DOTALL)


def read_blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    fence = rf"^[`~]{{3,}}{re.escape(language)}\n(.*?)^[`~]{{3,}}$"
    return re.findall(fence, page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def read_commands(page: Path) -> list[list[str]]:
    """Return the words of each command line in the bash blocks of a page."""
    text = "\n".join(read_blocks(page, "bash")).replace("\\\n", " ")
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


def read_crosstune_commands(page: Path) -> list[list[str]]:
    """Return what follows `crosstune` in the commands of a page: verb, then arguments."""
    return [words[1:] for words in read_commands(page) if words[0] == "crosstune"]


def list_files(page: Path) -> Iterator[tuple[str, str]]:
    """Yield path and content of the configuration files that a page tells its reader to write."""
    yield from _FILE.findall(page.read_text("utf-8"))
