"""What a column holds, whatever the width and the way it is stored: one kind, numbers. No I/O here.

Integers, floats, booleans and decimals of any width, dictionary-encoded or not, are numbers; lists
of them are lists, be they fixed, variable, large or views. Features are float64, so that integers
beyond 2^53 lose digits as features; classes keep all of theirs. Arrow's own extension types for
tensors and for booleans of a byte are their storage; no other extension type is looked into, since
only its name says what its numbers mean.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Kind = Literal["number", "text", "list", "null", "unsupported"]

# Ray Data's tensors keep their numbers row-major in a list, as Arrow's own do. Their names are
# found in the metadata of files: nothing of Ray is imported to read them.
_READ_AS_STORAGE = frozenset(
    {
        "arrow.fixed_shape_tensor",
        "arrow.bool8",
        "ray.data.arrow_tensor",
        "ray.data.arrow_tensor_v2",
    }
)
_EXTENSION_KEY = b"ARROW:extension:name"


def kind_of(field: pa.Field) -> Kind:
    """What a column holds.

    >>> [kind_of(pa.field("a", t)) for t in (pa.int8(), pa.list_(pa.float16(), 2), pa.date32())]
    ['number', 'list', 'unsupported']
    """
    kind = plain_type(field.type)
    if foreign_extension(field) or isinstance(kind, pa.BaseExtensionType):
        return "unsupported"
    if is_number(kind):
        return "number"
    if is_text(kind):
        return "text"
    if pa.types.is_null(kind):
        return "null"
    is_stored_plainly = not pa.types.is_dictionary(field.type)
    if is_list(kind) and is_stored_plainly and kind_of(kind.value_field) == "number":
        return "list"
    return "unsupported"


def is_text(kind: pa.DataType) -> bool:
    """Whether values of an Arrow type are text."""
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def is_number(kind: pa.DataType) -> bool:
    """Whether values of an Arrow type are numbers; booleans are 0 and 1."""
    checks = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    return any(check(kind) for check in checks)


def described(field: pa.Field) -> str:
    """The type of a column for a message, with the name of an extension type."""
    name = foreign_extension(field)
    kind = plain_type(field.type)
    return f"the extension type {name}" if name else f"type {field.type if is_list(kind) else kind}"


def foreign_extension(field: pa.Field) -> str | None:
    """Name of an extension type that is not read as its storage, registered with Arrow or not."""
    if isinstance(field.type, pa.BaseExtensionType):
        name = str(field.type.extension_name)
    else:
        name = (field.metadata or {}).get(_EXTENSION_KEY, b"").decode(errors="replace")
    return name if name and name not in _READ_AS_STORAGE else None


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values, without the ways of storing them (dictionary, large or view text)."""
    if isinstance(kind, pa.BaseExtensionType) and kind.extension_name in _READ_AS_STORAGE:
        return plain_type(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    return pa.string() if is_text(kind) else kind


def is_list(kind: pa.DataType) -> bool:
    """Whether an Arrow type is one of the lists that can hold features."""
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


def tensor_order(kind: pa.DataType) -> str | None:
    """What order the numbers of a row are in, where the type says it: shape and permutation."""
    if not isinstance(kind, pa.FixedShapeTensorType):
        return None
    order = kind.permutation
    is_plain = order is None or order == sorted(order)
    return f"shape {kind.shape}" + ("" if is_plain else f" in the order {order}")


def storage(values: pa.Array) -> pa.Array:
    """An array without the extension type that is no more than a name for it."""
    return values.storage if isinstance(values.type, pa.BaseExtensionType) else values


def numbers(values: pa.Array) -> NDArray[Any]:
    """Numbers without nulls as they are stored, decimals as the nearest float64; shape ``[N]``."""
    values = storage(values)
    if pa.types.is_dictionary(values.type):
        values = storage(values.dictionary_decode())
    if pa.types.is_decimal(values.type):
        # By way of text, which is read as the nearest float64. Arrow's own cast multiplies by a
        # power of ten that is none: a third of all prices then differ in their last bit from the
        # same price stored as a float, or with more digits.
        values = pc.cast(pc.cast(values, pa.string()), pa.float64())
    assert is_number(values.type), "the schema was checked"
    return np.asarray(values.to_numpy(zero_copy_only=False))


def unified(kinds: list[pa.DataType]) -> pa.DataType:
    """One type for the numbers of columns whose types differ: integers where all are whole.

    >>> str(unified([pa.bool_(), pa.int8()])), str(unified([pa.int64(), pa.float32()]))
    ('int64', 'double')
    """
    if all(kind == kinds[0] for kind in kinds):
        return kinds[0]
    whole = all(pa.types.is_integer(kind) or pa.types.is_boolean(kind) for kind in kinds)
    return pa.int64() if whole else pa.float64()
