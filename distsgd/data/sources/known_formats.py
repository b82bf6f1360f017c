"""The formats of files, a line each: how one is told, how it is read, what is read along with it.

A format is told by what a file begins with; CSV, which begins with anything, by its name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

from distsgd.data.options import CsvSettings
from distsgd.data.sources.arrow_file import FILE_MAGIC, STREAM_MAGIC, ArrowSource
from distsgd.data.sources.csv_file import CsvSource
from distsgd.data.sources.idx_file import GZIP_MAGIC, IdxSource, is_idx, labels_names
from distsgd.data.sources.parquet_file import ParquetSource
from distsgd.data.sources.source import TableSource
from distsgd.data.sources.stored_files import FilePath
from distsgd.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A format of files.

    Attributes:
        open: A file as a source; the settings are those of CSV files.
        names: Ends of the names of its files, where these tell it.
        heads: What its files begin with, where that tells it.
        is_it: Looks closer at a file that begins so.
        companions: What the file that is read along with one of a name may be called.
    """

    open: Callable[[FilePath, CsvSettings], TableSource]
    names: tuple[str, ...] = ()
    heads: tuple[bytes, ...] = ()
    is_it: Callable[[FilePath], bool] = lambda _: True
    companions: Callable[[str], tuple[str, ...]] = lambda _: ()


# The last one takes what is none of the others, and says what is wrong with it.
FORMATS = (
    Format(names=(".csv", ".tsv", ".csv.gz", ".tsv.gz"), open=CsvSource),
    Format(heads=(FILE_MAGIC, STREAM_MAGIC), open=lambda path, _: ArrowSource(path)),
    Format(
        heads=(b"\0\0", GZIP_MAGIC),
        is_it=is_idx,
        open=lambda path, _: IdxSource(path),
        companions=labels_names,
    ),
    Format(heads=(b"",), open=lambda path, _: ParquetSource(path)),
)
_HEAD_BYTES = 8


def format_of(path: FilePath) -> Format:
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


def companion_of(path: FilePath) -> FilePath | None:
    """The file that is read along with `path`, by its name; None without one."""
    files = (path.with_name(name) for name in companion_names(path.name))
    return next((file for file in files if file.is_file()), None)


def companion_names(name: str) -> tuple[str, ...]:
    """What the file that is read along with one of this name may be called."""
    return tuple(chain.from_iterable(known.companions(name) for known in FORMATS))
