"""Findings on characters, readers' faults, ids, labels, tags and balance."""

import json

import pytest

from crosstune.data.quality.checks import (
    classify_reader_fault,
    find_imbalance,
    find_label_conflicts,
    find_label_faults,
    find_odd_values,
    find_repeated_ids,
    find_row_faults,
    find_suspicious_characters,
    find_tag_faults,
    inspect_text,
    is_typo,
)
from crosstune.data.quality.rules import (
    MAX_SHOWN,
    RULES,
    downgrade_allowed,
    escape,
    make_finding,
    render_json,
    render_rules,
    render_text,
    shorten,
    sort_findings,
)
from crosstune.data.splits import Split


def splits_of(**rows):
    """Return splits from lists of rows; each gets an id and a place unless it has them."""
    splits = {}
    for name, items in rows.items():
        split, _, language = name.partition("_")
        numbered = [
            {"id": str(n), "where": f"{name}:{n}", **row} for n, row in enumerate(items, start=1)
        ]
        splits.setdefault(split, {})[language or "es"] = Split(numbered, {})
    return splits


def labelled(*labels):
    return [{"text": f"texto {n}", "label": label} for n, label in enumerate(labels)]


def texts_of(row):
    return [row["text"]]


def labels_of(row):
    return [row["label"]]


def locations(findings):
    return [(f.rule, f.place) for f in findings]


# --- characters


@pytest.mark.parametrize(
    ("character", "rule"),
    [
        ("\0", "C101"),
        ("\x07", "C102"),
        ("\x0b", "C102"),
        ("\x1b", "C102"),
        ("\x7f", "C102"),
        ("\x85", "C102"),
        ("\r", "C102"),
        ("\ufffd", "C103"),
        ("\ufeff", "C104"),
        ("\u202e", "C105"),
        ("\u2066", "C105"),
        ("\u200b", "C106"),
        ("\u200d", "C106"),
        ("\u200e", "C106"),
        ("\u00ad", "C106"),
        ("\ud83d", "C108"),
    ],
    ids=ascii,
)
def test_an_odd_character_is_told_with_line_and_column(character, rule):
    text = f"uno\ndos {character}x\n"
    findings = list(find_suspicious_characters(text, lambda line, column: f"a:{line}:{column}"))
    assert locations(findings) == [(rule, "a:2:5")]


@pytest.mark.parametrize(
    "text", ["uno\tdos\n", "uno\r\n", "uno\r", "niño 你好 😀", "\u2028\u2029", "\u00a0\u3000", "ｗ"]
)
def test_common_characters_are_not_odd(text):
    assert list(find_suspicious_characters(text, lambda line, column: "")) == []


def test_a_line_tells_each_rule_once():
    text = "\x01\x02\0\x03\n\x04"
    places = locations(find_suspicious_characters(text, lambda line, column: str(line)))
    assert places == [("C102", "1"), ("C101", "1"), ("C102", "2")]


def test_an_undecoded_byte_is_told_once_a_line_and_leaves_a_question_mark():
    decoded = b"x\xff\xfe\ny\xf1".decode("utf-8", "surrogateescape")
    text, findings = inspect_text("a", decoded, "utf-8")
    assert text == "x??\ny?"
    assert [(f.place, f.message) for f in findings] == [
        ("a:1", "byte 0xff is not UTF-8"),
        ("a:2", "byte 0xf1 is not UTF-8"),
    ]


def test_values_of_rows_are_looked_into_to_the_bottom():
    rows = [{"id": "1", "where": "a:3", "answers": [{"text": "x\0", "start": 3}]}]
    assert locations(find_odd_values(rows)) == [("C101", "a:3")]


# --- readers and rows


@pytest.mark.parametrize(
    ("fault", "rule", "place"),
    [
        ("a.tsv: no such file", "R101", "a.tsv"),
        ("a.tsv:2: byte 0xff is not UTF-8", "R102", "a.tsv:2"),
        ("a.tsv:2: 1 columns where the header has 2", "R103", "a.tsv:2"),
        ("a.tsv:2: column 'text' (data.text) is empty", "R104", "a.tsv:2"),
        ("a.tsv:2:7: malformed JSON (x)", "R105", "a.tsv:2:7"),
        ("a.tsv:2: no column 'x' (data.text). The columns are: y", "R106", "a.tsv:2"),
        ("a.tsv:2: column 'text' holds a list, not one value", "R107", "a.tsv:2"),
        ("a.tsv:2: the id 'x' stands at a.tsv:1 already", "I101", "a.tsv:2"),
        ("a.tsv:2: something else", "R109", "a.tsv:2"),
        ("b/c.ann:5: something else", "R109", "b/c.ann:5"),
        ("something without a place", "R109", "a.tsv"),
    ],
)
def test_what_a_reader_says_gets_its_rule_and_place(fault, rule, place):
    assert locations([classify_reader_fault("a.tsv", fault)]) == [(rule, place)]


def test_a_row_tells_the_faults_of_its_task_and_its_empty_texts():
    splits = splits_of(train=[{"text": "x", "bad": ["odd"]}, {"text": " ", "bad": []}])
    findings = find_row_faults(splits, lambda row: row["bad"], texts_of)
    assert locations(findings) == [("T101", "train:1"), ("R104", "train:2")]


# --- ids


def test_an_id_twice_in_a_split_is_told():
    splits = splits_of(train=[{"id": "x"}, {"id": "y"}, {"id": "x"}])
    assert locations(find_repeated_ids(splits)) == [("I101", "train:3")]


def test_an_id_of_train_in_the_test_is_told_by_language():
    row = {"id": "x"}
    splits = splits_of(train=[row], validation=[{"id": "z"}], test=[row], test_zh=[row])
    assert locations(find_repeated_ids(splits)) == [("I102", "test:1"), ("D403", "test_zh:1")]


def test_ids_that_count_rows_say_nothing():
    rows = labelled("a", "b", "a")
    assert locations(find_repeated_ids(splits_of(train=rows, test=rows, test_zh=rows))) == []


def test_numbers_that_do_not_count_up_are_ids():
    splits = splits_of(train=[{"id": "7"}, {"id": "3"}], test=[{"id": "9"}, {"id": "7"}])
    assert locations(find_repeated_ids(splits)) == [("I102", "test:2")]


# --- labels


@pytest.mark.parametrize(
    ("label", "count", "other", "other_count", "expected"),
    [
        ("Positive", 30, "positive", 90, True),
        ("positive ", 1, "positive", 2, True),
        ("ｐositive", 0, "positive", 1, True),
        ("positive", 90, "Positive", 30, False),  # the more frequent is right
        ("positve", 1, "positive", 90, True),
        ("possitivve", 1, "positive", 90, True),
        ("posssitivve", 1, "positive", 90, False),  # three letters
        ("positve", 30, "positive", 90, False),  # too frequent for a slip
        ("positve", 1, "positive", 10, False),  # beside something too rare
        ("no", 1, "yo", 90, False),  # too short
        ("2", 1, "1", 90, False),
        ("topic 12", 1, "topic 13", 90, False),
        ("I-LOC", 1, "B-LOC", 90, False),
        ("B-PERS", 1, "B-PER", 90, False),  # three letters and one
        ("B-PERSN", 1, "B-PERSON", 90, True),
        ("B-PERSON", 1, "I-PERSON", 90, False),
        ("deporte", 1, "ciencia", 90, False),
    ],
)
def test_a_slip_is_known_by_its_letters_and_its_rarity(label, count, other, other_count, expected):
    assert is_typo(label, count, other, other_count) is expected


def test_of_two_labels_that_are_equally_frequent_one_is_the_slip():
    assert is_typo("a", 3, "A", 3) is not is_typo("A", 3, "a", 3)


def test_a_slip_is_told_once_with_what_was_meant():
    splits = splits_of(
        train=labelled(*["positive"] * 60, *["negative"] * 60), test=labelled("positve", "positve")
    )
    slips = [f for f in find_label_faults(splits, labels_of, lenient=True) if f.rule == "L102"]
    assert locations(slips) == [("L102", "test:1")]
    assert "is 'positive' meant?" in slips[0].message


@pytest.mark.parametrize(("lenient", "severity"), [(False, "error"), (True, "warning")])
def test_a_label_that_train_lacks_is_told_at_each_row(lenient, severity):
    splits = splits_of(train=labelled("a", "b"), test=labelled("a", "c", "c"))
    findings = list(find_label_faults(splits, labels_of, lenient))
    assert locations(findings) == [("L101", "test:2"), ("L101", "test:3")]
    assert {f.severity for f in findings} == {severity}


def test_without_train_no_label_is_unseen():
    assert (
        locations(find_label_faults(splits_of(test=labelled("a")), labels_of, lenient=False)) == []
    )


def test_a_text_with_other_labels_is_told_with_both():
    rows = [{"text": "uno", "label": "a"}, {"text": "uno ", "label": "b"}]
    (finding,) = find_label_conflicts(splits_of(train=rows), texts_of, labels_of)
    assert (finding.rule, finding.place, finding.message) == (
        "L103",
        "train:2",
        "b here, a at train:1",
    )


def test_balance_counts_rows_and_tells_rare_and_untested_labels():
    splits = splits_of(train=labelled(*"aaaaaaaaaaaab"), test=labelled("a"))
    findings = find_imbalance(splits, labels_of, {"train/es": "T", "test/es": "E"})
    assert [(f.rule, f.place, f.message) for f in findings] == [
        ("B101", "T", "train/es: a 12, b 1"),
        ("B102", "T", "1 row of train with 'b'"),
        ("B101", "E", "test/es: a 1"),
        ("B103", "E", "test/es lacks 'b'"),
    ]


# --- tags


def tagged(*sequences):
    return [{"words": ["w"] * len(s.split()), "tags": s.split()} for s in sequences]


def test_a_tag_that_breaks_the_scheme_is_told_with_its_word():
    splits = splits_of(train=tagged("B-PER I-PER O", "B-LOC O"), test=tagged("O I-PER"))
    (finding,) = find_tag_faults(splits)
    assert (finding.rule, finding.severity, finding.place) == ("G101", "warning", "test:1")
    assert finding.message.startswith("word 2: I-PER after O")


def test_a_rare_tag_of_no_scheme_is_told():
    splits = splits_of(train=tagged(*["B-PER I-PER O"] * 20, "X-PER O"))
    assert locations(find_tag_faults(splits)) == [("G101", "train:21")]


@pytest.mark.parametrize("sequence", ["NOUN VERB", "O O", "n v M", ""])
def test_tags_that_mark_no_spans_have_no_scheme(sequence):
    assert locations(find_tag_faults(splits_of(train=tagged(sequence)))) == []


# --- findings


def test_every_rule_has_an_id_a_known_severity_and_a_line_in_the_table():
    assert all(rule.severity in ("error", "warning", "note") for rule in RULES.values())
    assert [line.split()[0] for line in render_rules().splitlines()] == list(RULES)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\nb\r\tc", "a\\x0ab\\x0d\\x09c"),
        ("\u202eevil", "\\u202eevil"),
        ("\ud83d", "\\ud83d"),
        ("\U000e0041", "\\U000e0041"),
        ("niño 你好 😀", "niño 你好 😀"),
    ],
    ids=ascii,
)
def test_what_a_terminal_would_obey_is_spelled_out(text, shown):
    assert escape(text) == shown


def test_every_text_of_a_finding_is_escaped():
    finding = make_finding("D101", "\x1b:1", "\x1b", "\x1b" * 100)
    assert finding.place + finding.message == "\\x1b:1\\x1b"
    assert finding.value.isprintable()
    assert len(shorten("x" * 100)) == 60


def test_findings_come_gravest_first_then_by_rule_and_line_and_once():
    findings = [
        make_finding("D101", "a:10", ""),
        make_finding("D101", "a:9", ""),
        make_finding("D101", "a:9", ""),
        make_finding("B101", "a", ""),
        make_finding("R103", "a:50", ""),
    ]
    assert locations(sort_findings(findings)) == [
        ("R103", "a:50"),
        ("D101", "a:9"),
        ("D101", "a:10"),
        ("B101", "a"),
    ]


def test_twenty_places_of_a_rule_are_shown_unless_all_are_asked_for():
    findings = [make_finding("R103", f"a:{n}", "x") for n in range(25)]
    short, long = render_text(findings, False), render_text(findings, True)
    assert short.count("a:") == MAX_SHOWN == 20
    assert "… and 5 more; all=true shows them" in short
    assert long.count("a:") == 25


def test_an_allowed_rule_is_a_note_by_id_or_by_name():
    findings = [
        make_finding("D102", "a:1", ""),
        make_finding("D202", "a:2", ""),
        make_finding("R103", "a:3", ""),
    ]
    by_id = [f.severity for f in downgrade_allowed(findings, ["D102"])]
    by_name = [f.severity for f in downgrade_allowed(findings, ["leakage"])]
    assert by_id == ["note", "error", "error"]
    assert by_name == ["note", "note", "error"]


def test_json_counts_every_rule():
    findings = [
        make_finding("R103", "a:1", "x"),
        make_finding("R103", "a:2", "x"),
        make_finding("B101", "a", "x"),
    ]
    text = render_json({"data": "d"}, findings)
    assert text.isascii()
    assert json.loads(text)["counts"] == {"R103": 2, "B101": 1}
