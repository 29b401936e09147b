"""The documentation: links lead somewhere, commands are accepted, the pages build."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib import import_module
from inspect import signature
from pathlib import Path
from pkgutil import iter_modules

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

from crosstune import cli
from crosstune.cli import arguments
from crosstune.cli import main as command_line
from crosstune.cli.arguments import split_config_folder, split_flags
from crosstune.config.compose import compose_run
from crosstune.config.instantiate import check_target
from crosstune.config.overrides import parse_override, prepare_overrides
from crosstune.config.paths import find_config_files, use_config_folder
from crosstune.config.schema import Run
from crosstune.errors import ConfigError
from crosstune.tasks import TASKS
from tests.docs.pages import (
    PAGES,
    PLACEHOLDER,
    ROOT,
    list_files,
    read_commands,
    read_crosstune_commands,
)

LINKED = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")]
MODULES = [import_module(f"crosstune.cli.{one.name}") for one in iter_modules(cli.__path__)]
SEEN: set[str] = set()  # values, and sets of options, that have been composed
COMPOSED = {"train", "tune", "check"}  # the other verbs take options of their own
STUDIES = {
    word.partition("=")[2]
    for page in PAGES
    for verb, *words in read_crosstune_commands(page)
    for word in words
    if verb in ("train", "tune") and word.startswith("experiment=")
} | {"adhoc", *find_config_files("experiment")}


def name_page(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", LINKED, ids=name_page)
def test_every_relative_link_of_a_page_exists(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8"))
    files = [target for target in targets if "://" not in target]
    assert [file for file in files if not (page.parent / file).exists()] == []


def test_every_file_that_the_architecture_page_names_exists() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    named = re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+\.py)?)`", text)
    homes = (ROOT, ROOT / "src" / "crosstune")
    assert [name for name in named if not any((home / name).exists() for home in homes)] == []


@pytest.mark.parametrize("page", PAGES, ids=name_page)
def test_commands_hold_no_placeholders(page: Path) -> None:
    lines = [" ".join(words) for words in read_commands(page)]
    assert [line for line in lines if PLACEHOLDER.search(line)] == []


@pytest.mark.parametrize("page", PAGES, ids=name_page)
def test_every_crosstune_command_of_a_page_is_accepted(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in list_files(page):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, "utf-8")
    monkeypatch.chdir(tmp_path)
    for verb, *words in read_crosstune_commands(page):
        check_command(verb, words, monkeypatch)


@pytest.mark.parametrize(
    "command",
    [
        "train data=demo_sentiment data.language=es method=lroa",
        "train data=demo_sentiment data.language=es data.bach_size=8",
        "train data=demo_sentiment data.language=es method=lora method.peft.rank=8",
        "train data=demo_entities data.language=es data.task.crff=true",
        "train -m data=demo_sentiment data.language=es method=full,lroa",
        "check data=files_clasification data.language=es data.train=train.tsv",
        "report experiment=demo tabel=beto_table1",
        "report experiment=demo table=beto_table11",
        "status experiment=no_study_of_this_name",
        "repot experiment=demo",
        "train --cgf job data=demo_sentiment data.language=es",
    ],
)
def test_a_misspelt_command_is_noticed(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    verb, *words = command.split()
    with pytest.raises((ConfigError, AssertionError)):
        check_command(verb, words, monkeypatch)


def check_command(verb: str, words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise unless the real code reads the command, up to the point where it opens files."""
    assert verb in command_line.VERBS, verb
    folder, rest = split_config_folder(list(words))
    use_config_folder(folder)
    try:
        if verb in COMPOSED:
            for job in list_jobs(verb, rest):
                if news := list_news(job):
                    check_run(compose_run(job))
                    SEEN.update(news)
        elif rest != ["--help"]:
            check_options(verb, rest, monkeypatch)
    finally:
        use_config_folder(None)


def list_jobs(verb: str, words: Sequence[str]) -> list[list[str]]:
    """Return the overrides of each job of a command, without the grid of a recipe.

    `tests/config` goes through the recipes.
    """
    flags, overrides = split_flags(list(words))
    assert {*flags} <= {"-m", "--cfg", "job", "--json"}, flags
    own = {"tune": "trials=", "check": "all="}.get(verb, "\0")
    overrides = prepare_overrides([word for word in overrides if not word.startswith(own)])
    if verb == "check" and "data=files" in " ".join(words):
        given = {word.removeprefix("data.").partition("=")[0] for word in overrides}
        absent = {"train", "validation", "test"} - given
        overrides += [f"data.{split}=null" for split in sorted(absent)]
    # a search draws from an interval
    overrides = [re.sub(r"interval\((\S+?),\S+\)", r"\1", word) for word in overrides]
    if verb != "tune" and "-m" not in flags:
        return [overrides]
    parsed = [parse_override(word) for word in overrides]
    return BasicSweeper.split_arguments(parsed, None)[0]


def list_news(job: Sequence[str]) -> set[str]:
    """Return what no accepted job held: values, and a set of options. Pages repeat each other."""
    words = {word for word in job if not word.startswith(("seed=", "experiment="))}
    return (words | {" ".join(sorted(word.partition("=")[0] for word in words))}) - SEEN


def check_run(run: Run) -> None:
    """Raise if an option of a target or of the task type is not in its signature."""
    for where in ("data.reader", "method.peft", "model.config", "optimizer.algorithm"):
        group, _, name = where.partition(".")
        if node := getattr(getattr(run, group), name):
            check_target(node, where)
    known = signature(TASKS[run.data.kind].from_rows).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        assert {*run.data.task} <= {*known}, run.data.task


def check_options(verb: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise unless the verb takes these options, and what they name exists."""
    parse, parsed = arguments.parse_options, []

    class ParsedError(Exception):
        """Ends the verb once its options are read."""

    def keep(given: list[str], allowed: dict[str, str | None]) -> dict[str, str]:
        parsed.append(parse(given, allowed))
        raise ParsedError

    with monkeypatch.context() as patched:
        for module in MODULES:
            patched.setattr(module, "parse_options", keep, raising=False)
        with pytest.raises(ParsedError):
            command_line.VERBS[verb](words)
    options = parsed[0]
    studies = [options.get("experiment", "adhoc")]
    studies += [path.split("/")[1] for path in options.get("run", "outputs/adhoc").split(",")]
    assert [name for name in studies if name not in STUDIES] == []
    assert options.get("table", "") in {"", *find_config_files("table")}


def test_other_commands_name_what_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    others = [words for page in PAGES for words in read_commands(page) if words[0] != "crosstune"]
    for words in others:
        if words[0] == "make":
            assert words[1] in targets
        elif words[:2] == ["pip", "install"]:
            assert {*re.findall(r"\[(.+)\]", words[-1])} <= {*extras["optional-dependencies"]}
        else:
            assert words[0] in ("source", "git", "cd") or (ROOT / words[0]).exists(), words


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150


@pytest.mark.slow
def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("furo", reason="pip install -e '.[docs]'")
    options = ["-W", "--keep-going", "-n", "-q", "-b", "html", "-d", str(tmp_path / "doctrees")]
    command = [sys.executable, "-m", "sphinx", *options, str(ROOT / "docs"), str(tmp_path / "html")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "lora" in (tmp_path / "html" / "methods.html").read_text("utf-8")
