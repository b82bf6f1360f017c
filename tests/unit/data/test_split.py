from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from distsgd.chance import Purpose
from distsgd.data.split import KEYED_ROWS, KeyedRows, Split


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 2 * KEYED_ROWS), max_size=6))
def test_keyed_rows_do_not_depend_on_how_they_are_asked_for(cuts: list[int]) -> None:
    end = 2 * KEYED_ROWS + 17
    whole = KeyedRows(3, Purpose.SHARD).integers(0, end)
    keyed, bounds = KeyedRows(3, Purpose.SHARD), [0, *sorted(cuts), end]
    parts = [keyed.integers(a, b - a) for a, b in pairwise(bounds)]
    assert np.array_equal(np.concatenate(parts), whole)


def test_split_holds_out_the_fraction_and_all_rows_of_test_sources() -> None:
    held_out = Split(0, 0.25, 100_000).is_test(0, 100_000)
    # Five deviations of a binomial of 100,000 and 1/4.
    assert abs(held_out.mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 100_000)
    assert Split(0, 0.0, 3).is_test(0, 5).tolist() == [False, False, False, True, True]
