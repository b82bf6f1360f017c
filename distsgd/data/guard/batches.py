"""How many rows are decoded at once: within 16 MiB, by what a row takes as far as its type says."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from distsgd.data.kinds import is_list

BATCH_BYTES = 16 << 20
MAX_BATCH_ROWS = 65_536
MAX_ROW_BYTES = 64 << 20
_UNKNOWN_BYTES = 64
_UNKNOWN_LIST_BYTES = 32 << 10


def row_bytes(schema: pa.Schema, columns: Sequence[str]) -> int:
    """About what a row of these columns takes decoded; a guess for lists of any length and text."""
    return sum(_value_bytes(schema.field(name).type) for name in columns)


def batch_rows(bytes_per_row: int) -> int:
    """Rows of a batch: within 16 MiB and 65,536 rows."""
    return max(1, min(MAX_BATCH_ROWS, BATCH_BYTES // max(bytes_per_row, 1)))


def _value_bytes(kind: pa.DataType) -> int:
    if isinstance(kind, pa.BaseExtensionType):
        return _value_bytes(kind.storage_type)
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size) * 8
    if is_list(kind):
        return _UNKNOWN_LIST_BYTES
    try:
        return max(int(kind.bit_width) // 8, 8)
    except ValueError:
        return _UNKNOWN_BYTES
