"""Who may ask: requests that name a known host, and bring the token where there is one."""

import http.client
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from crosstune.errors import ConfigError
from crosstune.inference.service.access import LOCAL_HOSTS, TOKEN_VARIABLE, Access, read_access
from crosstune.inference.service.service import Service
from tests.inference.service.asking import Asking, serving

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*")
TOKEN = "s3cret-token"  # noqa: S105


@pytest.fixture(scope="module")
def guarded(asking: Asking) -> Iterator[Asking]:
    access = Access((*LOCAL_HOSTS, "lab.example.org", "[fd00::7]"), TOKEN)
    with serving(Service(asking.service.runs), access) as found:
        yield found


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8000", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]", 200),
        ("[::1]:8000", 200),
        ("lab.example.org:8000", 200),
        ("[fd00::7]:8000", 200),
        ("evil.example", 400),
        ("evil.example:8000", 400),
        ("localhost.evil.example", 400),
        ("evil.lab.example.org", 400),
        ("[::2]:8000", 400),
        ("::1", 400),
        ("[::1].evil.example", 400),
        ("localhost@evil.example", 400),
        ("", 400),
    ],
)
def test_a_request_must_call_the_service_by_a_known_name(
    host: str, status: int, guarded: Asking
) -> None:
    assert guarded.send("GET", "/health", host=host)[0] == status


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer  {TOKEN}", 200),
        (TOKEN, 401),
        (f"Basic {TOKEN}", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        (f"Bearer {TOKEN}x", 401),
        ("Bearer ", 401),
        ("Bearer ñ", 401),
        ("", 401),
    ],
)
def test_a_request_must_bring_the_token(authorization: str, status: int, guarded: Asking) -> None:
    assert guarded.send("GET", "/runs", authorization=authorization)[0] == status


def test_everything_but_health_needs_the_token(guarded: Asking) -> None:
    paths = ["/predict", "/runs", "/metrics", "/docs", "/openapi.json", "/nothing", "/health/"]
    assert {guarded.send("GET", path)[0] for path in paths} == {401}
    assert guarded.get("/health")["status"] == "ok"


def test_a_refusal_says_what_is_missing_and_repeats_nothing(guarded: Asking) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", guarded.port, timeout=10)
    connection.request("GET", "/runs", headers={"authorization": "Bearer wrong"})
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    assert response.headers["www-authenticate"] == "Bearer"
    assert "send it as Authorization: Bearer TOKEN" in json.loads(text)["detail"]
    assert "wrong" not in text


def test_the_token_comes_from_a_file_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_access("127.0.0.1").token is None
    monkeypatch.setenv(TOKEN_VARIABLE, "from-environment")
    assert read_access("127.0.0.1").token == "from-environment"  # noqa: S105
    (tmp_path / "token").write_text("from-file\n")
    assert read_access("127.0.0.1", token_file=tmp_path / "token").token == "from-file"  # noqa: S105


@pytest.mark.parametrize("content", ["", " \n", "two words", "ñandú"])
def test_a_token_that_no_request_can_bring_is_refused_without_being_shown(
    content: str, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(content)
    with pytest.raises(ConfigError, match=r"token_file=.*token: a token is one word") as raised:
        read_access("127.0.0.1", token_file=tmp_path / "token")
    assert not content.strip() or content.strip() not in str(raised.value)


def test_the_token_stands_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("crosstune").warning("%s %r", Access(token=TOKEN), Access(token=TOKEN))
    assert TOKEN not in caplog.text


def test_the_host_of_the_address_is_a_known_name_and_addresses_get_brackets() -> None:
    hosts = read_access("fe80::1", ["lab.example.org", "*.example.com", "[fd00::7]"]).hosts
    assert hosts == (
        *("localhost", "127.0.0.1", "[::1]"),
        *("[fe80::1]", "lab.example.org", "*.example.com", "[fd00::7]"),
    )


@pytest.mark.parametrize("name", ["http://a.org", "a.org:80", "a.*", "a b", "", "[a"])
def test_what_is_no_name_of_a_host_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="no name of a host"):
        read_access("127.0.0.1", [name])
