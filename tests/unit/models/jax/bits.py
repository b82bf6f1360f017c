"""Writes the digest of some blocks, from a process of its own: `name` of a factory, then a dtype.

With a third argument JAX is used before, on all cores, with settings of its user's.
"""

from __future__ import annotations

import sys

import numpy as np
from blake3 import blake3

from distsgd.models import model_of
from tests.unit.models.jax.factories import INPUTS, OUTPUTS, numbers, recipe


def digest(name: str, dtype: str) -> str:
    model, found = model_of(recipe(name)), blake3()
    weights = model.initialise("", 5, dtype)
    gradients = np.empty_like(weights)
    program = model.program(300, dtype, per_sample=True)
    for rows in (9, 300):
        keys = np.array([rows << 40 | 3], np.uint64) if model.chance == "block" else None
        bound = program.bind(
            numbers(rows, INPUTS, dtype=dtype),
            np.arange(rows) % OUTPUTS,
            weights=weights,
            gradients=gradients,
            keys=keys,
        )
        bound.forward()
        bound.backward()
        for array in (gradients, bound.losses_N, bound.outputs_NO, bound.squared_norms_N):
            found.update(np.ascontiguousarray(array).tobytes())
    return f"{found.hexdigest()} {model.arithmetic(dtype)['probe']}"


def use_jax_before() -> None:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call, unused-ignore]
    jax.config.update("jax_threefry_partitionable", False)  # type: ignore[no-untyped-call, unused-ignore]
    (jnp.ones((300, 300)) @ jnp.ones((300, 300))).block_until_ready()


if __name__ == "__main__":
    if len(sys.argv) > 3:
        use_jax_before()
    sys.stdout.write(digest(sys.argv[1], sys.argv[2]))
