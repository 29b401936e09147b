"""A hostile configuration file is refused with its name, by every verb that composes it."""

import pytest

from tests.attacks.arena import TOUCH, attack

DATA = """
name: own
kind: classification
language: es
reader: {_target_: crosstune.data.readers.read_table, text: text, label: label}
train: rows.tsv
validation: rows.tsv
test: rows.tsv
metric: accuracy
"""
TARGETS = (
    *("os.system", "subprocess.Popen", "builtins.eval", "runpy.run_path", "pickle.loads"),
    *("torch.load", "hydra.utils.instantiate", "transformers.pipeline", "datasets.load_dataset"),
    *("crosstune.cli.main.main", "crosstune.config.instantiate.instantiate", "ctypes.CDLL"),
)
READER = "reader: {_target_: crosstune.data.readers.read_table, text: text, label: label}"
FILES = {
    **{
        f"reader {target}": DATA.replace(
            READER, f'reader: {{_target_: {target}, command: "{TOUCH}", args: ["{TOUCH}"]}}'
        )
        for target in TARGETS
    },
    **{
        f"tag {tag}": f"{DATA}\nx: !!python/{tag}"
        for tag in (
            f"object/apply:os.system ['{TOUCH}']",
            f"object/new:subprocess.Popen [['sh', '-c', '{TOUCH}']]",
            "name:os.system",
            "module:antigravity",
            "object:__main__.X {}",
            "tuple [1, 2]",
        )
    },
    **{
        f"key {key}": f"{DATA}\n{key}"
        for key in (
            "hydra: {run: {dir: elsewhere}}",
            "hydra: {job: {chdir: true}}",
            f'hydra: {{callbacks: {{x: {{_target_: os.system, command: "{TOUCH}"}}}}}}',
            "allow: [os]",
            "outputs: /tmp/elsewhere",
            "experiment: ../../x",
            "__class__: x",
            "_target_: os.system",
            "name: second",
            "'\\x1b[31m': 1",
            "? [a, b]\n: 1",
        )
    },
    **{
        f"value {value[:30]!a}": DATA.replace("language: es", f"language: {value}")
        for value in (
            "${oc.env:HOME}",
            '"\\x24{oc.env:HOME}"',
            "${oc.decode:'${oc.env:HOME}'}",
            "${hydra:runtime.cwd}",
            "${language}",
            "${by:x,{a: 1},2}",
            "[es, [zh]]",
            "{a: {b: c}}",
            "9" * 5_000,
            "'" + "e" * 100_000 + "'",
            '"es\\0"',
            '"es\\u202e"',
            "'../../etc'",
            "!!binary aGVsbG8=",
            "!!set {a, b}",
            "2026-01-01",
        )
    },
    "empty": "",
    "list": "- a\n- b\n",
    "text": "hello",
    "null byte": DATA + "\x00",
    "two documents": DATA + "---\n" + DATA,
    "anchors": DATA + "a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b, *undefined]",
    "depth": DATA + "x: " + "[" * 20_000,
    "latin-1": DATA.encode() + b"x: \xf1",
    "utf-16": DATA.encode("utf-16"),
    "pickle": b"\x80\x04\x95\x1d\x00\x00\x00",
    "binary": bytes(range(256)),
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "rows.tsv").write_text("text\tlabel\nbueno\ta\nmalo\tb\n")
    (tmp_path / "conf" / "data").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_data_file_runs_nothing_and_is_named(folder, name):
    content = FILES[name]
    path = folder / "conf" / "data" / "own.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    done = attack(folder, "check", "data=own", "--config-dir", "conf")
    assert done.returncode == 2, done.stdout
    assert done.stderr.count("\n") == 1
    assert len(done.stderr) < 3_000
