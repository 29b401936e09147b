"""The page in a real browser: Chromium, headless, from a file."""

import re
import shutil
import subprocess
from base64 import b64encode
from hashlib import sha256

import pytest

from tests.reporting.test_report import full_study, report_of

CHROMIUM = shutil.which("chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync", "--no-first-run", "--disable-extensions"]
PLANTED = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
# whom Chromium asks about itself, whatever the page
OWN = re.compile(r"https?://([\w-]+\.)*(google\.com|googleapis\.com|gvt1\.com)/")
# appended to a copy of the page: clicks the header of the first scores, twice
CLICK = """
const table = document.querySelector("table.sortable");
const told = [];
for (let i = 0; i < 2; i += 1) {
  table.tHead.rows[0].cells[1].click();
  told.push([...table.tBodies[0].rows].map((row) => row.cells[0].textContent).join("<"));
}
document.body.dataset.orders = told.join(";");
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: apt-get install -y chromium"),
]


class Visit:
    """What Chromium made of a page: its document, console messages, and the addresses it asked."""

    def __init__(self, path, folder):
        log = folder / "net.json"
        command = [CHROMIUM or "", *FLAGS, f"--user-data-dir={folder / 'profile'}"]
        command += ["--enable-logging=stderr", f"--log-net-log={log}", "--dump-dom", path.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=180)
        self.document = done.stdout
        self.console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
        addresses = re.findall(r'"url":"([^"]*)"', log.read_text("utf-8", "replace"))
        local = ("file:", "data:", "chrome")
        self.asked = {url for url in addresses if not (url.startswith(local) or OWN.match(url))}

    @property
    def title(self):
        return re.search(r"<title>(.*?)</title>", self.document, re.DOTALL)[1]


@pytest.fixture
def visit(tmp_path):
    return lambda path: Visit(path, tmp_path)


@pytest.fixture
def page(study):
    """The page of a study whose labels, names, errors and texts are scripts."""
    missing = full_study(study)
    study.add(method=PLANTED, data=PLANTED, seed=9)
    study.fail(method=PLANTED, seed=8, error=PLANTED)
    return report_of(study, missing, command=PLANTED).paths["index.html"]


def test_the_page_opens_without_a_word_on_the_console_or_to_the_network(page, visit):
    seen = visit(page)
    assert seen.console == []
    assert seen.asked == set()
    assert seen.title == "study"


def test_the_check_hears_a_script_that_the_policy_stops(page, visit):
    text = page.read_text("utf-8")
    page.write_text(text.replace("</body>", f"{PLANTED}</body>"), "utf-8")
    seen = visit(page)
    assert seen.title == "study"
    assert any("Content Security Policy" in line for line in seen.console)


def test_the_check_sees_a_planted_script_that_runs_and_asks(page, visit):
    text = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text("utf-8"))
    ask = "<img src='http://127.0.0.1:9/asked'>"
    page.write_text(text.replace("</body>", f"{PLANTED}{ask}</body>"), "utf-8")
    seen = visit(page)
    assert seen.title == "owned"
    assert "http://127.0.0.1:9/asked" in seen.asked


def test_a_click_on_a_header_sorts_by_number_and_a_second_turns_it(study, visit):
    for method, score in (("a", 0.095), ("b", 0.8), ("c", 0.11)):
        study.add(method=method, score=score)
    page = report_of(study).paths["index.html"]
    digest = b64encode(sha256(CLICK.encode()).digest()).decode()
    text = page.read_text("utf-8").replace("script-src ", f"script-src 'sha256-{digest}' ")
    page.write_text(text.replace("</body>", f"<script>{CLICK}</script></body>"), "utf-8")
    seen = visit(page)
    assert 'data-orders="b&lt;c&lt;a;a&lt;c&lt;b"' in seen.document.replace("<", "&lt;")
    assert seen.console == []
