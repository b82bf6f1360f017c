"""Which files are meant, and each as a source; what formats they can have: `known_formats`."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Sequence
from itertools import chain, takewhile
from pathlib import Path
from typing import TypeAlias, cast

from distsgd.base.settings import path_argument, refuse
from distsgd.data.options import DEFAULT_CSV, CsvSettings
from distsgd.data.sources.csv_file import CsvSource
from distsgd.data.sources.known_formats import companion_of, format_of
from distsgd.data.sources.partitions import (
    PartitionedSource,
    partition_keys,
    partition_of,
    with_partitions,
)
from distsgd.data.sources.source import TableSource, checked_source, is_source
from distsgd.errors import DataError

SourceSpec: TypeAlias = "str | Path | Sequence[str | Path] | TableSource"


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
    partitions = _partitions(spec, paths, named)
    opened = [open_file(path, csv=csv) for path in paths]
    if not any(partitions):
        return opened
    return with_partitions(opened, partitions, texts=texts, classes=classes)


def partitions_of(spec: PathSpec, *, named: Collection[str]) -> list[dict[str, str | None]]:
    """Which directories of each file's path are columns: the same files may be named otherwise."""
    return _partitions(spec, expand_paths(spec), named)


def open_file(path: Path, *, csv: CsvSettings = DEFAULT_CSV) -> TableSource:
    """A file of any known format as a source; DataError where it is none or damaged."""
    return format_of(path).open(path, csv)


def csv_file_of(source: TableSource) -> CsvSource | None:
    """The CSV file that a source is, be it with the columns of its directories."""
    inside = source.source if isinstance(source, PartitionedSource) else source
    return inside if isinstance(inside, CsvSource) else None


def check_named_once(sources: Sequence[TableSource]) -> None:
    """Raise DataError for a file that is given twice, or for training and for testing."""
    check_different([file for source in sources for file in getattr(source, "files", ())])


def with_companions(paths: Sequence[Path]) -> list[Path]:
    """These files and those that are read along with them."""
    return [file for path in paths for file in (path, companion_of(path)) if file is not None]


def _partitions(
    spec: PathSpec, paths: Sequence[Path], named: Collection[str]
) -> list[dict[str, str | None]]:
    below = common_directory(spec)
    return [
        partition_of(path, below=below, named=named) if "=" in str(path.absolute()) else {}
        for path in paths
    ]


PathSpec: TypeAlias = "str | Path | Sequence[str | Path]"


def source_argument(name: str, value: object) -> SourceSpec:
    """`value`, unless it is nothing that sources can be: then ConfigError."""
    if isinstance(value, str | os.PathLike):
        path_argument(name, value)
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        for i, item in enumerate(value):
            path_argument(f"{name}[{i}]", item)
    elif not is_source(value):
        refuse(name, value, "a file or glob, a list of them, or a source (distsgd.TableSource)")
    else:
        return checked_source(value)
    return cast(SourceSpec, value)


def with_rows(sources: Sequence[TableSource]) -> list[TableSource]:
    """The sources that have rows; DataError where none has."""
    filled = [source for source in sources if source.num_rows]
    if not filled:
        what = "has no rows; give a file with some" if len(sources) == 1 else "has no rows"
        more = "" if len(sources) == 1 else f", nor have {len(sources) - 1} other files"
        raise DataError(sources[0].name, what + (f"{more}; give files with some" if more else ""))
    return filled


def check_same_columns(sources: Sequence[TableSource], *, besides: set[str]) -> None:
    """Raise DataError unless sources have columns of the same names, some besides."""
    first = sources[0]
    expected = set(first.schema.names) - besides
    for other in sources[1:]:
        names = set(other.schema.names) - besides
        extra, missing = sorted(names - expected), sorted(expected - names)
        if not (extra or missing):
            continue
        name = (extra or missing)[0]
        has, lacks = (other, first) if extra else (first, other)
        if name in partition_keys(has):
            rule = "lay all files in such directories, or exclude the column"
            reason = f"lies in no directory {name}=..., as {has.name} does; {rule}"
            raise DataError(lacks.name, reason)
        verbs = ("has", "lacks") if extra else ("lacks", "has")
        rule = "make the schemas equal, exclude the column or name the feature columns"
        reason = f"{verbs[0]} column {name!r}, which {first.name} {verbs[1]}; {rule}"
        raise DataError(other.name, reason)


def expand_paths(spec: PathSpec) -> list[Path]:
    """The files that paths and globs name, in order; DataError for none and for one named twice."""
    paths = list(chain.from_iterable(_expand(item) for item in _items(spec)))
    if not paths:
        raise DataError("sources", "no file was named; give at least one file or glob")
    check_different(paths)
    return paths


def common_directory(spec: PathSpec) -> Path:
    """The directory that all paths have in common, a glob without its part that has wildcards."""
    return Path(os.path.commonpath([_directory(item) for item in _items(spec)]))


def _items(spec: PathSpec) -> list[str | Path]:
    return [spec] if isinstance(spec, str | Path) else list(spec)


def _directory(item: str | Path) -> Path:
    path = Path(item).expanduser().absolute()
    parts = path.parts[:-1]
    if not path.exists():
        parts = tuple(takewhile(lambda part: not glob.has_magic(part), parts))
    return Path(*parts)


def check_different(paths: Sequence[Path]) -> None:
    """Raise DataError for a file that is named twice."""
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise DataError(path, "is named twice; its rows would count double, name it once")
        seen.add(path.resolve())


def _expand(item: str | Path) -> list[Path]:
    path = Path(item).expanduser()
    if path.is_dir():
        raise DataError(path, 'is a directory; name files or a glob such as "directory/*.parquet"')
    if path.exists():
        return [path]
    if not glob.has_magic(str(path)):
        raise DataError(path, "there is no such file; check the path")
    found = sorted(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207 -- absolute patterns.
    found = [match for match in found if match.is_file()]
    if not found:
        raise DataError(path, "no file matches this glob; check the path")
    return found
