"""Chance as a pure function of a key: Philox raw integers, the only randomness in the package.

`numpy.random.Generator` methods may change between numpy versions; the raw integers of a bit
generator do not (NEP 19), so everything here is made from them by integer arithmetic. Source:
Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. No I/O here, no global state.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

UInt64 = NDArray[np.uint64]
_MASK_64 = (1 << 64) - 1


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


def raw_integers(seed: int, purpose: Purpose, *key: int, count: int) -> UInt64:
    """The first `count` integers of a keyed stream.

    The key is (`seed`, `purpose`, up to three non-negative integers).

    Returns:
        Shape ``[count]``, uint64, uniform over the whole range.
    """
    assert len(key) <= 3, "the counter has room for three integers beside the position"
    counter = [0, *key, *([0] * (3 - len(key)))]
    philox_key = (seed & _MASK_64) | (int(purpose) << 64)
    return np.random.Philox(key=philox_key, counter=np.array(counter, np.uint64)).random_raw(count)


def permutation(seed: int, purpose: Purpose, *key: int, size: int) -> NDArray[np.int64]:
    """A permutation of ``range(size)``.

    The order of Philox integers whose low bits were replaced by their index.

    The low bits make ties impossible, so that the order does not depend on the sort algorithm.

    Returns:
        Shape ``[size]``, int64.
    """
    mask = np.uint64((1 << max(size - 1, 0).bit_length()) - 1)
    raw = raw_integers(seed, purpose, *key, count=size)
    raw &= ~mask
    raw |= np.arange(size, dtype=np.uint64)
    raw.sort()
    raw &= mask
    return raw.view(np.int64)


def uniform(seed: int, purpose: Purpose, *key: int, count: int) -> NDArray[np.float64]:
    """Uniform float64 in [0, 1) with 53 random bits each; shape ``[count]``."""
    raw = raw_integers(seed, purpose, *key, count=count) >> np.uint64(11)
    return raw.astype(np.float64) * 2.0**-53
