"""ISO 639-1 codes with the name, usual script and family of each language, and the check of a code.

A table: no language has a class, a file or a branch anywhere. What a data set offers stands in its
YAML. Called wherever a language code comes in, and by the reports that group scores by family.
"""

import re
from dataclasses import dataclass
from difflib import get_close_matches

from crosstune.errors import ConfigError


@dataclass(frozen=True)
class Language:
    """One language: its English name, ISO 15924 script and family."""

    name: str
    script: str
    family: str


LANGUAGES: dict[str, Language] = {
    "aa": Language("Afar", "Latn", "Afro-Asiatic"),
    "ab": Language("Abkhazian", "Cyrl", "Northwest Caucasian"),
    "ae": Language("Avestan", "Avst", "Indo-European"),
    "af": Language("Afrikaans", "Latn", "Indo-European"),
    "ak": Language("Akan", "Latn", "Niger-Congo"),
    "am": Language("Amharic", "Ethi", "Afro-Asiatic"),
    "an": Language("Aragonese", "Latn", "Indo-European"),
    "ar": Language("Arabic", "Arab", "Afro-Asiatic"),
    "as": Language("Assamese", "Beng", "Indo-European"),
    "av": Language("Avaric", "Cyrl", "Northeast Caucasian"),
    "ay": Language("Aymara", "Latn", "Aymaran"),
    "az": Language("Azerbaijani", "Latn", "Turkic"),
    "ba": Language("Bashkir", "Cyrl", "Turkic"),
    "be": Language("Belarusian", "Cyrl", "Indo-European"),
    "bg": Language("Bulgarian", "Cyrl", "Indo-European"),
    "bi": Language("Bislama", "Latn", "Creole"),
    "bm": Language("Bambara", "Latn", "Niger-Congo"),
    "bn": Language("Bengali", "Beng", "Indo-European"),
    "bo": Language("Tibetan", "Tibt", "Sino-Tibetan"),
    "br": Language("Breton", "Latn", "Indo-European"),
    "bs": Language("Bosnian", "Latn", "Indo-European"),
    "ca": Language("Catalan", "Latn", "Indo-European"),
    "ce": Language("Chechen", "Cyrl", "Northeast Caucasian"),
    "ch": Language("Chamorro", "Latn", "Austronesian"),
    "co": Language("Corsican", "Latn", "Indo-European"),
    "cr": Language("Cree", "Cans", "Algic"),
    "cs": Language("Czech", "Latn", "Indo-European"),
    "cu": Language("Church Slavic", "Cyrl", "Indo-European"),
    "cv": Language("Chuvash", "Cyrl", "Turkic"),
    "cy": Language("Welsh", "Latn", "Indo-European"),
    "da": Language("Danish", "Latn", "Indo-European"),
    "de": Language("German", "Latn", "Indo-European"),
    "dv": Language("Divehi", "Thaa", "Indo-European"),
    "dz": Language("Dzongkha", "Tibt", "Sino-Tibetan"),
    "ee": Language("Ewe", "Latn", "Niger-Congo"),
    "el": Language("Greek", "Grek", "Indo-European"),
    "en": Language("English", "Latn", "Indo-European"),
    "eo": Language("Esperanto", "Latn", "Constructed"),
    "es": Language("Spanish", "Latn", "Indo-European"),
    "et": Language("Estonian", "Latn", "Uralic"),
    "eu": Language("Basque", "Latn", "Isolate"),
    "fa": Language("Persian", "Arab", "Indo-European"),
    "ff": Language("Fulah", "Latn", "Niger-Congo"),
    "fi": Language("Finnish", "Latn", "Uralic"),
    "fj": Language("Fijian", "Latn", "Austronesian"),
    "fo": Language("Faroese", "Latn", "Indo-European"),
    "fr": Language("French", "Latn", "Indo-European"),
    "fy": Language("Western Frisian", "Latn", "Indo-European"),
    "ga": Language("Irish", "Latn", "Indo-European"),
    "gd": Language("Scottish Gaelic", "Latn", "Indo-European"),
    "gl": Language("Galician", "Latn", "Indo-European"),
    "gn": Language("Guarani", "Latn", "Tupian"),
    "gu": Language("Gujarati", "Gujr", "Indo-European"),
    "gv": Language("Manx", "Latn", "Indo-European"),
    "ha": Language("Hausa", "Latn", "Afro-Asiatic"),
    "he": Language("Hebrew", "Hebr", "Afro-Asiatic"),
    "hi": Language("Hindi", "Deva", "Indo-European"),
    "ho": Language("Hiri Motu", "Latn", "Austronesian"),
    "hr": Language("Croatian", "Latn", "Indo-European"),
    "ht": Language("Haitian Creole", "Latn", "Creole"),
    "hu": Language("Hungarian", "Latn", "Uralic"),
    "hy": Language("Armenian", "Armn", "Indo-European"),
    "hz": Language("Herero", "Latn", "Niger-Congo"),
    "ia": Language("Interlingua", "Latn", "Constructed"),
    "id": Language("Indonesian", "Latn", "Austronesian"),
    "ie": Language("Interlingue", "Latn", "Constructed"),
    "ig": Language("Igbo", "Latn", "Niger-Congo"),
    "ii": Language("Sichuan Yi", "Yiii", "Sino-Tibetan"),
    "ik": Language("Inupiaq", "Latn", "Eskimo-Aleut"),
    "io": Language("Ido", "Latn", "Constructed"),
    "is": Language("Icelandic", "Latn", "Indo-European"),
    "it": Language("Italian", "Latn", "Indo-European"),
    "iu": Language("Inuktitut", "Cans", "Eskimo-Aleut"),
    "ja": Language("Japanese", "Jpan", "Japonic"),
    "jv": Language("Javanese", "Latn", "Austronesian"),
    "ka": Language("Georgian", "Geor", "Kartvelian"),
    "kg": Language("Kongo", "Latn", "Niger-Congo"),
    "ki": Language("Kikuyu", "Latn", "Niger-Congo"),
    "kj": Language("Kuanyama", "Latn", "Niger-Congo"),
    "kk": Language("Kazakh", "Cyrl", "Turkic"),
    "kl": Language("Kalaallisut", "Latn", "Eskimo-Aleut"),
    "km": Language("Khmer", "Khmr", "Austroasiatic"),
    "kn": Language("Kannada", "Knda", "Dravidian"),
    "ko": Language("Korean", "Kore", "Koreanic"),
    "kr": Language("Kanuri", "Latn", "Nilo-Saharan"),
    "ks": Language("Kashmiri", "Arab", "Indo-European"),
    "ku": Language("Kurdish", "Latn", "Indo-European"),
    "kv": Language("Komi", "Cyrl", "Uralic"),
    "kw": Language("Cornish", "Latn", "Indo-European"),
    "ky": Language("Kirghiz", "Cyrl", "Turkic"),
    "la": Language("Latin", "Latn", "Indo-European"),
    "lb": Language("Luxembourgish", "Latn", "Indo-European"),
    "lg": Language("Ganda", "Latn", "Niger-Congo"),
    "li": Language("Limburgish", "Latn", "Indo-European"),
    "ln": Language("Lingala", "Latn", "Niger-Congo"),
    "lo": Language("Lao", "Laoo", "Kra-Dai"),
    "lt": Language("Lithuanian", "Latn", "Indo-European"),
    "lu": Language("Luba-Katanga", "Latn", "Niger-Congo"),
    "lv": Language("Latvian", "Latn", "Indo-European"),
    "mg": Language("Malagasy", "Latn", "Austronesian"),
    "mh": Language("Marshallese", "Latn", "Austronesian"),
    "mi": Language("Maori", "Latn", "Austronesian"),
    "mk": Language("Macedonian", "Cyrl", "Indo-European"),
    "ml": Language("Malayalam", "Mlym", "Dravidian"),
    "mn": Language("Mongolian", "Cyrl", "Mongolic"),
    "mr": Language("Marathi", "Deva", "Indo-European"),
    "ms": Language("Malay", "Latn", "Austronesian"),
    "mt": Language("Maltese", "Latn", "Afro-Asiatic"),
    "my": Language("Burmese", "Mymr", "Sino-Tibetan"),
    "na": Language("Nauru", "Latn", "Austronesian"),
    "nb": Language("Norwegian Bokmål", "Latn", "Indo-European"),
    "nd": Language("North Ndebele", "Latn", "Niger-Congo"),
    "ne": Language("Nepali", "Deva", "Indo-European"),
    "ng": Language("Ndonga", "Latn", "Niger-Congo"),
    "nl": Language("Dutch", "Latn", "Indo-European"),
    "nn": Language("Norwegian Nynorsk", "Latn", "Indo-European"),
    "no": Language("Norwegian", "Latn", "Indo-European"),
    "nr": Language("South Ndebele", "Latn", "Niger-Congo"),
    "nv": Language("Navajo", "Latn", "Dené-Yeniseian"),
    "ny": Language("Chichewa", "Latn", "Niger-Congo"),
    "oc": Language("Occitan", "Latn", "Indo-European"),
    "oj": Language("Ojibwa", "Cans", "Algic"),
    "om": Language("Oromo", "Latn", "Afro-Asiatic"),
    "or": Language("Odia", "Orya", "Indo-European"),
    "os": Language("Ossetian", "Cyrl", "Indo-European"),
    "pa": Language("Punjabi", "Guru", "Indo-European"),
    "pi": Language("Pali", "Sinh", "Indo-European"),
    "pl": Language("Polish", "Latn", "Indo-European"),
    "ps": Language("Pashto", "Arab", "Indo-European"),
    "pt": Language("Portuguese", "Latn", "Indo-European"),
    "qu": Language("Quechua", "Latn", "Quechuan"),
    "rm": Language("Romansh", "Latn", "Indo-European"),
    "rn": Language("Rundi", "Latn", "Niger-Congo"),
    "ro": Language("Romanian", "Latn", "Indo-European"),
    "ru": Language("Russian", "Cyrl", "Indo-European"),
    "rw": Language("Kinyarwanda", "Latn", "Niger-Congo"),
    "sa": Language("Sanskrit", "Deva", "Indo-European"),
    "sc": Language("Sardinian", "Latn", "Indo-European"),
    "sd": Language("Sindhi", "Arab", "Indo-European"),
    "se": Language("Northern Sami", "Latn", "Uralic"),
    "sg": Language("Sango", "Latn", "Creole"),
    "sh": Language("Serbo-Croatian", "Latn", "Indo-European"),
    "si": Language("Sinhala", "Sinh", "Indo-European"),
    "sk": Language("Slovak", "Latn", "Indo-European"),
    "sl": Language("Slovenian", "Latn", "Indo-European"),
    "sm": Language("Samoan", "Latn", "Austronesian"),
    "sn": Language("Shona", "Latn", "Niger-Congo"),
    "so": Language("Somali", "Latn", "Afro-Asiatic"),
    "sq": Language("Albanian", "Latn", "Indo-European"),
    "sr": Language("Serbian", "Cyrl", "Indo-European"),
    "ss": Language("Swati", "Latn", "Niger-Congo"),
    "st": Language("Southern Sotho", "Latn", "Niger-Congo"),
    "su": Language("Sundanese", "Latn", "Austronesian"),
    "sv": Language("Swedish", "Latn", "Indo-European"),
    "sw": Language("Swahili", "Latn", "Niger-Congo"),
    "ta": Language("Tamil", "Taml", "Dravidian"),
    "te": Language("Telugu", "Telu", "Dravidian"),
    "tg": Language("Tajik", "Cyrl", "Indo-European"),
    "th": Language("Thai", "Thai", "Kra-Dai"),
    "ti": Language("Tigrinya", "Ethi", "Afro-Asiatic"),
    "tk": Language("Turkmen", "Latn", "Turkic"),
    "tl": Language("Tagalog", "Latn", "Austronesian"),
    "tn": Language("Tswana", "Latn", "Niger-Congo"),
    "to": Language("Tongan", "Latn", "Austronesian"),
    "tr": Language("Turkish", "Latn", "Turkic"),
    "ts": Language("Tsonga", "Latn", "Niger-Congo"),
    "tt": Language("Tatar", "Cyrl", "Turkic"),
    "tw": Language("Twi", "Latn", "Niger-Congo"),
    "ty": Language("Tahitian", "Latn", "Austronesian"),
    "ug": Language("Uyghur", "Arab", "Turkic"),
    "uk": Language("Ukrainian", "Cyrl", "Indo-European"),
    "ur": Language("Urdu", "Arab", "Indo-European"),
    "uz": Language("Uzbek", "Latn", "Turkic"),
    "ve": Language("Venda", "Latn", "Niger-Congo"),
    "vi": Language("Vietnamese", "Latn", "Austroasiatic"),
    "vo": Language("Volapük", "Latn", "Constructed"),
    "wa": Language("Walloon", "Latn", "Indo-European"),
    "wo": Language("Wolof", "Latn", "Niger-Congo"),
    "xh": Language("Xhosa", "Latn", "Niger-Congo"),
    "yi": Language("Yiddish", "Hebr", "Indo-European"),
    "yo": Language("Yoruba", "Latn", "Niger-Congo"),
    "za": Language("Zhuang", "Latn", "Kra-Dai"),
    "zh": Language("Chinese", "Hans", "Sino-Tibetan"),
    "zu": Language("Zulu", "Latn", "Niger-Congo"),
}

_CODE = re.compile(r"([a-z]{2,3})(-[A-Z][a-z]{3})?(-[A-Z]{2})?(-x-[a-z0-9]+)?")

# What people write for a code: country codes, other names, and what YAML makes of an unquoted `no`.
_MEANT = {
    "cn": "zh",
    "mandarin": "zh",
    "中文": "zh",
    "jp": "ja",
    "castilian": "es",
    "español": "es",
    "farsi": "fa",
    "false": "no",
}


def check_language(code: str) -> None:
    """Refuse what is not a language code.

    Accepted are the ISO 639-1 codes of `LANGUAGES` and well-formed ISO 639-3 codes, each
    optionally followed by a script, a region, and, after an x, a domain of the text (the private
    part of https://www.rfc-editor.org/info/bcp47).

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
    near = _near_codes(code)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    raise ConfigError(
        f"{code!r} is not a language code. {hint}Allowed: a two-letter ISO 639-1 code "
        "(en, es, zh, …) or a three-letter ISO 639-3 code (yue, …), each optionally followed by "
        "-Script and -REGION, as in zh-Hans-CN, and by a domain, as in es-x-medical."
    )


def _is_code(code: str) -> bool:
    parts = _CODE.fullmatch(code)
    return parts is not None and (len(parts[1]) == 3 or parts[1] in LANGUAGES)


def _near_codes(code: str) -> list[str]:
    """Return up to three codes that may have been meant, the surest first."""
    first, *rest = re.split(r"[-_]", code)
    word = first.casefold()
    cases = {2: str.upper, 4: str.title}
    repaired = "-".join([word, *(cases.get(len(part), str)(part) for part in rest)])
    if _is_code(repaired):
        return [repaired]
    by_name = {language.name.casefold(): found for found, language in LANGUAGES.items()} | _MEANT
    if word in by_name:
        near = [by_name[word]]
    elif len(word) < 4:
        begun = [found for name, found in by_name.items() if name.startswith(word or " ")]
        near = begun[:3] or get_close_matches(word, LANGUAGES, n=3, cutoff=0.5)
    else:
        near = [by_name[name] for name in get_close_matches(word, by_name, n=3, cutoff=0.7)]
    return [f"{found} ({LANGUAGES[found].name})" for found in dict.fromkeys(near)]


# Sets of characters, written as the inside of a character class of a regular expression.
HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # ideographs
KANA = "\u3040-\u30ff"
UNSPACED = KANA + HAN  # no space separates words of these
ZERO_WIDTH = "\u00ad\u180e\u200b-\u200f\u2060-\u2064"
BIDI_CONTROLS = "\u202a-\u202e\u2066-\u2069"

# ISO 15924 scripts whose words no space separates.
SPACELESS_SCRIPTS = {"Hans", "Hant", "Jpan", "Khmr", "Laoo", "Mymr", "Thai", "Tibt", "Yiii"}
