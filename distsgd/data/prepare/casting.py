"""Numbers of the raw rows in the type of the prepared ones; what does not fit it is named.

Letters: N rows of a piece, I features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsgd.data.options import Dtype
from distsgd.data.prepare.columns import Piece, RawRows


def cast_piece(
    piece: Piece, rows: RawRows, dtype: Dtype
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Features and target of a piece in `dtype`, copied; class indices stay integers."""
    x_NI = _cast_numbers(piece.x_NI, dtype, piece.first_row, rows, rows.schema.feature_names)
    target = piece.target
    if target is not None and target.dtype != np.int64:
        target = _cast_numbers(target, dtype, piece.first_row, rows, rows.schema.label_names)
    return x_NI, target


def _cast_numbers(
    values: NDArray[Any], dtype: Dtype, first_row: int, rows: RawRows, names: tuple[str, ...]
) -> NDArray[Any]:
    # numpy's cast gives infinities without an error.
    with np.errstate(over="ignore"):
        numbers = values.astype(dtype)
    if not np.isfinite(numbers).all():
        row, column = np.argwhere(~np.isfinite(numbers))[0].tolist()
        reason = (
            f"{float(values[row, column])!r} does not fit {dtype}"
            f" (largest {np.finfo(dtype).max:g}, after standardising);"
            ' scale the column, or use dtype "float64"'
        )
        raise rows.error(first_row + row, names[column], reason)
    return numbers


def squared_norms(x_NI: NDArray[Any], piece: Piece, rows: RawRows) -> NDArray[Any]:
    """``|x|²`` of each row as cast, summed in float64; uses the piece's buffer."""
    np.copyto(piece.x_NI, x_NI)
    np.multiply(piece.x_NI, piece.x_NI, out=piece.x_NI)
    with np.errstate(over="ignore"):
        norms_N: NDArray[Any] = piece.x_NI.sum(axis=1).astype(x_NI.dtype)
    if not np.isfinite(norms_N).all():
        row = int(np.flatnonzero(~np.isfinite(norms_N))[0])
        column = int(np.abs(x_NI[row]).argmax())
        reason = (
            f"{float(x_NI[row, column])!r} is too large: the row's squared length does not fit"
            f" {x_NI.dtype}; scale or standardise the column"
        )
        raise rows.error(piece.first_row + row, rows.schema.feature_names[column], reason)
    return norms_N
