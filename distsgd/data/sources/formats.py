"""Which format a file has, and opening it: Parquet, Arrow, IDX and CSV.

A format is recognised by what a file begins with; CSV, which begins with anything, by its name.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TypeAlias

from distsgd.data.sources.arrow_file import FILE_MAGIC, STREAM_MAGIC, ArrowSource
from distsgd.data.sources.csv_file import CsvSource
from distsgd.data.sources.csv_settings import DEFAULT_CSV, CsvSettings
from distsgd.data.sources.idx_file import IdxSource, is_idx, labels_file_of
from distsgd.data.sources.parquet_file import ParquetSource
from distsgd.data.sources.partitions import partition_of, with_partitions
from distsgd.data.sources.paths import PathSpec, check_different, common_directory, expand_paths
from distsgd.data.sources.source import TableSource
from distsgd.errors import DataError

SourceSpec: TypeAlias = "str | Path | Sequence[str | Path] | TableSource"

_CSV_NAMES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")


def open_sources(
    spec: SourceSpec,
    *,
    named: Collection[str] = (),
    texts: Collection[str] = (),
    classes: Collection[str] = (),
    csv: CsvSettings = DEFAULT_CSV,
) -> list[TableSource]:
    """Each file of a path, glob or list of them as a source; a source is passed on.

    A glob's files come sorted by name, with the columns of their partitions (`partitions`).

    Args:
        spec: What to open.
        named: Columns that are looked for in the whole path of a file.
        texts: Columns of partitions that are text, whatever their values look like.
        classes: Columns of partitions that are labels of classes (`with_partitions`).
        csv: How CSV files are written.

    Raises:
        DataError: Something is missing, foreign or named twice.
    """
    if not isinstance(spec, str | Path | Sequence):
        return [spec]
    paths = expand_paths(spec)
    below = common_directory(spec)
    partitions = [partition_of(path, below=below, named=named) for path in paths]
    opened = [open_file(path, csv=csv) for path in paths]
    return with_partitions(opened, partitions, texts=texts, classes=classes)


def partitions_of(spec: PathSpec, *, named: Collection[str]) -> list[dict[str, str | None]]:
    """Which directories of each file's path are columns: the same files may be named otherwise."""
    below = common_directory(spec)
    return [partition_of(path, below=below, named=named) for path in expand_paths(spec)]


def open_file(path: Path, *, csv: CsvSettings = DEFAULT_CSV) -> TableSource:
    """A file of any known format as a source; DataError where it is none or damaged."""
    if path.name.lower().endswith(_CSV_NAMES):
        return CsvSource(path, csv)
    try:
        with path.open("rb") as file:
            head = file.read(len(FILE_MAGIC))
    except OSError as error:
        reason = f"cannot be read ({error.strerror}); check its permissions"
        raise DataError(path, reason) from error
    if head.startswith((FILE_MAGIC, STREAM_MAGIC)):
        return ArrowSource(path)
    return IdxSource(path) if is_idx(path) else ParquetSource(path)


def check_named_once(sources: Sequence[TableSource]) -> None:
    """Raise DataError for a file that is given twice, or for training and for testing."""
    check_different([file for source in sources for file in getattr(source, "files", ())])


def with_companions(paths: Sequence[Path]) -> list[Path]:
    """These files and those that are read along with them: the labels of IDX images."""
    pairs = ((path, labels_file_of(path)) for path in paths)
    return [file for pair in pairs for file in pair if file is not None]
