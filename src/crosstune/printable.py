"""Text from data -> text that a terminal shows literally, in messages of a readable length."""

import re

# Control characters and text-direction overrides can falsify what a reader sees; line ends and tabs
# break cells; half of a surrogate pair cannot be encoded.
_DIRECTIONS = (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF)
_HIDDEN: dict[int, str | None] = dict.fromkeys([*range(32), *range(127, 160), *_DIRECTIONS])
_HIDDEN |= dict.fromkeys(range(0xD800, 0xE000), "\ufffd")
_ONE_LINE = _HIDDEN | dict.fromkeys(map(ord, "\t\n\r\v\f\x85\u2028\u2029"), " ")
_LINES = _HIDDEN | {9: "\t", 10: "\n"}


def strip_controls(text: str, breaks: bool = False) -> str:
    r"""Return the text without control characters; line ends become spaces unless `breaks`.

    >>> strip_controls("a\x1b[31m\nb")
    'a[31m b'
    """
    if text.isprintable():  # then nothing is hidden
        return text
    return text.translate(_LINES if breaks else _ONE_LINE)


def shorten_long_words(message: str, limit: int = 1_000) -> str:
    """Return a message with runs of over `limit` characters without a space cut.

    >>> shorten_long_words("language=" + "e" * 50, limit=12)
    'language=eee… (59 characters)'
    """
    pattern = rf"\S{{{limit + 1},}}"
    return re.sub(pattern, lambda run: f"{run[0][:limit]}… ({len(run[0])} characters)", message)


def clean_message(message: object) -> str:
    """Return an error or a log line without control characters, line ends kept."""
    return shorten_long_words(strip_controls(str(message), breaks=True))


def count_of(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless it is one.

    >>> count_of(1, "run"), count_of(2400, "row")
    ('1 run', '2,400 rows')
    """
    return f"{number:,} {noun}{'s' * (number != 1)}"
