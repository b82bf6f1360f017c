"""Which columns are features and which labels, and what they hold: decided over all sources.

A source without rows decides nothing and hinders nothing: its types are those of nothing. Which
columns the options mean is found by `feature_columns`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa

from distsgd.data.manifest import MAX_FEATURES, names_of_features, usual_target_shape
from distsgd.data.options import LabelKind
from distsgd.data.prepare.feature_columns import (
    Features,
    check_known,
    choose_features,
    excluded_columns,
    index_columns,
)
from distsgd.data.prepare.labels import label_type
from distsgd.data.sources.csv_cells import no_number
from distsgd.data.sources.formats import check_same_columns, with_rows
from distsgd.data.sources.partitions import partition_keys
from distsgd.data.sources.source import TableSource
from distsgd.data.tables import (
    described,
    foreign_extension,
    is_list,
    kind_of,
    plain_type,
)
from distsgd.data.tensors import tensor_order, tensor_shape
from distsgd.errors import DataError


@dataclass(frozen=True, slots=True)
class TableSchema:
    """Columns of raw tables.

    Attributes:
        columns: Feature columns, in order; one when it is a list column.
        list_width: Length of the lists of a list column; None for columns of numbers.
        label: Label columns, in order; empty when labels are not read.
        types: Arrow types of the labels, or of their lists' values, one over all sources; None
            where nobody asked.
        left_out: Columns that are no features because they are the index of a data frame.
        label_shape: Axes of a list of labels; None for labels of one value.
    """

    columns: tuple[str, ...]
    list_width: int | None
    label: tuple[str, ...]
    types: tuple[pa.DataType, ...] | None = None
    left_out: tuple[str, ...] = ()
    label_shape: tuple[int, ...] | None = None

    @property
    def label_width(self) -> int | None:
        """Length of the lists of a list label; None for labels of one value."""
        return None if self.label_shape is None else math.prod(self.label_shape)

    @property
    def has_lists(self) -> bool:
        """Whether features or labels are lists."""
        return self.list_width is not None or self.label_shape is not None

    @property
    def num_labels(self) -> int:
        """Classes or numbers that a row has to be predicted."""
        return len(self.label) if self.label_width is None else self.label_width

    @property
    def label_names(self) -> tuple[str, ...]:
        """Name of each of them: see `names_of_features`."""
        return names_of_features(self.label, self.label_width)

    @property
    def num_features(self) -> int:
        """Numbers a row has."""
        return len(self.columns) if self.list_width is None else self.list_width

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Name of each number: see `names_of_features`."""
        return names_of_features(self.columns, self.list_width)


def resolve_schema(
    sources: Sequence[TableSource],
    *,
    label: tuple[str, ...],
    features: Features,
    exclude: tuple[str, ...] = (),
) -> TableSchema:
    """The schema the options mean on these sources; DataError for missing or unusable columns.

    Features come in the order of the first source with rows. Every source with rows must have
    them; where they are the rest, no source may have others.
    """
    filled = with_rows(sources)
    first = filled[0]
    for source in filled:
        _check_duplicates(source)
        check_known(label, source.schema.names, where=source.name, role="label")
    names = dict.fromkeys(name for source in filled for name in source.schema.names)
    excluded = excluded_columns(exclude, tuple(names), where=first.name)
    index = frozenset[str]().union(*(index_columns(source.schema) for source in filled))
    choose = partial(choose_features, label=label, features=features, excluded=excluded)
    columns = choose(first.schema.names, index=index, where=first.name)
    if features == "rest":
        check_same_columns(filled, besides={*label, *index, *excluded})
    with_index = choose(tuple(names), index=(), where=first.name)
    unused = index.difference(columns)
    left_out = tuple(name for name in with_index if name in unused)
    _check_choice(first, columns, label, left_out)
    width = None
    if len(columns) == 1 and kind_of(first.schema.field(columns[0])) == "list":
        width = _list_width(first, columns[0], "feature")
    schema = TableSchema(columns, width, label, None, left_out, label_shape(filled, label))
    counts = {"feature": schema.num_features} | ({"label": schema.num_labels} if label else {})
    for role, found in counts.items():
        if not 1 <= found <= MAX_FEATURES:
            rule = f"must be 1 to {MAX_FEATURES}; choose other {role} columns"
            raise DataError(first.name, f"has {found} {role}s; {rule}")
    return replace(schema, types=check_schema(filled, schema))


def label_shape(sources: Sequence[TableSource], label: Sequence[str]) -> tuple[int, ...] | None:
    """The axes of the lists of a label column; None for labels of one value.

    Those of the tensors that the column says it holds, else one, as long as the first row's list.

    Args:
        sources: Those with rows, of which the first decides.
        label: The label columns.

    Raises:
        DataError: A list is not the only label column, or the first one is null.
    """
    first = sources[0]
    lists = [column for column in label if kind_of(first.schema.field(column)) == "list"]
    if not lists:
        return None
    if len(label) > 1:
        reason = f"label column {lists[0]!r} is a list among other label columns; name it alone"
        raise DataError(first.name, reason)
    width = _list_width(first, lists[0], "label")
    shape = tensor_shape(first.schema.field(lists[0]))
    return shape if shape is not None and math.prod(shape) == width else (width,)


def target_shape(
    where: str, schema: TableSchema, kind: LabelKind, asked: tuple[int, ...] | None
) -> tuple[int, ...]:
    """The axes of a row's target: those that are asked for, else those of the label columns.

    Raises DataError, at the source `where`, where those that are asked for are of another number.
    """
    if asked is None:
        usual = usual_target_shape(kind, len(schema.label))
        return usual if schema.label_shape is None else schema.label_shape
    if math.prod(asked) != schema.num_labels:
        what = "lists of " if schema.label_shape is not None else ""
        reason = (
            f"target_shape is {list(asked)}, axes of {math.prod(asked)} values, but label "
            f"{', '.join(schema.label)} has {what}{schema.num_labels} a row; must be axes of so "
            "many (set [data] target_shape, or remove it)"
        )
        raise DataError(where, reason)
    return tuple(int(size) for size in asked)


def like_training(
    schema: TableSchema, sources: Sequence[TableSource], num_labels: int
) -> TableSchema:
    """The schema of new rows, whose labels, if any, must be as many a row as in training.

    Raises DataError where they are not; `sources` are those with rows.
    """
    if not schema.label:
        return schema
    first = sources[0]
    check_known(schema.label, first.schema.names, where=first.name, role="label")
    found = replace(schema, label_shape=label_shape(sources, schema.label))
    if found.num_labels != num_labels:
        has = f"lists of {found.num_labels}" if found.label_shape is not None else "one value"
        must = f"lists of {num_labels}" if num_labels > 1 else "one value"
        reason = f"label column {schema.label[0]!r} has {has} a row; must have {must}"
        raise DataError(first.name, f"{reason}, as in training")
    return found


def check_schema(sources: Sequence[TableSource], schema: TableSchema) -> tuple[pa.DataType, ...]:
    """The types of the labels, one over all sources.

    Raises:
        DataError: A source lacks columns of the schema, or others by what they hold.
    """
    filled = [source for source in sources if source.num_rows]
    for source in filled:
        _check_duplicates(source)
        names = source.schema.names
        check_known(schema.columns, names, where=source.name, role="feature")
        check_known(schema.label, names, where=source.name, role="label")
        _check_features(source, schema)
    if schema.list_width is not None:
        _check_same_tensors(filled, schema.columns[0])
    if schema.label_shape is not None:
        _check_same_tensors(filled, schema.label[0])
    return tuple(label_type(filled, column) for column in schema.label)


def _check_duplicates(source: TableSource) -> None:
    names = source.schema.names
    if len(set(names)) < len(names):
        repeated = Counter(names).most_common(1)[0][0]
        raise DataError(source.name, f"has column {repeated!r} more than once; rename one of them")


def _check_choice(
    source: TableSource,
    columns: tuple[str, ...],
    label: tuple[str, ...],
    left_out: tuple[str, ...],
) -> None:
    both = sorted(set(label) & set(columns))
    if both:
        reason = f"column {both[0]!r} is both label and feature; remove it from one of them"
        raise DataError(source.name, reason)
    if not columns:
        index = f" and the index ({', '.join(left_out)})" if left_out else ""
        reason = f"has no feature columns besides the label ({', '.join(label)}){index}; add some"
        raise DataError(source.name, reason)


def _check_features(source: TableSource, schema: TableSchema) -> None:
    """Raise DataError for the first feature column that does not hold what it must."""
    expected = "number" if schema.list_width is None else "list"
    # By their places: to look a name up takes longer the more columns a source has.
    place_of = {name: place for place, name in enumerate(source.schema.names)}
    for name in schema.columns:
        field = source.schema.field(place_of[name])
        found = kind_of(field)
        if found != expected:
            error = no_number(field, "feature") if schema.list_width is None else None
            raise error or DataError(source.name, _feature_problem(source, field, schema))


def _feature_problem(source: TableSource, field: pa.Field, schema: TableSchema) -> str:
    column = field.name
    found, what = kind_of(field), f"feature column {column!r}"
    if field.name in partition_keys(source):
        what += f" (of directories {column}=...)"
    way_out = "turn it into numbers, or train without it ([data] exclude)"
    kind, name = plain_type(field.type), described(field)
    if found == "number":
        rule = f"must be lists of {schema.list_width} numbers"
        return f"{what} has {name}; {rule}, as in other files"
    if found == "list":
        if len(schema.columns) == 1:
            return f"{what} is a list, but numbers in other files; make them equal"
        rule = "a list must be the only feature; name it alone, or exclude the others"
        return f"{what} is a list among other features; {rule}"
    reasons = {"text": "is text; must be numbers", "null": "has only nulls"}
    other = f"has {name}, which is not supported"
    if is_list(kind) and foreign_extension(field) is None:
        other = f"has lists of {kind.value_type}; must be lists of numbers"
    return f"{what} {reasons.get(found, other)}; {way_out}"


def _check_same_tensors(sources: Sequence[TableSource], column: str) -> None:
    """Tensors of other shapes may be lists of one length; their numbers mean something else."""
    first: tuple[str, str] | None = None
    for source in sources:
        found = tensor_order(source.schema.field(column).type)
        if found is None:
            continue
        first = first or (source.name, found)
        if found != first[1]:
            reason = f"has tensors of {found}, but {first[0]} of {first[1]}; make them equal"
            raise DataError(source.name, f"column {column!r} {reason}")


def _list_width(source: TableSource, column: str, role: str) -> int:
    kind = plain_type(source.schema.field(column).type)
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size)
    for batch in source.batches((column,)):
        values = batch.column(column)
        if batch.num_rows and values[0].is_valid:
            return len(values[0])
        if batch.num_rows:
            reason = f"column {column!r}, row 0: null {role} list; fill it in or remove the row"
            raise DataError(source.name, reason)
    raise DataError(source.name, "has fewer rows than it says; write it again")
