import re
from itertools import product
from string import ascii_lowercase

import pytest

from crosstune.errors import ConfigError
from crosstune.languages import check_language, script_of

ISO_639_1 = (
    "aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da "
    "de dv dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy "
    "hz ia id ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg "
    "li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or "
    "os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg sh si sk sl sm sn so sq sr ss st su sv sw "
    "ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu"
)


def is_accepted(code):
    try:
        check_language(code)
    except ConfigError:
        return False
    return True


def test_the_two_letter_codes_accepted_are_the_184_of_iso_639_1():
    pairs = map("".join, product(ascii_lowercase, repeat=2))
    assert [code for code in pairs if is_accepted(code)] == ISO_639_1.split()
    assert len(ISO_639_1.split()) == 184


@pytest.mark.parametrize(
    ("code", "script"),
    [
        ("es", "Latn"),
        ("zh", "Hans"),
        ("zh-Hant-TW", "Hant"),
        ("ja", "Jpan"),
        ("yue", "Hant"),
        ("ru", "Cyrl"),
        ("es-x-medical", "Latn"),
    ],
)
def test_a_code_has_a_script(code, script):
    assert script_of(code) == script


@pytest.mark.parametrize("code", ["es", "yue", "nah", "zh-Hans", "es-MX", "zh-Hant-TW"])
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
        ("farsi", "fa (Persian)"),
        ("español", "es (Spanish)"),
        ("中文", "zh (Chinese)"),
        ("kirghiz", "ky (Kyrgyz)"),
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
