"""Chance as a pure function of a key: Philox raw integers, the only randomness in the package.

`numpy.random.Generator` methods may change between numpy versions; the raw integers of a bit
generator do not (NEP 19), so everything here is made from them by integer arithmetic. Source:
Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. No I/O here, no global state.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from functools import partial

import numpy as np
from numpy.typing import NDArray

UInt64 = NDArray[np.uint64]
_MASK_64 = (1 << 64) - 1
KEYED_ROWS = 4096
_INDEX = np.arange(1 << 12, dtype=np.uint64)


class Purpose(IntEnum):
    """What a stream of integers is for; two purposes never share a stream."""

    SPLIT = 1
    SHARD = 2
    SHARD_ORDER = 3
    WINDOW_ORDER = 4
    ROW_ORDER = 5
    INITIAL_WEIGHTS = 6
    DROPOUT = 7
    SAMPLING = 8
    PROBE = 9
    FAULT = 10
    EPOCH_ORDER = 11
    RATES = 12
    BLOCK = 13


def raw_integers(seed: int, purpose: Purpose, *key: int, count: int) -> UInt64:
    """The first `count` integers of a keyed stream.

    The key is (`seed`, `purpose`, up to three non-negative integers).

    Returns:
        Shape ``[count]``, uint64, uniform over the whole range.
    """
    assert len(key) <= 3, "the counter has room for three integers and the position"
    counter = [0, *key, *([0] * (3 - len(key)))]
    philox_key = (seed & _MASK_64) | (int(purpose) << 64)
    return np.random.Philox(key=philox_key, counter=np.array(counter, np.uint64)).random_raw(count)


def permutation(seed: int, purpose: Purpose, *key: int, size: int) -> NDArray[np.int64]:
    """A permutation of ``range(size)``.

    The order of Philox integers whose low bits were replaced by their index.

    The low bits make ties impossible, so that the order does not depend on the sort algorithm.

    Returns:
        Shape ``[size]``, int64; no more memory than its own is used on the way.
    """
    mask = np.uint64((1 << max(size - 1, 0).bit_length()) - 1)
    raw = raw_integers(seed, purpose, *key, count=size)
    raw &= ~mask
    for first in range(0, size, len(_INDEX)):
        part = raw[first : first + len(_INDEX)]
        part |= _INDEX[: len(part)] | np.uint64(first)
    raw.sort()
    raw &= mask
    return raw.view(np.int64)


class KeyedRows:
    """One random integer a row, keyed in pieces of 4096 rows; the piece read last is kept."""

    def __init__(self, seed: int, purpose: Purpose) -> None:
        self._seed, self._purpose = seed, purpose
        self._number = -1
        self._integers = np.empty(0, np.uint64)

    def integers(self, place_N: NDArray[np.int64]) -> UInt64:
        """Of these rows, ascending; uniform uint64 ``[N]``."""
        integers_N = np.empty(len(place_N), np.uint64)
        numbers, starts = np.unique(place_N // KEYED_ROWS, return_index=True)
        ends = [*starts.tolist(), len(place_N)][1:]
        for number, start, end in zip(numbers.tolist(), starts.tolist(), ends, strict=True):
            offset_N = place_N[start:end] - number * KEYED_ROWS
            integers_N[start:end] = self._piece(number)[offset_N]
        return integers_N

    def _piece(self, number: int) -> UInt64:
        if number != self._number:
            self._integers = raw_integers(self._seed, self._purpose, number, count=KEYED_ROWS)
            self._number = number
        return self._integers


def uniform(seed: int, purpose: Purpose, *key: int, count: int) -> NDArray[np.float64]:
    """Uniform float64 in [0, 1) with 53 random bits each; shape ``[count]``."""
    raw = raw_integers(seed, purpose, *key, count=count) >> np.uint64(11)
    return raw.astype(np.float64) * 2.0**-53


GOLDEN = 0x9E3779B97F4A7C15  # SplitMix64's step: 2**64 divided by the golden ratio.
_MIXING = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, None))


def stage_mixed(bits: UInt64, spare: UInt64) -> list[Callable[[], object]]:
    """Operations that mix each integer of `bits` in place by SplitMix64's finaliser.

    It is one-to-one, and turns a counter into chance. Source: Steele, Lea, Flood, "Fast splittable
    pseudorandom number generators", OOPSLA 2014 (constants by Stafford, "Better bit mixing", 2011).

    Args:
        bits: Any shape, uint64; overwritten.
        spare: Room of the same shape.
    """
    operations: list[Callable[[], object]] = []
    for shift, factor in _MIXING:
        operations += [
            partial(np.right_shift, bits, np.array(shift, np.uint64), spare),
            partial(np.bitwise_xor, bits, spare, bits),
        ]
        if factor is not None:
            operations.append(partial(np.multiply, bits, np.array(factor, np.uint64), bits))
    return operations


def row_keys_inplace(
    seed: int, purpose: Purpose, step: int, *, rows_N: NDArray[np.int64], keys_N: UInt64
) -> None:
    """Write a key for each row into `keys_N`: a pure function of (`seed`, `purpose`, `step`, row).

    Args:
        seed: The run's.
        purpose: What the keys are for.
        step: Number of the update.
        rows_N: Row numbers of the data set, shape ``[N]``.
        keys_N: Shape ``[N]``; overwritten.
    """
    start = seed & _MASK_64
    for part in (int(purpose), step):
        start = (_mixed(start + GOLDEN) + part) & _MASK_64
    np.multiply(rows_N.view(np.uint64), np.array(GOLDEN, np.uint64), keys_N)
    np.add(keys_N, np.array(_mixed(start + GOLDEN), np.uint64), keys_N)
    for operation in stage_mixed(keys_N, np.empty_like(keys_N)):
        operation()


def _mixed(integer: int) -> int:
    """SplitMix64's finaliser of one integer, modulo 2**64."""
    integer &= _MASK_64
    for shift, factor in _MIXING:
        integer ^= integer >> shift
        if factor is not None:
            integer = integer * factor & _MASK_64
    return integer
