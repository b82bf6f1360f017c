"""Which columns are features and which labels: decided on the first source, held for all."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from distsgd.data.labels import is_number, is_text
from distsgd.data.source import TableSource
from distsgd.errors import DataError

MAX_FEATURES = 1 << 20


@dataclass(frozen=True, slots=True)
class Layout:
    """Columns of raw tables.

    Attributes:
        columns: Feature columns, in order; one when it is a list column.
        list_width: Length of the lists of a list column; None for columns of numbers.
        label: Label columns, in order; empty when labels are not read.
        types: Arrow types of features and labels that every source must have; None where any
            numbers do.
    """

    columns: tuple[str, ...]
    list_width: int | None
    label: tuple[str, ...]
    types: tuple[pa.DataType, ...] | None = None

    @property
    def num_features(self) -> int:
        """Numbers a row has."""
        return len(self.columns) if self.list_width is None else self.list_width

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Name of each number: see `names_of_features`."""
        return names_of_features(self.columns, self.list_width)


def names_of_features(columns: tuple[str, ...], list_width: int | None) -> tuple[str, ...]:
    """Name of each number of a row: its column, with its place where that is a list.

    >>> names_of_features(("a", "b"), None), names_of_features(("x",), 2)
    (('a', 'b'), ('x[0]', 'x[1]'))
    """
    if list_width is None:
        return columns
    return tuple(f"{columns[0]}[{i}]" for i in range(list_width))


def resolve_layout(
    source: TableSource, *, label: tuple[str, ...], features: Literal["rest"] | tuple[str, ...]
) -> Layout:
    """The layout the options mean on this source; DataError for missing or unusable columns."""
    _check_duplicates(source)
    names = source.schema.names
    if features == "rest":
        columns = tuple(name for name in names if name not in label and not _is_pandas_index(name))
    else:
        columns = features
    _check_present(source, label, "label")
    _check_present(source, columns, "feature")
    both = sorted(set(label) & set(columns))
    if both:
        raise DataError(
            source.name, f"column {both[0]!r} is both label and feature; remove it from one of them"
        )
    if not columns:
        raise DataError(
            source.name, f"has no feature columns beside the label ({', '.join(label)}); add some"
        )
    types = tuple(plain_type(source.schema.field(name).type) for name in (*columns, *label))
    width = None
    if len(columns) == 1 and is_list(types[0]):
        _check_list_items(source, columns[0], types[0])
        width = _list_width(source, columns[0], types[0])
    else:
        for column, kind in zip(columns, types, strict=False):
            _check_feature_type(source, column, kind)
    for column, kind in zip(label, types[len(columns) :], strict=True):
        _check_label_type(source, column, kind)
    layout = Layout(columns, width, label, types)
    if not 1 <= layout.num_features <= MAX_FEATURES:
        rule = f"must be 1 to {MAX_FEATURES}; choose other feature columns"
        reason = f"has {layout.num_features} features; {rule}"
        raise DataError(source.name, reason)
    return layout


def check_layout(source: TableSource, layout: Layout) -> None:
    """Raise DataError unless a source has the columns, and the types, of a layout."""
    _check_duplicates(source)
    _check_present(source, layout.columns, "feature")
    _check_present(source, layout.label, "label")
    for i, column in enumerate((*layout.columns, *layout.label)):
        kind = plain_type(source.schema.field(column).type)
        if layout.types is not None and kind != layout.types[i]:
            expected = f"{layout.types[i]} in the first file; make the schemas equal"
            reason = f"column {column!r} has type {kind}, but {expected}"
            raise DataError(source.name, reason)
        if column in layout.label:
            _check_label_type(source, column, kind)
        elif layout.list_width is not None and is_list(kind):
            _check_list_items(source, column, kind)
        elif layout.list_width is not None:
            raise DataError(
                source.name,
                f"column {column!r} has type {kind}; must be lists of {layout.list_width} numbers",
            )
        else:
            _check_feature_type(source, column, kind)


def check_same_columns(first: TableSource, other: TableSource) -> None:
    """Raise DataError unless two sources have columns of the same names."""
    extra = sorted(set(other.schema.names) - set(first.schema.names))
    missing = sorted(set(first.schema.names) - set(other.schema.names))
    if extra or missing:
        what = f"has column {extra[0]!r}, which" if extra else f"lacks column {missing[0]!r}, which"
        lacks = "lacks" if extra else "has"
        reason = f"{what} {first.name} {lacks}; make the schemas equal or name the feature columns"
        raise DataError(other.name, reason)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values, without the ways of storing them (dictionary, large or view text)."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.string() if is_text(kind) else kind


def is_list(kind: pa.DataType) -> bool:
    """Whether an Arrow type is one of the lists that can hold features."""
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _check_duplicates(source: TableSource) -> None:
    repeated = [name for name, count in Counter(source.schema.names).items() if count > 1]
    if repeated:
        raise DataError(
            source.name, f"has column {repeated[0]!r} more than once; rename one of them"
        )


def _check_present(source: TableSource, columns: tuple[str, ...], role: str) -> None:
    names = source.schema.names
    there = set(names)
    missing = [name for name in columns if name not in there]
    if missing:
        known = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        raise DataError(
            source.name, f"has no {role} column {missing[0]!r}; its columns are: {known}"
        )


def _check_feature_type(source: TableSource, column: str, kind: pa.DataType) -> None:
    if is_number(kind):
        return
    way_out = "leave it out of the features or turn it into numbers"
    if is_text(kind):
        raise DataError(
            source.name, f"feature column {column!r} is text; must be numbers; {way_out}"
        )
    if pa.types.is_null(kind):
        raise DataError(source.name, f"feature column {column!r} has only nulls; {way_out}")
    if is_list(kind):
        rule = "a list must be the only feature; name it alone as features"
        reason = f"feature column {column!r} is a list beside other features; {rule}"
        raise DataError(source.name, reason)
    raise DataError(
        source.name, f"feature column {column!r} has type {kind}, which is not supported; {way_out}"
    )


def _check_label_type(source: TableSource, column: str, kind: pa.DataType) -> None:
    if not (is_text(kind) or is_number(kind)):
        reason = (
            f"label column {column!r} has type {kind}; must be text, booleans, integers or numbers"
        )
        raise DataError(source.name, reason)


def _check_list_items(source: TableSource, column: str, kind: pa.DataType) -> None:
    if not is_number(kind.value_type) or pa.types.is_boolean(kind.value_type):
        raise DataError(
            source.name,
            f"feature column {column!r} has lists of {kind.value_type}; must be lists of numbers",
        )


def _list_width(source: TableSource, column: str, kind: pa.DataType) -> int:
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size)
    for batch in source.batches((column,)):
        values = batch.column(column)
        if batch.num_rows and values[0].is_valid:
            return len(values[0])
        if batch.num_rows:
            raise DataError(
                source.name,
                f"column {column!r}, row 0: null feature list; fill it in or remove the row",
            )
    raise DataError(source.name, "has no rows; the first file must have some")


def _is_pandas_index(name: str) -> bool:
    return name.startswith("__index_level_") and name.endswith("__")
