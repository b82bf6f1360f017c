"""How many rows, or how many of each class, are held out.

What cannot be split is refused here, before anything else is read.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from distsgd.data.options import ClassName, PrepareOptions
from distsgd.data.prepare.columns import RawRows
from distsgd.data.prepare.labels import Vocabulary, sort_classes
from distsgd.data.prepare.split import Split, apportion, num_test_rows
from distsgd.errors import DataError

ClassNames = tuple[ClassName, ...]
_SHOWN = 5


def simple_split(rows: RawRows, train_source_rows: int, options: PrepareOptions) -> Split:
    """The fraction of the first `train_source_rows` rows, and all rows after them.

    Raises DataError where no row would be left to train on, or none to test on.
    """
    num_tests = _num_test_rows(rows, train_source_rows, options.test_fraction)
    return Split(options.split_seed, [train_source_rows], [num_tests])


def stratified_split(
    rows: RawRows, options: PrepareOptions, progress: Callable[[str, int, int | None], None]
) -> tuple[Split, ClassNames]:
    """The fraction of each class; reads all labels once, and features not at all.

    Returns:
        The split, which takes classes by their place in the names, and the names, sorted.

    Raises DataError for labels that cannot be used, where no row would be left to train on, or none
    to test on, and for a class that would give its last training row.
    """
    vocabulary, count_C = Vocabulary(), np.zeros(0, np.int64)
    for piece in rows.labels_only().pieces(vocabulary):
        assert piece.target is not None, "labels are read"
        found_C = np.bincount(piece.target, minlength=len(vocabulary.names))
        found_C[: len(count_C)] += count_C
        count_C = found_C
        progress("counting", piece.first_row + len(piece.x_NI), rows.num_rows)
    names = sort_classes(vocabulary.names)
    code_of = {name: code for code, name in enumerate(vocabulary.names)}
    class_rows = [int(count_C[code_of[name]]) for name in names]
    _num_test_rows(rows, sum(class_rows), options.test_fraction)
    test_rows, emptied = apportion(class_rows, options.test_fraction)
    if emptied:
        few = ", ".join(f"{names[c]!r} ({class_rows[c]})" for c in emptied[:_SHOWN])
        more = f" and {len(emptied) - _SHOWN} more" if len(emptied) > _SHOWN else ""
        reason = (
            f"test_fraction {options.test_fraction:g} with stratify would hold out the last rows of"
            f" some of the classes {few}{more} (rows in brackets); give them more rows, or lower"
            " test_fraction, or set stratify = false"
        )
        raise DataError(rows.locate(0)[0], reason)
    return Split(options.split_seed, class_rows, test_rows, by_class=True), names


def _num_test_rows(rows: RawRows, num_rows: int, test_fraction: float) -> int:
    """So many of `num_rows` rows; DataError where that is none or all of them."""
    num_tests = num_test_rows(num_rows, test_fraction)
    if test_fraction and num_rows and num_tests in {0, num_rows}:
        lacking = "test" if num_tests == 0 else "train"
        way_out = f"raise it (one row is {1 / num_rows:.2g})" if num_tests == 0 else "lower it"
        reason = (
            f"test_fraction {test_fraction:g} of {num_rows} rows is {num_tests} rows, and none is"
            f" left to {lacking} on; {way_out}, give more rows, or set test_fraction to 0"
        )
        raise DataError(rows.locate(0)[0], reason)
    return num_tests
