"""Which cells are run in full, and what is expected of them."""

from __future__ import annotations

import pyarrow as pa
import pytest

from distsgd.experiments.plan import LearningKey
from distsgd.experiments.products import FullKey, FullRun, chosen_runs, training_seconds
from distsgd.statistics.intervals import Interval


def key(batch: int, workers: int) -> FullKey:
    return FullKey(LearningKey(batch, 0.1, 1), workers)


def test_quickest_with_and_without_workers_and_the_slowest_are_chosen() -> None:
    cells = [(key(8, 0), 4.0), (key(8, 2), 3.0), (key(64, 0), 1.0), (key(64, 2), 0.9)]
    assert chosen_runs(cells) == (key(64, 2), key(64, 0), key(8, 0))


def test_short_runs_are_chosen_where_there_are_no_others() -> None:
    cells = [(key(8, 0), 4.0), (key(64, 0), 0.01), (key(64, 2), 0.02)]
    assert chosen_runs(cells) == (key(64, 2), key(8, 0), key(64, 0))
    assert chosen_runs([]) == ()


def test_first_step_counts_as_long_as_the_others() -> None:
    history = pa.table({"step": [1, 2, 3, 4], "seconds": [5.0, 6.0, 7.0, 8.0]})
    assert training_seconds(history) == 4.0
    assert training_seconds(history.slice(0, 1)) is None


@pytest.mark.parametrize(
    ("seconds", "same_bits", "holds"),
    [(1.0, True, True), (1.0, False, False), (2.0, True, False), (None, True, False)],
)
def test_product_holds_within_its_interval_and_with_the_same_bits(
    *, seconds: float | None, same_bits: bool, holds: bool
) -> None:
    run = FullRun(key(8, 2), seconds, Interval(0.9, 1.0, 1.1), 1, same_bits)
    assert run.holds is holds
