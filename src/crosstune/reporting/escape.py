"""Text from data -> text that Markdown, LaTeX, CSV and terminals show literally.

HTML is escaped by the template engine.
"""

import html
import re

from crosstune.printable import strip_controls

_LATEX = str.maketrans(
    {char: f"\\{char}" for char in "&%$#_{}"}
    | {char: f"{{{char}}}" for char in "[]*"}  # after a row's \\ they would be its options
    | {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}
    | {"<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}", '"': "\\char34{}"}
    | {"`": "\\textasciigrave{}", "–": "--", "…": "\\dots{}", "·": "\\textperiodcentered{}"}
    | {"±": "\\ensuremath{\\pm}", "→": "\\ensuremath{\\rightarrow}", "−": "\\ensuremath{-}"}
)


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
