"""One noise scale of several runs at their target, from the histories they keep. No I/O here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from distsgd.statistics.intervals import LEVEL, Interval, geometric_interval

Float64 = NDArray[np.float64]


def late_noise_scale(samples_S: Float64, noise_scale_S: Float64) -> float | None:
    """The median noise scale over the last third of the samples that a run saw.

    The noise scale grows as the loss falls (McCandlish et al., 2018, arXiv:1812.06162, section
    3), so that the early part of a run says nothing of it at the target; the median passes over
    the moments in which noise hid the gradient.

    Args:
        samples_S: Samples seen, ascending, shape ``[S]``; up to where the target was met.
        noise_scale_S: Noise scale in samples, shape ``[S]``; NaN where it was undefined.

    Returns:
        Samples; None where no noise scale above 0 is known in that third.

    Examples:
        >>> late_noise_scale(np.array([100, 200, 300]), np.array([5.0, 7.0, 9.0]))
        9.0
    """
    samples_S, noise_scale_S = (np.asarray(s, np.float64) for s in (samples_S, noise_scale_S))
    is_late_S = samples_S > samples_S.max(initial=0.0) * 2 / 3
    late = noise_scale_S[is_late_S & np.isfinite(noise_scale_S) & (noise_scale_S > 0.0)]
    return float(np.median(late)) if len(late) else None


def noise_scale_interval(
    noise_scales: Iterable[float | None], *, level: float = LEVEL
) -> Interval | None:
    """The noise scale over seeds: `geometric_interval` of one number a run.

    Args:
        noise_scales: `late_noise_scale` of each run; None are left out.
        level: Probability that the interval holds the mean over all seeds.

    Returns:
        Samples; None where fewer than two runs have one.

    Examples:
        >>> found = noise_scale_interval([100.0, 110.0, None, 95.0])
        >>> round(found.low), round(found.mid), round(found.high)
        (84, 101, 122)
    """
    known = [scale for scale in noise_scales if scale is not None]
    return geometric_interval(np.array(known), level=level) if len(known) > 1 else None


def noise_scales_by_batch(
    scales_of_batch: Mapping[int, Iterable[float | None]], *, level: float = LEVEL
) -> dict[int, Interval]:
    """`noise_scale_interval` of each batch size, without those that have none; ascending.

    Each batch size is for itself: runs with larger batches meet the target elsewhere, so that
    their scales differ by more than seeds do.

    Examples:
        >>> found = noise_scales_by_batch({64: [50.0, 60.0], 8: [190.0, 210.0], 1: [7.0, None]})
        >>> {batch: round(scale.mid) for batch, scale in found.items()}
        {8: 200, 64: 55}
    """
    found = {
        batch: noise_scale_interval(scales, level=level)
        for batch, scales in sorted(scales_of_batch.items())
    }
    return {batch: scale for batch, scale in found.items() if scale is not None}


def nearest_batch(scales: Mapping[int, Interval], critical: float | None) -> int:
    """The batch size that is nearest to the critical one, by their ratio.

    Args:
        scales: By batch size; at least one.
        critical: In samples, 0 and ∞ included; where it is not known, the batch size is taken that
            is nearest to its own noise scale.

    Examples:
        >>> scales = {8: Interval(150.0, 200.0, 250.0), 64: Interval(50.0, 55.0, 60.0)}
        >>> (
        ...     nearest_batch(scales, 10.0),
        ...     nearest_batch(scales, math.inf),
        ...     nearest_batch(scales, None),
        ... )
        (8, 64, 64)
    """
    least, most = min(scales), max(scales)

    def distance(batch: int) -> float:
        wanted = scales[batch].mid if critical is None else min(max(critical, least), most)
        return abs(math.log(batch / wanted))

    return min(sorted(scales), key=distance)
