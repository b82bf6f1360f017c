"""A sample of what ``scripts/fuzz`` reads: the same seed, the same inputs."""

from __future__ import annotations

import pytest

from tests.hostile.campaign import judge
from tests.hostile.cases import FORMATS
from tests.hostile.rows import BOMBS

SEED, NUM_INPUTS = 1, 25
# The bombs of a format are its first inputs; the slow ones are left to scripts/fuzz.
SLOW_BOMBS = {"parquet": 7, "arrow": 6, "csv": 6, "csv.gz": 3, "idx": 3, "idx.gz": 1}


@pytest.mark.parametrize("name", FORMATS)
def test_hostile_file_gives_a_typed_error_or_the_right_result(name: str) -> None:
    first = SLOW_BOMBS.get(name, 0)
    last = len(BOMBS.get(name, ())) + NUM_INPUTS
    tally = judge(name, seed=SEED, first=first, last=last)
    assert not tally.failures, "\n".join(tally.failures)
    assert tally.read + tally.refused == last - first
