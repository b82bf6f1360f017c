"""The page in a real browser, with scripts and without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from distsgd.experiments.report import write_report
from tests.browser import Page, chromium, opened_browser
from tests.unit.experiments.planted import Plant, bare, findings

pytestmark = pytest.mark.skipif(
    chromium() is None, reason="no chromium on the PATH (Debian: apt-get install chromium)"
)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with opened_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plant = Plant(missing={1: "out of budget"}, peers=("sklearn", "torch"))
    return write_report(findings(plant), tmp_path_factory.mktemp("report"))[0]


def _click(page: Page, selector: str) -> None:
    page.ask(f"document.querySelector({selector!r}).click()")


def _chart(page: Page, name: str) -> str:
    return str(page.ask(f"document.getElementById('chart').dataset.{name}"))


@pytest.mark.parametrize("scripts", [True, False])
@pytest.mark.parametrize("dark", [True, False])
@pytest.mark.parametrize("width", [1280, 400])
def test_page_is_read_whole(
    page: Page, report: Path, *, width: int, dark: bool, scripts: bool
) -> None:
    page.look(width, dark=dark, scripts=scripts)
    page.open(report)
    told = page.text()
    for figure in ("431 µs (413 to 448)", "98.6 ms (86.8 to 110)", "71 % (68 to 73)", "213 to 252"):
        assert figure in told
    assert "out of budget" in told
    assert ("A closer look" in told) is scripts
    assert page.ask("document.querySelectorAll('svg.picture').length") == 8
    assert page.ask("document.documentElement.scrollWidth") <= width
    ground = page.ask("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(20, 24, 29)" if dark else "rgb(255, 255, 255)")
    assert not page.requests
    assert not page.problems


def test_switches_change_what_is_drawn(page: Page, report: Path) -> None:
    page.look(1280)
    page.open(report)
    assert _chart(page, "view") == "steps"
    for view in ("time", "step", "loss"):
        _click(page, f'input[value="{view}"]')
        assert _chart(page, "view") == view
        assert page.ask("document.querySelectorAll('#chart .uplot canvas').length") == 1
    assert _chart(page, "scales") == "log log"
    _click(page, 'input[name="y"][value="linear"]')
    assert _chart(page, "scales") == "log linear"
    assert _chart(page, "series").split("|")[0] == "batch 1"
    _click(page, 'input[name="series"]')
    assert _chart(page, "series").split("|")[0] == "batch 8"
    _click(page, "#whole")
    assert not page.requests
    assert not page.problems


def test_page_asks_for_nothing_although_a_script_would(page: Page, report: Path) -> None:
    page.look(1280)
    page.open(report)
    page.ask("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')")
    assert any("Content Security Policy" in problem for problem in page.problems)
    page.problems.clear()
    page.requests.clear()


def test_page_of_nothing_has_no_switches_and_no_error(page: Page, tmp_path: Path) -> None:
    page.look(400)
    page.open(write_report(bare(), tmp_path)[0])
    assert "A closer look" not in page.text()
    assert not page.problems
