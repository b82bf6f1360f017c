"""A few rows of a file as they are, to be looked at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distsgd.data.prepare.columns import RawRows
from distsgd.data.prepare.schema import resolve_schema
from distsgd.data.sources.formats import open_file
from distsgd.data.sources.idx_file import LABEL, SHAPE_KEY, IdxSource
from distsgd.data.sources.source import TableSource
from distsgd.errors import DataError


@dataclass(frozen=True, slots=True)
class FewRows:
    """Raw features ``[N, I]``, float64; labels as text or none; a row's shape where it is known."""

    x_NI: NDArray[np.float64]
    labels: tuple[str, ...]
    shape: str | None


def read_rows(path: Path, first: int, end: int, *, label: str | None = None) -> FewRows:
    """Rows `first` to ``end - 1`` of a file, or those of them that exist.

    Args:
        path: A file of any format.
        first: Number of the first row.
        end: One more than that of the last.
        label: Column that is no feature; that of an IDX file is found.

    Raises:
        DataError: The file cannot be used, or has no such row.
    """
    source = open_file(path)
    if label is None and isinstance(source, IdxSource) and LABEL in source.schema.names:
        label = LABEL
    schema = resolve_schema([source], label=(label,) if label else (), features="rest")
    found = []
    for piece in RawRows([source], replace(schema, label=())).pieces(None):
        wanted = slice(max(first - piece.first_row, 0), max(end - piece.first_row, 0))
        found.append(piece.x_NI[wanted].copy())
        if piece.first_row + len(piece.x_NI) >= end:
            break
    if not any(map(len, found)):
        raise DataError(path, f"has {source.num_rows} rows, and no row {first}; choose others")
    labels = _texts(source, label, first, end) if label else ()
    shape = (source.schema.field(schema.columns[0]).metadata or {}).get(SHAPE_KEY)
    return FewRows(np.concatenate(found), labels, shape.decode() if shape else None)


def _texts(source: TableSource, column: str, first: int, end: int) -> tuple[str, ...]:
    """Values of a column in some rows, as text."""
    found: list[str] = []
    for batch in source.batches((column,)):
        values = batch.column(batch.schema.get_field_index(column))
        found += map(str, values.slice(0, end - len(found)).to_pylist())
        if len(found) >= end:
            break
    return tuple(found[first:])
