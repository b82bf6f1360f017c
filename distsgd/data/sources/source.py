"""The protocol of all sources; one of the user's own is held to it where it comes in. No I/O here.

What its methods raise is the user's, and comes out as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any, Protocol

import pyarrow as pa

from distsgd.data.tables import MemorySource
from distsgd.errors import DataError

_RULE = "see distsgd.TableSource"


class TableSource(Protocol):
    """A table of rows that can be read more than once, always in the same order.

    The protocol of a data source of one's own, handed to `Trainer` or to `prepare`: any object with
    these attributes and methods; nothing need be derived from. Its columns are told apart by name,
    as a file's are, and its batches should be of some thousand rows each.

    >>> import pyarrow as pa
    >>> class Squares:
    ...     name = "squares"  # What messages call it.
    ...     schema = pa.schema({"x": pa.float32(), "y": pa.float32()})
    ...     num_rows, num_bytes = 1000, 0
    ...
    ...     def batches(self, columns):
    ...         for first in range(0, self.num_rows, 100):
    ...             x = [i / self.num_rows for i in range(first, first + 100)]
    ...             yield pa.record_batch([x, [v * v for v in x]], schema=self.schema)
    ...
    ...     def check_unchanged(self):  # Raise DataError if the rows are others by now.
    ...         pass
    >>> import tempfile
    >>> from distsgd import PrepareOptions, prepare
    >>> with tempfile.TemporaryDirectory() as out:
    ...     manifest = prepare(Squares(), out, options=PrepareOptions(label=("y",)))
    >>> manifest.columns, manifest.train_rows
    (('x',), 1000)
    """

    @property
    def name(self) -> str:
        """What a message calls it."""
        ...

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        ...

    @property
    def num_rows(self) -> int:
        """Rows the source says it has."""
        ...

    @property
    def num_bytes(self) -> int:
        """Bytes it takes where it lies."""
        ...

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows in order, with at least these columns; DataError where a row cannot be read."""
        ...

    def check_unchanged(self) -> None:
        """Raise DataError when the source is no longer what was opened."""
        ...


def is_source(value: object) -> bool:
    """Whether `value` means to be a source rather than a table or arrays."""
    return callable(getattr(value, "batches", None)) and hasattr(value, "schema")


def is_own(source: TableSource) -> bool:
    """Whether `source` is the user's own, as `checked_source` gives it."""
    return isinstance(source, _OwnSource)


def checked_source(source: Any) -> TableSource:
    """`source`, with every batch of it held to its schema and its number of rows.

    Raises:
        DataError: It lacks something of `TableSource`, or has it of another kind.
    """
    if isinstance(source, MemorySource | _OwnSource):
        return source
    if isinstance(source, type):
        kind = f"{source.__module__}.{source.__qualname__}"
        reason = f"is a class; must be an instance of it: {source.__name__}(...) ({_RULE})"
        raise DataError(kind, reason)
    kind = f"{type(source).__module__}.{type(source).__qualname__}"
    kinds: dict[str, tuple[str, type]] = {
        "name": ("str", str),
        "schema": ("Schema", pa.Schema),
        "num_rows": ("int", Integral),  # numpy's as well.
        "num_bytes": ("int", Integral),
    }
    for name, (shown, wanted) in kinds.items():
        value = getattr(source, name, None)
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise DataError(kind, f"{name} is {value!r}; must be of type {shown} ({_RULE})")
    for name in ("num_rows", "num_bytes"):
        if (count := getattr(source, name)) < 0:
            raise DataError(kind, f"{name} is {count}; must be 0 or more ({_RULE})")
    for name in ("batches", "check_unchanged"):
        if not callable(getattr(source, name, None)):
            raise DataError(kind, f"has no method {name}; must have one ({_RULE})")
    return _OwnSource(source)


class _OwnSource:
    """The user's source, with its batches checked as they come."""

    def __init__(self, source: TableSource) -> None:
        self._source = source
        self.name, self.schema = source.name, source.schema
        self.num_rows, self.num_bytes = int(source.num_rows), int(source.num_bytes)

    def check_unchanged(self) -> None:
        """As the source does; DataError as well where it says so by what it returns."""
        answer: object = self._source.check_unchanged()  # type: ignore[func-returns-value]
        if answer is not None and not answer:
            reason = f"has changed since it was opened (check_unchanged returned {answer!r})"
            self._refuse(f"{reason}; open it anew")

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Those of the source. Raises DataError where they are not what it said of itself."""
        num_rows = 0
        for i, batch in enumerate(self._source.batches(columns)):
            if not isinstance(batch, pa.RecordBatch):
                kind = type(batch).__name__
                self._refuse(f"batch {i} is a {kind}; must be a pyarrow RecordBatch")
            for name in columns:
                found = [field.type for field in batch.schema if field.name == name]
                if found != [wanted := self.schema.field(name).type]:
                    shown = ", ".join(map(str, found)) or "missing"
                    self._refuse(f"column {name!r} of batch {i} is {shown}; must be {wanted}")
            num_rows += batch.num_rows
            yield batch
        if num_rows != self.num_rows:
            self._refuse(f"num_rows is {self.num_rows}, and its batches have {num_rows} rows")

    def _refuse(self, reason: str) -> None:
        raise DataError(self.name, f"{reason} ({_RULE})")
