"""CSV files, compressed or not: a header line of names, then rows.

A first reading of the whole file finds what each column can be, so that no row far down can be
anything else; `csv_types` decides what the columns of all files of a source are; a second reading
gives the rows. Both see text and turn it into values by the same rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy

import pyarrow as pa

from distsgd.data.options import DEFAULT_CSV, CsvSettings
from distsgd.data.sources.csv_cells import column_field
from distsgd.data.sources.csv_numbers import (
    ColumnKind,
    ColumnScan,
    converted,
    joint_type,
    trimmed,
)
from distsgd.data.sources.csv_text import CsvText
from distsgd.data.sources.stored_files import FilePath
from distsgd.data.tables import arrow_errors, check_unchanged, file_stamp


class CsvSource:
    """One CSV file, read a block of about 4 MiB at a time.

    The types in `schema` are those of this file alone, until `typed` gives others.
    """

    def __init__(self, path: FilePath, settings: CsvSettings = DEFAULT_CSV) -> None:
        self.path, self.settings = path, settings
        self.name = str(path)
        self.files = (path,)
        self._stamp = file_stamp(path)
        self.num_bytes = self._stamp[0]
        self._text = CsvText(path, settings)
        self._place_of = {name: place for place, name in enumerate(self._text.names)}
        self.kinds, self.num_rows = self._scan()
        self.schema: pa.Schema = self._schema({})

    def typed(self, fields: Mapping[str, pa.Field]) -> CsvSource:
        """The same file with other types of some columns, which its values must have."""
        source = copy(self)
        source.schema = self._schema(fields)
        return source

    def field(self, name: str, kind: pa.DataType) -> pa.Field:
        """A column of type `kind`, with this file's first cell that is no number."""
        found = self.kind_of(name)
        return column_field(name, kind, found, path=self.path, settings=self.settings)

    def kind_of(self, column: str) -> ColumnKind:
        """What the values of a column are in this file."""
        return self.kinds[self._place_of[column]]

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows in order, of these columns."""
        schema = pa.schema([self.schema.field(name) for name in columns])
        of_type: dict[pa.DataType, list[int]] = {}
        for i, field in enumerate(schema):
            of_type.setdefault(field.type, []).append(i)
        for batch in self._text.batches([self._place_of[name] for name in columns]):
            arrays: list[pa.Array] = [None] * len(columns)
            with arrow_errors(self.name):
                for kind, places in of_type.items():
                    texts = [batch.column(i) for i in places]
                    for i, values in zip(
                        places, converted(texts, kind, self.settings), strict=True
                    ):
                        arrays[i] = values
                yield pa.record_batch(arrays, schema=schema)

    def texts(self, column: str) -> Iterator[pa.Array]:
        """All values of a column as text, trimmed, null where that text is null in numbers."""
        for batch in self._text.batches([self._place_of[column]]):
            yield trimmed(batch.column(0), self.settings, numbers=True)

    def where(self, row: int) -> str:
        """How a message calls a row: by its number and its line. Reads the file up to it."""
        return self._text.where(row)

    def check_unchanged(self) -> None:
        """Raise DataError when the file has another size or time of change than when opened."""
        check_unchanged(self.path, self._stamp)

    def _schema(self, fields: Mapping[str, pa.Field]) -> pa.Schema:
        named = zip(self._text.names, self.kinds, strict=True)
        return pa.schema(
            [fields.get(name) or self.field(name, joint_type([kind])) for name, kind in named]
        )

    def _scan(self) -> tuple[list[ColumnKind], int]:
        places = range(len(self._text.names))
        scan = ColumnScan(len(places), self.settings)
        for batch in self._text.batches(places):
            with arrow_errors(self.name):
                scan.add(batch)
        return scan.kinds(), scan.num_rows
