"""Which columns names, patterns and "rest" mean among those of a source. No I/O here.

An index of a data frame is written into files among the columns. It numbers the rows: a network
that sees it learns the order of the file. So it is no feature, unless it is named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Sequence
from fnmatch import translate
from typing import Any, Literal

import pyarrow as pa

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
