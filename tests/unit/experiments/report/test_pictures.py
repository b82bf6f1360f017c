"""The pictures as SVG: well formed, with what was planted, with what is missing."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import Any

import pytest

from distsgd.experiments.findings import CriticalBatch, Findings, TimedPlan
from distsgd.experiments.report import theme
from distsgd.experiments.report.pictures import pictures
from distsgd.experiments.report.pictures.loss import digest_sentence
from distsgd.experiments.report.verdicts.workers import shares, waiting
from distsgd.statistics.intervals import Interval
from tests.unit.experiments.planted import Plant, bare, findings

NAMES = [
    "steps-to-target",
    "time-to-target",
    "speed-up",
    "efficiency",
    "phases",
    "step-time",
    "rates",
    "loss",
]
UNREACHED = dict.fromkeys(Plant().batches, "target not reached")
EVERY = {
    "planted": findings(),
    "bare": bare(),
    "hostile": findings(title="<script>", critical=(), num_rows=1438),
    "one core": findings(Plant(workers=(0,), peers=())),
    "one batch": findings(Plant(batches=(64,))),
    "nothing reached": findings(Plant(missing=UNREACHED)),
    "not timed": replace(
        findings(),
        timings=tuple(
            replace(c, step_s=None, baseline_s=None, speed_up=None, phases_s={}, reason="killed")
            for c in findings().timings
        ),
        cells=tuple(
            replace(c, step_s=None, time_s=None, efficiency=None, reason="killed")
            for c in findings().cells
        ),
    ),
    "many": findings(
        Plant(
            batches=tuple(2**k for k in range(11)), workers=(0, 1, 2, 4, 8), peers=("torch", "jax")
        )
    ),
    "unbounded": findings(
        critical=(
            CriticalBatch(way="hyperbola", batch=Interval(0, 5, math.inf), how="", reason=""),
            CriticalBatch(way="branching", batch=None, how="", reason="out of budget"),
        )
    ),
}


def _drawn(found: Findings) -> dict[str, str]:
    return {panel.name: panel.svg for one in pictures(found) for panel in one.panels}


def _texts(svg: str) -> str:
    return " ".join("".join(one.itertext()) for one in ET.fromstring(svg).iter() if one.text)  # noqa: S314


@pytest.mark.parametrize("found", EVERY.values(), ids=EVERY)
def test_pictures_are_well_formed_whatever_is_missing(found: Findings) -> None:
    drawn = _drawn(found)
    assert list(drawn) == NAMES
    for svg in drawn.values():
        ET.fromstring(svg)  # noqa: S314 -- our own.
        assert not re.search(r"\bnan\b|\binf\b|None", svg)
        assert "style=" not in svg


@pytest.mark.parametrize("found", EVERY.values(), ids=EVERY)
def test_pictures_lie_within_their_frame(found: Findings) -> None:
    for svg in _drawn(found).values():
        root = ET.fromstring(svg)  # noqa: S314
        width, height = map(float, root.attrib["viewBox"].split()[2:])
        for one in root.iter("{http://www.w3.org/2000/svg}text"):
            size = 5.6 * len("".join(one.itertext()))
            classes = one.attrib.get("class", "").split()
            left = float(one.attrib["x"]) - size * (
                1.0
                if "end" in classes
                else 0.5
                if {"middle", "inside", "why"} & {*classes}
                else 0.0
            )
            assert left >= -16.0
            assert left + size <= width + 16.0
            assert 0.0 <= float(one.attrib["y"]) <= height


def test_pictures_have_a_rule_for_every_class() -> None:
    css = theme.picture_css()
    known = set(re.findall(r"\.([\w-]+)", css))
    for found in EVERY.values():
        for svg in _drawn(found).values():
            used = {name for names in re.findall(r'class="([^"]*)"', svg) for name in names.split()}
            assert used - known <= {"cell"}


def test_pictures_mark_what_is_missing_with_its_reason() -> None:
    drawn = _drawn(findings(Plant(missing={8: "diverged"})))
    for name in ("steps-to-target", "time-to-target"):
        assert "batch 8: diverged" in _texts(drawn[name])
        assert 'class="dot missing open"' in drawn[name]


def test_pictures_draw_no_line_across_a_missing_batch() -> None:
    def lines(svg: str) -> list[str]:
        return re.findall(r'<path d="([^"]*)" class="line base"', svg)

    assert len(lines(_drawn(findings())["steps-to-target"])) == 1
    (left,) = lines(_drawn(findings(Plant(missing={64: "diverged"})))["steps-to-target"])[:1]
    assert left.count("L") == 1


def test_steps_picture_has_the_critical_batch_by_three_ways_and_the_regimes() -> None:
    told = _texts(_drawn(findings())["steps-to-target"])
    for way in (
        "hyperbola: 162 (123 to 201)",
        "noise scale: 180 (137",
        "branching: between 150 and 246",
    ):
        assert way in told
    for name in ("SGD", "mini-batch", "whole batch", "perfect scaling", "60 (1 + 180 / batch)"):
        assert name in told


def test_every_picture_has_its_baselines() -> None:
    drawn = _drawn(findings())
    for name in NAMES:
        told = _texts(drawn[name])
        assert "one core" in told or "any number of workers" in told or name == "rates"
        assert "scikit-learn" in told or name == "efficiency"


def test_speed_picture_has_absolute_seconds_and_the_cost_line() -> None:
    told = _texts(_drawn(findings())["speed-up"])
    assert "batch 64, one core 609 µs" in told
    assert (
        "COST: scikit-learn 181 ms, one core 139 ms (batch 64): 0.77\N{MULTIPLICATION SIGN}" in told
    )


def test_phase_bars_fill_the_step_and_stand_with_its_seconds() -> None:
    svg = _drawn(findings())["phases"]
    widths: dict[str, float] = {}
    for one in re.finditer(
        r'<rect class="phase [^"]*" x="[\d.]+" y="([\d.]+)" width="([\d.]+)"', svg
    ):
        widths[one[1]] = widths.get(one[1], 0.0) + float(one[2])
    assert len(widths) == 15
    for width in widths.values():
        assert abs(width - 250.0) < 0.5
    assert "431 µs" in _texts(svg)


def test_waiting_stands_beside_the_bar_and_takes_nothing_of_it() -> None:
    phases_s = {"compute": 70e-6, "exchange": 20e-6, "update": 10e-6, "wait": 60e-6}
    cells = tuple(replace(c, phases_s=phases_s) for c in findings().timings if c.workers == 2)
    known = pytest.approx({"compute": 0.7, "exchange": 0.2, "update": 0.1})
    assert all(dict(shares(c)) == known for c in cells)
    assert all(waiting(c) == pytest.approx(0.6) for c in cells)
    told = _texts(_drawn(findings(timings=cells))["phases"])
    for said in ("70 %", "20 %", "10 %", "60 %"):
        assert said in told


def test_phases_picture_says_where_plans_were_mixed() -> None:
    who = [("server",), ("server", *(f"worker {i}" for i in range(4)))]
    plans = tuple(
        TimedPlan(assignment=one, num_pairs=3 - i, step_s=1e-3) for i, one in enumerate(who)
    )
    cells = tuple(replace(c, plans=plans) for c in findings().timings if c.workers == 2)
    picture = next(one for one in pictures(findings(timings=cells)) if one.name == "phases")
    said = (
        "Batch 8, 2 workers, mixed: server in 3 of 5, server and 4 workers in 2 of 5 pairs: the "
        "bar is a step of server."
    )
    assert said in picture.captions


def test_rates_picture_marks_chosen_rates_edges_and_reasons() -> None:
    svg = _drawn(findings(Plant(edges=frozenset({64}))))["rates"]
    assert svg.count('class="chosen"') == 5 + 1  # The legend's.
    assert svg.count('class="dot edge"') == 1 + 1
    assert "diverged" in _texts(svg)
    assert "given up" in _texts(svg)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "40 digests compared, all equal"),
        ({"digests_equal": False}, "40 digests compared, not all equal"),
        ({"num_digests": 0}, "No digests were compared"),
    ],
)
def test_loss_picture_says_what_digests_say(changes: dict[str, Any], said: str) -> None:
    found = findings(**changes)
    assert digest_sentence(found).startswith(said)
    assert said in _texts(_drawn(found)["loss"])
