"""Maximum likelihood of a location and scale for values that are known only to lie in intervals.

Letters: C candidates, each with its own offsets and fitted at once; N observations. No I/O here.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
_SMALLEST_SCALE = 1e-3  # What bounds the scale where all values fall into the same cells.
_FARTHEST = 37.0  # Standard deviations; beyond, a float64 holds no probability.
_MOST_ITERATIONS, _MOST_HALVINGS, _TOLERANCE = 50, 30, 1e-9
_NUM_NODES = 20


def fit_censored(low_N: Float64, high_N: Float64, offset_CN: Float64) -> CensoredFit:
    """Fit ``y = location + offset + scale · N(0, 1)`` to ``low < y <= high``, for each candidate.

    The logarithm of ``Π Φ((high - μ) / s) - Φ((low - μ) / s)`` is concave in ``(μ / s, 1 / s)``
    (Burridge, "A note on maximum likelihood estimation for regression models using grouped data",
    Journal of the Royal Statistical Society B 43, 1981), so that Newton's steps, halved where they
    go too far, find its one maximum. A term ``-(0.001 / s)² / 2`` keeps s above 0 where a location
    fits all intervals.

    Args:
        low_N: Lower ends, shape ``[N]``; -∞ where only the upper is known.
        high_N: Upper ends, shape ``[N]``, above `low_N`; ∞ where only the lower is known. At least
            one interval is finite.
        offset_CN: What each candidate adds to the location, shape ``[C, N]``.

    Returns:
        The location, scale and logarithm of the likelihood of each candidate, shape ``[C]`` each.

    Examples:
        >>> y = np.array([1.0, 2.0, 3.0])
        >>> fit = fit_censored(y - 0.01, y + 0.01, np.zeros((1, 3)))
        >>> fit.location_C.round(3), fit.scale_C.round(3)
        (array([2.]), array([0.816]))
    """
    likelihood = _Likelihood(low_N, high_N, offset_CN)
    at = likelihood.at(likelihood.start())
    for _ in range(_MOST_ITERATIONS):
        direction_2C = likelihood.newton(at)
        inverse_C, change_C = at.point_2C[1], direction_2C[1]
        # The inverse scale stays positive.
        length_C = np.minimum(1.0, 0.9 * inverse_C / np.maximum(-change_C, 0.9 * inverse_C))
        for _ in range(_MOST_HALVINGS):
            after = likelihood.at(at.point_2C + length_C * direction_2C)
            is_worse_C = after.value_C < at.value_C - _TOLERANCE
            if not is_worse_C.any():
                break
            length_C = np.where(is_worse_C, length_C / 2, length_C)
        else:
            after = likelihood.at(np.where(is_worse_C, at.point_2C, after.point_2C))
        gain = float((after.value_C - at.value_C).max())
        at = after
        if gain < _TOLERANCE:
            break
    return CensoredFit(at.point_2C[0] / at.point_2C[1], 1.0 / at.point_2C[1], at.value_C)


class CensoredFit(NamedTuple):
    """What was found for each candidate; all of shape ``[C]``."""

    location_C: Float64
    scale_C: Float64
    log_likelihood_C: Float64


class _Place(NamedTuple):
    """A point ``(location / scale, 1 / scale)`` of each candidate, and the likelihood there."""

    point_2C: Float64
    value_C: Float64
    low_CN: Float64
    high_CN: Float64
    probability_CN: Float64


class _Likelihood:
    """The logarithm of the likelihood, with its derivatives."""

    def __init__(self, low_N: Float64, high_N: Float64, offset_CN: Float64) -> None:
        self._has_low, self._has_high = np.isfinite(low_N), np.isfinite(high_N)
        self._low_CN = np.where(self._has_low, low_N, 0.0) - offset_CN
        self._high_CN = np.where(self._has_high, high_N, 0.0) - offset_CN

    def start(self) -> Float64:
        """From the middles of the intervals."""
        low_CN = np.where(self._has_low, self._low_CN, self._high_CN)
        high_CN = np.where(self._has_high, self._high_CN, self._low_CN)
        middle_CN = (low_CN + high_CN) / 2
        width = float(np.mean(high_CN - low_CN)) + _SMALLEST_SCALE
        scale_C = np.sqrt(middle_CN.var(axis=1) + width**2)
        return np.stack([middle_CN.mean(axis=1) / scale_C, 1.0 / scale_C])

    def at(self, point_2C: Float64) -> _Place:
        """The likelihood at a point."""
        location_C1, inverse_C1 = point_2C[0][:, None], point_2C[1][:, None]
        low_CN = np.where(self._has_low, inverse_C1 * self._low_CN - location_C1, -_FARTHEST)
        high_CN = np.where(self._has_high, inverse_C1 * self._high_CN - location_C1, _FARTHEST)
        low_CN, high_CN = (end.clip(-_FARTHEST, _FARTHEST) for end in (low_CN, high_CN))
        probability_CN = _probability_between(low_CN, high_CN)
        value_C = np.log(probability_CN).sum(axis=1) - (_SMALLEST_SCALE * point_2C[1]) ** 2 / 2
        return _Place(point_2C, value_C, low_CN, high_CN, probability_CN)

    def newton(self, at: _Place) -> Float64:
        """From a place to the maximum of the parabola that touches the likelihood there."""
        # Densities at the ends, as parts of the probability between them.
        p_CN = np.where(self._has_low, _density(at.low_CN) / at.probability_CN, 0.0)
        q_CN = np.where(self._has_high, _density(at.high_CN) / at.probability_CN, 0.0)
        ll_CN, hh_CN, lh_CN = p_CN * (at.low_CN - p_CN), -q_CN * (at.high_CN + q_CN), p_CN * q_CN
        x_CN, y_CN, penalty = self._low_CN, self._high_CN, _SMALLEST_SCALE**2
        # Gradient and curvature by u = location / scale and w = 1 / scale.
        u = (p_CN - q_CN).sum(axis=1)
        w = (q_CN * y_CN - p_CN * x_CN).sum(axis=1) - penalty * at.point_2C[1]
        uu = (ll_CN + hh_CN + 2 * lh_CN).sum(axis=1)
        uw = -(ll_CN * x_CN + hh_CN * y_CN + lh_CN * (x_CN + y_CN)).sum(axis=1)
        ww = (ll_CN * x_CN**2 + hh_CN * y_CN**2 + 2 * lh_CN * x_CN * y_CN).sum(axis=1) - penalty
        move_2C: Float64 = np.stack([uw * w - ww * u, uw * u - uu * w]) / (uu * ww - uw**2)
        return move_2C


def _density(z_CN: Float64) -> Float64:
    density_CN: Float64 = np.exp(-(z_CN**2) / 2) / math.sqrt(2 * math.pi)
    return density_CN


def _probability_between(low_CN: Float64, high_CN: Float64) -> Float64:
    """Of the normal distribution; by its upper tail, where the difference is exact."""
    is_below = low_CN + high_CN < 0
    near_CN, far_CN = np.where(is_below, -high_CN, low_CN), np.where(is_below, -low_CN, high_CN)
    tail_CN, far_tail_CN = _upper_tail(np.stack([np.abs(near_CN), far_CN]))
    tail_CN = np.where(near_CN < 0, 1.0 - tail_CN, tail_CN)
    probability_CN: Float64 = np.maximum(tail_CN - far_tail_CN, 1e-300)
    return probability_CN


def _upper_tail(z: Float64) -> Float64:
    """``1 - Φ(z)`` for 0 <= z <= 37 with twelve digits, which numpy does not have."""
    scaled = np.asarray(np.polyval(_COEFFICIENTS, _abscissa(z)), np.float64)
    return np.exp(-(z**2) / 2) * scaled


def _abscissa(z: Float64) -> Float64:
    """Where the tail without its exponential factor is nearly a polynomial: 1 to -1."""
    smallest = 1.0 / (1.0 + _FARTHEST / 3)
    return 2 * (1.0 / (1.0 + z / 3) - smallest) / (1.0 - smallest) - 1


def _coefficients() -> Float64:
    """Of the polynomial through `_NUM_NODES` exact values at Chebyshev's nodes."""
    x_K = np.cos((np.arange(_NUM_NODES) + 0.5) * np.pi / _NUM_NODES)
    smallest = 1.0 / (1.0 + _FARTHEST / 3)
    z_K = 3 / ((x_K + 1) / 2 * (1.0 - smallest) + smallest) - 3
    tail_K = [math.erfc(z / math.sqrt(2)) / 2 * math.exp(z * z / 2) for z in z_K.tolist()]
    return np.linalg.solve(np.vander(x_K), np.array(tail_K))


_COEFFICIENTS = _coefficients()
