"""``data prepare`` and ``data check``: files read, checked and turned into a data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distsgd.cli.options import (
    CacheDirOption,
    CsvOption,
    cache_directory,
    given_place,
    grouped,
)
from distsgd.cli.terminal.messages import memory, print_facts, print_table, say
from distsgd.cli.terminal.progress import reporter
from distsgd.data.options import (
    DEFAULT_CSV,
    AskedLabelKind,
    Dtype,
    FeatureKind,
    PrepareOptions,
    Standardise,
    with_given,
)
from distsgd.errors import ConfigError, DataError

if TYPE_CHECKING:
    from distsgd.data.check import CheckReport
    from distsgd.data.manifest import Manifest

_MOST_COLUMNS = 100

data_app = typer.Typer(help="Prepare and check data.", no_args_is_help=True)


def _axes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(size) for size in text.split(","))
    except ValueError:
        rule = "must be whole numbers of at least 1, such as 2,3"
        raise ConfigError([f"--target-shape is {text!r}; {rule}"]) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnOptions:
    """Which columns are used, and how."""

    label: Annotated[
        list[str], typer.Option(metavar="COLUMN", help="A column to predict. Repeatable.")
    ]
    features: Annotated[
        list[str] | None,
        typer.Option(
            "--feature",
            metavar="COLUMN",
            help="A column or pattern; every other column unless given. Repeatable.",
        ),
    ] = None
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN", help="A column or pattern to leave out of the features. Repeatable."
        ),
    ] = None
    feature_kind: Annotated[
        FeatureKind,
        typer.Option(help="What the features are: quantities, or integers such as tokens."),
    ] = "number"
    label_kind: Annotated[
        AskedLabelKind,
        typer.Option(help="What the labels are, or the values of a list: one class or number."),
    ] = "auto"
    target_shape: Annotated[
        Any,
        typer.Option(
            metavar="AXES",
            parser=_axes,
            help="Axes of a label that is a list, such as 2,3; one unless given.",
        ),
    ] = None
    standardise: Annotated[
        Standardise | None,
        typer.Option(
            help="How to standardise each feature, by its statistics in the training rows. "
            "mean_std unless given; none for integers."
        ),
    ] = None
    dtype: Annotated[Dtype, typer.Option(help="The type of all numbers.")] = "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitOptions:
    """Which rows are held out."""

    test_fraction: Annotated[
        float, typer.Option(min=0.0, help="Fraction of the rows to hold out.")
    ] = 0.0
    stratify: Annotated[
        bool, typer.Option("--stratify", help="Hold out --test-fraction of each class.")
    ] = False
    split_seed: Annotated[
        int, typer.Option(min=0, help="Seed of the split and of the order of the rows.")
    ] = 0


@data_app.command("prepare")
@grouped
def data_prepare(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="Files or globs, or their addresses.")
    ],
    *,
    columns: ColumnOptions,
    out: Annotated[
        Any,
        typer.Option(
            metavar="DIR", parser=given_place, help="The new directory, or s3://BUCKET/NAME."
        ),
    ],
    split: SplitOptions,
    csv: CsvOption = None,
    cache_dir: CacheDirOption = None,
) -> None:
    """Check files and turn them into a prepared data set, which training opens at once."""
    from distsgd.data.prepare.prepare import prepare
    from distsgd.run.progress import rows_done

    with reporter(quiet=False) as shown:

        def on_progress(phase: str, done: int, total: int | None) -> None:
            shown.doing(rows_done(phase, done, total))

        manifest = prepare(
            sources,
            out,
            options=_prepare_options(columns, split, csv),
            on_progress=on_progress,
            on_message=shown.message,
            cache_dir=cache_directory(cache_dir),
        )
    print_facts(manifest_facts(manifest))
    say(f'prepared {out}; use it with [data] path = "{out}"')


def _prepare_options(
    columns: ColumnOptions, split: SplitOptions, csv: list[str] | None
) -> PrepareOptions:
    usual: Standardise = "none" if columns.feature_kind == "integer" else "mean_std"
    return PrepareOptions(
        label=tuple(columns.label),
        features=tuple(columns.features) if columns.features else "rest",
        exclude=tuple(columns.exclude or ()),
        feature_kind=columns.feature_kind,
        label_kind=columns.label_kind,
        target_shape=columns.target_shape,
        test_fraction=split.test_fraction,
        standardise=columns.standardise or usual,
        dtype=columns.dtype,
        stratify=split.stratify,
        split_seed=split.split_seed,
        csv=with_given(DEFAULT_CSV, csv or ()),
    )


def manifest_facts(manifest: Manifest) -> list[tuple[str, str]]:
    """What a prepared data set holds, for people."""
    size = sum(shard.num_bytes for shard in (*manifest.train_shards, *manifest.test_shards))
    classes = manifest.class_names
    names = ", ".join(map(str, classes[:20])) + (", ..." if len(classes) > 20 else "")
    what = f"{len(classes)} classes ({names})" if classes else f"{manifest.num_targets} numbers"
    if manifest.target_names != manifest.labels or len(manifest.target_shape) > 1:
        axes = " x ".join(map(str, manifest.target_shape))
        what = f"{what}, {'one at each of' if classes else 'as'} {axes}{' places' * bool(classes)}"
    features = f"{manifest.num_features:,}"
    if manifest.num_levels is not None:
        features += f" integers of {manifest.num_levels:,} levels"
    left_out = ", ".join(manifest.left_out)
    return [
        ("rows", f"{manifest.train_rows:,} to train, {manifest.test_rows:,} to test"),
        ("features", f"{features}, {manifest.standardise}, {manifest.dtype}"),
        *([("left out", f"{left_out} (index of a data frame)")] if left_out else []),
        ("labels", what),
        ("size", memory(size)),
        ("digest", manifest.digest),
    ]


@data_app.command("check")
def data_check(
    path: Annotated[
        Any,
        typer.Argument(
            metavar="PATH",
            parser=given_place,
            help="A prepared directory or a file, or its address.",
        ),
    ],
    *,
    csv: CsvOption = None,
    cache_dir: CacheDirOption = None,
) -> None:
    """Read all of a file or prepared directory and say what is in it and what is wrong."""
    from distsgd.data.cache_directory import Cache
    from distsgd.data.check import check

    cache = Cache(cache_directory(cache_dir), on_message=say)
    report = check(path, csv=with_given(DEFAULT_CSV, csv or ()), cache=cache)
    if report.manifest is not None:
        print_facts(manifest_facts(report.manifest))
    elif report.num_rows:
        print_facts([("rows", f"{report.num_rows:,}"), ("columns", f"{len(report.columns):,}")])
        _print_columns(report)
    if report.problems:
        for problem in report.problems[:-1]:
            say(f"problem: {problem}")
        raise DataError(str(path), report.problems[-1].removeprefix(f"{path}: "))
    for column in report.columns:
        if column.first_text:
            say(f"column {column.name!r} is text: {column.first_text}")
    texts = [column.name for column in report.columns if column.kind == "text"]
    only = f" ({', '.join(texts[:_MOST_COLUMNS])} as a label only: text)" if texts else ""
    say(f"{path} can be used{only}")


def _print_columns(report: CheckReport) -> None:
    from rich.table import Table

    table = Table("column", "type", "kind", "smallest", "largest", box=None)
    for column in report.columns[:_MOST_COLUMNS]:
        extremes = (column.minimum, column.maximum)
        shown = ("-" if value is None else f"{value:g}" for value in extremes)
        table.add_row(column.name, column.type, column.kind, *shown)
    print_table(table)
    if len(report.columns) > _MOST_COLUMNS:
        say(f"... and {len(report.columns) - _MOST_COLUMNS:,} columns more")
