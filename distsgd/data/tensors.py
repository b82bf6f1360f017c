"""What a column of tensors says of a row: its shape, and the order of its numbers. No I/O here."""

from __future__ import annotations

import json

import pyarrow as pa

from distsgd.data.tables import EXTENSION_KEY


def tensor_order(kind: pa.DataType) -> str | None:
    """What order the numbers of a row are in, where the type says it: shape and permutation."""
    if not isinstance(kind, pa.FixedShapeTensorType):
        return None
    order = kind.permutation
    is_plain = order is None or order == sorted(order)
    return f"shape {kind.shape}" + ("" if is_plain else f" in the order {order}")


def tensor_shape(field: pa.Field) -> tuple[int, ...] | None:
    """The shape of a row of a column of Arrow's tensors, row-major; None where it has none.

    Parquet files are read without extension types, and say it in the metadata of the column.

    >>> tensor_shape(pa.field("y", pa.fixed_shape_tensor(pa.int8(), (2, 3))))
    (2, 3)
    """
    if isinstance(field.type, pa.FixedShapeTensorType):
        shape, order = field.type.shape, field.type.permutation
    else:
        metadata = field.metadata or {}
        if metadata.get(EXTENSION_KEY) != b"arrow.fixed_shape_tensor":
            return None
        try:
            said = json.loads(metadata.get(b"ARROW:extension:metadata", b""))
            shape, order = said["shape"], said.get("permutation")
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
            return None
    is_shape = isinstance(shape, list) and all(type(size) is int and size > 0 for size in shape)
    is_plain = not order or list(order) == sorted(order)
    return tuple(shape) if is_shape and is_plain else None
