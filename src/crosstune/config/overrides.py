"""Reads the overrides of a command line, so that Hydra gets the values that were typed.

Hydra's grammar is for ASCII, and of equal keys in a dictionary `{…}` it takes the last. Here values
that it refuses are quoted, texts that look like numbers stay texts, and such keys are an error.
"""

import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, get_type_hints

from hydra.core.override_parser import overrides_parser
from hydra.core.override_parser.overrides_visitor import HydraOverrideVisitor
from hydra.core.override_parser.types import Override, Quote, QuotedString, Sweep
from hydra.errors import HydraException
from typing_extensions import override

from crosstune.config.instantiate import RUN_TIME_ARGUMENTS
from crosstune.config.schema import OPTIONS, Run
from crosstune.errors import ConfigError

_CLOSING = {"{": "}", "[": "]", "(": ")"}
_FUNCTION = re.compile(r"(choice|range|interval|shuffle|sort|tag|glob|str)\((.*)\)", re.DOTALL)
_QUOTED = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""", re.DOTALL)
_ESCAPED = re.compile(r"\\([\\()\[\]{}:=, \t])")  # as in Hydra's grammar
_GROUP = str | int  # of a choice: never null or a list
_SINGLE_TEXTS = (str, str | None)
_TEXTS = (*_SINGLE_TEXTS, _GROUP, str | dict[str, str], list[str], dict[str, str] | None)
_MAX_LENGTH = 20_000  # the grammar takes time that grows faster than the text


def prepare_overrides(words: Sequence[str]) -> list[str]:
    """Return the overrides as Hydra is to read them; of equal keys the last counts, as in Hydra.

    An option of a `_target_` may be added without a plus: its signature says which there are.

    Raises:
        ConfigError: one is no override, or gives a key of a literal twice.
    """
    targets = tuple(f"{slot}." for slot in RUN_TIME_ARGUMENTS)
    prepared = [_prepare(word) for word in words]
    return [f"++{word}" if word.startswith(targets) else word for word in prepared]


def parse_override(word: str) -> Override:
    """Return an override as Hydra parses it.

    Raises:
        ConfigError: a literal in it gives a key twice.
        HydraException: it is no override.
    """
    return _StrictParser.create().parse_override(word)


def _prepare(word: str) -> str:
    key, equals, value = word.partition("=")
    if re.search("[\\x00\\ud800-\\udfff]", word):
        raise ConfigError(f"{word!a}: these bytes are no UTF-8 text.")
    if len(word) > _MAX_LENGTH:
        raise ConfigError(f"{key[:80]}=…: {len(word):,} characters, at most {_MAX_LENGTH:,}.")
    hint = _find_hint(key.lstrip("+~"))
    is_text = hint in _TEXTS
    try:
        parsed = parse_override(word)
        is_deletion = word.startswith("~") and parsed.value() is None
        if (
            hint == _GROUP
            and not is_deletion
            and not isinstance(parsed.value(), str | int | float | Sweep | QuotedString)
        ):
            raise ConfigError(
                f"{word}: one name is chosen here. For a run with each of several: -m {key}=A,B."
            )
        if hint in _SINGLE_TEXTS and isinstance(parsed.value(), list | dict):
            return f"{key}={_quote(value.strip())}"  # a column may be called [2]
        if not (is_text and value and not _FUNCTION.match(value) and _holds_numbers(parsed)):
            return word
    except (HydraException, ValueError, OverflowError) as error:
        if not equals or not key:
            raise ConfigError(f"{word!r} is no override: give KEY=VALUE.") from error
    try:
        rewritten = f"{key}={_Rewriter(value.strip(), is_text).rewrite()}"
        parse_override(rewritten)
    except (HydraException, ValueError, OverflowError) as error:
        raise ConfigError(
            f"Cannot read the override {word!r}: neither a value nor a list [a, b] or a dictionary "
            "{a: b}. Quote a text with special characters twice, once for the shell: "
            f"""'{key}="TEXT"'."""
        ) from error
    return rewritten


def _holds_numbers(parsed: Override) -> bool:
    """Return whether Hydra reads a number or a truth value where a text may stand."""

    def search(value: Any) -> bool:
        if isinstance(value, dict):
            return any(map(search, value.values()))
        return (
            any(map(search, value)) if isinstance(value, list) else isinstance(value, int | float)
        )

    value = parsed.value()
    return search(getattr(value, "list", value))


@cache
def _find_hint(key: str) -> Any:
    """Return the type of an option: as in the schema, and texts for groups and for paths."""
    groups = {field.name for field in fields(Run) if is_dataclass(field.type)} | {"experiment"}
    if "/" in key or key.partition("@")[0] in groups:
        return _GROUP
    if any(facts.is_path and f"{key}.".startswith(f"{path}.") for path, facts in OPTIONS.items()):
        return str | dict[str, str]
    group, _, name = key.rpartition(".")
    schema = get_type_hints(Run).get(group, Run) if group else Run
    return get_type_hints(schema).get(name) if is_dataclass(schema) else None


class _Rewriter:
    """Quotes the primitives in a value that Hydra would refuse, or would read as numbers.

    A bracket or comma has its meaning where an element may start or end; within a text such as
    `train[1,2].tsv` it is a character.
    """

    def __init__(self, text: str, is_text: bool):
        self.text, self.is_text, self.position = text, is_text, 0

    def rewrite(self) -> str:
        """Return the value: elements separated by commas."""
        elements = [self._read_element("")]
        while self.position < len(self.text):
            self.position += 1
            elements.append(self._read_element(""))
        return ",".join(elements)

    def _read_element(self, closing: str) -> str:
        """Return the element at the position, which moves to the comma or bracket after it."""
        self._skip_spaces()
        start = self.position
        if self.text[start : start + 1] in ("{", "["):
            container = self._read_container()
            if container is not None and self.text[self.position : self.position + 1] in (
                "",
                ",",
                closing,
            ):
                return container
            if container is None:
                raise ValueError(f"a bracket is not closed: {self.text[start:]}")
        self.position = start
        return self._quote_if_needed(self._read_run(closing))

    def _read_container(self) -> str | None:
        """Return the list or dictionary at the position; None if it is not closed."""
        opening = self.text[self.position]
        elements: list[str] = []
        while self.position < len(self.text):
            self.position += 1
            self._skip_spaces()
            if self.text[self.position : self.position + 1] == _CLOSING[opening] and not elements:
                break
            key = self._read_key() if opening == "{" else ""
            elements.append(key + self._read_element(_CLOSING[opening]))
            if self.text[self.position : self.position + 1] != ",":
                break
        if self.text[self.position : self.position + 1] != _CLOSING[opening]:
            return None
        self.position += 1
        self._skip_spaces()
        return f"{opening}{', '.join(elements)}{_CLOSING[opening]}"

    def _read_key(self) -> str:
        end = self.text.find(":", self.position)
        if end < 0:
            raise ValueError(f"no colon: {self.text[self.position :]}")
        key, self.position = self.text[self.position : end + 1], end + 1
        return f"{key} "

    def _read_run(self, closing: str) -> str:
        """Return the characters up to a comma or the closing bracket outside inner brackets."""
        start, expected = self.position, []
        while self.position < len(self.text):
            character = self.text[self.position]
            if quoted := _QUOTED.match(self.text, self.position):
                self.position = quoted.end()
                continue
            if not expected and character in (",", closing):
                break
            if character == "\\":
                self.position += 1
            elif character in _CLOSING:
                expected.append(_CLOSING[character])
            elif expected and character == expected[-1]:
                expected.pop()
            self.position += 1
        return self.text[start : self.position].strip()

    def _quote_if_needed(self, run: str) -> str:
        if function := _FUNCTION.fullmatch(run):
            return f"{function[1]}({_Rewriter(function[2], self.is_text).rewrite()})"
        try:
            parsed = parse_override(f"key={run}")
            is_misread = self.is_text and _holds_numbers(parsed)
            if run and not is_misread and not parsed.is_sweep_override():
                return run
        except (HydraException, ValueError, OverflowError):
            pass
        if not run:
            raise ValueError("a value between two commas is empty")
        return _quote(_ESCAPED.sub(r"\1", run))

    def _skip_spaces(self) -> None:
        while self.text[self.position : self.position + 1].isspace():
            self.position += 1


def _quote(text: str) -> str:
    return QuotedString(text, Quote.single).with_quotes()


class _StrictVisitor(HydraOverrideVisitor):
    @override
    def visitDictContainer(self, ctx: Any) -> dict[str, Any]:
        pairs = [ctx.getChild(i) for i in range(1, ctx.getChildCount() - 1, 2)]
        texts: dict[Any, str] = {}
        for pair in pairs:
            key, _ = self.visitDictKeyValuePair(pair)
            if key in texts:
                raise ConfigError(
                    f"The key {key} is given twice in one dictionary of the command line: "
                    f"{texts[key]!r} and {_source(pair)!r}. Keep one of them."
                )
            texts[key] = _source(pair)
        return super().visitDictContainer(ctx)


def _source(node: Any) -> str:
    return node.start.getInputStream().getText(node.start.start, node.stop.stop).strip()


class _StrictParser(overrides_parser.OverridesParser):
    """Hydra's parser with our visitor, which it names nowhere but in this method."""

    @override
    def parse_rule(self, s: str, rule_name: str) -> Any:
        module: Any = overrides_parser
        listener = module.HydraErrorListener()
        lexer = module.OverrideLexer(module.InputStream(s))
        parser = module.OverrideParser(module.CommonTokenStream(lexer))
        for part in (lexer, parser):
            part.removeErrorListeners()
            part.addErrorListener(listener)
        parsed: Any = _StrictVisitor(self.functions).visit(getattr(parser, rule_name)())
        parsed.input_line = s
        parsed.validate()
        return parsed
