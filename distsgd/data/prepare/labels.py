"""Labels: what kind they are, and class values as class indices. No I/O here.

Letters: N rows, K label columns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distsgd.data.options import ClassName, LabelKind, PrepareOptions
from distsgd.data.sources.source import TableSource
from distsgd.data.tables import (
    described,
    foreign_extension,
    is_list,
    is_text,
    kind_of,
    plain_type,
    unified,
)
from distsgd.errors import DataError, shortened

MAX_CLASSES = 65_536
MAX_CLASS_CHARACTERS = 1_000
_QUANTITIES = (
    'for quantities set [model] loss = "squared_error", or for a model of your own [data] '
    'label_kind = "number" (data prepare: --label-kind number)'
)
_WHOLE = re.compile(r"(0|-?[1-9]\d{0,19})(\.0*)?", re.ASCII)
_INT64 = range(-(1 << 63), 1 << 63)
_MOST_SHOWN = 10
_LONGEST_SHOWN = 40


class UnknownClassError(Exception):
    """Row `row` of an array has `value`, which is no known class; the caller says where that is."""

    def __init__(self, row: int, value: object, reason: str) -> None:
        super().__init__(row, value, reason)
        self.row, self.value, self.reason = row, value, reason


class Vocabulary:
    """Class values and their indices: in order of arrival while growing, sorted once known.

    Once known, a value of another type meets the class that it spells: ``1``, ``1.0``, ``"1"`` and
    ``"1.0"`` are one, and ``True`` and ``"true"``, where the classes are no more than 0 and 1.
    """

    def __init__(self, names: tuple[ClassName, ...] = (), *, growing: bool = True) -> None:
        self._codes: dict[ClassName, int] = {name: i for i, name in enumerate(names)}
        self._growing = growing
        self._by_number = {} if growing else _by_number(names)

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
        dictionary = values.dictionary
        if pa.types.is_string_view(dictionary.type):  # pyarrow takes nothing from such.
            dictionary = dictionary.cast(pa.large_string())
        distinct = [_class_name(value) for value in dictionary.take(used).to_pylist()]
        codes = np.array([self._code(name) for name in distinct], np.int64)
        if -1 in codes:
            row = int(np.flatnonzero(codes[indices] == -1)[0])
            raise UnknownClassError(
                row, distinct[indices[row]], self._reason(distinct[indices[row]])
            )
        return codes[indices]

    def _code(self, name: ClassName | float) -> int:
        if not self._growing:
            return self._met(name)
        if isinstance(name, float) or (isinstance(name, str) and len(name) > MAX_CLASS_CHARACTERS):
            return -1
        known = self._codes.get(name, -1)
        if known >= 0 or len(self._codes) >= MAX_CLASSES:
            return known
        return self._codes.setdefault(name, len(self._codes))

    def _met(self, value: ClassName | float) -> int:
        """Index of the class that `value` is or spells."""
        if isinstance(value, str) and value in self._codes:
            return self._codes[value]
        number = _number(value)
        if number is None and self._by_number.keys() <= {0, 1}:
            number = boolean(str(value))
        return -1 if number is None else self._by_number.get(number, -1)

    def _reason(self, value: object) -> str:
        if not self._growing:
            rule = f"is none of the classes of training ({shown(self.names)})"
            return f"{rule}; correct or remove the row"
        if isinstance(value, float):
            rule = "classes are text, booleans or whole numbers"
            return f"is no class: {rule}; {_QUANTITIES}"
        if isinstance(value, str) and len(value) > MAX_CLASS_CHARACTERS:
            rule = f"at most {MAX_CLASS_CHARACTERS} characters"
            return f"is no class: it has {len(value)} characters, {rule}; shorten it"
        return f"is one class too many (at most {MAX_CLASSES}); {_QUANTITIES}"


def whole_number(text: str) -> int | None:
    """The int64 that a text is, be it with decimal zeros; None for other ways to write one.

    >>> [whole_number(text) for text in ("7", "-7.0", "07", "+7", "7e0", "-0", "7.5")]
    [7, -7, None, None, None, None, None]
    """
    value = _integer(text)
    return value if value is not None and value in _INT64 else None


def boolean(text: str) -> int | None:
    """1 and 0 for true and false in any case, and for themselves; None for other texts.

    >>> [boolean(text) for text in ("True", "FALSE", "1", "yes")]
    [1, 0, 1, None]
    """
    return {"0": 0, "1": 1, "false": 0, "true": 1}.get(text.lower())


def is_quantity(text: str) -> bool:
    """Whether a text is a number that is not whole, and so no class.

    >>> [is_quantity(text) for text in ("0.5", "nan", "1e5", "7.0")]
    [True, True, False, False]
    """
    try:
        value = float(text)
    except ValueError:
        return False
    return not math.isfinite(value) or value != value // 1


def check_two_classes(path: str, column: str, names: Sequence[ClassName]) -> None:
    """Raise DataError unless there is more than one class to tell apart."""
    if len(names) < 2:
        what = f"holds one class only ({shown(names)}), in every row; two are needed"
        mend = "give rows of another class, or name another label column"
        raise DataError(path, f"label column {column!r} {what}: {mend}")


def shown(names: Sequence[ClassName]) -> str:
    """Some class names for a message.

    >>> shown(("a", "b")), shown(range(12))
    ("'a', 'b'", '0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more')
    """
    texts = ", ".join(shortened(repr(name), _LONGEST_SHOWN) for name in names[:_MOST_SHOWN])
    return texts + (f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else "")


def resolve_label_kind(path: str, kinds: list[pa.DataType], options: PrepareOptions) -> LabelKind:
    """Whether labels of these Arrow types are classes or numbers; DataError for neither."""
    if options.label_kind == "class" and len(kinds) > 1:
        columns = ", ".join(options.label)
        reason = (
            f"{len(kinds)} label columns ({columns}) cannot be one class; name one label column (of"
            " one-hot columns make one by argmax; of a class at each of several places one column"
            " of lists, or of arrays y with target_shape)"
        )
        raise DataError(path, reason)
    discrete = is_text(kinds[0]) or pa.types.is_boolean(kinds[0]) or pa.types.is_integer(kinds[0])
    resolved: LabelKind = "class" if discrete and len(kinds) == 1 else "number"
    if options.label_kind != "auto":
        resolved = options.label_kind
    for column, kind in zip(options.label, kinds, strict=True):
        if resolved == "number":
            check_number_label(path, column, kind)
    return resolved


def label_type(sources: Sequence[TableSource], column: str) -> pa.DataType:
    """One type for a label column, or the values of its lists, over all sources.

    Raises:
        DataError: Some have text and some not, or lists; or it is no label.
    """
    types: list[pa.DataType] = []
    first: tuple[str, pa.DataType] | None = None
    for source in sources:
        field = source.schema.field(column)
        kind, type_ = kind_of(field), plain_type(field.type)
        if kind not in {"number", "text", "list"}:
            raise DataError(source.name, f"label column {column!r} {_no_label(field)}")
        first = first or (kind, type_)
        if kind != first[0]:
            reason = f"has type {type_}, but {first[1]} in {sources[0].name}"
            is_about_text = "list" not in {kind, first[0]}
            rule = "make them all text or all numbers" if is_about_text else "make them equal"
            raise DataError(source.name, f"column {column!r} {reason}; {rule}")
        types.append(plain_type(type_.value_type) if kind == "list" else type_)
    return unified(types)


def _no_label(field: pa.Field) -> str:
    kind = plain_type(field.type)
    if is_list(kind) and is_text(kind.value_type) and foreign_extension(field) is None:
        rule = "must be lists of integers or numbers; number the texts, as a vocabulary does"
        return f"has lists of text; {rule}"
    rule = "must be text, booleans, integers, numbers, or lists of integers or numbers"
    return f"has {described(field)}; {rule}; write it so, or name another one"


def check_number_label(path: str, column: str, kind: pa.DataType) -> None:
    """Raise DataError where a label column that must be numbers is text."""
    if is_text(kind.value_type if pa.types.is_dictionary(kind) else kind):
        mend = "write it as numbers, or choose a [model] loss for classes"
        reason = f"label column {column!r} is text; must be numbers for this loss; {mend}"
        raise DataError(path, reason)


def sort_classes(names: tuple[ClassName, ...]) -> tuple[ClassName, ...]:
    """Text by code point, integers by size, false before true: all of one type."""
    return tuple(sorted(names, key=lambda name: (isinstance(name, str), name)))


def _class_name(value: Any) -> ClassName | float:
    """A class value as text, boolean or integer; what is fractional stays a float."""
    if isinstance(value, str | bool | int):
        return value
    return int(value) if value == value // 1 else float(value)


def _number(value: ClassName | float) -> int | None:
    """The whole number that a value is or spells; None for booleans and what is none."""
    if isinstance(value, str):
        return _integer(value.removeprefix("+"))
    return None if isinstance(value, bool | float) else value


def _integer(text: str) -> int | None:
    """The integer of any of Arrow's widths that a text is, be it with decimal zeros."""
    match = _WHOLE.fullmatch(text)
    return int(match[1]) if match else None


def _by_number(names: Sequence[ClassName]) -> dict[int, int]:
    """Indices of classes by the whole numbers they are or spell; what two spell is left out."""
    found: dict[int, list[int]] = {}
    for code, name in enumerate(names):
        number = _number(name)
        if number is None and isinstance(name, str | bool):
            number = boolean(str(name))
        if number is not None:
            found.setdefault(number, []).append(code)
    return {number: codes[0] for number, codes in found.items() if len(codes) == 1}
