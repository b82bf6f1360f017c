"""The formats of files, a line each: how one is told, how it is read, what is read along with it.

A format is told by what a file begins with; CSV, which begins with anything, by its name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from distsgd.data.options import CsvSettings
from distsgd.data.sources.arrow_file import FILE_MAGIC, STREAM_MAGIC, ArrowSource
from distsgd.data.sources.csv_file import CsvSource
from distsgd.data.sources.idx_file import GZIP_MAGIC, IdxSource, is_idx, labels_file_of
from distsgd.data.sources.parquet_file import ParquetSource
from distsgd.data.sources.source import TableSource
from distsgd.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A format of files.

    Attributes:
        open: A file as a source; the settings are those of CSV files.
        names: Ends of the names of its files, where these tell it.
        heads: What its files begin with, where that tells it.
        is_it: Looks closer at a file that begins so.
        companion: The file that is read along with one of such a name; None without one.
    """

    open: Callable[[Path, CsvSettings], TableSource]
    names: tuple[str, ...] = ()
    heads: tuple[bytes, ...] = ()
    is_it: Callable[[Path], bool] = lambda _: True
    companion: Callable[[Path], Path | None] = lambda _: None


# The last one takes what is none of the others, and says what is wrong with it.
FORMATS = (
    Format(names=(".csv", ".tsv", ".csv.gz", ".tsv.gz"), open=CsvSource),
    Format(heads=(FILE_MAGIC, STREAM_MAGIC), open=lambda path, _: ArrowSource(path)),
    Format(
        heads=(b"\0\0", GZIP_MAGIC),
        is_it=is_idx,
        open=lambda path, _: IdxSource(path),
        companion=labels_file_of,
    ),
    Format(heads=(b"",), open=lambda path, _: ParquetSource(path)),
)
_HEAD_BYTES = 8


def format_of(path: Path) -> Format:
    """The format of a file; DataError where it cannot be read."""
    name = path.name.lower()
    for known in FORMATS:
        if name.endswith(known.names):
            return known
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        reason = f"cannot be read ({error.strerror}); check its permissions"
        raise DataError(path, reason) from error
    return next(it for it in FORMATS if head.startswith(it.heads) and it.is_it(path))


def companion_of(path: Path) -> Path | None:
    """The file that is read along with `path`, by its name; None without one."""
    return next(filter(None, (known.companion(path) for known in FORMATS)), None)
