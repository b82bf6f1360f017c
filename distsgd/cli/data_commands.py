"""The commands ``data prepare`` and ``data check`` and their arguments.

What they do stands in modules that are imported when they run.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from distsgd.cli.options import CsvOption, given_path


class Standardise(StrEnum):
    """What is taken off each feature and what it is divided by."""

    MEAN_STD = "mean_std"
    MIN_MAX = "min_max"
    NONE = "none"


class LabelKind(StrEnum):
    """Whether labels are classes or numbers."""

    AUTO = "auto"
    CLASS = "class"
    NUMBER = "number"


class DType(StrEnum):
    """The type of all numbers."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"


def data_prepare(  # noqa: PLR0913 -- one parameter an option of the command.
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Files or globs.")],
    *,
    label: Annotated[
        list[str], typer.Option(metavar="COLUMN", help="What to predict. Repeatable.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", parser=given_path, help="The directory to make.")
    ],
    features: Annotated[
        list[str] | None,
        typer.Option(
            "--feature",
            metavar="COLUMN",
            help="A column or pattern; every other column unless given. Repeatable.",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="No feature: a column or pattern. Repeatable."),
    ] = None,
    label_kind: Annotated[LabelKind, typer.Option(help="What labels are.")] = LabelKind.AUTO,
    test_fraction: Annotated[float, typer.Option(min=0.0, help="Of the rows, held out.")] = 0.0,
    standardise: Annotated[
        Standardise, typer.Option(help="Each feature, by its statistics in the training rows.")
    ] = Standardise.MEAN_STD,
    dtype: Annotated[DType, typer.Option(help="Of all numbers.")] = DType.FLOAT32,
    stratify: Annotated[
        bool, typer.Option("--stratify", help="Hold --test-fraction out of each class.")
    ] = False,
    split_seed: Annotated[int, typer.Option(min=0, help="Of the split and the order of rows.")] = 0,
    csv: CsvOption = None,
) -> None:
    """Check files and turn them into a prepared data set, which training opens at once."""
    from distsgd.cli.data import prepare_directory  # noqa: PLC0415

    prepare_directory(
        sources,
        out,
        choices={
            "label": tuple(label),
            "features": tuple(features) if features else "rest",
            "exclude": tuple(exclude or ()),
            "label_kind": label_kind.value,
            "test_fraction": test_fraction,
            "standardise": standardise.value,
            "dtype": dtype.value,
            "stratify": stratify,
            "split_seed": split_seed,
        },
        csv=csv or (),
    )


def data_check(
    path: Annotated[
        Path,
        typer.Argument(metavar="PATH", parser=given_path, help="A prepared directory or a file."),
    ],
    *,
    csv: CsvOption = None,
) -> None:
    """Read all of a file or prepared directory and say what is in it and what is wrong."""
    from distsgd.cli.data import check_path  # noqa: PLC0415

    check_path(path, csv=csv or ())
