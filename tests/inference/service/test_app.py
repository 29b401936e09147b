"""Serve: over real HTTP, the answers of predict, from one base for all, within limits."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from crosstune.data.readers.conll import read_conll
from crosstune.errors import ConfigError
from crosstune.inference.load_run import load_run
from crosstune.inference.predict import predict
from crosstune.inference.service.admission import MAX_BYTES
from crosstune.inference.service.app import serve
from crosstune.inference.service.request import MAX_CHARACTERS, MAX_ITEMS
from crosstune.inference.service.service import Service, fields_of, name_runs
from crosstune.inference.service.shared_base import count_bytes, load_shared, share_base_weights
from tests.finished_runs import SUFFIXES, left_run
from tests.inference.service.asking import Asking, holding
from tests.inference.service.conftest import KINDS

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*")
HOSTILE = "\x1b[31mrojo\x1b[0m\u2028 <script>alert(1)</script> [SEP] =1+1"


def own_test(study: Path, kind: str) -> Path:
    return study / f"{kind}-es" / f"test.{SUFFIXES[kind]}"


def items_of(path: Path, kind: str) -> list[dict[str, Any]]:
    """Return the items of a file as a client would send them."""
    if kind == "tagging":
        return [{"id": row["id"], "words": row["words"]} for row in read_conll(str(path)).rows]
    if kind == "extraction":
        paragraphs = json.loads(path.read_text())["data"][0]["paragraphs"]
        return [
            {"id": q["id"], "context": p["context"], "question": q["question"]}
            for p in paragraphs
            for q in p["qas"]
        ]
    return [{"text": line.split("\t")[0]} for line in path.read_text().splitlines()[1:]]


def predicted(run: Path, source: Path, target: Path) -> list[dict[str, Any]]:
    predict(run, source, target)
    return [json.loads(line) for line in target.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_predict_to_the_bit(
    kind: str, asking: Asking, runs: dict[str, Path], study: Path, tmp_path: Path
) -> None:
    source = own_test(study, kind)
    expected = predicted(runs[kind], source, tmp_path / "out.jsonl")
    assert asking.ask(runs[kind].name, items_of(source, kind)) == (200, expected)


def test_each_request_is_answered_by_the_run_that_it_names(
    asking: Asking, runs: dict[str, Path], study: Path, tmp_path: Path
) -> None:
    source = own_test(study, "classification")
    items = items_of(source, "classification")
    for name in ("classification", "second", "classification"):
        expected = predicted(runs[name], source, tmp_path / "out.jsonl")
        assert asking.ask(runs[name].name, items) == (200, expected)
    other = predicted(runs["second"], source, tmp_path / "other.jsonl")
    assert other != expected


def test_lines_of_text_are_parted_into_words_as_predict_does(
    asking: Asking, runs: dict[str, Path], tmp_path: Path
) -> None:
    for language, text in (("es", "Ana vive en Lima"), ("zh", "小明住 在北京")):
        (tmp_path / "in.txt").write_text(f"{text}\n")
        predict(runs["tagging"], tmp_path / "in.txt", tmp_path / "out.jsonl", language)
        expected = json.loads((tmp_path / "out.jsonl").read_text())
        items = [{"id": "1", "text": text}]
        assert asking.ask(runs["tagging"].name, items, language=language) == (200, [expected])


def test_every_run_answers_to_its_id_and_to_what_it_is_called(
    asking: Asking, runs: dict[str, Path]
) -> None:
    described = asking.get("/runs")
    assert [run["names"][-1] for run in described] == [run.name for run in runs.values()]
    assert described[0]["names"][0] == "adhoc/files_classification/lora/1"
    assert described[3]["names"][0] == "adhoc/files_classification/lora/2"
    by_id, by_name = (asking.ask(name, [{"text": "hola"}]) for name in described[0]["names"])
    assert by_id == by_name


def test_a_name_that_two_runs_have_is_nobodys(asking: Asking) -> None:
    first, *_, last = asking.service.runs
    twin = last._replace(record={**last.record, "seed": 1})
    assert list(name_runs([first, twin])) == [first.record["run_id"], last.record["run_id"]]


def test_a_run_says_what_it_is_asked_with(asking: Asking) -> None:
    found = {run["kind"]: run["fields"] for run in asking.get("/runs")}
    assert found == {
        "classification": [["text"]],
        "tagging": [["words"], ["text"]],
        "extraction": [["context", "question"]],
    }


def test_a_run_on_pairs_is_asked_with_both_texts(asking: Asking) -> None:
    saved = asking.service.runs[0]
    run = replace(saved.run, data=replace(saved.run.data, text_pair="b"))
    assert fields_of(saved._replace(run=run)) == [["text", "text_pair"]]


def test_further_adapters_add_no_copy_of_the_base(runs: dict[str, Path]) -> None:
    models = [saved.model for saved in load_shared(runs.values())]
    held = [count_bytes(models[: count + 1]) for count in range(len(models))]
    for number, run in enumerate(list(runs.values())[1:], start=1):
        adapter = (run / "model" / "adapter_model.safetensors").stat().st_size
        assert held[number] - held[number - 1] < 2 * adapter < 0.2 * held[0]
    apart = [load_run(run).model for run in runs.values()]
    assert count_bytes(apart) > 3 * held[0]


def test_only_what_is_the_same_to_the_bit_is_shared() -> None:
    zero, below = nn.ParameterList([torch.zeros(2)]), nn.ParameterList([-torch.zeros(2)])
    other, same = nn.ParameterList([torch.ones(2)]), nn.ParameterList([torch.zeros(2)])
    pool: Any = {}
    for model in (zero, below, other, same):
        share_base_weights(model, pool)
    assert same[0] is zero[0]
    assert below[0] is not zero[0]
    assert count_bytes([zero, below, other, same]) == 3 * zero[0].nbytes


def test_health_says_what_is_held_and_in_which_versions(asking: Asking) -> None:
    found = asking.get("/health")
    models = [saved.model for saved in asking.service.runs]
    assert (found["status"], found["runs"]) == ("ok", 4)
    assert found["weights_bytes"] == count_bytes(models)
    assert found["versions"]["torch"] == version("torch")


def test_one_model_works_at_a_time_and_health_does_not_wait(
    asking: Asking, runs: dict[str, Path]
) -> None:
    found: list[Any] = []
    names = [runs[name].name for name in ("classification", "second")]
    expected = sorted(str(asking.ask(name, [{"text": "hola"}])) for name in names)

    def ask(name: str) -> None:
        found.append(asking.ask(name, [{"text": "hola"}]))

    threads = [threading.Thread(target=ask, args=(name,)) for name in names]
    first, second = (asking.service.names[name] for name in names)
    with holding(second) as second_started:
        with holding(first) as first_started:
            threads[0].start()
            assert first_started.wait(10)
            threads[1].start()
            assert asking.get("/health")["status"] == "ok"
            assert not second_started.wait(0.3)
            assert found == []
        assert second_started.wait(10)
    for thread in threads:
        thread.join()
    assert sorted(map(str, found)) == expected


def test_the_pages_need_nothing_from_elsewhere(asking: Asking) -> None:
    status, page = asking.send("GET", "/docs")
    assert status == 200
    assert "swagger-ui" in page
    assert "//" not in "".join(
        line for line in page.splitlines() if "src=" in line or "href=" in line
    )
    assert '"validatorUrl": "none"' in page
    assert set(asking.get("/openapi.json")["paths"]) == {
        *("/health", "/metrics", "/runs", "/predict"),
    }


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([{"text": "a"}] * (MAX_ITEMS + 1), f"items: List should have at most {MAX_ITEMS} items"),
        ([], "items: List should have at least 1 item"),
        ([{"text": "a" * (MAX_CHARACTERS + 1)}], f"items[0]: {MAX_CHARACTERS + 1} characters"),
        ([{"id": "a" * MAX_CHARACTERS, "text": "a"}], f"items[0]: {MAX_CHARACTERS + 1} char"),
        ([{"words": ["a" * 9999, "b" * 9999, "ccc"]}], f"items[0]: {MAX_CHARACTERS + 1} char"),
        ([{"text": "a"}, {"text": " \n"}], "items[1].text: holds no text"),
        ([{"words": ["a", ""]}], "items[0].words[1]: holds no text"),
        ([{"words": []}], "items[0].words: List should have at least 1 item"),
        ([{"text": 3}], "items[0].text: Input should be a valid string"),
        ([{"text": "half \ud800"}], "items[0].text: holds half of a character"),
        ([{"txt": "a"}], "items[0].txt: Extra inputs are not permitted"),
        ([{"words": ["a"]}], "items[0] has words; this run accepts text"),
        ([{"text": "a", "text_pair": "b"}], "items[0] has text and text_pair; this run"),
        ([{"id": "a"}], "items[0] has nothing; this run accepts text"),
        ([{}] * 9, "; and 4 more faults"),
        (["a"], "items[0]: Input should be a valid dictionary"),
    ],
)
def test_items_that_do_not_fit_are_refused_in_a_sentence(
    items: list[Any], reason: str, asking: Asking, runs: dict[str, Path]
) -> None:
    status, detail = asking.ask(runs["classification"].name, items)
    assert status == 422
    assert reason in detail


def test_an_item_as_long_as_allowed_is_answered(asking: Asking, runs: dict[str, Path]) -> None:
    items = [{"text": "a" * MAX_CHARACTERS}] * 2
    status, answers = asking.ask(runs["classification"].name, items)
    assert (status, len(answers)) == (200, 2)


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_is_too_long_is_not_read_to_its_end(announced: bool, asking: Asking) -> None:
    body: Any = b"[" * (MAX_BYTES + 1)
    if not announced:
        body = iter([body])  # in chunks, without a length
    status, text = asking.send("POST", "/predict", body)
    assert (status, json.loads(text)) == (
        413,
        {"detail": f"The body is longer than {MAX_BYTES} bytes."},
    )


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 422, "body: Field required"),
        (b"{", 422, "body: JSON decode error"),
        (b"[]", 422, "body: Input should be a valid dictionary"),
        (b"[" * (MAX_BYTES - 1), 400, "error parsing the body"),
        (b'{"run": ' + b"9" * 9999 + b"}", 400, "error parsing the body"),
        (b"\xff", 400, "error parsing the body"),
    ],
)
def test_what_is_no_request_is_refused(
    body: bytes, status: int, reason: str, asking: Asking
) -> None:
    found, text = asking.send("POST", "/predict", body)
    assert found == status
    assert reason in json.loads(text)["detail"]


def test_a_form_of_another_site_is_not_taken_for_json(
    asking: Asking, runs: dict[str, Path]
) -> None:
    body = json.dumps({"run": runs["second"].name, "items": [{"text": "a"}]}).encode()
    plain = {"content-type": "text/plain"}
    assert asking.send("POST", "/predict", body)[0] == 200
    assert asking.send("POST", "/predict", body, **plain)[0] == 422


def test_a_run_that_is_not_served_is_named(asking: Asking, runs: dict[str, Path]) -> None:
    status, detail = asking.ask(runs["second"].name[:-1], [{"text": "a"}])
    assert status == 404
    assert f"Did you mean {runs['second'].name}?" in detail


def test_a_language_that_is_none_is_refused(asking: Asking, runs: dict[str, Path]) -> None:
    status, detail = asking.ask(runs["second"].name, [{"text": "a"}], language="spanish")
    assert status == 422
    assert "Did you mean es (Spanish)?" in detail


def test_hostile_text_comes_back_whole_in_ascii(asking: Asking, runs: dict[str, Path]) -> None:
    content = {"run": runs["tagging"].name, "items": [{"id": HOSTILE, "text": HOSTILE}]}
    status, body = asking.send("POST", "/predict", json.dumps(content).encode())
    assert status == 200
    assert body.isascii()
    assert body.isprintable()
    (record,) = json.loads(body)["answers"]
    assert (record["id"], record["text"]) == (HOSTILE, HOSTILE)


def test_a_failure_of_the_model_tells_nothing_of_the_host(
    asking: Asking, runs: dict[str, Path]
) -> None:
    saved = asking.service.names[runs["second"].name]
    hook = saved.model.register_forward_pre_hook(lambda *_: Path("/no/such/place").read_text())
    try:
        status, detail = asking.ask(runs["second"].name, [{"text": "a"}])
    finally:
        hook.remove()
    assert (status, detail) == (500, "The service failed at this request; its log says why.")
    assert asking.ask(runs["second"].name, [{"text": "a"}])[0] == 200


def test_runs_on_another_base_are_named_and_refused(runs: dict[str, Path], study: Path) -> None:
    other = left_run(study, "classification", "method=lora")
    with pytest.raises(
        ConfigError, match=f"Those of .*{runs['tagging'].name}.* not those of .*{other.name}"
    ):
        load_shared([runs["tagging"], runs["second"], other])


def test_a_whole_model_is_served_alone(runs: dict[str, Path], encoder: Path) -> None:
    with pytest.raises(ConfigError, match=f"{encoder.name} saved a whole model"):
        load_shared([runs["second"], encoder])
    assert [saved.folder for saved in load_shared([encoder])] == [encoder]


def test_a_run_given_twice_is_refused(runs: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="given twice"):
        load_shared([runs["second"], runs["second"]])


def test_a_run_that_answers_nothing_is_refused(encoder: Path) -> None:
    with pytest.raises(ConfigError, match="kind masked_lm"):
        Service(load_shared([encoder]))


def test_an_address_that_is_taken_is_said_before_anything_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port={port}: .*in use"):
            serve([Path("nowhere")], "127.0.0.1", port)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
@pytest.mark.slow
def test_the_command_serves_until_it_is_told_to_end(
    number: int, code: int, runs: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    command = [sys.executable, "-m", "crosstune", "serve", f"run={runs['second']}"]
    command += ["host=0.0.0.0", "port=0", "allowed_hosts=lab.example.org", "token_file=token"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
        headers = {"host": "lab.example.org", "authorization": "Bearer s3cret"}
        connection.request("GET", "/runs", headers=headers)
        assert len(json.load(connection.getresponse())) == 1
        os.kill(process.pid, number)
        _, told = process.communicate(timeout=60)
        connection.close()
    assert process.returncode == code
    assert "host=0.0.0.0: whoever has the token can send requests" in told
    assert "lab.example.org (more: allowed_hosts=NAME,NAME)" in told
    assert "s3cret" not in told
    assert "goes on from here" not in told
    assert "Traceback" not in told


@pytest.mark.parametrize("module", ["fastapi", "prometheus_client"])
def test_without_the_extra_the_command_says_what_to_install(module: str) -> None:
    code = f"import sys; sys.modules[{module!r}] = None; from crosstune.cli.main import main; "
    code += "sys.argv = ['crosstune', 'serve', 'run=x']; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'crosstune[serve]'" in done.stderr
