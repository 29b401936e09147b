import re

import pytest

from crosstune.errors import ConfigError
from crosstune.languages import LANGUAGES, check_language


def test_the_table_holds_the_184_codes_of_iso_639_1_in_order():
    assert len(LANGUAGES) == 184
    assert list(LANGUAGES) == sorted(LANGUAGES)
    assert all(re.fullmatch("[a-z]{2}", code) for code in LANGUAGES)


def test_every_language_has_a_name_of_its_own_a_script_and_a_family():
    assert len({language.name for language in LANGUAGES.values()}) == len(LANGUAGES)
    assert all(re.fullmatch("[A-Z][a-z]{3}", language.script) for language in LANGUAGES.values())
    assert all(language.family for language in LANGUAGES.values())


@pytest.mark.parametrize(
    ("code", "name", "script", "family"),
    [
        ("es", "Spanish", "Latn", "Indo-European"),
        ("zh", "Chinese", "Hans", "Sino-Tibetan"),
        ("ja", "Japanese", "Jpan", "Japonic"),
        ("eu", "Basque", "Latn", "Isolate"),
    ],
)
def test_a_known_language_is_described(code, name, script, family):
    language = LANGUAGES[code]
    assert (language.name, language.script, language.family) == (name, script, family)


@pytest.mark.parametrize("code", [*LANGUAGES, "yue", "nah", "zh-Hans", "es-MX", "zh-Hant-TW"])
def test_a_well_formed_code_is_accepted(code):
    check_language(code)


@pytest.mark.parametrize(
    "code", ["xx", "", "e", "ES", "Es", "es-", "es-mx", "es_MX", "es-MX-Latn", "spanish", "es\n"]
)
def test_anything_else_is_refused(code):
    with pytest.raises(ConfigError, match="is not a language code"):
        check_language(code)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("spanish", "es (Spanish)"),
        ("CHINESE", "zh (Chinese)"),
        ("Englsh", "en (English)"),
        ("EN", "en"),
        ("es_mx", "es-MX"),
        ("zh-hans", "zh-Hans"),
        ("cn", "zh (Chinese)"),
        ("sp", "es (Spanish)"),
        ("False", "no (Norwegian)"),
    ],
)
def test_a_near_miss_gets_the_code_that_was_meant(written, meant):
    with pytest.raises(ConfigError, match=re.escape(f"Did you mean {meant}")):
        check_language(written)


def test_what_is_near_to_nothing_gets_no_suggestion():
    with pytest.raises(ConfigError) as refusal:
        check_language("qwertyuiop")
    assert "Did you mean" not in str(refusal.value)
    assert "zh-Hans-CN" in str(refusal.value)
