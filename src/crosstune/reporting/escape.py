"""Text from data -> text that Markdown, LaTeX, CSV and terminals show literally.

HTML is escaped by the template engine.
"""

import html
import re

# Control characters and text-direction overrides can falsify what a reader sees; line ends and tabs
# break cells; half of a surrogate pair cannot be encoded.
_DIRECTIONS = (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF)
_HIDDEN: dict[int, str | None] = dict.fromkeys([*range(32), *range(127, 160), *_DIRECTIONS])
_HIDDEN |= dict.fromkeys(range(0xD800, 0xE000), "\ufffd")
_ONE_LINE = _HIDDEN | dict.fromkeys(map(ord, "\t\n\r\v\f\x85\u2028\u2029"), " ")
_LINES = _HIDDEN | {9: "\t", 10: "\n"}
_LATEX = str.maketrans(
    {char: f"\\{char}" for char in "&%$#_{}"}
    | {char: f"{{{char}}}" for char in "[]*"}  # after a row's \\ they would be its options
    | {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}
    | {"<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}", '"': "\\char34{}"}
    | {"`": "\\textasciigrave{}", "–": "--", "…": "\\dots{}", "·": "\\textperiodcentered{}"}
    | {"±": "\\ensuremath{\\pm}", "→": "\\ensuremath{\\rightarrow}", "−": "\\ensuremath{-}"}
)


def strip_controls(text: str, breaks: bool = False) -> str:
    r"""Return the text without control characters; line ends become spaces unless `breaks`.

    >>> strip_controls("a\x1b[31m\nb")
    'a[31m b'
    """
    if text.isprintable():  # then nothing is hidden
        return text
    return text.translate(_LINES if breaks else _ONE_LINE)


def escape_markdown(text: str) -> str:
    r"""Return the text so that Markdown shows it literally, also inside a table cell.

    >>> print(escape_markdown("a|b <i>"))
    a\|b &lt;i&gt;
    """
    text = html.escape(strip_controls(text), quote=False)
    text = re.sub(r"([\\`|*~$])", r"\\\1", text)
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\_", text)  # within a word it is not emphasis
    return re.sub(r"\](?=[(\[:])", r"\\]", text)  # would begin a link, picture or link definition


def escape_latex(text: str) -> str:
    r"""Return the text with every special character of LaTeX escaped.

    >>> print(escape_latex("a_b & 5%"))
    a\_b \& 5\%
    """
    return strip_controls(text).translate(_LATEX)


def escape_csv(text: str) -> str:
    """Return the text so that a spreadsheet does not run it as a formula.

    >>> escape_csv("=1+1"), escape_csv("a=1")
    ("'=1+1", 'a=1')
    """
    shown = strip_controls(text)
    return f"'{shown}" if text[:1] in ("\t", "\r") or shown[:1] in tuple("=+-@") else shown
