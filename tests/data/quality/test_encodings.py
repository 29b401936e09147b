"""Text that was decoded, exported or parsed wrongly: an error in nearly all rows of a split."""

import html

import pytest

from crosstune.cli.check import examine
from crosstune.config.compose import compose_run

TEXTS = {
    "es": ["¡Mañana será otro día, señor!", "El niño comió arándanos.", "¿Dónde está la estación?"],
    "zh": ["今天的天气真的非常好我们去公园", "这家酒店的服务态度非常差不会再来"],
    "ja": ["今日はとても良い天気ですね、散歩に行きましょう"],
    "ru": ["Сегодня очень хорошая погода, пойдём гулять"],
    "en": ["The weather is lovely today", "He said \u2018no\u2019 \u2014 twice"],
    "fr": ["Il a dit \u00ab CAF\u00c9 \u00bb puis \u00ab \u00c0 d\u00e9couvrir\u00bb"],
    "sr-Latn": ["Danas je vreme veoma lepo"],
    "ko": ["오늘은 날씨가 아주 좋네요"],
}


def check(write, texts, language, name="a.tsv", header="text\tlabel"):
    """Return rule and severity of the findings on encodings."""
    rows = "".join(f"{text}\t{'ab'[n % 2]}\n" for n, text in enumerate(texts))
    path = write(name, f"{header}\n{rows}")
    run = compose_run(
        [
            "data=files_classification",
            "data.text=text",
            "data.label=label",
            f"data.train={path}",
            "data.validation=null",
            "data.test=null",
            f"data.language={language}",
        ]
    )
    return [(f.rule, f.severity, f.place) for f in examine(run).findings if f.rule[0] == "S"]


def repeat(texts):
    return [f"{text} {'x' if text.isascii() else text[:3]}" for text in texts * 12][:12]


def misread(text, written, read):
    return (
        text.encode(written, "replace")
        .decode(read, "replace")
        .replace("\t", " ")
        .replace("\n", " ")
    )


@pytest.mark.parametrize("language", TEXTS)
def test_text_in_its_own_script_is_no_finding(write, language):
    assert check(write, repeat(TEXTS[language]), language) == []


@pytest.mark.parametrize(
    ("language", "written", "read"),
    [
        ("zh", "hz", "utf-8"),
        ("ja", "iso2022_jp", "utf-8"),
        ("zh", "gb2312", "latin-1"),
        ("ru", "cp1251", "latin-1"),
        ("ru", "koi8-r", "latin-1"),
        ("ko", "euc-kr", "latin-1"),
    ],
)
def test_text_in_another_script_than_its_language_is_an_error(write, language, written, read):
    texts = [misread(text, written, read) for text in repeat(TEXTS[language])]
    findings = check(write, texts, language)
    assert {(rule, severity) for rule, severity, _ in findings} == {("S101", "error")}


@pytest.mark.parametrize("read", ["latin-1", "cp1252"])
@pytest.mark.parametrize("language", ["es", "zh", "ru"])
def test_utf8_that_was_read_as_another_encoding_is_an_error(write, language, read):
    texts = [misread(text, "utf-8", read) for text in repeat(TEXTS[language])]
    assert ("S102", "error") in {
        (rule, severity) for rule, severity, _ in check(write, texts, language)
    }


def test_html_entities_in_nearly_all_rows_are_an_error(write):
    texts = [html.escape(f'dijo "sí" & calló {n}') for n in range(20)]
    findings = check(write, texts, "es")
    assert {(rule, severity) for rule, severity, _ in findings} == {("S103", "error")}


@pytest.mark.parametrize("text", ["R&D; x", "Tom & Jerry;", "a &c; b", "&;", "AT&T", "x && y;"])
def test_an_ampersand_is_no_entity(write, text):
    assert check(write, [*repeat(["hola a todos"]), text], "es") == []


ODD = {
    "S101": "今天的天气真的非常好我们去公园",
    "S102": "maÃ±ana serÃ¡ otro dÃ­a",
    "S103": "Tom &amp; Jerry",
}


@pytest.mark.parametrize("rule", ODD)
def test_a_single_row_is_a_warning_at_its_line(write, rule):
    findings = check(write, [*repeat(TEXTS["es"]), ODD[rule]], "es")
    assert [(r, severity) for r, severity, _ in findings] == [(rule, "warning")]
    assert findings[0][2].endswith(":14")


@pytest.mark.parametrize(("spilled", "severity"), [(1, "warning"), (12, "error")])
@pytest.mark.parametrize("header", ["label,text,,", "label,text,,Unnamed: 3"])
def test_text_in_a_column_without_a_name_is_found(write, spilled, severity, header):
    rows = [f"a,uno dos {n},{' tres' * (n < spilled)},\nb,cuatro {n},," for n in range(12)]
    rows = [row.split("\n")[0] for row in rows] if spilled == 12 else rows
    path = write("a.csv", "\n".join([header, *rows]) + "\n")
    run = compose_run(
        [
            *("data=files_classification", "data.text=text", "data.label=label"),
            *(f"data.train={path}", "data.validation=null", "data.test=null", "data.language=es"),
        ]
    )
    found = [f for f in examine(run).findings if f.rule == "S104"]
    assert [f.severity for f in found] == [severity] * spilled
    assert found[0].place == f"{path}:2"
    assert found[0].message == "column 3 has no name, but holds text"


def test_an_index_column_without_a_name_is_no_spilled_text(write):
    path_header = "\ttext\tlabel"
    assert check(write, [f"{n}\tuno dos {n}" for n in range(12)], "es", header=path_header) == []
