"""What a program differentiates: outputs of a block, and one loss a row.

Shape letters: N samples, R rows of a program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Functions(NamedTuple):
    """From leaves, samples and a key to outputs; from outputs and target to losses ``[R]``."""

    outputs: Callable[[Any, Any, Any], Any]
    losses: Callable[[Any, Any], Any]


class Block(NamedTuple):
    """Samples ``[R, ...]`` and targets, of which `num_rows` count, and the key of the block."""

    x: Any
    target: Any
    num_rows: Any
    key: Any

    def counted(self, values_R: Any) -> Any:
        """``[R]``, with 0 for rows that do not count."""
        return jnp.where(jnp.arange(len(self.x)) < self.num_rows, values_R, 0)


class Gradients(NamedTuple):
    """Losses ``[R]``, outputs, and the gradients of the sum of the losses."""

    losses: Any
    outputs: Any
    gradients: Any


def gradients_of(functions: Functions, at: Any, block: Block) -> Gradients:
    """Gradients by `at`, what the outputs are made from."""

    def total(at: Any) -> tuple[Any, tuple[Any, Any]]:
        outputs = functions.outputs(at, block.x, block.key)
        losses = block.counted(functions.losses(outputs, block.target))
        return losses.sum(), (losses, outputs)

    gradients, (losses, outputs) = jax.grad(total, has_aux=True)(at)
    return Gradients(losses, outputs, gradients)


def squared_norm(arrays: Any) -> Any:
    """Of all numbers of a tree of arrays."""
    return sum((it * it).sum() for it in jax.tree_util.tree_leaves(arrays))
