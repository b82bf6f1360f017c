"""Labels: what kind they are, and class values as class indices. No I/O here.

Letters: N rows, K label columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distsgd.data.options import LabelKind, PrepareOptions
from distsgd.errors import DataError

ClassName = str | int | bool
MAX_CLASSES = 65_536
MAX_CLASS_CHARACTERS = 1_000


class UnknownClassError(Exception):
    """Row `row` of an array has `value`, which is no known class; the caller says where that is."""

    def __init__(self, row: int, value: object, reason: str) -> None:
        super().__init__(row, value, reason)
        self.row, self.value, self.reason = row, value, reason


class Vocabulary:
    """Class values and their indices: in order of arrival while growing, sorted once known."""

    def __init__(self, names: tuple[ClassName, ...] = (), *, growing: bool = True) -> None:
        self._codes: dict[ClassName, int] = {name: i for i, name in enumerate(names)}
        self._growing = growing

    @property
    def names(self) -> tuple[ClassName, ...]:
        """The values, by index."""
        return tuple(self._codes)

    def encode(self, values: pa.Array) -> NDArray[np.int64]:
        """Class indices ``[N]`` of an array without nulls; else UnknownClassError."""
        if not pa.types.is_dictionary(values.type):
            values = values.dictionary_encode()
        indices = np.asarray(values.indices.to_numpy(zero_copy_only=False), np.int64)
        # A dictionary that came with the file may hold what no row has, and things twice.
        used, indices = np.unique(indices, return_inverse=True)
        distinct = [_class_name(value) for value in values.dictionary.take(used).to_pylist()]
        codes = np.array([self._code(name) for name in distinct], np.int64)
        if -1 in codes:
            row = int(np.flatnonzero(codes[indices] == -1)[0])
            raise UnknownClassError(
                row, distinct[indices[row]], self._reason(distinct[indices[row]])
            )
        return codes[indices]

    def _code(self, name: ClassName | float) -> int:
        if isinstance(name, float) or (isinstance(name, str) and len(name) > MAX_CLASS_CHARACTERS):
            return -1
        known = self._codes.get(name, -1)
        if known >= 0 or not self._growing or len(self._codes) >= MAX_CLASSES:
            return known
        return self._codes.setdefault(name, len(self._codes))

    def _reason(self, value: object) -> str:
        if isinstance(value, float):
            rule = "classes are text, booleans or whole numbers"
            return f'is no class: {rule}; train a regression (label kind "number") on quantities'
        if isinstance(value, str) and len(value) > MAX_CLASS_CHARACTERS:
            rule = f"at most {MAX_CLASS_CHARACTERS} characters"
            return f"is no class: it has {len(value)} characters, {rule}; shorten it"
        if self._growing:
            way_out = 'train a regression (label kind "number") on quantities'
            return f"is one class too many (at most {MAX_CLASSES}); {way_out}"
        shown = ", ".join(repr(name) for name in self.names[:10])
        more = f" and {len(self.names) - 10} more" if len(self.names) > 10 else ""
        return f"is none of the classes of training ({shown}{more}); correct or remove the row"


def resolve_label_kind(path: str, kinds: list[pa.DataType], options: PrepareOptions) -> LabelKind:
    """Whether labels of these Arrow types are classes or numbers; DataError for neither."""
    if options.label_kind == "class" and len(kinds) > 1:
        columns = ", ".join(options.label)
        reason = (
            f"{len(kinds)} label columns ({columns}) cannot be one class; name one label column"
        )
        raise DataError(path, reason)
    discrete = is_text(kinds[0]) or pa.types.is_boolean(kinds[0]) or pa.types.is_integer(kinds[0])
    resolved: LabelKind = "class" if discrete and len(kinds) == 1 else "number"
    if options.label_kind != "auto":
        resolved = options.label_kind
    for column, kind in zip(options.label, kinds, strict=True):
        if resolved == "number" and is_text(kind):
            rule = "must be numbers for a regression"
            raise DataError(path, f"label column {column!r} is text ({kind}); {rule}")
    return resolved


def is_text(kind: pa.DataType) -> bool:
    """Whether values of an Arrow type are text."""
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def is_number(kind: pa.DataType) -> bool:
    """Whether values of an Arrow type are numbers; booleans are 0 and 1."""
    checks = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    return any(check(kind) for check in checks)


def sort_classes(names: tuple[ClassName, ...]) -> tuple[ClassName, ...]:
    """Text by code point, integers by size, false before true: all of one type."""
    return tuple(sorted(names, key=lambda name: (isinstance(name, str), name)))


def _class_name(value: Any) -> ClassName | float:
    """A class value as text, boolean or integer; what is fractional stays a float."""
    if isinstance(value, str | bool | int):
        return value
    return int(value) if value == value // 1 else float(value)
