"""Paths and globs as the files they name. Nothing is opened here."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from itertools import chain, takewhile
from pathlib import Path
from typing import TypeAlias

from distsgd.errors import DataError

PathSpec: TypeAlias = "str | Path | Sequence[str | Path]"


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


def file_stamp(path: Path) -> tuple[int, int]:
    """Size in bytes and time of change in nanoseconds."""
    try:
        status = path.stat()
    except OSError as error:
        reason = f"cannot be read ({error.strerror}); check the path and its permissions"
        raise DataError(path, reason) from error
    return status.st_size, status.st_mtime_ns


def check_unchanged(path: Path, stamp: tuple[int, int]) -> None:
    """Raise DataError when a file no longer has the stamp it had when it was opened."""
    if file_stamp(path) != stamp:
        raise DataError(path, "changed while it was read; try again when it is complete")


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
