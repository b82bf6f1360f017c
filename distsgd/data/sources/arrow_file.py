"""Arrow IPC files (also called Feather) and streams."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from distsgd.data.guard.arrow import check_decoded_size, check_views
from distsgd.data.sources.stored_files import FilePath
from distsgd.data.tables import (
    MAX_ROW_BYTES,
    arrow_errors,
    batch_rows,
    check_unchanged,
    file_stamp,
    row_bytes,
)
from distsgd.errors import DataError

FILE_MAGIC, STREAM_MAGIC = b"ARROW1", b"\xff\xff\xff\xff"


class ArrowSource:
    """One Arrow file or stream, mapped into memory.

    What is not compressed is read in place; a compressed record batch is decoded whole, so one that
    would take too much memory is refused.
    """

    def __init__(self, path: FilePath) -> None:
        self.path = path
        self.name = str(path)
        self.files = (path,)
        self._stamp = file_stamp(path)
        self.num_bytes = self._stamp[0]
        with path.open("rb") as file:
            self._is_file = file.read(len(FILE_MAGIC)) == FILE_MAGIC
        with arrow_errors(self.name):
            with self._reader(None) as reader:  # Verifies the metadata that is looked at next.
                self.schema: pa.Schema = reader.schema
            with pa.memory_map(os.fspath(path)) as mapped:
                check_decoded_size(mapped, is_file=self._is_file)
            # Asking for the names finds those that are no text.
            first = [0] if self.schema.names else None
            self.num_rows = sum(batch.num_rows for batch in self._record_batches(first))

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows in order, of these columns, in batches of at most about 16 MiB."""
        with arrow_errors(self.name):
            width = row_bytes(self.schema, columns)
            if width > MAX_ROW_BYTES:
                limit = f"the limit is {MAX_ROW_BYTES >> 20} MiB a row; make the rows shorter"
                raise DataError(self.path, f"has rows of {width >> 20} MiB; {limit}")
            rows = batch_rows(width)
            fields = sorted({self.schema.get_field_index(name) for name in columns})
            views = [name for name in columns if _is_view(self.schema.field(name).type)]
            for batch in self._record_batches(fields):
                # Offsets and text are used unchecked by what follows.
                batch.validate(full=True)
                for name in views:
                    check_views(batch.column(name))
                for first in range(0, batch.num_rows, rows):
                    yield batch.slice(first, rows)

    def check_unchanged(self) -> None:
        """Raise DataError when the file has another size or time of change than when opened."""
        check_unchanged(self.path, self._stamp)

    def _record_batches(self, fields: list[int] | None) -> Iterator[pa.RecordBatch]:
        with self._reader(fields) as reader:
            if not self._is_file:
                yield from reader
                return
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number)

    @contextmanager
    def _reader(self, fields: list[int] | None) -> Iterator[Any]:
        options = pa.ipc.IpcReadOptions(included_fields=fields or [], use_threads=False)
        with pa.memory_map(os.fspath(self.path)) as file:
            opened = pa.ipc.open_file if self._is_file else pa.ipc.open_stream
            with opened(file, options=options) as reader:
                yield reader


def _is_view(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind))
