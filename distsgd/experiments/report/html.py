"""The report as one page that opens without a network, is read without a script. Pure.

The page's policy allows no request at all, and only its own style sheet and scripts, by their
digests. Everything that comes from an experiment is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from itertools import groupby
from typing import Any

from distsgd.experiments.findings import Findings
from distsgd.experiments.report import explore, table, theme, words
from distsgd.experiments.report.json_report import plain
from distsgd.experiments.report.pictures import Picture, pictures
from distsgd.experiments.report.verdicts import Verdict, verdicts
from distsgd.experiments.report.weak import weak_rows

UPLOT = "uPlot 1.6.32"
MOST_BYTES = 500_000
_UNIT = re.compile(r"(\d) (%|(?:µs|ms|s|min|h|times|workers?)\b)")


def html_report(findings: Findings) -> str:
    """The page."""
    scripts = (_asset("uPlot.iife.min.js"), _asset("page.js"))
    title = f"Scaling of {findings.title}"
    figures = plain(explore.figures(findings))
    body = [
        _header(findings, title),
        "<main>",
        section("verdict", "What was found", _verdicts(findings)),
        _table(findings),
        *_pictures(findings),
        _explore(figures["views"]),
        _weak(findings),
        _again(findings),
        "</main>",
        _footer(findings),
        f'<script type="application/json" id="figures">{_data(figures)}</script>',
    ]
    return document(title, body, scripts)


def document(title: str, body: Iterable[str], scripts: Sequence[str] = ()) -> str:
    """A page of `body` whose policy lets in its own style sheet and `scripts`, and nothing else."""
    css = _css()
    allowed = f"script-src {' '.join(map(_digest, scripts))}; " if scripts else ""
    policy = (
        f"default-src 'none'; style-src {_digest(css)}; {allowed}"
        "base-uri 'none'; form-action 'none'"
    )
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{escape(title)}</title>",
        f"<style>{css}</style>",
    ]
    lines = ["<!doctype html>", '<html lang="en">', "<head>", *head, "</head>", "<body>", *body]
    lines += [f"<script>{script}</script>" for script in scripts]
    return "\n".join([*lines, "</body>", "</html>", ""])


def _css() -> str:
    dark = f"@media (prefers-color-scheme: dark) {{ :root {{{theme.variables(theme.DARK)}}} }}"
    light = f":root {{color-scheme: light dark;{theme.variables(theme.LIGHT)}}}"
    parts = [_asset("uPlot.min.css"), light, dark, _asset("page.css"), theme.picture_css()]
    return "\n".join(parts)


def _asset(name: str) -> str:
    text = resources.files("distsgd.experiments.report").joinpath("page", name).read_text("utf-8")
    # The parser of a page makes one line end of two kinds; a digest is of what the parser saw.
    return text.replace("\r\n", "\n")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _data(figures: dict[str, Any]) -> str:
    """JSON that cannot end the element that it stands in."""
    text = json.dumps(figures, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _header(findings: Findings, title: str) -> str:
    facts = [
        f"target {findings.target}",
        f"{words.count(findings.num_rows)} training rows",
        f"{words.count(findings.num_test_rows)} test rows",
        f"{words.count(findings.num_parameters)} parameters",
        words.cores(findings.num_cores),
        findings.made,
    ]
    return heading(title, facts)


def heading(title: str, facts: Iterable[str]) -> str:
    """The title, and below it what is to be known first."""
    told = escape(" · ".join(facts))
    return f'<header>\n<h1>{escape(title)}</h1>\n<p class="facts">{told}</p>\n</header>'


def _verdicts(findings: Findings) -> list[str]:
    more = [_list(findings.warnings, "warnings")] if findings.warnings else []
    return [*told_verdicts(verdicts(findings)), *more]


def told_verdicts(told: Iterable[Verdict]) -> list[str]:
    """Sentences; those that make the rest worthless stand out, above the others."""
    every = list(told)
    alarms = [
        f'<p class="alarm" role="alert"><strong>{_prose(one.sentence)}</strong></p>'
        for one in every
        if one.is_alarm
    ]
    items = [f"<li>{_prose(one.sentence)}</li>" for one in every if not one.is_alarm]
    return [*alarms, '<ol class="verdicts">', *items, "</ol>"]


def _table(findings: Findings) -> str:
    edge = " ▲ the rate lies at the edge of its range." * any(
        cell.rate_at_edge for cell in findings.cells
    )
    caption = (
        "Medians; in parentheses the interval. Below the workers stand the processes that "
        "computed; efficiency is the speed-up over their number. Verdict: is it faster to the "
        "target than one core at the same batch size? Each at 95 %: where there is no difference, "
        f"about one in 20 is decided all the same.{edge}"
    )
    names = ("batch", "rate", "computed by", "verdict")
    heads = "".join(
        f'<th scope="col"{_class("text") if head in names else ""}>{escape(head)}</th>'
        for head in table.HEADS
    )
    every = table.rows(findings)
    groups = groupby(every, key=lambda row: (row.kind == "peer", row.batch))
    bodies = [f"<tbody>\n{_body(list(group))}\n</tbody>" for _, group in groups]
    if not every:
        width = len(table.HEADS)
        bodies = [f'<tbody><tr><td class="text" colspan="{width}">No cell.</td></tr></tbody>']
    parts = [
        f'<p class="caption" id="table-caption">{escape(caption)}</p>',
        '<div class="scrolls" tabindex="0" role="region" aria-label="Table of all cells">',
        f'<table aria-describedby="table-caption">\n<thead><tr>{heads}</tr></thead>',
        *bodies,
        "</table>\n</div>",
    ]
    if findings.products:
        parts += ["<h3>Runs in full</h3>", _list(findings.products)]
    if findings.left_out:
        parts += ["<h3>Left out</h3>", _list(findings.left_out)]
    return section("table", "Every batch size and number of workers", parts)


def _body(rows: list[table.Row]) -> str:
    """The rows of a batch size; what the workers do not change stands once."""
    lines = []
    for number, row in enumerate(rows):
        cells = []
        if number == 0 or row.kind == "peer":
            span = f' rowspan="{len(rows)}"' if row.kind != "peer" else ""
            edge = ' <span class="edge" title="at the edge of its range">▲</span>' * row.is_edge
            cells += [
                f'<th scope="rowgroup"{span}>{escape(row.batch)}</th>',
                f'<td class="text"{span}>{escape(row.rate)}{edge}</td>',
                f"<td{span}>{figure(row.steps)}{_below(row.steps_range, row.num_seeds)}</td>",
            ]
        cells += [
            f'<td class="text">{escape(row.who)}{_below(row.plan)}</td>',
            f"<td>{figure(row.step)}</td>",
            f"<td>{figure(row.time)}{_below(row.full_run)}</td>",
            f"<td>{figure(row.efficiency)}</td>",
            f'<td class="text {escape(row.verdict)}">{escape(row.verdict)}</td>',
        ]
        lines.append(f'<tr class="{row.kind}">{"".join(cells)}</tr>')
    return "\n".join(lines)


def _below(*texts: str) -> str:
    """Lines below a figure."""
    return "".join(f'<br><span class="within">{escape(text)}</span>' for text in texts if text)


def figure(text: str) -> str:
    """A figure with its interval fainter; a reason in the colour of what is missing."""
    if text and not text[0].isdigit():
        return f'<span class="missing">{escape(text)}</span>'
    mid, bracket, within = text.partition(" (")
    rest = f' <span class="within">({escape(within)}</span>' if bracket else ""
    return f"{escape(mid)}{rest}"


def _pictures(findings: Findings) -> Iterable[str]:
    drawn = pictures(findings)
    single = [picture_section(one) for one in drawn if len(one.panels) == 1]
    yield from (picture_section(one) for one in drawn if len(one.panels) > 1)
    yield "\n".join(['<div class="pair">', *single, "</div>"])


def picture_section(picture: Picture) -> str:
    """Its panels, and below them its captions."""
    captions = "".join(f"<p>{_prose(one)}</p>" for one in picture.captions)
    panels = [panel.svg for panel in picture.panels]
    parts = ['<figure>\n<div class="panels">', *panels, "</div>"]
    parts.append(f"<figcaption>{captions}</figcaption>\n</figure>")
    return section(picture.name, picture.title, parts)


def _explore(views: list[dict[str, Any]]) -> str:
    radios = "".join(
        f'<label><input type="radio" name="view" value="{view["name"]}"'
        f"{'' if number else ' checked'}>{escape(explore.VIEWS[view['name']])}</label>"
        for number, view in enumerate(views)
    )
    parts = [
        '<form id="switches" class="switches">',
        f"<fieldset><legend>Show</legend>{radios}</fieldset>",
        *(
            f"<fieldset><legend>{axis} axis</legend>"
            f'<label><input type="radio" name="{axis}" value="log" checked>log</label>'
            f'<label><input type="radio" name="{axis}" value="linear">linear</label></fieldset>'
            for axis in "xy"
        ),
        '<fieldset id="series"><legend>Lines</legend></fieldset>',
        '<button type="button" id="whole">Show the whole</button>',
        "</form>",
        '<div id="chart"></div>',
        "<p>Drag over the chart to zoom, click twice to see the whole again.</p>",
    ]
    return section("explore", "A closer look", parts, " hidden")


def _weak(findings: Findings) -> str:
    rows = weak_rows(findings)
    if not rows:
        return ""
    heads = ("one core's batch", "workers", "batch", "one core, a step", "a step", "speed-up")
    head = "".join(f'<th scope="col">{escape(one)}</th>' for one in heads)
    body = "\n".join(
        f"<tr>{''.join(f'<td>{figure(one)}</td>' for one in row)}</tr>" for row in rows
    )
    parts = [
        (
            "<p>The batch grows with the workers: the same rows for each of them. Speed-up is in "
            "samples a second over one core at its own batch.</p>"
        ),
        '<div class="scrolls" tabindex="0" role="region" aria-label="Weak scaling">',
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>",
    ]
    return section("weak", "Weak scaling", parts)


def _again(findings: Findings) -> str:
    pairs = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
        for name, value in findings.environment.items()
    )
    parts = [
        f"<pre><code>{escape(findings.command)}</code></pre>",
        f"<h3>Environment</h3>\n<dl>{pairs}</dl>",
        f"<h3>Configuration</h3>\n<pre><code>{escape(findings.configuration)}</code></pre>",
    ]
    return section("again", "To make it again", parts)


def _footer(findings: Findings) -> str:
    return (
        f"<footer>Made {escape(findings.made)} by distsgd; all figures are in report.json. "
        f"Zooming by {UPLOT} (MIT licence, © 2022 Leon Sorokin).</footer>"
    )


def section(name: str, title: str, parts: Iterable[str], more: str = "") -> str:
    """A part of the page under a heading; `name` is unlike that of any other."""
    opening = f'<section id="{name}"{more} aria-labelledby="{name}-h">'
    return "\n".join([opening, f'<h2 id="{name}-h">{escape(title)}</h2>', *parts, "</section>"])


def _prose(text: str) -> str:
    """Escaped; no line ends between a number and its unit."""
    return _UNIT.sub("\\1\N{NO-BREAK SPACE}\\2", escape(text))


def _list(texts: Iterable[str], name: str = "") -> str:
    items = "".join(f"<li>{_prose(words.sentence(one))}</li>" for one in texts)
    return f"<ul{_class(name)}>{items}</ul>"


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""
