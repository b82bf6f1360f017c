"""The page and the JSON as text: small, escaped, strict, and written whole."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from importlib import resources
from pathlib import Path

import pytest

from distsgd.base.files import decode_json
from distsgd.errors import DiskError, MissingExtraError
from distsgd.experiments.findings import CriticalBatch
from distsgd.experiments.report import png, write_report
from distsgd.experiments.report.html import MOST_BYTES, UPLOT, html_report
from distsgd.experiments.report.json_report import json_report
from distsgd.statistics.intervals import Interval
from tests.unit.experiments.planted import Plant, bare, findings

HOSTILE = '</script><img src=x onerror="alert(1)">&\u2028'


def test_page_is_below_its_limit_also_for_a_large_experiment() -> None:
    plant = Plant(
        batches=tuple(2**k for k in range(12)),
        workers=(0, 1, 2, 4, 8, 16),
        peers=("sklearn", "torch", "jax"),
    )
    assert len(html_report(findings()).encode()) < 200_000
    assert len(html_report(findings(plant)).encode()) < MOST_BYTES


def test_page_escapes_all_that_comes_from_an_experiment() -> None:
    page = html_report(
        findings(
            Plant(missing={8: HOSTILE}, peers=(HOSTILE,)),
            title=HOSTILE,
            command=HOSTILE,
            made=HOSTILE,
            target=HOSTILE,
            products=(HOSTILE,),
            left_out=(HOSTILE,),
            warnings=(HOSTILE,),
            environment={HOSTILE: HOSTILE},
            configuration=HOSTILE,
            critical=(CriticalBatch(way=HOSTILE, batch=None, how=HOSTILE, reason=HOSTILE),),
        )
    )
    assert "<img" not in page
    assert page.count("</script>") == 3


def test_page_may_run_its_own_scripts_and_styles_and_ask_for_nothing() -> None:
    page = html_report(findings())
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    assert policy[1].startswith("default-src &#x27;none&#x27;")
    inline = re.findall(r"<(?:script|style)>(.*?)</(?:script|style)>", page, re.DOTALL)
    assert len(inline) == 3
    for text in inline:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"sha256-{digest}" in policy[1]
    body = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"\b(src|href|srcset|style|onclick)=", body)
    assert "url(http" not in body


def test_page_holds_sentences_table_command_and_configuration() -> None:
    page = html_report(findings())
    for text in ("A second worker pays at batch 64 and above", "98.6 ms", "distsgd experiment"):
        assert text in page
    assert "name = &quot;digits&quot; # &lt;b&gt;&amp;" in page


def test_page_of_nothing_is_a_page() -> None:
    assert "No cell." in html_report(bare())


def test_json_is_strict_where_intervals_are_unbounded() -> None:
    way = CriticalBatch(way="hyperbola", batch=Interval(0.0, 9.0, math.inf), how="", reason="")
    text = json.dumps(json_report(findings(critical=(way,))), allow_nan=False)
    told = decode_json(text.encode())
    assert told["findings"]["critical"][0]["batch"] == {"low": 0.0, "mid": 9.0, "high": None}
    assert len(told["verdicts"]) == 5
    assert all(one["figures"] for one in told["verdicts"])
    assert told["findings"]["cells"][0]["batch"] == 1


def test_report_is_two_files_which_are_replaced(tmp_path: Path) -> None:
    for _ in range(2):
        paths = write_report(findings(), tmp_path)
        assert [path.name for path in paths] == ["report.html", "report.json"]
        assert sorted(tmp_path.iterdir()) == sorted(paths)
    assert decode_json(paths[1].read_bytes())["findings"]["target"] == "test_accuracy>=0.95"


def test_report_says_where_it_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="missing"):
        write_report(findings(), tmp_path / "missing")


def test_report_with_png_writes_nothing_where_the_extra_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "resvg_py", None)
    with pytest.raises(MissingExtraError, match=r"scripts/env --with plots"):
        write_report(findings(), tmp_path, png=True)
    assert not list(tmp_path.iterdir())


def test_png_of_each_panel_has_two_pixels_a_point(tmp_path: Path) -> None:
    pytest.importorskip("resvg_py")
    pytest.importorskip("matplotlib")
    paths = write_report(findings(), tmp_path, png=True)
    pictures = [path for path in paths if path.suffix == ".png"]
    assert len(pictures) == 8
    for path in pictures:
        data = path.read_bytes()
        assert data.startswith(b"\x89PNG")
        assert int.from_bytes(data[16:20], "big") == 880


def test_png_shows_text_in_the_one_font() -> None:
    pytest.importorskip("resvg_py")
    pytest.importorskip("matplotlib")
    make = png.Rasterizer()
    opening = '<svg xmlns="http://www.w3.org/2000/svg" width="90" height="20" class="picture">'
    empty = make.png(f"{opening}</svg>")
    assert make.png(f'{opening}<text x="2" y="14">one</text></svg>') != empty


def test_uplot_lies_in_the_package_with_its_licence() -> None:
    page = resources.files("distsgd.experiments.report").joinpath("page")
    version = UPLOT.removeprefix("uPlot ")
    assert f"(v{version})" in page.joinpath("uPlot.iife.min.js").read_text("utf-8")[:100]
    assert "MIT License" in page.joinpath("uPlot.LICENSE").read_text("utf-8")
