"""Checking data without changing anything: what ``distsgd data check PATH`` reports.

A prepared directory is verified whole; raw files are read whole, and every column is described.
Letters: N rows, I features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from distsgd.base.locations import Location, place_argument
from distsgd.data.cache_directory import DEFAULT_CACHE, Cache
from distsgd.data.dataset import DataSet, Rows
from distsgd.data.fetch import fetched
from distsgd.data.manifest import MANIFEST_FILE, Manifest
from distsgd.data.node_cache import DataPlace, StoredData
from distsgd.data.options import DEFAULT_CSV, CsvSettings
from distsgd.data.prepare.csv_types import typed_sources
from distsgd.data.prepare.decoding import LARGEST_FEATURE
from distsgd.data.prepare.feature_columns import index_columns
from distsgd.data.sources.csv_cells import first_text
from distsgd.data.sources.formats import SourceSpec, check_same_columns, open_sources
from distsgd.data.sources.source import TableSource
from distsgd.data.tables import (
    arrow_errors,
    described,
    kind_of,
    numbers,
    plain_type,
    storage,
)
from distsgd.errors import DataError

Rows64 = NDArray[np.int64]  # Numbers of rows.

_ROWS_AT_ONCE = 8192
_NUMBERS_AT_ONCE = 1 << 21


@dataclass(frozen=True, slots=True)
class ColumnReport:
    """One column.

    `kind` is number, text, list, index (of a data frame), null or unsupported; no numbers have the
    range None. Where the files store it differently, `type` is all types. `first_text` is what
    makes a column of CSV files text: row and value of the first such cell.
    """

    name: str
    type: str
    kind: str
    minimum: float | None = None
    maximum: float | None = None
    first_text: str | None = None


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was found at `path`; `problems` is empty when all of it can be used."""

    path: str
    is_prepared: bool
    num_rows: int
    columns: tuple[ColumnReport, ...]
    problems: tuple[str, ...]
    manifest: Manifest | None = None


def check(
    path: str | Path | Location, *, csv: CsvSettings = DEFAULT_CSV, cache: Cache = DEFAULT_CACHE
) -> CheckReport:
    """Read all of a prepared directory, file or glob and report; raises nothing for bad data.

    Args:
        path: It, or its address on object storage.
        csv: How CSV files are written.
        cache: Where what is on object storage is fetched to.
    """
    place = place_argument("path", path)
    is_prepared = False
    try:
        if isinstance(place, Location):
            is_prepared = not has_magic(place.address) and bool((place / MANIFEST_FILE).stat())
        else:
            is_prepared = (place / MANIFEST_FILE).exists()
        if is_prepared or (isinstance(place, Path) and place.is_dir()):
            return _check_prepared(_data_at(place, cache))
        spec: SourceSpec = place if isinstance(place, Path) else place.address
        return _check_raw(str(path), _typed(open_sources(fetched(spec, cache), csv=csv)))
    except DataError as error:
        return CheckReport(str(path), is_prepared, 0, (), (str(error),))


def _data_at(place: Path | Location, cache: Cache) -> DataPlace:
    return place if isinstance(place, Path) else StoredData(place, cache.named, cache.max_bytes)


def _check_prepared(path: DataPlace) -> CheckReport:
    data = DataSet.open(path)
    manifest = data.manifest
    problems = [
        *_row_problems(data.train, "training", manifest),
        *_row_problems(data.test, "held-out", manifest),
    ]
    every = np.concatenate(
        [rows.source_rows(np.arange(rows.num_rows)) for rows in (data.train, data.test)]
    )
    if not np.array_equal(np.sort(every), np.arange(len(every))):
        problems.append("source rows are not each there once; prepare the data again")
    statistics = manifest.statistics
    ranges = zip(manifest.feature_names, statistics.minimum, statistics.maximum, strict=True)
    columns = tuple(
        ColumnReport(name, manifest.dtype, "number", low, high) for name, low, high in ranges
    )
    return CheckReport(str(path), True, len(every), columns, tuple(problems), manifest)


def _row_problems(rows: Rows, split: str, manifest: Manifest) -> list[str]:
    is_class = manifest.label_kind == "class"
    for first in range(0, rows.num_rows, _ROWS_AT_ONCE):
        count = min(_ROWS_AT_ONCE, rows.num_rows - first)
        x_NI = np.empty((count, manifest.num_features), manifest.dtype)
        target = manifest.empty_targets(count)
        norms_N = np.empty(count, manifest.dtype)
        rows.gather_range_inplace(
            first, first + count, x_NI=x_NI, target=target, squared_norms_N=norms_N
        )
        x64_NI = x_NI.astype(np.float64)
        good_N = np.isfinite(x_NI).all(axis=1)
        good_N &= (x64_NI * x64_NI).sum(axis=1).astype(manifest.dtype) == norms_N
        is_good = (
            (target >= 0) & (target < manifest.num_targets) if is_class else np.isfinite(target)
        )
        good_N &= is_good.reshape(count, -1).all(axis=1)
        if manifest.num_levels is not None:
            are_known_NI = (x_NI >= 0) & (x_NI < manifest.num_levels) & (x_NI == np.floor(x_NI))
            good_N &= are_known_NI.all(axis=1)
        if not good_N.all():
            row = first + int(np.flatnonzero(~good_N)[0])
            return [f"{split} row {row} has values that cannot be; prepare the data again"]
    return []


def _typed(sources: list[TableSource]) -> list[TableSource]:
    return typed_sources(sources, on_message=lambda _text: None)


def _check_raw(path: str, sources: list[TableSource]) -> CheckReport:
    problems: list[str] = []
    filled = [source for source in sources if source.num_rows]
    index = frozenset[str]().union(*(index_columns(source.schema) for source in filled))
    if filled:
        try:
            check_same_columns(filled, besides=set(index))
        except DataError as error:
            problems.append(str(error))
    found: dict[str, _ColumnCheck] = {}
    for source in filled:
        for check_ in _check_source(source, found, problems):
            check_.is_index = check_.name in index
            found.setdefault(check_.name, check_).merge(check_)
            problems += [f"{source.name}: {problem}" for problem in check_.problems()]
    num_rows = sum(source.num_rows for source in filled)
    if num_rows == 0:
        problems.append(f"{path}: has no rows; give files with some")
    return CheckReport(
        path, False, num_rows, tuple(c.report() for c in found.values()), tuple(problems)
    )


def _check_source(
    source: TableSource, known: Mapping[str, _ColumnCheck], problems: list[str]
) -> list[_ColumnCheck]:
    """What the columns of a source hold; `known` is what they held in the sources before."""
    names = source.schema.names
    if len(set(names)) < len(names):
        problems.append(f"{source.name}: has columns of equal name; rename them")
        return []
    checks = [_ColumnCheck(source.name, field, known.get(field.name)) for field in source.schema]
    readable = [check_ for check_ in checks if check_.kind not in {"unsupported", "null"}]
    try:
        row = 0
        for batch in source.batches([check_.name for check_ in readable]):
            place_of = {name: place for place, name in enumerate(batch.schema.names)}
            columns = batch.columns
            for check_ in readable:
                with arrow_errors(source.name):
                    check_.add(columns[place_of[check_.name]], row)
            row += batch.num_rows
    except DataError as error:
        problems.append(str(error))
    return checks


class _ColumnCheck:
    """What one column of one source holds, batch by batch."""

    def __init__(self, source: str, field: pa.Field, known: _ColumnCheck | None) -> None:
        self.source, self.name = source, field.name
        self.kind, self._first_text = kind_of(field), first_text(field)
        self.is_index = False
        self._described = described(field)
        self._types = {str(plain_type(field.type)): None}
        self._width = known.width if known else None
        self._minimum, self._maximum = np.inf, -np.inf
        # Of each problem the first row that has it.
        self._first_rows: dict[str, int] = {}
        self._other: str | None = None
        if known and known.kind != self.kind:
            self._other = f"{known.kind} in {known.source}"

    @property
    def width(self) -> int | None:
        """Length of the first list."""
        return self._width

    def add(self, values: pa.Array, row: int) -> None:
        """Take in the values of rows `row` and following."""
        values = storage(values)
        nulls = values.is_null().to_numpy(zero_copy_only=False)
        rows_N = np.arange(row, row + len(values))
        self._note("a null", rows_N[nulls])
        if nulls.any():
            values, rows_N = values.drop_null(), rows_N[~nulls]
        if self.kind == "list":
            self._add_lists(values, rows_N)
        elif self.kind == "number":
            self._add_numbers(values, rows_N)

    def merge(self, other: _ColumnCheck) -> None:
        """Take in what the same column holds in another source."""
        self._minimum = min(self._minimum, other._minimum)
        self._maximum = max(self._maximum, other._maximum)
        self._types |= other._types
        self._width = other.width if self._width is None else self._width

    def problems(self) -> list[str]:
        """One line each."""
        if self.is_index:  # Left out of the features.
            return []
        if self.kind == "unsupported":
            rule = "is not supported; leave it out of the features"
            return [f"column {self.name!r} has {self._described}, which {rule}"]
        if self.kind == "null":
            return [f"column {self.name!r} has only nulls; leave it out of the features"]
        differs = f"column {self.name!r} is {self.kind}, but {self._other}; make them equal"
        return [
            *([differs] if self._other else []),
            *(
                f"column {self.name!r}, row {row}: {problem}"
                for problem, row in self._first_rows.items()
            ),
        ]

    def report(self) -> ColumnReport:
        """The column over all sources."""
        some = self._minimum <= self._maximum
        low, high = (float(self._minimum), float(self._maximum)) if some else (None, None)
        kind = "index" if self.is_index else self.kind
        types = " / ".join(self._types)
        return ColumnReport(self.name, types, kind, low, high, self._first_text)

    def _add_lists(self, values: pa.Array, rows_N: Rows64) -> None:
        lengths = pc.list_value_length(values).to_numpy(zero_copy_only=False)
        if self._width is None and len(lengths):
            self._width = int(lengths[0])
        is_other = lengths != self._width
        self._note(f"a list that is not of length {self._width} as the first", rows_N[is_other])
        if is_other.any() or not self._width:
            return
        # A few bytes can say that all rows are one long list.
        step = max(1, _NUMBERS_AT_ONCE // self._width)
        for start in range(0, len(values), step):
            flat = storage(values.slice(start, step).flatten())
            row_of = np.repeat(rows_N[start : start + step], self._width)
            nulls = flat.is_null().to_numpy(zero_copy_only=False)
            self._note("a null in a list", row_of[nulls])
            self._add_numbers(flat.drop_null(), row_of[~nulls])

    def _add_numbers(self, values: pa.Array, rows_N: Rows64) -> None:
        found = numbers(values).astype(np.float64, copy=False)
        finite = np.isfinite(found)
        self._note("not a finite number", rows_N[~finite])
        large = finite & ((found > LARGEST_FEATURE) | (found < -LARGEST_FEATURE))
        self._note(f"larger than {LARGEST_FEATURE:g}", rows_N[large])
        if finite.any():
            self._minimum = min(self._minimum, float(found[finite].min()))
            self._maximum = max(self._maximum, float(found[finite].max()))

    def _note(self, problem: str, rows_N: Rows64) -> None:
        if len(rows_N):
            self._first_rows.setdefault(problem, int(rows_N[0]))
