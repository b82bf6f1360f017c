"""Which rows are held out: exactly so many, by chance, and the same ones however they come.

Statistical tests have fixed seeds, so that they pass or fail for ever; the stated error rate is the
chance that a right sampler had failed when the seeds were chosen.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsgd.base.random_keys import KEYED_ROWS, KeyedRows, Purpose
from distsgd.data.prepare.split import (
    Split,
    apportion,
    num_test_rows,
)

FRACTIONS = st.one_of(
    st.integers(1, 999).map(lambda thousandths: thousandths / 1000),
    st.floats(0.0, 1.0, exclude_max=True),
)
SEEDS = range(4000)
# Five deviations of a normal: one in 1.7 million a cell, and at most 110 cells a test.
DEVIATIONS = 5.0


class FewKeys:
    """Integers of three bits: nearly every row shares its own with others."""

    def integers(self, place_N: np.ndarray) -> np.ndarray:
        return KeyedRows(1, Purpose.PROBE).integers(place_N) >> np.uint64(61)


def test_rows(seed: int, num_rows: int, num_tests: int) -> np.ndarray:
    return Split(seed, [num_rows], [num_tests]).begin().is_test(None, num_rows)


test_rows.__test__ = False  # type: ignore[attr-defined] # The rows are called so.


@given(num_rows=st.integers(0, 10**12), fraction=FRACTIONS)
def test_number_of_test_rows_is_the_written_fraction_rounded_half_up(
    num_rows: int, fraction: float
) -> None:
    exact = Decimal(repr(fraction)) * num_rows
    assert num_test_rows(num_rows, fraction) == int(exact.to_integral_value(ROUND_HALF_UP))


@pytest.mark.parametrize(
    ("num_rows", "fraction", "expected"),
    # In binary 0.1 * 25 is above, 0.7 * 45 and 1.005 * 1000 below what is written.
    [(25, 0.1, 3), (45, 0.7, 32), (15, 0.1, 2), (1797, 0.2, 359), (5, 0.1, 1), (4, 0.1, 0)],
)
def test_number_of_test_rows_where_binary_fractions_would_err(
    num_rows: int, fraction: float, expected: int
) -> None:
    assert num_test_rows(num_rows, fraction) == expected


@settings(max_examples=100, deadline=None)
@given(num_rows=st.integers(1, 3000), data=st.data(), seed=st.integers(0, 2**64 - 1))
def test_split_holds_out_exactly_so_many_rows_however_they_come(
    num_rows: int, data: st.DataObject, seed: int
) -> None:
    num_tests = data.draw(st.integers(0, num_rows))
    whole = test_rows(seed, num_rows, num_tests)
    assert whole.sum() == num_tests
    cuts = data.draw(st.lists(st.integers(0, num_rows), max_size=5))
    split_pass = Split(seed, [num_rows], [num_tests]).begin()
    parts = [split_pass.is_test(None, b - a) for a, b in pairwise([0, *sorted(cuts), num_rows])]
    assert np.array_equal(np.concatenate(parts), whole)


def test_split_of_many_rows_finds_its_bound_in_two_passes() -> None:
    num_rows, num_tests = 300_001, 60_001
    keys = KeyedRows(9, Purpose.SPLIT).integers(np.arange(num_rows))
    smallest = np.sort(np.argsort(keys)[:num_tests])
    assert np.array_equal(np.flatnonzero(test_rows(9, num_rows, num_tests)), smallest)


@pytest.mark.parametrize("num_rows", [50, 70_000])
def test_rows_that_share_the_integer_at_the_bound_are_taken_by_chance(num_rows: int) -> None:
    keys, seeds = FewKeys().integers(np.arange(num_rows)), 200
    below, equal = int((keys < 3).sum()), int((keys == 3).sum())
    num_tests = below + equal // 2
    splits = [Split(seed, [num_rows], [num_tests], keys=FewKeys()) for seed in range(seeds)]
    times = np.zeros(num_rows, np.int64)
    for split in splits:
        held_out = split.begin().is_test(None, num_rows)
        assert held_out.sum() == num_tests
        times += held_out
    assert (times[keys < 3] == seeds).all()
    assert (times[keys > 3] == 0).all()
    chance = (equal // 2) / equal
    # At most 25,000 rows: six and a half deviations are one in 12 billion each.
    assert np.abs(times[keys == 3] - seeds * chance).max() < 6.5 * np.sqrt(seeds * chance / 2)


def test_split_holds_out_all_rows_after_the_first_ones() -> None:
    assert Split(0, [3], [0]).begin().is_test(None, 5).tolist() == [False] * 3 + [True] * 2
    split_pass = Split(0, [3], [1]).begin()
    assert sum(split_pass.is_test(None, 1).sum() for _ in range(3)) == 1
    assert split_pass.is_test(None, 2).all()


def test_every_row_and_every_pair_is_held_out_equally_often() -> None:
    num_rows, num_tests = 10, 3
    held_out = np.array([test_rows(seed, num_rows, num_tests) for seed in SEEDS])
    rows, pairs = held_out.sum(axis=0), held_out.T.astype(int) @ held_out
    chance = num_tests / num_rows
    pair_chance = chance * (num_tests - 1) / (num_rows - 1)
    for counts, p in ((rows, chance), (pairs[np.triu_indices(num_rows, 1)], pair_chance)):
        deviation = np.sqrt(len(SEEDS) * p * (1 - p))
        assert np.abs(counts - len(SEEDS) * p).max() < DEVIATIONS * deviation


def test_neighbouring_rows_of_large_data_are_held_out_independently() -> None:
    num_rows, num_tests = 200_000, 40_000
    held_out = test_rows(1, num_rows, num_tests)
    for distance in (1, 2, KEYED_ROWS, 65_536):
        both = np.count_nonzero(held_out[distance:] & held_out[:-distance])
        expected = (num_rows - distance) * 0.04
        assert abs(both - expected) < DEVIATIONS * np.sqrt(expected)
    for place in range(16):  # The place within whatever is cut by powers of two.
        share = held_out[place::16].mean()
        assert abs(share - 0.2) < DEVIATIONS * np.sqrt(0.16 / (num_rows / 16))


CLASS_ROWS = st.lists(st.integers(1, 60), min_size=1, max_size=12)


@settings(max_examples=300, deadline=None)
@given(class_rows=CLASS_ROWS, fraction=FRACTIONS)
def test_apportioned_rows_add_up_and_are_each_class_s_share_rounded(
    class_rows: list[int], fraction: float
) -> None:
    given_rows, emptied = apportion(class_rows, fraction)
    exact = Decimal(repr(fraction))
    floors = [int(exact * rows) for rows in class_rows]
    if emptied:
        # So many more are wanted than classes can give without losing their last training row.
        could = sum(
            1
            for rows, floor in zip(class_rows, floors, strict=True)
            if exact * rows > floor and floor + 1 < rows
        )
        assert num_test_rows(sum(class_rows), fraction) - sum(floors) > could
        assert all(floors[c] + 1 >= class_rows[c] for c in emptied)
        return
    assert sum(given_rows) == num_test_rows(sum(class_rows), fraction)
    rounded_up = {c: exact * class_rows[c] - floors[c] for c in range(len(class_rows))}
    for c, rows in enumerate(class_rows):
        assert given_rows[c] in {floors[c], floors[c] + (rounded_up[c] > 0)}
        assert given_rows[c] < rows
    passed_over = [
        rounded_up[c]
        for c, rows in enumerate(class_rows)
        if given_rows[c] == floors[c] and floors[c] + 1 < rows
    ]
    taken = [rounded_up[c] for c in rounded_up if given_rows[c] > floors[c]]
    assert not taken or not passed_over or min(taken) >= max(passed_over)


def stratified(seed: int, class_N: np.ndarray, fraction: float, cuts: list[int]) -> np.ndarray:
    class_rows = np.bincount(class_N).tolist()
    given_rows, emptied = apportion(class_rows, fraction)
    assert not emptied
    split_pass = Split(seed, class_rows, given_rows, by_class=True).begin()
    bounds = pairwise([0, *sorted(cuts), len(class_N)])
    return np.concatenate([split_pass.is_test(class_N[a:b], b - a) for a, b in bounds])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1),
    num_rows=st.integers(20, 500),
    cuts=st.lists(st.integers(0, 20), max_size=4),
)
def test_stratified_split_gives_each_class_its_share_however_rows_come(
    seed: int, num_rows: int, cuts: list[int]
) -> None:
    class_N = np.random.default_rng(num_rows).permutation(np.arange(num_rows) % 5 // 2)
    held_out = stratified(seed, class_N, 0.3, cuts)
    assert np.array_equal(held_out, stratified(seed, class_N, 0.3, []))
    assert held_out.sum() == num_test_rows(num_rows, 0.3)
    for c in range(3):
        share = np.count_nonzero(class_N == c) * 0.3
        assert np.floor(share) <= held_out[class_N == c].sum() <= np.ceil(share)


def test_stratified_split_holds_out_every_row_and_pair_of_a_class_equally_often() -> None:
    class_N = np.array([0, 1, 0, 1, 1, 0, 0, 1, 0, 1, 0, 1])  # Six of each, two of six held out.
    held_out = np.array([stratified(seed, class_N, 1 / 3, []) for seed in SEEDS])
    assert (held_out.sum(axis=1) == 4).all()
    pairs = held_out.T.astype(int) @ held_out
    same = class_N[:, None] == class_N
    upper = np.triu(np.ones_like(same), 1)
    for counts, p in (
        (held_out.sum(axis=0), 1 / 3),
        (pairs[same & upper], 1 / 3 * 1 / 5),
        (pairs[~same & upper], 1 / 9),
    ):
        deviation = np.sqrt(len(SEEDS) * p * (1 - p))
        assert np.abs(counts - len(SEEDS) * p).max() < DEVIATIONS * deviation
