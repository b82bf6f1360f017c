"""Checking data without changing anything: what ``distsgd data check PATH`` reports.

A prepared directory is verified whole; raw files are read whole, and every column is described.
Letters: N rows, I features.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distsgd.data.columns import LARGEST_FEATURE
from distsgd.data.formats import open_sources
from distsgd.data.labels import is_number, is_text
from distsgd.data.layout import check_same_columns, is_list, plain_type
from distsgd.data.manifest import MANIFEST_FILE, Manifest
from distsgd.data.shards import DataSet, Rows
from distsgd.data.source import TableSource, arrow_errors
from distsgd.errors import DataError

_ROWS_AT_ONCE = 8192


@dataclass(frozen=True, slots=True)
class ColumnReport:
    """One column: `kind` is number, text, list or unsupported; no numbers have the range None."""

    name: str
    type: str
    kind: str
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was found at `path`; `problems` is empty when all of it can be used."""

    path: str
    is_prepared: bool
    num_rows: int
    columns: tuple[ColumnReport, ...]
    problems: tuple[str, ...]
    manifest: Manifest | None = None

    @property
    def is_ok(self) -> bool:
        """Whether nothing was wrong."""
        return not self.problems


def check(path: str | Path) -> CheckReport:
    """Read all of a prepared directory, file or glob and report; raises nothing for bad data."""
    try:
        if Path(path).is_dir():
            return _check_prepared(Path(path))
        return _check_raw(str(path), open_sources(path))
    except DataError as error:
        return CheckReport(str(path), (Path(path) / MANIFEST_FILE).exists(), 0, (), (str(error),))


def _check_prepared(path: Path) -> CheckReport:
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
        target: Any = (
            np.empty(count, np.int64)
            if is_class
            else np.empty((count, manifest.num_targets), manifest.dtype)
        )
        norms_N = np.empty(count, manifest.dtype)
        rows.gather_range_inplace(
            first, first + count, x_NI=x_NI, target=target, squared_norms_N=norms_N
        )
        x64_NI = x_NI.astype(np.float64)
        good_N = np.isfinite(x_NI).all(axis=1)
        good_N &= (x64_NI * x64_NI).sum(axis=1).astype(manifest.dtype) == norms_N
        in_range = (
            (target >= 0) & (target < manifest.num_targets)
            if is_class
            else np.isfinite(target).all(axis=1)
        )
        good_N &= in_range
        if not good_N.all():
            row = first + int(np.flatnonzero(~good_N)[0])
            return [f"{split} row {row} has values that cannot be; prepare the data again"]
    return []


def _check_raw(path: str, sources: list[TableSource]) -> CheckReport:
    problems: list[str] = []
    for other in sources[1:]:
        try:
            check_same_columns(sources[0], other)
        except DataError as error:
            problems.append(str(error))
    found: dict[str, _ColumnCheck] = {}
    for source in sources:
        checks = _check_source(source, problems)
        for check_ in checks:
            found.setdefault(check_.name, check_).merge(check_)
            problems += [f"{source.name}: {problem}" for problem in check_.problems()]
    num_rows = sum(source.num_rows for source in sources)
    if num_rows == 0:
        problems.append(f"{path}: has no rows; give files with some")
    return CheckReport(
        path, False, num_rows, tuple(c.report() for c in found.values()), tuple(problems)
    )


def _check_source(source: TableSource, problems: list[str]) -> list[_ColumnCheck]:
    names = source.schema.names
    if len(set(names)) < len(names):
        problems.append(f"{source.name}: has columns of equal name; rename them")
        return []
    checks = [_ColumnCheck(field.name, plain_type(field.type)) for field in source.schema]
    readable = [check_ for check_ in checks if check_.kind != "unsupported"]
    try:
        row = 0
        for batch in source.batches([check_.name for check_ in readable]):
            for check_ in readable:
                with arrow_errors(source.name):
                    check_.add(batch.column(check_.name), row)
            row += batch.num_rows
    except DataError as error:
        problems.append(str(error))
    return checks


class _ColumnCheck:
    """What one column of one source holds, batch by batch."""

    def __init__(self, name: str, kind: pa.DataType) -> None:
        self.name = name
        self._type = kind
        self.kind = _kind_name(kind)
        self._width: int | None = None
        self._minimum, self._maximum = np.inf, -np.inf
        # Of each problem the first row that has it.
        self._first_rows: dict[str, int] = {}

    def add(self, values: pa.Array, row: int) -> None:
        nulls = values.is_null().to_numpy(zero_copy_only=False)
        self._note("a null", nulls, row)
        if self.kind == "list":
            lengths = pc.list_value_length(values).drop_null().to_numpy(zero_copy_only=False)
            self._width = int(lengths[0]) if self._width is None and len(lengths) else self._width
            self._note(
                f"a list that is not of length {self._width} as the first",
                lengths != self._width,
                row,
            )
            flat = values.flatten()
            self._note(
                "a null in a list",
                flat.is_null().to_numpy(zero_copy_only=False),
                row,
                self._width or 1,
            )
            self._add_numbers(flat, row, self._width or 1)
        elif self.kind == "number":
            self._add_numbers(values, row, 1)

    def merge(self, other: _ColumnCheck) -> None:
        self._minimum = min(self._minimum, other._minimum)
        self._maximum = max(self._maximum, other._maximum)

    def problems(self) -> list[str]:
        if self.kind == "unsupported":
            rule = "is not supported; leave it out of the features"
            return [f"column {self.name!r} has type {self._type}, which {rule}"]
        return [
            f"column {self.name!r}, row {row}: {problem}"
            for problem, row in self._first_rows.items()
        ]

    def report(self) -> ColumnReport:
        some = self._minimum <= self._maximum
        low, high = (float(self._minimum), float(self._maximum)) if some else (None, None)
        return ColumnReport(self.name, str(self._type), self.kind, low, high)

    def _add_numbers(self, values: pa.Array, row: int, per_row: int) -> None:
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        numbers = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        valid = values.is_valid().to_numpy(zero_copy_only=False)
        self._note("not a finite number", valid & ~np.isfinite(numbers), row, per_row)
        self._note(
            f"larger than {LARGEST_FEATURE:g}",
            np.isfinite(numbers) & (np.abs(numbers) > LARGEST_FEATURE),
            row,
            per_row,
        )
        finite = numbers[np.isfinite(numbers)]
        if finite.size:
            self._minimum = min(self._minimum, finite.min())
            self._maximum = max(self._maximum, finite.max())

    def _note(self, problem: str, where: Any, row: int, per_row: int = 1) -> None:
        if problem not in self._first_rows and where.any():
            self._first_rows[problem] = row + int(np.flatnonzero(where)[0]) // per_row


def _kind_name(kind: pa.DataType) -> str:
    if is_number(kind):
        return "number"
    if is_text(kind):
        return "text"
    if is_list(kind) and is_number(kind.value_type) and not pa.types.is_boolean(kind.value_type):
        return "list"
    return "unsupported"
