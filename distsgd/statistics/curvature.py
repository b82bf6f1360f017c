"""How curved the loss is over the weights of a linear network, and what step that allows.

Letters: N rows, I features. No I/O here.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from distsgd.errors import ModelError


def largest_learning_rate(x_NI: NDArray[np.floating]) -> float:
    """The learning rate from which gradient descent on a linear network no longer converges.

    ``2 / λmax``, λmax being the largest eigenvalue of the second moments ``xᵀx / N``. That is the
    curvature of the mean over the rows of the quadratic loss ``½ε²`` of one linear output without
    bias; several outputs have the same. For squared_error, ``ε²``, take half of it; for a network
    with bias, give `x_NI` a column of ones. Batch gradient descent converges below it and diverges
    above it along the steepest direction, whatever the targets (LeCun et al., "Efficient BackProp",
    1998, section 5).

    Args:
        x_NI: Inputs as the network sees them, shape ``[N, I]``; at least one is not 0.

    Raises:
        ModelError: `x_NI` has another shape, holds no number but 0, or one that is not finite.

    >>> largest_learning_rate(np.array([[2.0, 0.0], [0.0, 1.0]]))
    1.0
    """
    x_NI = np.asarray(x_NI, np.float64)
    if x_NI.ndim != 2:
        raise ModelError(f"the inputs have shape {x_NI.shape}; must be [rows, features] (reshape)")
    largest = float(np.abs(x_NI).max(initial=0.0))
    if not 0.0 < largest < math.inf:
        raise ModelError(
            f"the largest of the inputs is {largest:g}; must be finite and not 0, or any rate or "
            "none will do then (look at the rows)"
        )
    # As parts of the largest, by a power of two: their squares neither overflow nor vanish.
    scale = 2.0 ** math.frexp(largest)[1]
    eigenvalues = np.linalg.eigvalsh((x_NI / scale).T @ (x_NI / scale) / len(x_NI))
    return float(2.0 / eigenvalues[-1] / scale / scale)
