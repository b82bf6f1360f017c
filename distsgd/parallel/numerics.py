"""The numerics profile: what decides about the bits besides configuration, data and seed.

numpy's version, the BLAS, the kernel it chose for this processor, and one thread. It is fixed once
a run: every process of the run gets the same environment, and proves by a probe, not by names, that
it computes the same bits.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
from blake3 import blake3
from threadpoolctl import ThreadpoolController

from distsgd.base.random_keys import Purpose, uniform
from distsgd.nn.layers import Dense
from distsgd.nn.model import Model


@dataclass(frozen=True, slots=True)
class Profile:
    """What a run's record says of the arithmetic."""

    numpy: str
    blas: str
    kernel: str
    machine: str
    probe: str

    def to_dict(self) -> dict[str, str]:
        """As plain JSON values."""
        return asdict(self)


def profile(dtype: str) -> Profile:
    """The profile of this process."""
    blas = _blas()
    return Profile(
        numpy=np.__version__,
        blas=f"{blas.get('internal_api', 'unknown')} {blas.get('version', '')}".strip(),
        kernel=str(blas.get("architecture", "unknown")),
        machine=f"{platform.system()} {platform.machine()}",
        probe=probe(dtype),
    )


def environment() -> dict[str, str]:
    """Environment variables that make another process of the run compute like this one."""
    variables = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    kernel = _blas().get("architecture")
    if kernel:
        variables["OPENBLAS_CORETYPE"] = str(kernel)
    return variables


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Have the BLAS of this process use one thread.

    Their number may change bits, and workers share the cores.
    """
    with ThreadpoolController().limit(limits=1):
        yield


@cache
def probe(dtype: str) -> str:
    """A seeded block, forward and backward, hashed.

    Two processes with equal probes compute equal bits.
    """
    digest = blake3()
    with one_blas_thread():
        _probe_into(digest, dtype)
    return str(digest.hexdigest()[:32])


def _probe_into(digest: blake3, dtype: str) -> None:
    for activation in ("relu", "sigmoid", "tanh"):
        model = Model(
            [Dense(48, activation=activation), Dense(10)], "softmax_cross_entropy", (200,)
        )
        weights = model.initialise("glorot", 0, np.dtype(dtype))
        program = model.program(96, np.dtype(dtype), per_sample=True)
        for rows in (1, 31, 96):
            x = uniform(0, Purpose.PROBE, rows, count=rows * 200).reshape(rows, 200).astype(dtype)
            gradients = np.zeros_like(weights)
            bound = program.bind(
                x, np.arange(rows) % 10, weights=weights, gradients=gradients, x_squared_norms=None
            )
            bound.forward()
            bound.backward()
            for array in (gradients, bound.losses_N, bound.squared_norms_N):
                digest.update(np.ascontiguousarray(array).tobytes())


def _blas() -> dict[str, Any]:
    """What threadpoolctl says of numpy's BLAS; empty when it does not know it."""
    found = [info for info in ThreadpoolController().info() if info["user_api"] == "blas"]
    return dict(found[0]) if found else {}


def num_cores() -> int:
    """The cores that this process may run on; all of the machine where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
