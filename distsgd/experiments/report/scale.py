"""From values to places: linear and logarithmic scales, and ticks that a person would choose. Pure.

The range of a scale always holds its values with a margin, also where there is one value or none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

Tick = tuple[float, str]

_STEPS = (1.0, 2.0, 5.0)


@dataclass(frozen=True, slots=True)
class Scale:
    """Values from `low` to `high` at places from `start` to `end`; a log scale's are above 0."""

    low: float
    high: float
    is_log: bool
    start: float = 0.0
    end: float = 1.0

    def at(self, start: float, end: float) -> Scale:
        """The same for other places."""
        return replace(self, start=start, end=end)

    def place(self, value: float) -> float:
        """Where a value is, which may be outside."""
        low, high, it = self.low, self.high, value
        if self.is_log:
            low, high, it = math.log(low), math.log(high), math.log(value)
        return self.start + (it - low) / (high - low) * (self.end - self.start)

    def clamped(self, value: float) -> float:
        """Where a value is, or the nearest border."""
        return self.place(min(max(value, self.low), self.high))

    def holds(self, value: float) -> bool:
        """Does the value lie within the range?"""
        return self.low <= value <= self.high

    def ticks(self, shown: Callable[[float], str], most: int = 7) -> list[Tick]:
        """At most about `most` ticks at round values.

        >>> [value for value, _ in Scale(0.8, 1300.0, True).ticks(str)]
        [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]
        >>> [value for value, _ in Scale(0.0, 2.1, False).ticks(str)]
        [0.0, 0.5, 1.0, 1.5, 2.0]
        """
        make = _log_ticks if self.is_log else _linear_ticks
        values = make(self.low, self.high, most)
        return [(value, shown(value)) for value in values]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    choices = [
        [step * 10.0**power for power in range(first, last + 1) for step in steps]
        for steps in (_STEPS, (1.0, 3.0), (1.0,))
    ]
    inside = [[value for value in some if low <= value <= high] for some in choices]
    if len(inside[0]) < 3:
        return _linear_ticks(low, high, min(most, 5))
    fitting = next((some for some in inside if 3 <= len(some) <= most), None)
    return fitting or inside[-1][:: math.ceil(len(inside[-1]) / most)]


def _linear_ticks(low: float, high: float, most: int) -> list[float]:
    width = high - low
    power = math.floor(math.log10(width / most))
    sizes = [step * 10.0**exponent for exponent in (power, power + 1) for step in _STEPS]
    size = next((one for one in sizes if width / one <= most), sizes[-1])
    first, last = math.ceil(low / size - 1e-9), math.floor(high / size + 1e-9)
    return [round(number * size, 12) for number in range(first, last + 1)]


def log_scale(values: Iterable[float], margin: float = 0.06) -> Scale:
    """A log scale that holds all finite values above 0."""
    some = [value for value in values if 0.0 < value < math.inf] or [1.0, 10.0]
    low, high = min(some), max(some)
    if high / low < 1.5:
        low, high = low / 1.5, high * 1.5
    grow = (high / low) ** margin
    return Scale(low / grow, high * grow, is_log=True)


def linear_scale(values: Iterable[float], least_high: float = 0.0) -> Scale:
    """A linear scale from 0 that holds all finite values and `least_high`."""
    some = [value for value in values if math.isfinite(value)]
    high = max([*some, least_high]) or 1.0
    return Scale(0.0, 1.08 * high, is_log=False)


def apart(ticks: Sequence[Tick], place: Callable[[float], float], least: float) -> list[Tick]:
    """Those ticks whose labels keep a distance; the first and the last stay.

    >>> apart([(1, "a"), (2, "b"), (9, "c"), (10, "d")], float, 3)
    [(1, 'a'), (10, 'd')]
    """
    if len(ticks) < 2:
        return list(ticks)
    kept = [ticks[0]]
    for tick in ticks[1:-1]:
        is_clear = abs(place(tick[0]) - place(kept[-1][0])) >= least
        if is_clear and abs(place(ticks[-1][0]) - place(tick[0])) >= least:
            kept.append(tick)
    if abs(place(ticks[-1][0]) - place(kept[-1][0])) >= least or len(kept) == 1:
        kept.append(ticks[-1])
    return kept
