"""Which files are meant, and each as a source; what formats they can have: `known_formats`.

Files on object storage are listed here, and opened where they have been fetched.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Sequence
from itertools import chain, takewhile
from pathlib import Path, PurePath
from typing import TypeAlias, cast

from distsgd.base.locations import Location, place_of
from distsgd.base.settings import path_argument, refuse
from distsgd.data.options import DEFAULT_CSV, CsvSettings
from distsgd.data.sources.csv_file import CsvSource
from distsgd.data.sources.known_formats import companion_of, format_of
from distsgd.data.sources.listing import listed_files
from distsgd.data.sources.partitions import (
    PartitionedSource,
    partition_keys,
    partition_of,
    with_partitions,
)
from distsgd.data.sources.source import TableSource, checked_source, is_source
from distsgd.data.sources.stored_files import FetchedFile, FilePath, ListedFile, path_of
from distsgd.data.tables import file_stamp
from distsgd.errors import DataError

FoundFile: TypeAlias = "Path | ListedFile | FetchedFile"
PathSpec: TypeAlias = "str | Path | Sequence[str | FoundFile]"
SourceSpec: TypeAlias = "PathSpec | TableSource"


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
        spec: What to open; nothing on object storage that is not fetched.
        named: Columns that are looked for in the whole path of a file.
        texts: Columns of partitions that are text, whatever their values look like.
        classes: Columns of partitions that are labels of classes (`with_partitions`).
        csv: How CSV files are written.

    Raises:
        DataError: Something is missing, foreign or named twice.
    """
    if not isinstance(spec, str | Path | Sequence):
        return [spec]
    files = expand_paths(spec)
    partitions = _partitions(spec, files, named)
    opened = [open_file(_readable(file), csv=csv) for file in files]
    if not any(partitions):
        return opened
    return with_partitions(opened, partitions, texts=texts, classes=classes)


def partitions_of(spec: PathSpec, *, named: Collection[str]) -> list[dict[str, str | None]]:
    """Which directories of each file's path are columns: the same files may be named otherwise."""
    return _partitions(spec, expand_paths(spec), named)


def open_file(path: FilePath, *, csv: CsvSettings = DEFAULT_CSV) -> TableSource:
    """A file of any known format as a source; DataError where it is none or damaged."""
    return format_of(path).open(path, csv)


def csv_file_of(source: TableSource) -> CsvSource | None:
    """The CSV file that a source is, be it with the columns of its directories."""
    inside = source.source if isinstance(source, PartitionedSource) else source
    return inside if isinstance(inside, CsvSource) else None


def check_named_once(sources: Sequence[TableSource]) -> None:
    """Raise DataError for a file that is given twice, or for training and for testing."""
    check_different([file for source in sources for file in getattr(source, "files", ())])


def stamps(files: Sequence[FoundFile]) -> list[tuple[str, int, int | None]]:
    """Path or address, size and time of change of each file, and of those read along with them."""
    found: list[tuple[str, int, int | None]] = []
    for file in files:
        if isinstance(file, ListedFile):
            found += [(it.location.address, it.size_bytes, it.mtime_ns) for it in file.files]
        else:
            both = (file, companion_of(file))
            found += [(_identity(it), *file_stamp(it)) for it in both if it is not None]
    return found


def _readable(file: FoundFile) -> FilePath:
    assert not isinstance(file, ListedFile), f"{file} is to be fetched before it is read"
    return file


def _identity(file: FoundFile) -> str:
    return str(file.resolve()) if isinstance(file, Path) else str(file)


def _partitions(
    spec: PathSpec, files: Sequence[FoundFile], named: Collection[str]
) -> list[dict[str, str | None]]:
    below = common_directory(spec)
    return [
        partition_of(_pure(file), below=below, named=named, called=str(file))
        if "=" in str(_pure(file))
        else {}
        for file in files
    ]


def _pure(file: FoundFile) -> PurePath:
    """A file as an absolute path, of which no more than the names of directories is looked at."""
    if isinstance(file, Path):
        return file.absolute()
    location = file.location if isinstance(file, FetchedFile) else file.stored.location
    return path_of(location)


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


def expand_paths(spec: PathSpec) -> list[FoundFile]:
    """The files that paths and globs name, in order; DataError for none and for one named twice.

    Addresses are listed before (`with_addresses_listed`).
    """
    files = list(chain.from_iterable(_expand(item) for item in _items(spec)))
    if not files:
        raise DataError("sources", "no file was named; give at least one file or glob")
    check_different(files)
    return files


def with_addresses_listed(spec: PathSpec) -> list[str | FoundFile]:
    """The same, with the files that addresses name in place of them; blocks.

    Raises:
        DataError: An address names none.
        ConfigError: It cannot be one.
        StorageError: Object storage refuses to list.
    """
    found: list[str | FoundFile] = []
    for item in _items(spec):
        place = place_of(item) if isinstance(item, str) else item
        found += listed_files(place) if isinstance(place, Location) else [item]
    return found


def common_directory(spec: PathSpec) -> PurePath:
    """The directory that all paths have in common, a glob without its part that has wildcards."""
    return PurePath(os.path.commonpath([_directory(item) for item in _items(spec)]))


def _items(spec: PathSpec) -> list[str | FoundFile]:
    return [spec] if isinstance(spec, str | Path) else list(spec)


def _directory(item: str | FoundFile) -> PurePath:
    if isinstance(item, ListedFile | FetchedFile):
        return item.directory
    path = _local(item).absolute()
    parts = path.parts[:-1]
    if not path.exists():
        parts = tuple(takewhile(lambda part: not glob.has_magic(part), parts))
    return Path(*parts)


def check_different(files: Sequence[FoundFile]) -> None:
    """Raise DataError for a file that is named twice."""
    seen: set[str] = set()
    for file in files:
        if _identity(file) in seen:
            reason = "is named twice; its rows would count double, name it once"
            raise DataError(str(file), reason)
        seen.add(_identity(file))


def _local(item: str | Path) -> Path:
    place = place_of(item)
    assert isinstance(place, Path), f"{item} is listed before"
    return place.expanduser()


def _expand(item: str | FoundFile) -> list[FoundFile]:
    if isinstance(item, ListedFile | FetchedFile):
        return [item]
    path = _local(item)
    if path.is_dir():
        raise DataError(path, 'is a directory; name files or a glob such as "directory/*.parquet"')
    if path.exists():
        return [path]
    if not glob.has_magic(str(path)):
        raise DataError(path, "there is no such file; check the path")
    found = sorted(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207 -- absolute patterns.
    files: list[FoundFile] = [match for match in found if match.is_file()]
    if not files:
        raise DataError(path, "no file matches this glob; check the path")
    return files
