import io
import json
import os
import re
import subprocess
import sys
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser

import pytest
from rich.console import Console

from crosstune.errors import ConfigError, RunError
from crosstune.reporting.comparison import Comparison
from crosstune.reporting.report import ReportOptions, print_report, write_report
from tests.reporting.answers import add_answers, write_answers

NAMES = ["table.md", "table.tex", "table.csv", "costs.md", "costs.tex", "costs.csv"]
FIGURES = ["scores", "pareto", "pareto_memory", "pareto_time"]
NAMES += [*(f"{name}.{ending}" for name in FIGURES for ending in ("svg", "png")), "index.html"]
HOSTILE = "<script>alert('\"&`|\\')</script>\x1b[31m\u202e[bold]=cmd()"


class Page(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.addresses, self.open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("meta", "use", "path", "rect"):
            self.open.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("href", "src", "xlink:href")]

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def report_of(study, missing=(), command="crosstune report experiment=study"):
    return write_report(study.outputs, "study", list(missing), command)


def page_of(study, missing=()):
    return report_of(study, missing).paths["index.html"].read_text("utf-8")


def printed(report, width=100):
    out = io.StringIO()
    print_report(report, Console(file=out, width=width))
    return out.getvalue()


def check_page(text):
    """Fail if the page holds a script of others, asks for the network, or has a tag left open."""
    page = Page(text)
    assert not {"iframe", "img", "link", "object", "b"} & set(page.tags)
    assert page.tags.count("script") == 1
    digest = b64encode(sha256(text.split("<script>")[1].split("</script>")[0].encode()).digest())
    assert f"script-src 'sha256-{digest.decode()}'" in text
    assert all(address.startswith("#") for address in page.addresses)
    assert not page.open
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", text)


def full_study(study):
    """A study with everything that can go wrong, under hostile names."""
    numbers = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 3}
    classes = {"test": {"es": {"classes": {HOSTILE: numbers}, "micro": numbers}}}
    scores = {"test": {"es": {"f1": 0.5}, HOSTILE: {"f1": 0.5}}}
    pairs = [(HOSTILE, HOSTILE), (HOSTILE, "=b"), ("=b", HOSTILE)]
    for seed in (1, 2):
        names = {"seed": seed, "data": HOSTILE, "scores": scores, "report": classes}
        add_answers(study, "classification", pairs, method=HOSTILE, **names)
        add_answers(study, "classification", pairs, method="full", **names)
    study.fail(seed=3, method=HOSTILE, data=HOSTILE, error=HOSTILE)
    study.add(seed=1, method=HOSTILE, data=HOSTILE)
    broken = study.add(seed=4, data=HOSTILE, settings={"data.kind": "tagging"})
    write_answers(study, broken, [(HOSTILE, HOSTILE)])
    for kind in ("tagging", "extraction"):
        for gold, guess in (([HOSTILE], ["O"]), ([f"B-{HOSTILE}"], ["O"])):
            guess = HOSTILE if kind == "extraction" else guess
            add_answers(study, kind, [(gold, guess)], data=f"{kind}{gold[0][:2]}")
    study.write("killed", "", name="config.yaml")
    study.write("broken", f'{{"schema": "{HOSTILE}')
    return [
        study.plan(method=HOSTILE),
        {"overrides": [HOSTILE], "error": HOSTILE},
    ]


def test_a_report_is_these_files(study):
    study.add()
    report = report_of(study)
    assert sorted(path.name for path in report.folder.iterdir()) == sorted(NAMES)


def test_a_report_names_its_files(study):
    study.add()
    assert all(path.is_file() for path in report_of(study).paths.values())


def test_the_markdown_returned_is_the_markdown_written(study):
    study.add()
    report = report_of(study)
    assert report.markdown == report.paths["table.md"].read_text("utf-8")


def test_a_report_written_again_is_the_same_to_the_byte(study):
    missing = full_study(study)
    first = {name: path.read_bytes() for name, path in report_of(study, missing).paths.items()}
    second = {name: path.read_bytes() for name, path in report_of(study, missing).paths.items()}
    assert first == second


REPORT_AGAIN = """
import sys
from pathlib import Path
from crosstune.reporting.report import write_report
write_report(Path(sys.argv[1]), "study", [], "crosstune report experiment=study")
"""


def test_another_process_writes_the_same_report_to_the_byte(study):
    for method in ("lora", "full"):
        for limit in (1, 1.0, 2):
            study.add(method=method, settings={"data.limit": limit})
    pairs = [(["B-A", "I-A", "B-B"], ["B-C", "B-D", "B-A"]), (["B-E"], ["B-F"])]
    for seed in (1, 2):
        add_answers(study, "tagging", pairs, seed=seed, scores=two_languages())
    report = report_of(study)
    first = {name: path.read_bytes() for name, path in report.paths.items()}
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", REPORT_AGAIN, str(study.outputs)]
    subprocess.run(command, check=True, env=environment)
    assert first == {name: path.read_bytes() for name, path in report.paths.items()}


def test_another_score_gives_another_report(study):
    study.add(seed=1)
    first = report_of(study).paths["scores.svg"].read_bytes()
    study.add(seed=2, score=0.7)
    assert report_of(study).paths["scores.svg"].read_bytes() != first


def test_a_study_without_runs_is_an_error_of_the_command(study):
    with pytest.raises(ConfigError, match="No experiment has a run"):
        report_of(study)


def test_a_folder_that_cannot_be_written_is_named(study):
    study.add()
    (study.folder / "report").write_text("")
    with pytest.raises(RunError, match="report"):
        report_of(study)


def test_a_file_that_cannot_be_replaced_leaves_no_draft(study):
    study.add()
    (study.folder / "report" / "table.md" / "x").mkdir(parents=True)
    with pytest.raises(RunError):
        report_of(study)
    assert [path.name for path in (study.folder / "report").iterdir()] == ["table.md"]


def test_a_truncated_record_is_a_warning_and_no_crash(study):
    study.add()
    study.write("broken", '{"run_id": "broken", "scor')
    assert "Unreadable record in broken" in report_of(study).markdown


def test_the_page_is_one_file_with_one_script_and_no_network(study):
    check_page(page_of(study, full_study(study)))


@pytest.mark.parametrize(
    "bug", [lambda t: t.replace("&lt;", "<"), lambda t: t + "\x1b", lambda t: t + "<img src='//x'>"]
)
def test_the_check_of_the_page_sees_a_text_that_is_not_escaped(study, bug):
    page = page_of(study, full_study(study))
    with pytest.raises(AssertionError):
        check_page(bug(page))


def test_the_figure_on_the_page_takes_the_colour_of_the_text(study):
    study.add()
    assert "#24292f" not in page_of(study)


def test_the_page_shows_the_table(study):
    study.add()
    assert re.search(r"lora 80\.0 \(1\) .* 1,234 10\.0 2\.0", Page(page_of(study)).text)


def test_the_page_shows_a_failed_run_with_its_error(study):
    study.fail(seed=4, error="ValueError: too <long>")
    text = Page(page_of(study)).text
    assert "failed lora on tags es, model mini, seed 4" in text
    assert "ValueError: too <long>" in text


def test_the_page_shows_a_missing_run(study):
    study.add()
    text = Page(page_of(study, [study.plan(seed=2)])).text
    assert "missing lora on tags es, model mini, seed 2, run plan2" in text


def test_the_page_names_run_and_score_of_every_seed(study):
    record = study.add(seed=3, score=1 / 3)
    text = Page(page_of(study)).text
    assert f"seed score validation difference run 3 0.333333 0.166667 – {record['run_id']}" in text


def test_the_page_shows_the_classes(study):
    numbers = {"precision": 0.5, "recall": 0.25, "f1": 0.75, "support": 7}
    study.add(report={"test": {"es": {"classes": {"PER": numbers}}}})
    assert "PER 50.0 25.0 75.0 7 1" in Page(page_of(study)).text


def test_the_page_shows_the_command(study):
    study.add()
    report = report_of(study, command="crosstune train -m 'experiment=study'")
    text = Page(report.paths["index.html"].read_text("utf-8")).text
    assert "Command crosstune train -m 'experiment=study' \"use strict\";" in text


def test_the_page_says_what_the_figure_left_out(study):
    for number in range(25):
        study.add(data=f"data{number}")
    assert "the first 12 of 25 columns" in Page(page_of(study)).text


def test_the_page_shows_the_confusion_of_labels(study):
    add_answers(study, "classification", [("a", "a"), ("a", "b"), ("b", "b")], seed=1)
    add_answers(study, "classification", [("a", "b"), ("a", "b"), ("b", "b")], seed=2)
    text = Page(page_of(study)).text
    assert "tags es, model mini 3 test items." in text
    assert "lora: 3 of 6 items wrong (2 runs) gold \\ predicted a b a 1 3 b 2" in text


def test_the_page_lists_the_items_that_every_run_got_wrong(study):
    add_answers(study, "classification", [("a", "a"), ("a", "b")], seed=1)
    add_answers(study, "classification", [("a", "b"), ("a", "c")], seed=2)
    text = Page(page_of(study)).text
    assert "Wrong in each of the 2 runs: 1 of 2 items. id gold predictions 1 a b; c" in text


def test_the_page_lists_the_items_that_every_method_got_wrong(study):
    add_answers(study, "classification", [("a", "b"), ("a", "b")], method="lora")
    add_answers(study, "classification", [("a", "a"), ("a", "b")], method="full")
    text = Page(page_of(study)).text
    title = "all 2 methods Wrong in every run of every method: 1 of 2 items."
    assert f"{title} id gold predictions 1 a b ×2" in text


def test_the_page_shows_the_mistakes_on_spans(study):
    add_answers(study, "tagging", [(["B-PER", "I-PER", "B-LOC"], ["B-PER", "O", "B-PER"])])
    text = Page(page_of(study)).text
    assert "LOC 1 0 0 1 0 0 0 PER 1 0 1 0 0 0 0 all 2 0 1 1 0 0 0" in text
    assert "0 PER 1–2, LOC 3 PER 1, PER 3" in text


def test_the_page_shows_the_tags_confused_most(study):
    add_answers(study, "tagging", [(["DET", "NOUN"], ["DET", "VERB"])])
    assert "NOUN VERB 1 100.0 correct words 1" in Page(page_of(study)).text


def test_the_page_shows_the_mistakes_on_answers(study):
    add_answers(study, "extraction", [(["a"], "a"), (["a b"], "b"), ([], "b"), (["a"], "")])
    text = Page(page_of(study)).text
    assert "should not have been empty 1 0 1 0 1 1" in text
    assert "3 a (empty)" in text


def test_the_page_shows_the_largest_distances(study):
    add_answers(study, "regression", [(1.0, 1.5), (2.0, 5.0)])
    text = Page(page_of(study)).text
    assert "lora: mean absolute error 1.75 (1 run)" in text
    assert "id absolute error gold predictions 1 3 2 5 0 0.5 1 1.5" in text


def test_the_page_names_predictions_that_are_counted_nowhere(study):
    record = add_answers(study, "classification", [("a", "b")])
    (study.folder / record["run_id"] / "predictions.parquet").write_bytes(b"")
    expected = f"Predictions of run {record['run_id']} (lora), counted nowhere: ArrowInvalid"
    assert expected in Page(page_of(study)).text


def test_a_study_without_predictions_has_no_part_on_errors(study):
    study.add()
    assert "<h2>Errors</h2>" not in page_of(study)


def two_languages():
    return {"test": {"es": {"f1": 0.8}, "zh": {"f1": 0.5}}}


def test_a_study_with_transfer_and_predictions_has_their_files_too(study):
    add_answers(study, "classification", [("a", "b")], scores=two_languages())
    transfer = ["transfer.md", "transfer.tex", "transfer.csv"]
    errors = ["errors_counts.csv", "errors_items.csv"]
    report = report_of(study)
    assert sorted(report.paths) == sorted([*NAMES, *transfer, *errors])
    assert sorted(path.name for path in report.folder.iterdir()) == sorted(report.paths)


def test_files_of_an_earlier_report_that_no_longer_hold_go(study):
    record = add_answers(study, "classification", [("a", "b")], scores=two_languages())
    report_of(study)
    (study.folder / record["run_id"] / "predictions.parquet").unlink()
    report = report_of(study)
    assert not (report.folder / "errors_items.csv").exists()
    assert (report.folder / "transfer.md").exists()


def test_a_study_that_measured_no_parameters_has_no_plot_of_them(study):
    study.add()
    report_of(study)
    (record,) = study.folder.glob("*/record.json")
    record.write_text(record.read_text("utf-8").replace("trainable_parameters", "x"), "utf-8")
    report = report_of(study)
    assert not (report.folder / "pareto.svg").exists()
    page = report.paths["index.html"].read_text("utf-8")
    assert "Score against trainable parameters" not in page
    assert "Score against memory" in page
    assert "Score against time" in page


def test_the_page_shows_costs_under_the_names_of_the_record(study):
    study.add(cost={"optimizer_bytes": 2**20, "inference_flops_per_token": 1234})
    text = Page(page_of(study)).text
    assert "method optimizer MiB inference flops per token lora 1.0 1,234" in text


def test_two_drawings_on_a_page_share_no_group(study):
    study.add()
    groups = re.findall(r'<g [^>]*id="([^"]*)"', page_of(study))
    assert len(groups) == len(set(groups))


def test_page_and_terminal_show_the_transfer_table(study):
    study.add(scores=two_languages())
    report = report_of(study)
    page = Page(report.paths["index.html"].read_text("utf-8")).text
    assert "lora · es 80.0 (1) 50.0 (1) 80.0 (1) 50.0 (1) 30.0 (1) 65.0 (1)" in page
    assert re.search(r"lora · es +80\.0 \(1\) +50\.0 \(1\)", printed(report))


def test_the_terminal_shows_the_table_in_a_hundred_columns(study):
    for seed in (1, 2, 3):
        study.add(seed=seed, score=seed / 10)
    lines = printed(report_of(study)).splitlines()
    assert max(map(len, lines)) <= 100
    assert any("20.0 ± 10.0 (3)" in line for line in lines)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 200])
def test_no_number_is_cut_on_any_terminal(study, width):
    for number in range(6):
        for seed in (1, 2):
            cost = {"trainable_parameters": 123456789012}
            study.add(data=f"data{number}", seed=seed, score=seed / 10, cost=cost)
    report = report_of(study)
    shown = printed(report, width)
    cells = [cell for row in report.tables[0].rows for cell in row[1:]]
    assert [shown.count(cell) >= cells.count(cell) for cell in cells] == [True] * len(cells)


def test_a_wide_table_fits_its_terminal(study):
    for number in range(12):
        study.add(data=f"data{number}")
    shown = printed(report_of(study), width=60).splitlines()
    assert max(map(len, shown[: -len(NAMES)])) <= 60


def test_the_terminal_gets_no_control_characters_from_data(study):
    shown = printed(report_of(study, full_study(study)))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", shown)


def test_markup_of_the_terminal_is_shown_as_text(study):
    study.add(method="[bold]x[/bold]")
    assert "[bold]x[/bold]" in printed(report_of(study))


def test_a_cell_names_configuration_data_and_versions(study):
    study.add()
    text = Page(page_of(study)).text
    assert "data: a.tsv aa, b.tsv bb, c.tsv cc" in text
    assert re.search(r"configuration: [0-9a-f]{12}", text)


def test_what_differs_between_the_seeds_of_a_cell_is_told_by_seed(study):
    study.add(seed=1, environment={"torch": "2.13.0"})
    study.add(seed=2, environment={"torch": "2.14.0", "git_dirty": True})
    text = Page(page_of(study)).text
    assert "versions (seed 1): torch 2.13.0" in text
    assert "versions (seed 2): torch 2.14.0, with changes not committed" in text


def test_a_cell_gives_the_command_that_makes_its_runs_again(study):
    runs = [study.add(seed=seed)["run_id"] for seed in (1, 2)]
    lines = [
        {"run_id": run, "overrides": ["method=lora", f"seed={seed}", "data.text=a b"]}
        for seed, run in enumerate(runs, 1)
    ]
    plan = "".join(json.dumps(line) + "\n" for line in lines)
    (study.folder / "plan.jsonl").write_text(plan + '{"run_id":', "utf-8")
    text = Page(page_of(study)).text
    assert "crosstune train -m method=lora 'data.text=a b' seed=1,2" in text


def test_a_cell_whose_runs_were_not_planned_points_to_their_configuration(study):
    study.add()
    assert "config.yaml in the run's folder holds every option" in Page(page_of(study)).text


def test_languages_and_methods_are_a_shaded_map(study):
    study.add(scores=two_languages())
    page = page_of(study)
    assert '<td class="s9">80.0</td><td>50.0</td>' in page
    assert "lora 80.0 50.0" in Page(page).text


def test_a_study_of_one_language_has_no_map(study):
    study.add()
    assert "Languages and methods" not in page_of(study)


def test_importing_the_report_loads_no_training_library():
    heavy = "{'torch', 'transformers', 'pytorch_lightning', 'hydra', 'omegaconf', 'peft'}"
    code = "import sys, crosstune.reporting.report; "
    code += f"print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_an_unknown_baseline_is_an_error_with_those_that_are_there(study):
    study.add(method="lora")
    options = ReportOptions(Comparison("lroa"), baseline_required=True)
    with pytest.raises(ConfigError, match=r"baseline=lroa: .* Did you mean lora"):
        write_report(study.outputs, "study", [], "crosstune report", options)


def test_the_default_baseline_may_be_missing(study):
    study.add(method="lora")
    assert write_report(study.outputs, "study", [], "crosstune report").tables
