"""The page of results says what the committed studies hold."""

import re

from benchmarks.results_page import PAGE, fill_page, report_study


def test_every_table_of_the_page_is_that_of_its_committed_study(tmp_path):
    page = PAGE.read_text("utf-8")
    studies = set(re.findall(r"<!-- (\w+): \w+\.md -->", page))
    assert studies
    reports = {study: report_study(study, tmp_path) for study in studies}
    assert fill_page(page, reports) == page
    changed = page.replace("| majority | 25.0", "| majority | 26.0")
    assert changed != page
    assert fill_page(changed, reports) == page
