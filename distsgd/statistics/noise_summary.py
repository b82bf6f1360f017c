"""One noise scale of several runs at their target, from the histories they keep. No I/O here."""

from __future__ import annotations

from collections.abc import Iterable

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
