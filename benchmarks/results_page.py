"""Write the tables and figures of docs/results.md anew, from the bundles in benchmarks/studies.

Run: .venv/bin/python benchmarks/results_page.py
"""

import re
import tempfile
from pathlib import Path

from crosstune.reporting.report import write_report
from crosstune.runs.bundle import read_bundles
from crosstune.runs.plan_file import find_missing, read_plan

ROOT = Path(__file__).parents[1]
PAGE, STUDIES = ROOT / "docs" / "results.md", ROOT / "benchmarks" / "studies"
# a part of the page: <!-- STUDY: table.md --> … <!-- end -->
_PART = re.compile(r"<!-- (\w+): (\w+\.md) -->\n.*?<!-- end -->", re.DOTALL)
_MISSING = re.compile(r"^- .* missing: seed .*\n", re.MULTILINE)  # every cell counts its seeds


def report_study(study: str, folder: Path) -> Path:
    """Unpack a committed study below a folder and write its report; return the report's folder."""
    bundle = read_bundles([STUDIES / f"{study}.zip"], folder)
    missing = find_missing(read_plan(folder / study), folder / study)
    command = f"crosstune report bundle=benchmarks/studies/{study}.zip"
    return write_report(folder, bundle.experiment, missing, command).folder


def fill_page(page: str, reports: dict[str, Path]) -> str:
    """Return the page with its parts as the reports have them."""

    def render(part: re.Match[str]) -> str:
        study, name = part.groups()
        text = _MISSING.sub("", (reports[study] / name).read_text("utf-8"))
        return f"<!-- {study}: {name} -->\n{text.strip()}\n<!-- end -->"

    return _PART.sub(render, page)


def main() -> None:
    """Write the page and the Pareto plot of each study."""
    page = PAGE.read_text("utf-8")
    with tempfile.TemporaryDirectory() as folder:
        studies = sorted({study for study, _ in _PART.findall(page)})
        reports = {study: report_study(study, Path(folder)) for study in studies}
        PAGE.write_text(fill_page(page, reports), "utf-8")
        for study, report in reports.items():
            figure = (report / "pareto.svg").read_bytes()
            (ROOT / "docs" / "images" / f"{study}_pareto.svg").write_bytes(figure)


if __name__ == "__main__":
    main()
