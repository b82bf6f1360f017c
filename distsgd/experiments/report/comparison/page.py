"""A comparison as one page that opens without a network and has no script. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from distsgd.experiments.compare import Comparison
from distsgd.experiments.report import words
from distsgd.experiments.report.comparison import tables
from distsgd.experiments.report.comparison.curves import pictures
from distsgd.experiments.report.comparison.sentences import sentences
from distsgd.experiments.report.html import (
    document,
    figure,
    heading,
    picture_section,
    section,
    told_verdicts,
)

_HOW = (
    "Losses and metrics are the last ones, train loss over the last pass over the rows. Samples a "
    "second are those of the whole run; seconds a step the median, in parentheses its interval, "
    "without evaluations."
)


def html_comparison(comparison: Comparison) -> str:
    """The page."""
    made = escape(comparison.made)
    title = f"Comparison of {words.count(len(comparison.runs))} runs"
    target = [f"target {comparison.target}"] if comparison.target else []
    body = [
        heading(title, [*target, comparison.made]),
        "<main>",
        section("verdict", "What was found", told_verdicts(sentences(comparison))),
        _table("results", "How the runs went", comparison, tables.results(comparison), _HOW),
        _differences(comparison),
        *map(picture_section, pictures(comparison)),
        _environments(comparison),
        _again(comparison),
        "</main>",
        f"<footer>Made {made} by distsgd; all figures are in compare.json.</footer>",
    ]
    return document(title, body)


def _differences(comparison: Comparison) -> str:
    title, lines = "Where the configurations differ", tables.settings(comparison)
    how = "Keys that are not here have the same value in all runs."
    return _table("settings", title, comparison, lines, how if lines else "Nowhere.")


def _environments(comparison: Comparison) -> str:
    title, lines = "What they were made with", tables.environments(comparison)
    how = "Only what is not the same: versions, platform, numerics, data."
    same = "The same versions, platform, numerics and data, by their records."
    return _table("environments", title, comparison, lines, how if lines else same)


def _table(
    name: str, title: str, comparison: Comparison, lines: Sequence[tables.Line], caption: str
) -> str:
    parts = [f'<p class="caption" id="{name}-caption">{escape(caption)}</p>']
    if lines:
        heads = "".join(f'<th scope="col">{escape(run.label)}</th>' for run in comparison.runs)
        parts += [
            f'<div class="scrolls" tabindex="0" role="region" aria-label="{escape(title)}">',
            f'<table aria-describedby="{name}-caption">',
            f'<thead><tr><th scope="col" class="text"></th>{heads}</tr></thead>',
            "<tbody>",
            *map(_row, lines),
            "</tbody>",
            "</table>\n</div>",
        ]
    return section(name, title, parts)


def _row(line: tables.Line) -> str:
    shown = figure if line.is_figure else escape
    cells = "".join(f"<td>{shown(cell)}</td>" for cell in line.cells)
    return f'<tr><th scope="row" class="text">{escape(line.name)}</th>{cells}</tr>'


def _again(comparison: Comparison) -> str:
    return section(
        "again",
        "To make it again",
        [f"<pre><code>{escape(comparison.command)}</code></pre>"] if comparison.command else [],
    )
