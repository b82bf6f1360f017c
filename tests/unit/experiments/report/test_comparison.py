"""The page and the JSON of a comparison: whole, escaped, strict, read without a script."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from distsgd.base.files import decode_json
from distsgd.errors import RunError
from distsgd.experiments.compare import Comparison, Difference, SameBits, differences
from distsgd.experiments.compared_run import ComparedRun, ToTarget
from distsgd.experiments.course import Evaluated, LossPoint
from distsgd.experiments.report.comparison import json_comparison, write_comparison
from distsgd.experiments.report.comparison.page import html_comparison
from distsgd.experiments.report.html import MOST_BYTES
from distsgd.statistics.intervals import Interval
from tests.browser import chromium, opened_browser

HOSTILE = '</style><img src=x onerror="alert(1)">&\u2028'


def run(label: str, **changes: Any) -> ComparedRun:
    values: dict[str, Any] = {
        "label": label,
        "place": f"runs/{label.lower()}",
        "status": "done",
        "stopped_by": "epochs",
        "advice": "",
        "settings": {"batch.size": 64},
        "environment": {"python": "3.11.7"},
        "machine": "Linux",
        "steps": 100,
        "samples": 6400,
        "seconds": 2.5,
        "train_loss": 0.125,
        "test_loss": 0.25,
        "test_accuracy": 0.96875,
        "samples_per_s": 2560.0,
        "step_s": Interval(0.0098, 0.01, 0.0103),
        "step_s_reason": "",
        "noise_scale": 321.0,
        "to_target": ToTarget(50, 3200, 1.25),
        "evaluations": tuple(
            Evaluated(step, 64 * step, step / 40, 25 / step, 1 - 3 / step)
            for step in range(25, 101, 25)
        ),
        "losses": tuple(LossPoint(64 * step, step / 40, 12 / step) for step in range(1, 101, 2)),
    }
    return ComparedRun(**values | changes)


def bare(label: str, **changes: Any) -> ComparedRun:
    """A run that has just begun."""
    empty: dict[str, Any] = dict.fromkeys(
        ("samples", "seconds", "train_loss", "test_loss", "test_accuracy", "samples_per_s")
    )
    empty |= {"step_s": None, "noise_scale": None, "evaluations": (), "losses": (), "steps": 0}
    empty |= {"status": "not finished", "step_s_reason": "too short", "stopped_by": ""}
    return run(label, to_target=ToTarget(None, None, None, "no evaluation"), **empty | changes)


def comparison(*runs: ComparedRun, **changes: Any) -> Comparison:
    values: dict[str, Any] = {
        "made": "2026-11-30 16:00",
        "command": "distsgd experiment compare runs/a runs/b",
        "target": "test_accuracy >= 0.95",
        "metric": "test_accuracy",
        "runs": runs,
        "settings": differences([it.settings for it in runs]),
        "environments": differences([it.environment for it in runs]),
        "bits": (),
        "machines": (tuple(it.label for it in runs),),
    }
    return Comparison(**values | changes)


def two(**changes: Any) -> Comparison:
    return comparison(run("A"), run("B", settings={"batch.size": "full"}), **changes)


def test_page_holds_tables_sentences_and_the_command() -> None:
    bits = (SameBits(("A", "B"), 40, None, ""),)
    page = html_comparison(two(bits=bits))
    for text in (
        "batch.size",
        "40 digests compared, all equal",
        '10.0 ms <span class="within">(9.80 to 10.3)</span>',
        "0.9688",
        "Test accuracy over samples",
        "Train loss over seconds",
        "distsgd experiment compare runs/a runs/b",
        "The same versions, platform, numerics and data, by their records.",
    ):
        assert text in page
    assert page.count("<svg ") == 4
    assert "machine 1" not in page


def test_page_has_no_script_and_may_ask_for_nothing() -> None:
    page = html_comparison(two())
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert policy
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    rules = "default-src 'none'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'"
    assert policy[1].replace("&#x27;", "'") == rules.format(digest)
    assert "<script" not in page
    assert not re.search(r"\b(src|href|srcset|style|on\w+)=", page.replace(style[0], ""))


def test_page_escapes_all_that_comes_from_a_run() -> None:
    hostile = run(
        "B",
        place=HOSTILE,
        status=HOSTILE,
        settings={HOSTILE: HOSTILE},
        environment={HOSTILE: HOSTILE},
        step_s=None,
        step_s_reason=HOSTILE,
        to_target=ToTarget(None, None, None, HOSTILE),
    )
    bits = (SameBits(("A", "B"), 1, 3, HOSTILE),)
    page = html_comparison(comparison(run("A"), hostile, command=HOSTILE, made=HOSTILE, bits=bits))
    assert "<img" not in page
    assert page.count("</style>") == 1


def test_page_gives_each_machine_its_own_seconds() -> None:
    page = html_comparison(two(machines=(("A",), ("B",))))
    assert page.count("<svg ") == 6
    for number in (1, 2):
        assert f"Train loss over seconds, machine {number}" in page
    assert "times of one are not compared" in page
    assert "the most samples a second" not in page.lower()


def test_page_of_runs_without_a_step_is_a_page() -> None:
    page = html_comparison(comparison(bare("A"), bare("B")))
    for text in ("no evaluation", "no history", "too short", "nothing was measured"):
        assert text in page


def test_page_of_many_runs_is_below_its_limit_and_tells_them_apart() -> None:
    runs = [run(f"R{number}", place=f"runs/{number:020d}") for number in range(30)]
    assert len(html_comparison(comparison(*runs)).encode()) < MOST_BYTES
    page = html_comparison(comparison(*runs[:16]))
    lines = re.findall(r'class="line (c\d) ?"(?: stroke-dasharray="([^"]*)")?', page)
    assert len(set(lines)) == 16


def test_json_is_strict_and_holds_what_the_page_says(tmp_path: Path) -> None:
    found = comparison(run("A", noise_scale=float("inf")), bare("B"))
    page, data = write_comparison(found, tmp_path / "out")
    assert (page.name, data.name) == ("compare.html", "compare.json")
    values = decode_json(data.read_bytes())
    assert values == json.loads(json.dumps(json_comparison(found), allow_nan=False))
    assert values["comparison"]["runs"][0]["noise_scale"] is None
    assert values["verdicts"][0]["sentence"] == "The configurations are the same."
    assert write_comparison(found, tmp_path / "out") == [page, data]


def test_files_are_not_written_where_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(RunError, match="out"):
        write_comparison(two(), tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_many_settings_are_named_in_short() -> None:
    rows = tuple(Difference(f"key.{number}", (1, 2)) for number in range(6))
    told = json_comparison(dataclasses.replace(two(), settings=rows))["verdicts"][0]["sentence"]
    assert told == "The configurations differ in key.0, key.1, key.2, key.3 and 2 more."


@pytest.mark.skipif(
    chromium() is None, reason="no chromium on the PATH (Debian: apt-get install chromium)"
)
def test_page_is_read_whole_in_a_browser_without_scripts(tmp_path: Path) -> None:
    found = comparison(run("A"), bare("B"), run("C"), machines=(("A", "B"), ("C",)))
    path = write_comparison(found, tmp_path)[0]
    with opened_browser() as page:
        for width, dark in ((1280, False), (400, True)):
            page.look(width, dark=dark, scripts=False)
            page.open(path)
            text = page.text()
            assert "10.0 ms (9.80 to 10.3)" in text
            assert "no evaluation" in text
            assert page.ask("document.querySelectorAll('svg.picture').length") == 6
            assert page.ask("document.documentElement.scrollWidth") <= width
            ground = page.ask("getComputedStyle(document.body).backgroundColor")
            assert ground == ("rgb(20, 24, 29)" if dark else "rgb(255, 255, 255)")
        assert not page.requests
        assert not page.problems
