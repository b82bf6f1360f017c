"""Which learning rates to try: a grid with chance in it, halving, refining. No I/O here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from distsgd.base.random_keys import Purpose, uniform


def log_grid(low: float, high: float, count: int, *, seed: int) -> list[float]:
    """`count` learning rates between `low` and `high`, one at random in each equal part of the log.

    Stratified chance covers the range as a grid does, and no two seeds share a rate, so that a
    lucky grid point cannot favour one batch size (McKay, Beckman and Conover, "A comparison of
    three methods for selecting values of input variables", Technometrics 21, 1979).

    Args:
        low: Above 0.
        high: Above `low`.
        count: 1 or more.
        seed: The same rates for the same seed, always.

    Returns:
        Ascending.

    Examples:
        >>> [round(rate, 4) for rate in log_grid(0.001, 1.0, 3, seed=0)]
        [0.004, 0.0286, 0.1512]
    """
    assert 0.0 < low < high < math.inf, "a range of rates"
    within = uniform(seed, Purpose.RATES, count=count).tolist()
    logs = ((i + part) / count * math.log(high / low) for i, part in enumerate(within))
    return [low * math.exp(log) for log in logs]


def halve(loss_of_rate: Mapping[float, float]) -> list[float]:
    """The better half of the rates, to be trained for twice as long: successive halving.

    Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter
    optimization", 2016, arXiv:1502.07943: of n rates those with the ``⌈n / 2⌉`` lowest losses
    stay. One whose loss is not finite never does; of equals the lower rate is better.

    Returns:
        Ascending; empty where every loss is not finite.

    Examples:
        >>> halve({0.01: 2.0, 0.03: 1.1, 0.1: 0.9, 0.3: float("nan"), 1.0: float("inf")})
        [0.01, 0.03, 0.1]
        >>> halve({0.01: 2.0, 0.03: 1.1, 0.1: 0.9})
        [0.03, 0.1]
    """
    finite = {rate: loss for rate, loss in loss_of_rate.items() if math.isfinite(loss)}
    best_first = sorted(finite, key=lambda rate: (finite[rate], rate))
    return sorted(best_first[: math.ceil(len(loss_of_rate) / 2)])


def is_at_edge(rates: Sequence[float], best: float) -> bool:
    """Whether `best` is the lowest or the highest of `rates`: then better ones may lie beyond.

    Examples:
        >>> is_at_edge([0.01, 0.1, 1.0], 1.0), is_at_edge([0.01, 0.1, 1.0], 0.1)
        (True, False)
    """
    return best in (min(rates), max(rates))


def refine(
    rates: Sequence[float], best: float, *, count: int, may_widen: bool = True
) -> list[float]:
    """`count` more rates where the best may be.

    With `best` at the edge of `rates` they continue beyond it at the mean spacing of the grid.
    Else, and where the search was widened before (`may_widen` False), they lie between `best` and
    its neighbours, evenly in the log, the greater half below it; at an edge it has one neighbour.

    Args:
        rates: Those tried, two or more, in any order.
        best: One of them.
        count: 1 or more.
        may_widen: Whether rates beyond the edge may be tried.

    Returns:
        Ascending; none is in `rates`.

    Examples:
        >>> [round(rate, 3) for rate in refine([0.01, 0.1, 1.0], 1.0, count=2)]
        [10.0, 100.0]
        >>> [round(rate, 3) for rate in refine([0.01, 0.1, 1.0], 0.1, count=2)]
        [0.032, 0.316]
        >>> [round(rate, 3) for rate in refine([0.01, 0.1, 1.0], 1.0, count=1, may_widen=False)]
        [0.316]
    """
    tried = sorted(set(rates))
    at = tried.index(best)
    is_lowest, is_highest = at == 0, at == len(tried) - 1
    assert not (is_lowest and is_highest), "two rates have a spacing"
    if may_widen and (is_lowest or is_highest):
        spacing = (tried[-1] / tried[0]) ** (1 / (len(tried) - 1))
        powers = range(-count, 0) if is_lowest else range(1, count + 1)
        return [best * spacing**power for power in powers]
    num_below = 0 if is_lowest else count if is_highest else math.ceil(count / 2)
    below = [] if is_lowest else _between(tried[at - 1], best, num_below)
    return below if is_highest else [*below, *_between(best, tried[at + 1], count - num_below)]


def _between(low: float, high: float, count: int) -> list[float]:
    """Evenly in the log, without the ends."""
    return [low * (high / low) ** (i / (count + 1)) for i in range(1, count + 1)]
