"""The critical batch size at one checkpoint, from branches trained on with larger batches.

Merrill et al., "Critical Batch Size Revisited: A Simple Empirical Approach to Large-Batch Language
Model Training", 2025, arXiv:2505.23971, section 3.1: from a checkpoint of a run with batch size B
and learning rate η, branches with batch size k·B and rate f(k)·η train for the same number of
samples, and give a smoothed loss L_k each. k* is the largest k such that ``L_k* <= L_k + ε`` for
all smaller k. Their window is 2·10⁹ tokens, their ε 0.01, their smoothing 0.5. No I/O here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from distsgd.statistics.intervals import Interval

TOLERANCE, SMOOTHING = 0.01, 0.5


def branch_rate(learning_rate: float, k: float, *, is_adaptive: bool) -> float:
    """The learning rate of a branch whose batches are k times as large: f(k)·η.

    ``f(k) = k`` for plain SGD, ``√k`` for rules that divide by the size of the gradients (Adam).

    Examples:
        >>> branch_rate(0.1, 4, is_adaptive=False), branch_rate(0.1, 4, is_adaptive=True)
        (0.4, 0.2)
    """
    return learning_rate * (math.sqrt(k) if is_adaptive else k)


def smoothed_loss(losses: Sequence[float], *, smoothing: float = SMOOTHING) -> float:
    """The exponential moving average at the last of `losses`, which starts with the first.

    Args:
        losses: In the order of training; at least one.
        smoothing: What the newest weighs.

    Examples:
        >>> smoothed_loss([4.0, 2.0, 1.0])
        2.0
    """
    average = losses[0]
    for loss in losses[1:]:
        average += smoothing * (loss - average)
    return average


def branched_critical_batch(
    loss_of_batch: Mapping[int, float], *, tolerance: float = TOLERANCE
) -> Interval:
    """The largest batch size whose branch is as good as those of all smaller ones.

    The interval is that of the paper: from the largest batch size within `tolerance` to the next
    larger one that was tried, with their geometric mean in the middle. Where the largest of all is
    within it, `mid` is that and `high` is ∞. A batch size may be within the tolerance where a
    smaller one is not, by noise: the paper's rule takes the larger. A branch whose loss is not
    finite is worse than all that are.

    Args:
        loss_of_batch: Smoothed loss of each branch by its batch size in samples, all after the same
            number of further samples; the smallest batch size is that of the checkpoint.
        tolerance: ε, how much higher a loss may be that counts as the same.

    Examples:
        >>> branched_critical_batch({64: 0.300, 128: 0.302, 256: 0.308, 512: 0.350})
        Interval(low=256.0, mid=362.03867196751236, high=512.0)
        >>> branched_critical_batch({64: 0.300, 128: 0.302})
        Interval(low=128.0, mid=128.0, high=inf)
    """
    assert loss_of_batch, "the checkpoint's own batch size is one"
    least = math.inf
    within = 0
    for batch, loss in sorted(loss_of_batch.items()):
        is_finite = math.isfinite(loss)
        if not within or (is_finite and loss <= least + tolerance):
            within = batch
        least = min(least, loss) if is_finite else least
    larger = min((batch for batch in loss_of_batch if batch > within), default=math.inf)
    mid = math.sqrt(within * larger) if larger < math.inf else within
    return Interval(float(within), float(mid), float(larger))
