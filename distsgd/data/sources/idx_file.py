"""IDX files, gzipped or not: images as one list column, their labels from the file next to them.

The format: two zero bytes, the type of the numbers, how many dimensions; then each dimension as a
big-endian uint32, the first being the rows; then the numbers, big-endian, row-major. Published data
sets name an images file and its labels file alike (``train-images-idx3-ubyte.gz``,
``train-labels-idx1-ubyte.gz``): the second is found by that rule and read along, row by row.
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distsgd.data.sources.stored_files import FilePath
from distsgd.data.tables import MAX_ROW_BYTES, arrow_errors, batch_rows, check_unchanged, file_stamp
from distsgd.errors import DataError

FEATURES, LABEL = "image", "label"
SHAPE_KEY = b"shape"  # Of a row, in the metadata of the list column: ``28x28``.
_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_DIMENSIONS = 8
GZIP_MAGIC = b"\x1f\x8b"
# Deflate cannot make more than 1032 bytes out of one.
_MOST_INFLATED = 1032


class IdxSource:
    """One IDX file of two or more dimensions with its labels, or one of a single dimension.

    Rows of two or more dimensions are the lists of a column ``image``, whatever their shape; single
    numbers are a column ``label``, and so are those of the labels file.
    """

    def __init__(self, path: FilePath) -> None:
        self.path = path
        self.name = str(path)
        self._values = _IdxFile(path)
        self._labels: _IdxFile | None = None
        labels = labels_file_of(path)
        if self._values.row_shape and labels is not None:
            self._labels = _IdxFile(labels)
            self._check_labels(self._labels)
        self.files = tuple(file.path for file in self._all())
        self.num_rows = self._values.num_rows
        self.num_bytes = sum(file.stamp[0] for file in self._all())
        fields = [_field(file) for file in self._all()]
        self.schema: pa.Schema = pa.schema(fields)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows in order, in batches of about 16 MiB; columns that are not asked for too."""
        del columns  # Reading past numbers costs as much as taking them along.
        with arrow_errors(self.name):
            rows = batch_rows(sum(file.row_bytes for file in self._all()))
            pieces = zip(*(file.pieces(rows) for file in self._all()), strict=True)
            for arrays in pieces:
                yield pa.record_batch([_column(array) for array in arrays], schema=self.schema)

    def check_unchanged(self) -> None:
        """Raise DataError when a file has another size or time of change than when opened."""
        for file in self._all():
            check_unchanged(file.path, file.stamp)

    def _all(self) -> Iterator[_IdxFile]:
        yield self._values
        if self._labels is not None:
            yield self._labels

    def _check_labels(self, labels: _IdxFile) -> None:
        if labels.row_shape:
            shape = (labels.num_rows, *labels.row_shape)
            raise DataError(labels.path, f"has the shape {shape}; labels must be one number a row")
        if labels.num_rows != self._values.num_rows:
            reason = f"has {labels.num_rows} labels, but {self.path} has {self._values.num_rows}"
            raise DataError(labels.path, f"{reason} rows; copy or write both again")


def is_idx(path: FilePath) -> bool:
    """Whether a file begins as an IDX file does, seen through gzip."""
    with _damage_as_data_error(path), _opened(path) as file:
        head = file.read(4)
    return len(head) == 4 and head[:2] == b"\0\0" and head[2] in _TYPES and head[3] > 0


def labels_file_of(path: FilePath) -> FilePath | None:
    """The labels file next to an images file; None without one."""
    files = (path.with_name(name) for name in labels_names(path.name))
    return next((file for file in files if file.is_file()), None)


def labels_names(name: str) -> tuple[str, ...]:
    """What the labels file next to an images file may be called, gzipped or not.

    ``images`` in its name becomes ``labels``, and ``idx3`` (or any other number) ``idx1``.

    >>> labels_names("train-images-idx3-ubyte"), labels_names("rows.parquet")
    (('train-labels-idx1-ubyte', 'train-labels-idx1-ubyte.gz'), ())
    """
    if not re.search(r"images.*idx\d", name):
        return ()
    labels = re.sub(r"idx\d", "idx1", name.replace("images", "labels"))
    plain = labels.removesuffix(".gz")
    return tuple(dict.fromkeys((labels, plain, f"{plain}.gz")))


class _IdxFile:
    """The header of one file, checked, and its rows."""

    def __init__(self, path: FilePath) -> None:
        self.path = path
        self.stamp = file_stamp(path)
        with _damage_as_data_error(path), _opened(path) as file:
            head = _exactly(file, 4)
            if head[:2] != b"\0\0" or head[2] not in _TYPES or not 1 <= head[3] <= _MAX_DIMENSIONS:
                raise DataError(path, f"is not an IDX file (it begins with {head!r}); convert it")
            shape = np.frombuffer(_exactly(file, 4 * head[3]), ">u4").tolist()
        self.dtype = np.dtype(_TYPES[head[2]])
        self.num_rows: int = shape[0]
        self.row_shape: tuple[int, ...] = tuple(shape[1:])
        self.row_bytes = math.prod(self.row_shape) * self.dtype.itemsize
        self._header_bytes = 4 + 4 * head[3]
        self._check_size()

    def pieces(self, rows: int) -> Iterator[NDArray[Any]]:
        """All rows in order, at most `rows` at once, flat and in this machine's byte order."""
        with _damage_as_data_error(self.path), _opened(self.path) as file:
            _exactly(file, self._header_bytes)
            for first in range(0, self.num_rows, rows):
                count = min(rows, self.num_rows - first)
                numbers = np.frombuffer(_exactly(file, count * self.row_bytes), self.dtype)
                native = numbers.astype(self.dtype.newbyteorder("="), copy=False)
                yield native.reshape((count, -1) if self.row_shape else (count,))
            if file.read(1):
                reason = f"holds more than the {self.num_rows} rows that it says; write it again"
                raise DataError(self.path, reason)

    def _check_size(self) -> None:
        """Refuse what cannot be there, before memory is asked for."""
        shape = (self.num_rows, *self.row_shape)
        if 0 in self.row_shape:
            raise DataError(self.path, f"has the shape {shape}; a row must hold a number")
        if self.row_bytes > MAX_ROW_BYTES:
            limit = f"the limit is {MAX_ROW_BYTES >> 20} MiB a row"
            raise DataError(self.path, f"has rows of {self.row_bytes >> 20} MiB; {limit}")
        claimed, there = self._header_bytes + self.num_rows * self.row_bytes, self.stamp[0]
        with self.path.open("rb") as file:
            is_gzip = file.read(2) == GZIP_MAGIC
        if claimed > (there * _MOST_INFLATED if is_gzip else there):
            reason = f"says it has the shape {shape}, but its {there} bytes cannot hold that"
            raise DataError(self.path, f"{reason}; copy or write it again")


def _field(file: _IdxFile) -> pa.Field:
    kind = pa.from_numpy_dtype(file.dtype.newbyteorder("="))
    if not file.row_shape:
        return pa.field(LABEL, kind)
    kind = pa.list_(kind, math.prod(file.row_shape))
    return pa.field(FEATURES, kind, metadata={SHAPE_KEY: "x".join(map(str, file.row_shape))})


def _column(array: NDArray[Any]) -> pa.Array:
    if array.ndim == 1:
        return pa.array(array)
    return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array.shape[1])


@contextmanager
def _opened(path: FilePath) -> Iterator[IO[bytes] | gzip.GzipFile]:
    with path.open("rb") as raw:
        is_gzip = raw.read(2) == GZIP_MAGIC
        raw.seek(0)
        if not is_gzip:
            yield raw
            return
        with gzip.open(raw) as file:
            yield file


def _exactly(file: IO[bytes] | gzip.GzipFile, count: int) -> bytes:
    content = file.read(count)
    if len(content) < count:
        raise EOFError
    return content


@contextmanager
def _damage_as_data_error(path: FilePath) -> Iterator[None]:
    try:
        yield
    except EOFError as error:
        raise DataError(path, "is cut short; copy or write it again") from error
    except zlib.error as error:
        raise DataError(path, f"is damaged ({error}); copy or write it again") from error
    except OSError as error:  # Includes what gzip says of a wrong checksum.
        raise DataError(path, f"cannot be read ({error.strerror or error})") from error
