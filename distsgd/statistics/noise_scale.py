"""The gradient noise scale, from what every mini-batch reports anyway, in plain floats.

McCandlish et al., "An Empirical Model of Large-Batch Training", 2018, arXiv:1812.06162: ``B_simple
= tr(Σ) / |G|²``, where G is the true gradient and Σ the covariance of the samples' gradients. It
estimates the batch size up to which more samples save steps. Merrill et al., 2025,
arXiv:2505.23971, find that it may be far from the critical batch size that is measured directly:
read it as the noise of the gradients, not as advice. No I/O here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from distsgd.errors import CheckpointError


def unbiased_square(batch: int, mean_squared_norm: float, squared_norm_of_mean: float) -> float:
    """Unbiased estimate of ``|G|²``, the squared norm of the true gradient; it may be negative.

    ``(B·|ḡ|² - m) / (B - 1)``, as ``E|ḡ|² = |G|² + tr(Σ)/B`` and ``E m = |G|² + tr(Σ)``.

    Args:
        batch: B, samples in the mini-batch; 2 or more.
        mean_squared_norm: m, the mean over the samples of their squared gradient norms.
        squared_norm_of_mean: ``|ḡ|²``, the squared norm of the mean gradient, before clipping.

    Examples:
        >>> unbiased_square(4, 10.0, 4.0)
        2.0
    """
    return (batch * squared_norm_of_mean - mean_squared_norm) / (batch - 1)


def trace(batch: int, mean_squared_norm: float, squared_norm_of_mean: float) -> float:
    """Unbiased estimate of ``tr(Σ)``: ``(m - |ḡ|²)·B / (B - 1)``.

    Arguments as for `unbiased_square`.

    Examples:
        >>> trace(4, 10.0, 4.0)
        8.0
    """
    return (mean_squared_norm - squared_norm_of_mean) * batch / (batch - 1)


class NoiseScale:
    """The ratio of two moving averages, of ``tr(Σ)`` and of ``|G|²``.

    Never the average of the ratio, which is biased.

    The averages are exponential and start unbiased (the correction of Kingma and Ba, 2015,
    arXiv:1412.6980). A mini-batch of one sample says nothing about noise and is passed over,
    and so is one whose norms overflow.

    Examples:
        >>> noise = NoiseScale()
        >>> noise.update(1, 10.0, 10.0)
        >>> noise.value
        >>> noise.update(4, 10.0, 4.0)
        >>> round(noise.value, 12)
        4.0
    """

    __slots__ = ("_square_sum", "_trace_sum", "_weight", "decay")

    def __init__(self, *, decay: float = 0.99) -> None:
        assert 0.0 <= decay < 1.0, "a moving average forgets"
        self.decay = decay
        self._square_sum = 0.0
        self._trace_sum = 0.0
        self._weight = 0.0

    def update(self, batch: int, mean_squared_norm: float, squared_norm_of_mean: float) -> None:
        """Take in one mini-batch; arguments as for `unbiased_square`, but `batch` may be 1."""
        if batch < 2:
            return
        decay = self.decay
        new = 1.0 - decay
        square = unbiased_square(batch, mean_squared_norm, squared_norm_of_mean)
        if not math.isfinite(square):
            return
        self._square_sum = decay * self._square_sum + new * square
        # tr Σ = m - |G|² for the unbiased |G|²: the same formula with one division less.
        self._trace_sum = decay * self._trace_sum + new * (mean_squared_norm - square)
        self._weight = decay * self._weight + new

    @property
    def value(self) -> float | None:
        """The noise scale, in samples.

        None while it is undefined: no mini-batch of two or more so far, or the average of ``|G|²``
        is not above 0, as happens where noise hides the gradient (a noise scale "larger than can be
        seen").
        """
        if not self._square_sum > 0.0:
            return None
        ratio = self._trace_sum / self._square_sum
        return ratio if math.isfinite(ratio) else None

    @property
    def square(self) -> float | None:
        """The average of ``|G|²``, bias-corrected; None before the first mini-batch of two."""
        return self._square_sum / self._weight if self._weight else None

    @property
    def trace(self) -> float | None:
        """The average of ``tr(Σ)``, bias-corrected; None before the first mini-batch of two."""
        return self._trace_sum / self._weight if self._weight else None

    def state_dict(self) -> dict[str, float]:
        """Plain floats for a checkpoint; JSON keeps every bit of them."""
        return {
            "decay": self.decay,
            "square_sum": self._square_sum,
            "trace_sum": self._trace_sum,
            "weight": self._weight,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, object]) -> NoiseScale:
        """The averages as they were.

        Raises:
            CheckpointError: A number is missing or damaged.
        """
        numbers = {}
        for name in ("decay", "square_sum", "trace_sum", "weight"):
            number = state.get(name)
            if type(number) is not float or not math.isfinite(number):
                rule = "must be a finite number (resume from an older checkpoint)"
                raise CheckpointError("noise_scale", f"{name} is {number!r}; {rule}")
            numbers[name] = number
        if not 0.0 <= numbers["decay"] < 1.0:
            rule = "must be 0 or more and below 1 (resume from an older checkpoint)"
            raise CheckpointError("noise_scale", f"decay is {numbers['decay']}; {rule}")
        noise = cls(decay=numbers["decay"])
        noise._square_sum = numbers["square_sum"]
        noise._trace_sum = numbers["trace_sum"]
        noise._weight = numbers["weight"]
        return noise
