"""Labels held against the loss: the border where prepared rows, or new ones, meet it.

Rows are prepared without knowing the loss, and may have been prepared for another one. Classes need
no check here: they are numbers of known names. Letters: N rows, K label columns.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsgd.data.dataset import DataSet
from distsgd.data.manifest import Manifest
from distsgd.data.prepare.prepare import LabelProblem
from distsgd.errors import DataError
from distsgd.nn.losses import Loss


def check_labels(loss: Loss, data: Path) -> None:
    """Hold all labels of a prepared directory, test rows too, against the domain of `loss`.

    Reads the labels once, and no features.

    Raises:
        DataError: Names source, column and row of the first label outside it, in the order of the
            sources.
    """
    opened = DataSet.open(data, verify=False)
    if opened.manifest.label_kind == "class":
        return
    found = [
        _first_outside(loss, target_NK, source_rows_N)
        for rows in (opened.train, opened.test)
        for target_NK, source_rows_N in rows.targets()
        if not loss.target_domain.holds(target_NK)
    ]
    if found:
        row, column, value = min(found)
        raise _error(opened.manifest, row, column, _reason(loss, value))


def label_problem(loss: Loss) -> LabelProblem:
    """The same for rows that are read from files: see `prepare.read_features`."""
    return partial(_problem, loss)


def _problem(loss: Loss, target: NDArray[Any]) -> tuple[int, int, str] | None:
    if target.dtype.kind != "f" or loss.target_domain.holds(target):
        return None
    row, column, value = _first_outside(loss, target, np.arange(len(target)))
    return row, column, _reason(loss, value)


def _first_outside(
    loss: Loss, target_NK: NDArray[Any], rows_N: NDArray[np.int64]
) -> tuple[int, int, float]:
    """Row number, column and value of the outside label with the smallest row number."""
    places_N, columns_N = np.nonzero(loss.target_domain.outside(target_NK))
    first = int(rows_N[places_N].argmin())  # Of its row the first column: they come in order.
    place, column = int(places_N[first]), int(columns_N[first])
    return int(rows_N[place]), column, float(target_NK[place, column])


def _reason(loss: Loss, value: float) -> str:
    return (
        f"label {value:.9g} is outside of what loss {loss.name!r} takes; must be "
        f"{loss.target_domain.rule} (correct the row, scale the column, or set another loss in "
        "[model])"
    )


def _error(manifest: Manifest, row: int, column: int, reason: str) -> DataError:
    name, row_in_source = manifest.locate(row)
    return DataError(name, f"column {manifest.labels[column]!r}, row {row_in_source}: {reason}")
