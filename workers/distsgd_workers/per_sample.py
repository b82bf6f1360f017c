"""What is done with per-sample gradients once the gates have given their squared norms.

Their sum and their largest.

Legend: N samples. No I/O here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def squared_norm_sums(squared_norms_N: NDArray[Any]) -> tuple[float, float]:
    """The float64 sum of the squared gradient norms of a block's samples, and the largest.

    >>> squared_norm_sums(np.array([1.0, 4.0], np.float32))
    (5.0, 4.0)
    """
    return float(np.add.reduce(squared_norms_N, dtype=np.float64)), float(
        np.maximum.reduce(squared_norms_N)
    )
