"""JAX as a run computes: on one thread of one processor, by settings that decide about bits.

XLA's pool of threads belongs to its client, and its size changes bits; ``XLA_FLAGS`` does not hold
it to one thread. So that neither depends on what the process does besides, a run has a client of
its own. The process's backends are not started, its settings and its default device not changed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxlib import xla_client
from numpy.typing import DTypeLike

Shaped: TypeAlias = jax.ShapeDtypeStruct
IMPLEMENTATION = "threefry2x32"  # Of JAX's keys.
_POOL_SIZE = "PJRT_NPROC"  # Read when a client is made, and then only.


@cache
def device() -> Any:
    """The processor as a device with one thread, which runs a program in the calling one."""
    before = os.environ.get(_POOL_SIZE)
    os.environ[_POOL_SIZE] = "1"
    try:
        client = xla_client.make_cpu_client(asynchronous=False)
    finally:
        if before is None:
            del os.environ[_POOL_SIZE]
        else:
            os.environ[_POOL_SIZE] = before
    return client.local_devices()[0]


@contextmanager
def as_runs_compute(dtype: DTypeLike) -> Iterator[None]:
    """JAX's settings inside the block, in this thread; those of the user are kept.

    Args:
        dtype: Of the run; float64 has 64-bit numbers.
    """
    with ExitStack() as stack:
        for setting in (
            jax.enable_x64(np.dtype(dtype) == np.float64),
            jax.default_device(device()),
            jax.default_prng_impl(IMPLEMENTATION),
            jax.threefry_partitionable(True),
            jax.default_matmul_precision(None),
            jax.numpy_dtype_promotion("standard"),
            jax.numpy_rank_promotion("allow"),
            jax.disable_jit(False),
            jax.debug_nans(False),
            jax.debug_infs(False),
        ):
            stack.enter_context(setting)
        yield


class Compiled:
    """A function compiled for one set of shapes; takes arrays of numpy, read anew at each call.

    Memory that starts at a multiple of 64 bytes is read in place, other is copied; since a call
    ends when its results are whole, an array may be overwritten between calls.

    Args:
        function: Of arrays, to a tree of arrays.
        dtype: Of the run.
        shapes: Of the arguments.
    """

    def __init__(
        self, function: Callable[..., Any], dtype: DTypeLike, *shapes: Shaped | None
    ) -> None:
        self._has_64_bits = np.dtype(dtype) == np.float64
        place = jax.sharding.SingleDeviceSharding(device())
        with as_runs_compute(dtype):
            jitted = jax.jit(function, in_shardings=place, out_shardings=place)
            self._program = jitted.lower(*shapes).compile()

    def __call__(self, *arguments: Any) -> Any:
        """What the function gives, finished."""
        if self._has_64_bits:
            with jax.enable_x64(True):
                return jax.block_until_ready(self._program(*arguments))
        with jax.enable_x64(False):
            return jax.block_until_ready(self._program(*arguments))


def key_of(number: int) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """The data of a JAX key, ``[2]``, from an integer of at most 64 bits."""
    return np.array([number >> 32, number & 0xFFFFFFFF], np.uint32)


def wrapped(key: Any) -> Any:
    """The key with these data; None for None."""
    return None if key is None else jax.random.wrap_key_data(key, impl=IMPLEMENTATION)
