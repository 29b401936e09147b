import json
import re
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PAIRS = runpy.run_path(str(BENCHMARKS / "pairs.py"))

SAME_WORK = """
import json, sys
from pathlib import Path
import cases, parts
place = Path(sys.argv[2])
case = parts.prepare_case(sys.argv[1], parts.QUICK, 300, place)
config = place / "base/config.json"
still = {"hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0}
config.write_text(json.dumps(json.loads(config.read_text()) | still))
for who in ("crosstune", "Trainer", "plain loop"):
    parts._run_once(who, case, 3, place / who)
"""


def run(script, *arguments):
    command = [sys.executable, BENCHMARKS / script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_ratio_is_the_median_of_the_pairs_and_not_of_each_side():
    ours, theirs = [10.0, 1.0, 2.0], [10.0, 2.0, 8.0]  # medians 2 and 8 would say 0.25
    assert PAIRS["ratios"](ours, theirs).median == 0.5


def test_a_minute_in_which_all_is_slow_changes_no_ratio():
    even, slow = PAIRS["ratios"]([1, 1, 1], [2, 2, 2]), PAIRS["ratios"]([1, 5, 1], [2, 10, 2])
    assert even == slow == (0.5, 0.5, 0.5)


def test_the_spread_of_a_ratio_is_that_of_the_pairs():
    assert PAIRS["ratios"]([1.0, 3.0, 1.0], [2.0, 2.0, 1.0]) == (1.0, 0.5, 1.5)


def test_sides_of_different_length_are_refused():
    with pytest.raises(ValueError, match="zip"):
        PAIRS["ratios"]([1.0], [1.0, 2.0])


def test_the_work_of_a_childs_children_and_its_memory_count():
    busy = "import time\nwhile time.process_time() < 0.3: pass\nheld = b'x' * (80 << 20)"
    whole = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}], check=True)"
    # measured from a small process: a child's peak is never below what its parent held
    path = str(BENCHMARKS / "pairs.py")
    measure = f"import runpy, sys; run = runpy.run_path({path!r})['run_command']\n"
    measure += f"print(*run([sys.executable, '-c', {whole!r}])[1:3])"
    done = subprocess.run([sys.executable, "-c", measure], capture_output=True, check=True)
    cpu_seconds, peak_bytes = map(float, done.stdout.split())
    assert cpu_seconds >= 0.3
    assert 80 << 20 < peak_bytes < 200 << 20


def test_what_a_command_says_last_is_read_as_json():
    code = "print('noise'); print('{\"score\": 0.5}')"
    assert PAIRS["run_command"]([sys.executable, "-c", code]).said == {"score": 0.5}


def test_a_command_that_fails_is_no_sample():
    with pytest.raises(PAIRS["Failed"], match="exit code 3"):
        PAIRS["run_command"]([sys.executable, "-c", "import sys; sys.exit(3)"])


def test_a_table_shows_what_is_missing_as_missing():
    table = PAIRS["show_table"](["a", "b"], [{"a": 0}])
    assert table.splitlines()[-1] == "| 0 | – |"


def test_the_newest_tables_replace_the_older_ones_on_the_page(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    results = runpy.run_path(str(BENCHMARKS / "results.py"))
    page, tables = tmp_path / "README.md", tmp_path / "new.md"
    page.write_text(f"how to read\n\n{results['MARK']}\n\nold\n")
    tables.write_text("new\n")
    results["publish"](page, tables)
    assert page.read_text() == f"how to read\n\n{results['MARK']}\n\nnew\n"


def test_a_table_of_the_same_day_stays_until_it_is_measured_anew(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    write_results = runpy.run_path(str(BENCHMARKS / "results.py"))["write_results"]
    for name, figure in (("one", 1), ("other", 2), ("one", 3)):
        table = {"title": name, "columns": ["a"], "rows": [{"a": figure}], "note": ""}
        result = {"machine": {"date": "2026-01-01"}, "tables": {name: table}}
        path = write_results(tmp_path, "here", result)
    tables = json.loads(path.with_suffix(".json").read_text("utf-8"))["tables"]
    assert {name: table["rows"] for name, table in tables.items()} == {
        "one": [{"a": 3}],
        "other": [{"a": 2}],
    }


def test_the_page_has_the_mark_that_results_go_below(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    mark = runpy.run_path(str(BENCHMARKS / "results.py"))["MARK"]
    assert (BENCHMARKS / "README.md").read_text("utf-8").count(mark) == 1


def test_no_result_names_the_machine_or_a_path():
    for path in (BENCHMARKS / "results").glob("*.json"):
        text = path.read_text("utf-8")
        assert not re.search(r'"[^"]*(?<!\w)/\w+/', text)
        assert socket.gethostname() not in text


@pytest.mark.slow
@pytest.mark.parametrize(
    "part", ["run", "step", "study", "start", "fused", "encode", "report"], ids=lambda part: part
)
def test_every_part_of_the_benchmark_leaves_a_table(part, tmp_path):
    run("bench.py", "--quick", "--only", part, "--output", str(tmp_path))
    (path,) = tmp_path.glob("*.json")
    table = json.loads(path.read_text("utf-8"))["tables"][part]
    assert table["rows"]
    assert table["raw"]
    assert path.with_suffix(".md").read_text("utf-8").count(table["title"]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zh reviews", "es entities"])
def test_without_dropout_all_contenders_end_with_the_same_weights(name, tmp_path):
    command = [sys.executable, "-c", SAME_WORK, name, str(tmp_path)]
    subprocess.run(command, check=True, cwd=BENCHMARKS)
    (ours,) = tmp_path.glob("crosstune/**/model/model.safetensors")
    trained, base = load_file(ours), load_file(tmp_path / "base/model.safetensors")
    moved = [(trained[f"bert.{k}"] - base[k]).abs().max() for k in base if "output.dense" in k]
    assert max(moved) > 1e-4
    for rival in ("Trainer", "plain loop"):
        for key, weights in load_file(tmp_path / rival / "out/model.safetensors").items():
            assert torch.allclose(weights, trained[key], rtol=0, atol=1e-5), (rival, key)


@pytest.mark.slow
def test_the_gpu_part_works_on_a_cpu_when_it_is_asked_to(tmp_path):
    run("gpu.py", "--quick", "--pairs", "1", "--output", str(tmp_path))
    (path,) = tmp_path.glob("*.json")
    by = [row["by"] for row in json.loads(path.read_text("utf-8"))["tables"]["gpu"]["rows"]]
    assert by == ["crosstune", "crosstune compiled", "Trainer"] * 2


@pytest.mark.slow
def test_without_a_gpu_the_gpu_part_says_so_and_measures_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    said = run("gpu.py", "--output", str(tmp_path))
    assert said == "No GPU is at hand: nothing was measured.\n"
    assert not list(tmp_path.iterdir())
