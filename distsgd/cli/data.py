"""The commands ``data prepare`` and ``data check``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from distsgd.cli.messages import memory, print_facts, print_table, say
from distsgd.cli.progress import reporter
from distsgd.data.manifest import Manifest
from distsgd.data.prepare.check import CheckReport, check
from distsgd.data.prepare.options import PrepareOptions
from distsgd.data.prepare.prepare import prepare
from distsgd.data.sources.csv_settings import DEFAULT_CSV, with_given
from distsgd.errors import DataError
from distsgd.run.progress import rows_done

_MOST_COLUMNS = 100


def prepare_directory(
    sources: Sequence[str], out: Path, *, choices: Mapping[str, Any], csv: Sequence[str]
) -> None:
    """Prepare `sources` into the new directory `out` and say what is in it."""
    options = PrepareOptions(**choices, csv=with_given(DEFAULT_CSV, csv))
    with reporter(quiet=False) as shown:

        def on_progress(phase: str, done: int, total: int | None) -> None:
            shown.doing(rows_done(phase, done, total))

        manifest = prepare(
            sources, out, options=options, on_progress=on_progress, on_message=shown.message
        )
    print_facts(manifest_facts(manifest))
    say(f'prepared {out}; use it with [data] path = "{out}"')


def manifest_facts(manifest: Manifest) -> list[tuple[str, str]]:
    """What a prepared data set holds, for people."""
    size = sum(shard.num_bytes for shard in (*manifest.train_shards, *manifest.test_shards))
    classes = manifest.class_names
    names = ", ".join(map(str, classes[:20])) + (", ..." if len(classes) > 20 else "")
    what = f"{len(classes)} classes ({names})" if classes else f"{manifest.num_targets} numbers"
    left_out = ", ".join(manifest.left_out)
    return [
        ("rows", f"{manifest.train_rows:,} to train, {manifest.test_rows:,} to test"),
        ("features", f"{manifest.num_features:,}, {manifest.standardise}, {manifest.dtype}"),
        *([("left out", f"{left_out} (index of a data frame)")] if left_out else []),
        ("labels", what),
        ("size", memory(size)),
        ("digest", manifest.digest),
    ]


def check_path(path: Path, *, csv: Sequence[str]) -> None:
    """Read everything at `path` and say what is there. Raises DataError where it cannot be used."""
    report = check(path, csv=with_given(DEFAULT_CSV, csv))
    if report.manifest is not None:
        print_facts(manifest_facts(report.manifest))
    elif report.num_rows:
        print_facts([("rows", f"{report.num_rows:,}"), ("columns", f"{len(report.columns):,}")])
        _print_columns(report)
    if report.problems:
        for problem in report.problems[:-1]:
            say(f"problem: {problem}")
        raise DataError(path, report.problems[-1].removeprefix(f"{path}: "))
    for column in report.columns:
        if column.first_text:
            say(f"column {column.name!r} is text: {column.first_text}")
    texts = [column.name for column in report.columns if column.kind == "text"]
    only = f" ({', '.join(texts[:_MOST_COLUMNS])} as a label only: text)" if texts else ""
    say(f"{path} can be used{only}")


def _print_columns(report: CheckReport) -> None:
    table = Table("column", "type", "kind", "smallest", "largest", box=None)
    for column in report.columns[:_MOST_COLUMNS]:
        extremes = (column.minimum, column.maximum)
        shown = ("-" if value is None else f"{value:g}" for value in extremes)
        table.add_row(column.name, column.type, column.kind, *shown)
    print_table(table)
    if len(report.columns) > _MOST_COLUMNS:
        say(f"... and {len(report.columns) - _MOST_COLUMNS:,} columns more")
