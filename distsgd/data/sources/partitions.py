"""Hive partitions: columns whose values are in the names of directories (``day=3/part.parquet``).

Which directories count: those below the directory that all files of a source have in common, where
a glob begins at its last directory before the first wildcard. So ``d/**/*.parquet`` and the list
``[d/day=3/a.parquet, d/day=4/b.parquet]`` have the column ``day``, and a single file that is named
has none, wherever it lies: that its path goes through ``run=7`` says nothing of its rows. Only
where a column is asked for by its name, as a label, as a feature or because training had it, is it
looked for in the whole path.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distsgd.data.sources.source import TableSource
from distsgd.data.sources.stored_files import FilePath
from distsgd.data.tables import arrow_errors, kind_of, numbers, storage
from distsgd.errors import DataError

Partition = Mapping[str, str | None]

_NULL = "__HIVE_DEFAULT_PARTITION__"
_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d{1,18}(\.\d*)?|\.\d+)([eE][+-]?\d{1,2})?", re.ASCII)
_CODE = re.compile(r"[+-]?0\d", re.ASCII)
_BOOLEANS = {"false": False, "true": True}
_VALUE_OF: dict[pa.DataType, Callable[[str], object]] = {
    pa.int64(): int,
    pa.float64(): float,
    pa.bool_(): lambda text: _BOOLEANS[text.lower()],
}


class PartitionedSource:
    """A file with the values of its directories as columns behind its own.

    Args:
        source: The file.
        partition: Value of each key, as text; None is a null.
        types: Type of each key, over all files.
    """

    def __init__(
        self, source: TableSource, partition: Partition, types: Mapping[str, pa.DataType]
    ) -> None:
        self.source, self.partition, self.types = source, partition, types
        self.name, self.num_rows, self.num_bytes = source.name, source.num_rows, source.num_bytes
        self.files: tuple[FilePath, ...] = tuple(getattr(source, "files", ()))
        self._own = frozenset(source.schema.names)
        fields = [pa.field(key, types[key]) for key in partition if key not in self._own]
        self.schema: pa.Schema = pa.schema([*source.schema, *fields], source.schema.metadata)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows in order; DataError where a column of the file says other than its directory."""
        wanted = [name for name in columns if name in self._own]
        added = [name for name in columns if name not in self._own]
        checked = [name for name in wanted if name in self.partition]
        row = 0
        for batch in self.source.batches(wanted or self._any_column()):
            for name in checked:
                self._check_agrees(name, batch.column(name), row)
            arrays = [self._constant(name, batch.num_rows) for name in added]
            fields = [pa.field(name, array.type) for name, array in zip(added, arrays, strict=True)]
            schema = pa.schema([*batch.schema, *fields])
            yield pa.RecordBatch.from_arrays([*batch.columns, *arrays], schema=schema)
            row += batch.num_rows

    def check_unchanged(self) -> None:
        """Raise DataError when the file is no longer what was opened."""
        self.source.check_unchanged()

    def _any_column(self) -> list[str]:
        """One that is cheap to read: rows are counted by reading them."""
        fields = sorted(self.source.schema, key=lambda field: kind_of(field) != "number")
        if not fields:
            raise DataError(self.name, "has no columns; write it again, or leave it out")
        return [fields[0].name]

    def _constant(self, key: str, num_rows: int) -> pa.Array:
        text, kind = self.partition[key], self.types[key]
        if text is not None and pa.types.is_string(kind):
            # As a dictionary it stays one text.
            indices = pa.array(np.zeros(num_rows, np.int32))
            return pa.DictionaryArray.from_arrays(indices, pa.array([text]))
        value = None if text is None else _VALUE_OF[kind](text)
        return pa.repeat(pa.scalar(value, kind), num_rows)

    def _check_agrees(self, key: str, values: pa.Array, row: int) -> None:
        with arrow_errors(self.name):
            differs = _differs(storage(values), self.partition[key])
        if differs.any():
            first = int(np.flatnonzero(differs)[0])
            reason = (
                f"is {values[first].as_py()!r}, but the file lies in {key}={self.partition[key]}"
            )
            way_out = "correct one of them, or leave the column out of the features"
            raise DataError(self.name, f"column {key!r}, row {row + first}: {reason}; {way_out}")


def partition_of(
    path: PurePath, *, below: PurePath, named: Collection[str] = (), called: str = ""
) -> dict[str, str | None]:
    """Keys and values of a path.

    Args:
        path: Of a file, absolute.
        below: Directories below this one count; absolute too.
        named: Keys that count wherever they stand.
        called: What a message calls the file, where that is not its path.

    Raises:
        DataError: A key occurs twice with different values.
    """
    found: dict[str, str | None] = {}
    num_above = len(below.parts)
    for place, part in enumerate(path.parent.parts):
        key, is_partition, text = part.partition("=")
        key = unquote(key)
        if not (is_partition and key) or not (place >= num_above or key in named):
            continue
        value = None if text == _NULL else unquote(text)
        if found.setdefault(key, value) != value:
            raise DataError(
                called or path, f"lies in two directories {key}=...; rename one of them"
            )
    return found


def with_partitions(
    sources: Sequence[TableSource],
    partitions: Sequence[Partition],
    *,
    texts: Collection[str] = (),
    classes: Collection[str] = (),
) -> list[TableSource]:
    """Sources with the columns of their directories.

    A key is integers, numbers or booleans where all its values over all sources are, else text.
    Where two values would be one number (``01`` and ``1``) they stay text.

    Args:
        sources: The files.
        partitions: Of each of them.
        texts: Keys that are text whatever their values look like: so were those of training.
        classes: Keys that are labels of classes: text where a number would lose a zero (``007``).
    """
    values: dict[str, set[str]] = {}
    for partition in partitions:
        for key, value in partition.items():
            values.setdefault(key, set()).update(() if value is None else (value,))
    types = {
        key: pa.string() if key in texts else _type(found, is_class=key in classes)
        for key, found in values.items()
    }
    return [
        PartitionedSource(source, partition, types) if partition else source
        for source, partition in zip(sources, partitions, strict=True)
    ]


def partitions_as_text(sources: Sequence[TableSource]) -> frozenset[str]:
    """Keys that are text in these sources."""
    typed = [source.types for source in sources if isinstance(source, PartitionedSource)]
    return frozenset(key for types in typed for key, kind in types.items() if kind == pa.string())


def partition_keys(source: TableSource) -> frozenset[str]:
    """Keys of the directories that a source lies in."""
    return frozenset(source.partition if isinstance(source, PartitionedSource) else ())


def _type(values: Collection[str], *, is_class: bool) -> pa.DataType:
    if is_class and any(map(_CODE.match, values)):
        return pa.string()
    kind = pa.string()
    if all(map(_INTEGER.fullmatch, values)):
        kind = pa.int64()
    elif all(map(_NUMBER.fullmatch, values)):
        kind = pa.float64()
    elif all(value.lower() in _BOOLEANS for value in values):
        kind = pa.bool_()
    read = _VALUE_OF.get(kind, str)
    return kind if len(set(map(read, values))) == len(values) else pa.string()


def _differs(values: pa.Array, value: str | None) -> Any:
    """Which values of a column are not what stands in the name of a directory; shape ``[N]``."""
    nulls = values.is_null().to_numpy(zero_copy_only=False)
    if value is None:
        return ~nulls
    if nulls.any():
        return nulls
    if pa.types.is_boolean(values.type):
        value = {"0": "false", "1": "true"}.get(value, value.casefold())
    elif kind_of(pa.field("", values.type)) == "number":
        try:
            return numbers(values) != float(value)
        except ValueError:
            return np.ones(len(values), bool)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return pc.not_equal(values.cast(pa.string()), value).to_numpy(zero_copy_only=False)
