"""`crosstune serve` under load, beside a plain FastAPI service with a transformers pipeline.

Both serve the same model: one a run of a single step, the other what `crosstune export` makes of
it. At each level they are asked in turn, A B B A, by clients in this process, which keep their
connections and send one text a request.
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from machine import describe_machine

ENVIRONMENT = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
PATIENCE_SECONDS = 600.0
TEXT = "la comida de este hotel es buena y barata pero el servicio tarda mucho por la noche"
SERVICES = ("crosstune serve", "FastAPI + pipeline")


class Answer(NamedTuple):
    """What a client got: its status (0: the connection broke), the label, and how long it took."""

    status: int
    label: str
    seconds: float


def main() -> None:
    """Measure both services at each level and print the table."""
    options = parse_options()
    if options.plain:
        serve_plainly(*options.plain)
        return
    texts = [" ".join(TEXT.split()[: 3 + number % 14]) + f" {number}" for number in range(16)]
    rows: list[str] = []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        run, exported = make_models(Path(folder), options.model)
        name = run.name
        ports = [
            stack.enter_context(serving("-m", "crosstune", "serve", f"run={run}", "port={port}")),
            stack.enter_context(serving(__file__, "--plain", str(exported), "{port}")),
        ]
        for clients in options.clients:
            found: list[list[Answer]] = [[], []]
            seconds = [0.0, 0.0]
            for which in (0, 1, 1, 0):  # so that both meet the same load of a shared machine
                count = max(options.requests, 2 * clients) // 2
                sent = [texts[number % len(texts)] for number in range(count)]
                bodies = [
                    {"text": text} if which else {"run": name, "items": [{"text": text}]}
                    for text in sent
                ]
                start = time.perf_counter()
                found[which] += asyncio.run(ask_all(ports[which], bodies, clients))
                seconds[which] += time.perf_counter() - start
            rows += map(render_row, SERVICES, [clients] * 2, found, seconds)
            print(*rows[-2:], sep="\n", flush=True)
            pairs = [(a.label, b.label) for a, b in zip(*found, strict=True) if a.label and b.label]
            print(f"same label in {sum(a == b for a, b in pairs)} of {len(pairs)}", flush=True)
    facts = {**describe_machine(), **{name: version(name) for name in ("fastapi", "uvicorn")}}
    print("\n" + ", ".join(f"{key} {value}" for key, value in facts.items()) + "\n")
    print("| service | clients | requests | requests/s | p50 ms | p99 ms | answered | others |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |", *rows, sep="\n")


def parse_options() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="folder of an encoder; default: a random BERT")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 50, 200, 1000])
    parser.add_argument(
        "--requests", type=int, default=600, help="of a level; at least two a client"
    )
    parser.add_argument("--plain", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def make_models(folder: Path, model: Path | None) -> tuple[Path, Path]:
    """Train a step of full fine-tuning; return the folder of the run, and of its export."""
    chosen = ["model=local", f"model.path={model.resolve()}"] if model else ["model=mini"]
    words = ["data=demo_sentiment", "data.language=es", "method=full", "trainer=cpu", *chosen]
    words += ["trainer.max_steps=1", "logger=none", f"outputs={folder / 'outputs'}"]
    crosstune = [sys.executable, "-m", "crosstune"]
    options: dict[str, Any] = {"check": True, "text": True, "env": ENVIRONMENT}
    options |= {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    trained = subprocess.run([*crosstune, "train", *words], **options)
    run = Path(trained.stdout.split()[-1]).resolve()
    subprocess.run([*crosstune, "export", f"run={run}", f"output={folder / 'plain'}"], **options)
    return run, folder / "plain"


@contextlib.contextmanager
def serving(*words: str) -> Iterator[int]:
    """Run a service on a free port until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, *(word.format(port=port) for word in words)]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    child = subprocess.Popen(command, env=ENVIRONMENT, **quiet)
    try:
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            if child.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"did not start: {' '.join(command)}")
            time.sleep(0.1)
        yield port
    finally:
        child.terminate()
        child.wait()


def serve_plainly(folder: str, port: str) -> None:
    """Serve a model as the first pages of FastAPI and transformers show it."""
    import uvicorn
    from fastapi import FastAPI
    from transformers import pipeline

    classify: Any = pipeline("text-classification", model=folder, device=-1)
    app = FastAPI()

    @app.post("/predict")
    def predict(body: dict[str, str]) -> Any:
        return classify(body["text"])[0]

    uvicorn.run(app, port=int(port), log_level="warning")


async def ask_all(port: int, bodies: list[dict[str, Any]], clients: int) -> list[Answer]:
    """Send each body once, from so many clients; return the answers in order."""
    answers: list[Answer] = [Answer(0, "", 0)] * len(bodies)
    remaining = iter(enumerate(bodies))

    async def ask_in_turn() -> None:
        connection: Any = None
        for number, body in remaining:
            start = time.perf_counter()
            status, label = 0, ""
            try:
                if connection is None:
                    connection = await asyncio.open_connection("127.0.0.1", port)
                status, label = await asyncio.wait_for(ask(connection, body), PATIENCE_SECONDS)
            except (OSError, EOFError, TimeoutError):
                connection = None
            answers[number] = Answer(status, label, time.perf_counter() - start)
        if connection:
            connection[1].close()

    await asyncio.gather(*(ask_in_turn() for _ in range(clients)))
    return answers


async def ask(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], body: dict[str, Any]
) -> tuple[int, str]:
    """Send one request on an open connection; return its status, and the label if it has one."""
    reader, writer = connection
    content = json.dumps(body).encode()
    head = f"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(content)}\r\n"
    writer.write(head.encode() + b"content-type: application/json\r\n\r\n" + content)
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:] if line)
    answer = await reader.readexactly(int(headers["content-length"]))
    status = int(lines[0].split()[1])
    if "close" in headers.get("connection", ""):
        raise ConnectionResetError
    if status != 200:
        return status, ""
    found = json.loads(answer)
    return status, found["label"] if "label" in found else found["answers"][0]["prediction"]


def render_row(service: str, clients: int, answers: list[Answer], seconds: float) -> str:
    """Return a row of the table; its latencies are those of the requests that were answered."""
    taken = sorted(answer.seconds for answer in answers if answer.status == 200) or [0.0]
    others = Counter(answer.status for answer in answers if answer.status != 200)
    told = ", ".join(f"{count} × {status or 'broken'}" for status, count in others.items())
    answered = len(answers) - others.total()
    p50, p99 = (taken[len(taken) * percent // 100] * 1000 for percent in (50, 99))
    cells = [service, clients, len(answers), f"{answered / seconds:.1f}", f"{p50:.0f}"]
    return f"| {' | '.join(map(str, [*cells, f'{p99:.0f}', answered, told or '-']))} |"


if __name__ == "__main__":
    main()
