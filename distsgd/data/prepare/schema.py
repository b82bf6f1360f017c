"""Which columns are features and which labels: decided over all sources of a data set.

A source without rows decides nothing and hinders nothing: its types are those of nothing. An index
of a data frame is written into files among the columns. It numbers the rows: a network that sees it
learns the order of the file. So it is no feature, unless it is named.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import partial
from typing import Any, Literal

import pyarrow as pa

from distsgd.data.manifest import names_of_features
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
    tensor_order,
)
from distsgd.errors import DataError, did_you_mean

Features = Literal["rest"] | tuple[str, ...]

_MAGIC = re.compile(r"[*?\[]")
# What pandas and Dask call an index without a name, and pandas, as `csv_text`, the columns of a CSV
# file that have none: to_csv writes an index in front of the columns, under no name.
_INDEX = re.compile(r"__index_level_\d+__|__null_dask_index__")
_UNNAMED = re.compile(r"(Unnamed: \d+(_level_\d+)?(\.\d+)*)?")
_MOST_NAMES = 20


def index_columns(schema: pa.Schema) -> frozenset[str]:
    """Columns that hold the index of a data frame.

    Those that the frame's own metadata names (`index_columns` of pandas' metadata in the schema),
    those of a name that only an index has, and columns without a name in front of all others.

    >>> sorted(index_columns(pa.schema([("Unnamed: 0", pa.int64()), ("a", pa.int64())])))
    ['Unnamed: 0']
    """
    names = schema.names
    found = {name for name in names if _INDEX.fullmatch(name)}
    for name in names:
        if not _UNNAMED.fullmatch(name):
            break
        found.add(name)
    return frozenset(found.union(_index_by_metadata(schema)).intersection(names))


def choose_features(
    names: Sequence[str],
    *,
    label: Collection[str],
    index: Collection[str],
    features: Features,
    excluded: Collection[str],
    where: str,
) -> tuple[str, ...]:
    """The feature columns that the options mean, among the columns of a source.

    Args:
        names: Columns of the source, in order.
        label: Label columns.
        index: Index columns; only a name that is spelt out takes one of them.
        features: ``"rest"``, or names and patterns (``*``, ``?``, ``[abc]``), in order; what a
            pattern matches comes in the order of the source, and nothing comes twice.
        excluded: Columns that are no features.
        where: Name of the source.

    Raises:
        DataError: A name or pattern stands for no column.
    """
    known, no_feature = set(names), {*label, *index}
    free = [name for name in names if name not in no_feature]
    if features == "rest":
        chosen: Iterable[str] = free
    else:
        lists = ([item] if item in known else _matches(item, free) for item in features)
        chosen = dict.fromkeys(name for found in lists for name in found)
        check_known(features, names, where=where, role="feature", found=chosen)
    return tuple(name for name in chosen if name not in excluded)


def excluded_columns(exclude: Sequence[str], names: Sequence[str], *, where: str) -> frozenset[str]:
    """The columns that names and patterns mean; DataError for one that means none."""
    known = set(names)
    lists = ([item] if item in known else _matches(item, names) for item in exclude)
    found = frozenset(name for some in lists for name in some)
    check_known(exclude, names, where=where, role="excluded", found=found)
    return found


def selects(columns: tuple[str, ...], features: Features, exclude: Sequence[str]) -> bool:
    """Whether the options mean just these features, of themselves, in this order.

    >>> selects(("c1", "c2"), ("c*",), ()), selects(("c1", "c2"), "rest", ("c2",))
    (True, False)
    """
    excluded = {name for item in exclude for name in (item, *_matches(item, columns))}
    try:
        chosen = choose_features(
            columns, label=(), index=(), features=features, excluded=excluded, where=""
        )
    except DataError:
        return False
    return chosen == columns


def check_known(
    wanted: Iterable[str],
    names: Sequence[str],
    *,
    where: str,
    role: str,
    found: Collection[str] = (),
) -> None:
    """Raise DataError, with near names, for the first name or pattern that stands for no column.

    Args:
        wanted: What the user typed.
        names: Columns of the source.
        where: Name of the source.
        role: What a message calls such a column.
        found: Columns that the patterns among `wanted` may match.
    """
    known = set(names)
    for name in wanted:
        if name not in known and not _matches(name, found):
            what = "that matches " if _MAGIC.search(name) else ""
            reason = f"has no {role} column {what}{name!r}{did_you_mean(name, names)}"
            raise DataError(where, f"{reason}; its columns are: {_shown(names)}")


def _matches(pattern: str, names: Iterable[str]) -> list[str]:
    if not _MAGIC.search(pattern):
        return []
    match = re.compile(translate(pattern)).match
    return [name for name in names if match(name)]


def _index_by_metadata(schema: pa.Schema) -> set[str]:
    """What pandas' metadata call the index; a range that needs no column is no name in them."""
    raw = (schema.metadata or {}).get(b"pandas", b"{}")
    try:
        metadata: Any = json.loads(raw)
    except (ValueError, RecursionError):
        return set()
    named = metadata.get("index_columns") if isinstance(metadata, dict) else None
    return {name for name in named if isinstance(name, str)} if isinstance(named, list) else set()


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")


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
