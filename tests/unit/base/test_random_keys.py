from __future__ import annotations

import itertools
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from distsgd.base.random_keys import (
    KEYED_ROWS,
    KeyedRows,
    Purpose,
    permutation,
    raw_integers,
    uniform,
)

KEY = st.lists(st.integers(0, 2**64 - 1), max_size=3)


def test_raw_integers_are_these_for_ever() -> None:
    assert raw_integers(0, Purpose.SPLIT, count=2).tolist() == [
        15003734204198539638,
        13859618513508960101,
    ]
    assert raw_integers(7, Purpose.ROW_ORDER, 1, 2, 3, count=2).tolist() == [
        1557092357091869106,
        674220151953740885,
    ]


def test_permutation_is_this_for_ever() -> None:
    assert permutation(3, Purpose.ROW_ORDER, 1, size=10).tolist() == [2, 4, 6, 0, 9, 5, 7, 3, 8, 1]


@given(seed=st.integers(0, 2**64 - 1), key=KEY, count=st.integers(0, 40))
def test_a_shorter_stream_begins_a_longer_one(seed: int, key: list[int], count: int) -> None:
    longer = raw_integers(seed, Purpose.SAMPLING, *key, count=41)
    assert np.array_equal(raw_integers(seed, Purpose.SAMPLING, *key, count=count), longer[:count])


def test_streams_of_other_keys_share_no_number() -> None:
    keys = itertools.product((0, 1), Purpose, (0, 1), (0, 1), (0, 1))
    numbers = [
        number
        for seed, purpose, *key in keys
        for number in raw_integers(seed, purpose, *key, count=16).tolist()
    ]
    assert len(set(numbers)) == len(numbers)


@given(seed=st.integers(0, 2**64 - 1), key=KEY, size=st.integers(0, 300))
def test_permutation_holds_every_number_once(seed: int, key: list[int], size: int) -> None:
    order = permutation(seed, Purpose.ROW_ORDER, *key, size=size)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(size))


def test_every_permutation_is_about_as_likely() -> None:
    num_trials = 6000
    counts: dict[tuple[int, ...], int] = {}
    for trial in range(num_trials):
        order = tuple(permutation(0, Purpose.ROW_ORDER, trial, size=3).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    # Five standard deviations of a binomial number.
    assert all(abs(count - 1000) < 5 * (num_trials * 5 / 36) ** 0.5 for count in counts.values())


def test_uniform_lies_in_its_range_with_the_right_mean() -> None:
    numbers = uniform(5, Purpose.DROPOUT, count=10_000)
    assert numbers.dtype == np.float64
    assert 0.0 <= numbers.min() < numbers.max() < 1.0
    assert abs(numbers.mean() - 0.5) < 5 * (1 / 12 / 10_000) ** 0.5
    assert np.all(numbers * 2.0**53 == np.floor(numbers * 2.0**53))


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 3 * KEYED_ROWS), max_size=6))
def test_keyed_rows_do_not_depend_on_how_they_are_asked_for(cuts: list[int]) -> None:
    rows = np.arange(3 * KEYED_ROWS + 17)
    whole = KeyedRows(3, Purpose.SHARD).integers(rows)
    keyed, bounds = KeyedRows(3, Purpose.SHARD), [0, *sorted(cuts), len(rows)]
    parts = [keyed.integers(rows[a:b]) for a, b in pairwise(bounds)]
    assert np.array_equal(np.concatenate(parts), whole)
    assert np.array_equal(keyed.integers(rows[5::7]), whole[5::7])
    assert len(np.unique(whole)) == len(whole)
