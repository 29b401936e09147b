"""YAML files: read strictly, with file and line in every error."""

from pathlib import Path

import pytest

from crosstune.errors import ConfigError
from crosstune.files import read_yaml


@pytest.mark.parametrize(
    ("content", "line", "first"),
    [
        ("name: a\nrate: 1\nname: b\n", 3, 1),
        ("test:\n  es: a\n  zh: b\n  es: c\n", 4, 2),
        ("test: {es: a, es: b}\n", 1, 1),
        ("list:\n- 1: a\n  2: b\n  1: c\n", 4, 2),
        ("yes: a\ntrue: b\n", 2, 1),
        ('es: a\n"es": b\n', 2, 1),
    ],
)
def test_a_key_given_twice_is_an_error_with_both_lines(write, content, line, first) -> None:
    path = write("a.yaml", content)
    with pytest.raises(ConfigError, match=f":{line}: the key .* twice, first in line {first}"):
        read_yaml(Path(path))


def test_a_merged_key_may_be_replaced(write) -> None:
    path = write("a.yaml", "a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: *b, y: 4}\n")
    assert read_yaml(Path(path))["c"] == {"x": 3, "y": 4}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: 1\nname: a\xf1o\n", ":2: byte 0xf1 is not UTF-8"),
        (b"a: [1\n", "ParserError"),
        (b"a: b: c\n", ":1: ScannerError"),
        (b"\xff\xfea\x00", "not UTF-8"),
        (b"a: \x01\n", "not allowed"),
        (b"a: 2024-13-45\n", "month"),
    ],
)
def test_an_unreadable_file_is_an_error_with_its_name(write, content, words) -> None:
    with pytest.raises(ConfigError, match=r"a\.yaml") as caught:
        read_yaml(Path(write("a.yaml", content)))
    assert words in str(caught.value)
