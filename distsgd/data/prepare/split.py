"""Which rows are held out: exactly as many as the fraction says, each row equally likely.

Every row has a random integer, and the rows with the smallest integers are held out: a simple
random sample without replacement, known piece by piece. Stratified, each class is a sample of its
own. All of it is a pure function of the seed, row numbers and classes. What cannot be split is
refused here, before anything else is read.
Letters: N rows of a piece, C classes (one where rows are not stratified).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from distsgd.base.random_keys import KeyedRows, Purpose, UInt64, permutation
from distsgd.data.options import ClassName, PrepareOptions
from distsgd.data.prepare.columns import Piece, RawRows
from distsgd.data.prepare.labels import Vocabulary, sort_classes
from distsgd.errors import DataError

Int64 = NDArray[np.int64]

_RADIX_BITS = 16
_ROWS_AT_ONCE = 1 << 16


class Keys(Protocol):
    """A random integer for each place."""

    def integers(self, place_N: Int64) -> UInt64:
        """Of these places, ascending; uint64 ``[N]``."""
        ...


def num_test_rows(num_rows: int, test_fraction: float) -> int:
    """``num_rows * test_fraction``, rounded half up; the fraction is exact as it is written.

    >>> num_test_rows(25, 0.1), num_test_rows(1797, 0.2), num_test_rows(4, 0.1)
    (3, 359, 0)
    """
    return int(num_rows * written_fraction(test_fraction) + Fraction(1, 2))


def written_fraction(value: float) -> Fraction:
    """The decimal number that is written as this float: 0.1 is a tenth, which no float is."""
    return Fraction(str(float(value)))


def apportion(
    class_rows: Sequence[int], test_fraction: float
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The test rows of each class by the largest remainder, so that the sum is `num_test_rows`.

    Each class gets its share rounded down or up, the largest remainders up, the first of equal
    ones. No class gives its last training row.

    Args:
        class_rows: Rows of each class.
        test_fraction: Of all rows, in [0, 1).

    Returns:
        Test rows of each class; and the classes that would have to give their last training row for
        the sum to hold, empty where there are none.

    >>> apportion([50, 30, 5], 0.25)
    ((13, 7, 1), ())
    >>> apportion([10, 1, 1, 1], 0.25), apportion([1, 1], 0.5)
    (((3, 0, 0, 0), ()), ((0, 0), (0, 1)))
    """
    fraction = written_fraction(test_fraction)
    shares = [divmod(rows * fraction.numerator, fraction.denominator) for rows in class_rows]
    given = [whole for whole, _ in shares]
    left = num_test_rows(sum(class_rows), test_fraction) - sum(given)
    fractional = [c for c, (_, remainder) in enumerate(shares) if remainder]
    spare = [c for c in fractional if given[c] + 1 < class_rows[c]]
    if left > len(spare):
        return tuple(given), tuple(c for c in fractional if given[c] + 1 >= class_rows[c])
    spare.sort(key=lambda c: (-shares[c][1], c))
    for c in spare[:left]:
        given[c] += 1
    return tuple(given), ()


class Split:
    """Which rows are held out, asked once and in order: of each class so many, and all that follow.

    Args:
        seed: Key of the random integers.
        class_rows: Rows of each class; of one class where rows are not stratified.
        test_rows: Test rows of each class.
        by_class: Whether rows are stratified.
        keys: The random integers, keyed by `seed` unless given.
    """

    def __init__(
        self,
        seed: int,
        class_rows: Sequence[int],
        test_rows: Sequence[int],
        *,
        by_class: bool = False,
        keys: Keys | None = None,
    ) -> None:
        self._seed, self.by_class = seed, by_class
        self._keys = keys or KeyedRows(seed, Purpose.SPLIT)
        # Rows have places as if they were sorted by class, so that each class has its own integers.
        self._start_C = np.concatenate(([0], np.cumsum(class_rows, dtype=np.int64)))
        self._bound_C = np.zeros(len(class_rows), np.uint64)
        at_bound: list[Int64] = [np.empty(0, np.int64)]
        for c, (start, count, wanted) in enumerate(
            zip(self._start_C.tolist(), class_rows, test_rows, strict=False)
        ):
            if wanted:
                self._bound_C[c], places = self._smallest(start, count, wanted)
                at_bound.append(places)
        self._at_bound = np.concatenate(at_bound)

    def begin(self) -> SplitPass:
        """A pass over the rows from the first on."""
        return SplitPass(self, self._start_C)

    def is_test(self, place_N: Int64, class_N: Int64 | int) -> NDArray[np.bool_]:
        """Whether the rows at these places, ascending, are held out."""
        key_N = self._keys.integers(place_N)
        bound_N = self._bound_C[class_N]
        test_N: NDArray[np.bool_] = key_N < bound_N
        at_N = np.flatnonzero(key_N == bound_N)
        test_N[at_N] = np.isin(place_N[at_N], self._at_bound)
        return test_N

    def _smallest(self, start: int, count: int, wanted: int) -> tuple[np.uint64, Int64]:
        """The `wanted` smallest integers of places ``start`` to ``start + count - 1``.

        Returns:
            The largest of them, and which places of that very integer are among them: more than one
            place may have it, and then chance decides again.
        """
        bucket, left = self._bucket(start, count, wanted)
        places, keys = [], []
        for place_N in _pieces(start, count):
            key_N = self._keys.integers(place_N)
            if bucket is not None:
                at_N = np.flatnonzero(key_N >> np.uint64(64 - _RADIX_BITS) == np.uint64(bucket))
                place_N, key_N = place_N[at_N], key_N[at_N]  # noqa: PLW2901 -- the few that matter.
            places.append(place_N)
            keys.append(key_N)
        place_M, key_M = np.concatenate(places), np.concatenate(keys)
        bound = np.partition(key_M, left - 1)[left - 1]
        left -= int(np.count_nonzero(key_M < bound))
        equal = place_M[key_M == bound]
        order = permutation(self._seed, Purpose.SPLIT, start, 1, size=len(equal))
        return bound, equal[order[:left]]

    def _bucket(self, start: int, count: int, wanted: int) -> tuple[int | None, int]:
        """In which sixteen leading bits the `wanted`-th smallest lies, and its rank among those.

        Few rows need no such first pass over their integers: then it is None.
        """
        if count <= _ROWS_AT_ONCE:
            return None, wanted
        counts = np.zeros(1 << _RADIX_BITS, np.int64)
        for place_N in _pieces(start, count):
            leading_N = self._keys.integers(place_N) >> np.uint64(64 - _RADIX_BITS)
            counts += np.bincount(leading_N.astype(np.int64), minlength=len(counts))
        below = np.cumsum(counts)
        bucket = int(np.searchsorted(below, wanted))
        return bucket, wanted - int(below[bucket] - counts[bucket])


class SplitPass:
    """A pass over all rows in order, which counts how many of each class have come."""

    def __init__(self, split: Split, start_C: Int64) -> None:
        self._split = split
        self._next_C, self._end = start_C[:-1].copy(), int(start_C[-1])

    def is_test(self, class_N: NDArray[Any] | None, count: int) -> NDArray[np.bool_]:
        """Whether the next `count` rows are held out; bool ``[N]``.

        Args:
            class_N: Their classes; not looked at where rows are not stratified.
            count: N.
        """
        if not self._split.by_class:
            place_N = np.arange(self._next_C[0], self._next_C[0] + count)
            self._next_C[0] += count
            inside = place_N < self._end
            test_N = np.ones(count, np.bool_)
            test_N[inside] = self._split.is_test(place_N[inside], 0)
            return test_N
        assert class_N is not None, "stratified rows have classes"
        order = np.argsort(class_N, kind="stable")
        count_C = np.bincount(class_N, minlength=len(self._next_C))
        first_C = np.cumsum(count_C) - count_C
        place_N = np.repeat(self._next_C - first_C, count_C) + np.arange(count)
        self._next_C += count_C
        test_N = np.empty(count, np.bool_)
        test_N[order] = self._split.is_test(place_N, class_N[order])
        return test_N


def _pieces(start: int, count: int) -> Iterator[Int64]:
    for first in range(start, start + count, _ROWS_AT_ONCE):
        yield np.arange(first, min(first + _ROWS_AT_ONCE, start + count))


ClassNames = tuple[ClassName, ...]
_SHOWN = 5


class HeldOutClasses:
    """Finds a class that only held-out rows have, of which nothing can be learned."""

    def __init__(self) -> None:
        self._in_training: set[int] = set()
        self._first_test_row: dict[int, int] = {}

    def see(self, piece: Piece, test_N: NDArray[np.bool_]) -> None:
        """Take notice of the classes of a piece of rows, some of which are held out."""
        assert piece.target is not None, "labels are read"
        counts = np.bincount(piece.target[~test_N].ravel())
        self._in_training.update(np.flatnonzero(counts).tolist())
        of_tests = piece.target[test_N]
        codes, at = np.unique(of_tests, return_index=True)
        row_N = np.flatnonzero(test_N) + piece.first_row
        rows = row_N[at * len(of_tests) // max(of_tests.size, 1)]
        for code, row in zip(codes.tolist(), rows.tolist(), strict=True):
            self._first_test_row.setdefault(code, row)

    def check(self, rows: RawRows, names: ClassNames) -> None:
        """Raise DataError for the first such class."""
        for code, row in sorted(self._first_test_row.items(), key=lambda item: item[1]):
            if code not in self._in_training:
                way_out = "give it training rows, or hold out by class (stratify = true)"
                if rows.schema.label_shape is not None:
                    way_out = "give it training rows, or put a class that has some in its place"
                reason = f"class {names[code]!r} is in held-out rows only; {way_out}"
                raise rows.error(row, rows.schema.label[0], reason)


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
