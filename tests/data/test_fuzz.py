"""Mutated files: whatever a file holds, a reader returns rows or raises an error of ours."""

import gzip
import io
import json
import random
from pathlib import Path

import pyarrow.parquet
import pytest

from crosstune.data import readers
from crosstune.errors import CrosstuneError

MUTANTS = 500
ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "gb18030", "latin-1", "utf-7", "cp037", "hz")
TABLE = {"text": "text", "label": "label"}
ROWS = [
    {"text": 'Hola, "señor"', "label": "a", "other": "x; y|z"},
    {"text": "你好\u3000世界", "label": "b", "other": "[1] 二"},
    {"text": "e\u0301l & <b>", "label": "a", "other": "(x)"},
]
QUESTION = {
    "id": "q",
    "question": "¿Quién?",
    "context": "Ana vive.",
    "answers": [{"text": "Ana", "answer_start": 0}],
}
SQUAD = {"data": [{"paragraphs": [{"context": "Ana vive.", "qas": [QUESTION]}]}]}
CONLLU = "# text = del 你\n1-2\tdel\t_\t_\t_\t_\t_\t_\t_\t_\n" + "".join(
    f"{n}\t{word}\t_\tADP\t_\t_\t0\troot\t_\t_\n" for n, word in enumerate(["de", "el", "你"], 1)
)
TACRED = {"id": "e", "relation": "r", "token": ["Ana", "vive", "en", "Lima"]} | {
    f"{side}_{end}": n for n, side in enumerate(("subj", "obj")) for end in ("start", "end")
}
BRAT = "T1\tPER 0 3\tAna\nT2\tLOC 12 16;17 18\tLima 二\nR1\tin Arg1:T1 Arg2:T2\n*\tsame T1 T2\n"


def write_parquet():
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), buffer)
    return buffer.getvalue()


def delimit(separator, rows=ROWS):
    return "\n".join(separator.join(row) for row in [rows[0], *(r.values() for r in rows)]) + "\n"


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_both(path, form):
    """Read a BRAT document whose annotations are the fuzzed file."""
    Path(path).with_suffix(".txt").write_text("Ana vive en Lima 二\nsí\n", "utf-8")
    return readers.read_brat(path.removesuffix(".ann"), as_=form)


READERS = {
    "tsv": ("a.tsv", delimit("\t"), lambda f: readers.read_table(f, **TABLE)),
    "csv": ("a.csv", delimit(",", ROWS[1:]), lambda f: readers.read_table(f, **TABLE)),
    "separated": (
        "a.csv",
        delimit(";", ROWS[1:]),
        lambda f: readers.read_table(f, **TABLE, separator=";"),
    ),
    "jsonl": ("a.jsonl", lines(ROWS), lambda f: readers.read_table(f, **TABLE)),
    "parquet": ("a.parquet", write_parquet(), lambda f: readers.read_table(f, **TABLE)),
    "gb18030": (
        "a.tsv",
        delimit("\t").encode("gb18030"),
        lambda f: readers.read_table(f, **TABLE, encoding="gb18030"),
    ),
    "utf-16": (
        "a.txt",
        "Hola\n".encode("utf-16"),
        lambda f: readers.read_text(f, encoding="utf-16"),
    ),
    "sets": ("a.tsv", delimit("\t"), lambda f: readers.read_label_sets(f, **TABLE)),
    "generation": (
        "a.jsonl",
        lines([row | {"label": ["a", "b"]} for row in ROWS]),
        lambda f: readers.read_parallel(f, text="text", target="label"),
    ),
    "parallel": (
        "a.es",
        "uno\ndos\n",
        lambda f: readers.read_parallel(f[:-3], suffixes=["es", "es"]),
    ),
    "text": ("a.txt", "Hola\n\n你好\n", readers.read_text),
    "text.gz": ("a.txt.gz", "Hola\n\n你好\n", readers.read_text),
    "columns": ("a.conll", "# id = 1\nAna B-PER\nva O\n\n# O\n你 S-X\n", readers.read_conll),
    "tabs": (
        "a.conll",
        "Ana\tN\tB-PER\nva\tV\tO\n\n\tN\tO\n",
        lambda f: readers.read_conll(f, skip_empty=True),
    ),
    "digits": (
        "a.conll",
        "科0\tO\n技1\tO\n",
        lambda f: readers.read_conll(f, strip_digit=True, tag=None),
    ),
    "conllu": ("a.conllu", CONLLU, readers.read_conllu),
    "segmented": ("a.txt", "我 是\u3000学生\n", readers.read_segmented),
    "squad": ("a.json", json.dumps(SQUAD, indent=1, ensure_ascii=False), readers.read_squad),
    "squad lines": ("a.json", lines([QUESTION, QUESTION | {"id": "r"}]), readers.read_squad),
    "clue": ("a.json", lines(ROWS), lambda f: readers.read_clue(f, **TABLE, undecided="-")),
    "cluewsc": (
        "a.json",
        lines(
            [
                {
                    "text": "Ana vive",
                    "label": "t",
                    "s": {
                        "span1_text": "Ana",
                        "span1_index": 0,
                        "span2_text": "vive",
                        "span2_index": 4,
                    },
                }
            ]
        ),
        lambda f: readers.read_clue(f, **TABLE, spans="s"),
    ),
    "marked": (
        "a.tsv",
        "text\tlabel\n<e1>Ana</e1> en <e2>Lima</e2>\tin\n",
        lambda f: readers.read_marked(f, **TABLE),
    ),
    "relations": (
        "a.tsv",
        "text\thead\ttail\tlabel\nAna en Lima\tAna\tLima\tin\n",
        lambda f: readers.read_relation_table(
            f, columns={name: name for name in ("text", "head", "tail", "label")}
        ),
    ),
    "semeval": (
        "a.txt",
        '1\t"<e1>Ana</e1> en <e2>Lima</e2>"\nin(e1,e2)\nComment: x\n\n',
        readers.read_semeval,
    ),
    "tacred": ("a.json", json.dumps([TACRED]), readers.read_tacred),
    "brat": ("a.ann", BRAT, lambda f: read_both(f, "relation")),
    "brat tags": ("a.ann", BRAT, lambda f: read_both(f, "tagging")),
}


def mutate(content: bytes, draw: random.Random) -> bytes:
    """Return the content with one to four faults of those that files have."""
    for _ in range(draw.randint(1, 4)):
        at, end = sorted(draw.randrange(len(content) + 1) for _ in range(2))
        kind = draw.randrange(9)
        if kind == 0 and at < len(content):
            content = content[:at] + bytes([draw.randrange(256)]) + content[at + 1 :]
        elif kind == 1:
            content = content[:at]
        elif kind == 2:
            content = content[:at] + b"\0" * draw.randint(1, 5) + content[at:]
        elif kind == 3:
            old, new = draw.choices([b"\t", b",", b";", b" ", b"\n", b"\r", b'"', b":", b"\\"], k=2)
            content = content.replace(old, new)
        elif kind == 4:
            content = content.decode("utf-8", "replace").encode(draw.choice(ENCODINGS), "replace")
        elif kind == 5:
            content = content[:at] + content[end:]
        elif kind == 6:
            content = content[:end] + content[at:end] + content[end:]
        elif kind == 7:
            extra = draw.choice(
                ["\u200b", "\ufeff", "\u2028", "\\ud800", "null", "[", "1e999", "#"]
            )
            content = content[:at] + extra.encode() + content[at:]
        else:
            number = str(draw.choice([-1, 0, 10**9, 10**30, 2.5])).encode()
            content = content.replace(draw.choice([b"0", b"1", b"2", b"3"]), number)
    return content


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_a_mutated_file_gives_rows_or_an_error_of_ours(reader, tmp_path):
    name, content, read = READERS[reader]
    path = tmp_path / name
    content = content if isinstance(content, bytes) else content.encode()
    start = random.SystemRandom().randrange(2**32)
    for seed in range(start, start + MUTANTS):
        mutant = mutate(content, random.Random(seed))  # noqa: S311
        path.write_bytes(gzip.compress(mutant) if name.endswith(".gz") else mutant)
        try:
            rows = read(str(path)).rows
        except CrosstuneError:
            continue
        except Exception as error:
            error.add_note(f"seed {seed}: {mutant!r}")
            raise
        assert all(row["where"] and isinstance(row["id"], str) for row in rows), seed


def test_the_files_that_are_mutated_are_sound(write):
    for name, content, read in READERS.values():
        data = content if isinstance(content, bytes) else content.encode()
        data = gzip.compress(data) if name.endswith(".gz") else data
        assert read(write(name, data)).rows
