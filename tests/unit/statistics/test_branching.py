from __future__ import annotations

import math

import pytest

from distsgd.statistics import Interval, branch_rate, branched_critical_batch, smoothed_loss


@pytest.mark.parametrize("k", [1, 2, 4, 16])
def test_rate_grows_with_the_batch_or_its_root(k: int) -> None:
    assert branch_rate(0.1, k, is_adaptive=False) == 0.1 * k
    assert branch_rate(0.1, k, is_adaptive=True) == pytest.approx(0.1 * k**0.5)


def test_smoothed_loss_weighs_the_newest_by_half_and_each_older_by_half_of_that() -> None:
    losses = [3.0, 1.0, 4.0, 2.0]
    assert smoothed_loss(losses) == 2.0 / 2 + 4.0 / 4 + 1.0 / 8 + 3.0 / 8
    assert smoothed_loss(losses, smoothing=1.0) == 2.0
    assert smoothed_loss([5.0]) == 5.0


def test_interval_ends_where_the_loss_rises_beyond_the_tolerance() -> None:
    found = branched_critical_batch({32: 1.0, 64: 1.004, 128: 1.009, 256: 1.011, 512: 1.2})
    assert (found.low, found.high) == (128.0, 256.0)
    assert found.mid == pytest.approx(math.sqrt(128 * 256))


def test_a_branch_is_compared_with_the_best_of_all_smaller_ones() -> None:
    # 256 is within the tolerance of 32 and of 128, but not of 64.
    assert branched_critical_batch({32: 1.0, 64: 0.98, 128: 0.995, 256: 1.0}).high == 128.0


def test_the_larger_of_two_within_the_tolerance_is_taken_as_the_paper_says() -> None:
    found = branched_critical_batch({32: 1.0, 64: 1.02, 128: 1.0, 256: 1.3})
    assert (found.low, found.high) == (128.0, 256.0)


def test_order_of_the_branches_does_not_matter() -> None:
    assert branched_critical_batch({512: 2.0, 64: 1.0, 128: 1.0}).low == 128.0


def test_the_largest_of_all_within_the_tolerance_has_no_upper_end() -> None:
    found = branched_critical_batch({64: 1.0, 128: 0.9})
    assert found == Interval(128.0, 128.0, math.inf)
    assert not found.is_bounded
    assert branched_critical_batch({64: 1.0}) == Interval(64.0, 64.0, math.inf)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_branch_that_diverged_is_worse_than_all(bad: float) -> None:
    assert branched_critical_batch({64: 1.0, 128: bad, 256: 1.0, 512: bad}).low == 256.0
    assert branched_critical_batch({64: bad, 128: bad}).low == 64.0
    assert branched_critical_batch({64: bad, 128: 3.0, 256: 4.0}).high == 256.0
