"""Language codes: which ones are accepted, what a wrong one may have meant, and their scripts.

The facts come from `langcodes`. No language has a class, a file or a branch of its own; what a data
set offers is in its YAML.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from itertools import product
from string import ascii_lowercase

from langcodes import Language, find, tag_is_valid

from crosstune.errors import ConfigError

_CODE = re.compile(r"([a-z]{2,3})(-[A-Z][a-z]{3})?(-[A-Z]{2})?(-x-[a-z0-9]+)?")
_WITHDRAWN = {"bh", "in", "iw", "ji", "jw", "mo"}  # from ISO 639-1; BCP 47 still registers them

# What people write for a code: country codes, other names, and what YAML makes of an unquoted `no`.
_ALIASES = {
    "cn": "zh",
    "mandarin": "zh",
    "jp": "ja",
    "castilian": "es",
    "español": "es",
    "farsi": "fa",
    "false": "no",
}


def check_language(code: str) -> None:
    """Raise ConfigError if `code` is not a language code.

    Accepted are the ISO 639-1 codes and well-formed ISO 639-3 codes, each optionally followed by a
    script, a region and, after an x, a domain of the text (the private part of
    https://www.rfc-editor.org/info/bcp47).

    >>> check_language("zh-Hans-CN")
    >>> check_language("es-x-medical")
    >>> check_language("yue")
    >>> check_language("spanish")
    Traceback (most recent call last):
    crosstune.errors.ConfigError: 'spanish' is not a language code. Did you mean es (Spanish)? \
Allowed: a two-letter ISO 639-1 code (en, es, zh, …) or a three-letter ISO 639-3 code (yue, …), \
each optionally followed by -Script and -REGION, as in zh-Hans-CN, and by a domain, as in \
es-x-medical.
    """
    if _is_code(code):
        return
    near = _find_near_codes(code)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    raise ConfigError(
        f"{code!r} is not a language code. {hint}Allowed: a two-letter ISO 639-1 code "
        "(en, es, zh, …) or a three-letter ISO 639-3 code (yue, …), each optionally followed by "
        "-Script and -REGION, as in zh-Hans-CN, and by a domain, as in es-x-medical."
    )


def script_of(code: str) -> str:
    """Return the ISO 15924 script of a language code: the one it names, else the usual one.

    >>> script_of("es"), script_of("zh"), script_of("zh-Hant"), script_of("es-x-medical")
    ('Latn', 'Hans', 'Hant', 'Latn')
    """
    return Language.get(code, normalize=False).maximize().script or ""


def list_character_scripts(codes: Iterable[str]) -> list[str]:
    """Return the Unicode scripts of the characters of languages, with those that all languages use.

    >>> list_character_scripts(["zh", "es"])
    ['Bopo', 'Hani', 'Latn', 'Zinh', 'Zyyy']
    """
    scripts = {"Zyyy", "Zinh"}  # punctuation, digits; marks that combine
    for code in codes:
        script = script_of(code)
        scripts.update(_CHARACTER_SCRIPTS.get(script, [script]))
    return sorted(scripts)


def _is_code(code: str) -> bool:
    parts = _CODE.fullmatch(code)
    return parts is not None and (len(parts[1]) == 3 or _is_iso_639_1(parts[1]))


def _is_iso_639_1(code: str) -> bool:
    return tag_is_valid(code) and code not in _WITHDRAWN


def _find_near_codes(code: str) -> list[str]:
    """Return up to three codes that may have been meant, the most likely first."""
    first, *rest = re.split(r"[-_]", code)
    word = first.casefold()
    cases = {2: str.upper, 4: str.title}
    repaired = "-".join([word, *(cases.get(len(part), str)(part) for part in rest)])
    if _is_code(repaired):
        return [repaired]
    names = {
        code: _name_of(code)
        for code in map("".join, product(ascii_lowercase, repeat=2))
        if _is_iso_639_1(code)
    }
    codes = {name.casefold(): code for code, name in names.items()} | _ALIASES
    if word in codes:
        near = [codes[word]]
    elif len(word) < 4 and word.isascii():
        near = [code for name, code in codes.items() if name.startswith(word or " ")][:3]
        near = near or get_close_matches(word, names, n=3, cutoff=0.5)
    else:
        near = _find_by_name(word) or [
            codes[name] for name in get_close_matches(word, codes, n=3, cutoff=0.7)
        ]
    return [f"{code} ({_name_of(code)})" for code in dict.fromkeys(near)]


def _find_by_name(word: str) -> list[str]:
    try:
        return [str(find(word).language)]  # knows names in many languages
    except LookupError:
        return []


def _name_of(code: str) -> str:
    return Language.get(code, normalize=False).display_name()


# Sets of characters, written as the inside of a character class of a regular expression.
HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # ideographs
KANA = "\u3040-\u30ff"
UNSPACED = KANA + HAN  # no space separates words of these
ZERO_WIDTH = "\u00ad\u180e\u200b-\u200f\u2060-\u2064"
BIDI_CONTROLS = "\u202a-\u202e\u2066-\u2069"

# ISO 15924 codes of writing systems -> the scripts of their characters, where these differ.
_CHARACTER_SCRIPTS = {
    "Hans": ["Hani", "Bopo"],
    "Hant": ["Hani", "Bopo"],
    "Jpan": ["Hani", "Hira", "Kana"],
    "Kore": ["Hang", "Hani"],
}

# ISO 15924 scripts whose words no space separates.
SPACELESS_SCRIPTS = {"Hans", "Hant", "Jpan", "Khmr", "Laoo", "Mymr", "Thai", "Tibt", "Yiii"}

# First words of the Unicode names of a script's letters, by ISO 15924 code; others are not known.
LETTERS = {
    "Arab": {"ARABIC"},
    "Armn": {"ARMENIAN"},
    "Beng": {"BENGALI"},
    "Cyrl": {"CYRILLIC"},
    "Deva": {"DEVANAGARI"},
    "Ethi": {"ETHIOPIC"},
    "Geor": {"GEORGIAN"},
    "Grek": {"GREEK"},
    "Hans": {"CJK"},
    "Hant": {"CJK", "BOPOMOFO"},
    "Hebr": {"HEBREW"},
    "Jpan": {"CJK", "HIRAGANA", "KATAKANA"},
    "Khmr": {"KHMER"},
    "Kore": {"HANGUL", "CJK"},
    "Laoo": {"LAO"},
    "Latn": {"LATIN"},
    "Mymr": {"MYANMAR"},
    "Taml": {"TAMIL"},
    "Telu": {"TELUGU"},
    "Thai": {"THAI"},
}
