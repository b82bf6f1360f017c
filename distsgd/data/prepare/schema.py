"""Which columns are features and which labels: decided over all sources of a data set.

A source without rows decides nothing and hinders nothing: its types are those of nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from distsgd.data.manifest import names_of_features
from distsgd.data.prepare.column_names import (
    Features,
    check_known,
    choose_features,
    excluded_columns,
    index_columns,
)
from distsgd.data.sources.csv_cells import no_number
from distsgd.data.sources.partitions import partition_keys
from distsgd.data.tables import (
    TableSource,
    described,
    foreign_extension,
    is_list,
    kind_of,
    plain_type,
    tensor_order,
    unified,
)
from distsgd.errors import DataError

MAX_FEATURES = 1 << 20


@dataclass(frozen=True, slots=True)
class TableSchema:
    """Columns of raw tables.

    Attributes:
        columns: Feature columns, in order; one when it is a list column.
        list_width: Length of the lists of a list column; None for columns of numbers.
        label: Label columns, in order; empty when labels are not read.
        types: Arrow types of the labels, one over all sources; None where nobody asked.
        left_out: Columns that are no features because they are the index of a data frame.
    """

    columns: tuple[str, ...]
    list_width: int | None
    label: tuple[str, ...]
    types: tuple[pa.DataType, ...] | None = None
    left_out: tuple[str, ...] = ()

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
    schema = TableSchema(columns, None, label, left_out=left_out)
    if len(columns) == 1 and kind_of(first.schema.field(columns[0])) == "list":
        schema = TableSchema(columns, _list_width(first, columns[0]), label, left_out=left_out)
    if not 1 <= schema.num_features <= MAX_FEATURES:
        rule = f"must be 1 to {MAX_FEATURES}; choose other feature columns"
        raise DataError(first.name, f"has {schema.num_features} features; {rule}")
    types = check_schema(filled, schema)
    return TableSchema(columns, schema.list_width, label, types, left_out)


def with_rows(sources: Sequence[TableSource]) -> list[TableSource]:
    """The sources that have rows; DataError where none has."""
    filled = [source for source in sources if source.num_rows]
    if not filled:
        what = "has no rows; give a file with some" if len(sources) == 1 else "has no rows"
        more = "" if len(sources) == 1 else f", nor have {len(sources) - 1} other files"
        raise DataError(sources[0].name, what + (f"{more}; give files with some" if more else ""))
    return filled


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
    return tuple(_label_type(filled, column) for column in schema.label)


def check_same_columns(sources: Sequence[TableSource], *, besides: set[str]) -> None:
    """Raise DataError unless sources have columns of the same names, some besides."""
    first = sources[0]
    expected = set(first.schema.names) - besides
    for other in sources[1:]:
        names = set(other.schema.names) - besides
        extra, missing = sorted(names - expected), sorted(expected - names)
        if not (extra or missing):
            continue
        name = (extra or missing)[0]
        has, lacks = (other, first) if extra else (first, other)
        if name in partition_keys(has):
            rule = "lay all files in such directories, or exclude the column"
            reason = f"lies in no directory {name}=..., as {has.name} does; {rule}"
            raise DataError(lacks.name, reason)
        verbs = ("has", "lacks") if extra else ("lacks", "has")
        rule = "make the schemas equal, exclude the column or name the feature columns"
        reason = f"{verbs[0]} column {name!r}, which {first.name} {verbs[1]}; {rule}"
        raise DataError(other.name, reason)


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
    for place in _places(source, schema.columns):
        field = source.schema.field(place)
        found = kind_of(field)
        if found != expected:
            error = no_number(field, "feature") if schema.list_width is None else None
            raise error or DataError(source.name, _feature_problem(source, field, schema))


def _places(source: TableSource, columns: Sequence[str]) -> list[int]:
    place_of = {name: place for place, name in enumerate(source.schema.names)}
    return [place_of[column] for column in columns]


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


def _label_type(sources: Sequence[TableSource], column: str) -> pa.DataType:
    """One type for a label column over all sources; DataError where some have text and some not."""
    types: list[pa.DataType] = []
    kinds: list[str] = []
    for source in sources:
        field = source.schema.field(column)
        kind = kind_of(field)
        if kind not in {"number", "text"}:
            rule = "must be text, booleans, integers or numbers; write it so, or name another one"
            raise DataError(source.name, f"label column {column!r} has {described(field)}; {rule}")
        if kinds and kind != kinds[0]:
            reason = f"has type {plain_type(field.type)}, but {types[0]} in {sources[0].name}"
            rule = "make them all text or all numbers"
            raise DataError(source.name, f"column {column!r} {reason}; {rule}")
        kinds.append(kind)
        types.append(plain_type(field.type))
    return unified(types)


def _list_width(source: TableSource, column: str) -> int:
    kind = plain_type(source.schema.field(column).type)
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size)
    for batch in source.batches((column,)):
        values = batch.column(column)
        if batch.num_rows and values[0].is_valid:
            return len(values[0])
        if batch.num_rows:
            reason = f"column {column!r}, row 0: null feature list; fill it in or remove the row"
            raise DataError(source.name, reason)
    raise DataError(source.name, "has fewer rows than it says; write it again")
