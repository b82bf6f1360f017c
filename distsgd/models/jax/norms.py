"""Squared norms of each sample's own gradient, in the backward pass of their sum.

A parameter that is used once, where a rule of `taps` knows how, adds its norms as the sum goes
back; all others are differentiated for one row at a time.

Shape letters: N samples, R rows of a program.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from distsgd.models.jax.functions import Block, Functions, Gradients, gradients_of, squared_norm
from distsgd.models.jax.taps import tapped_outputs
from distsgd.models.jax.uses import taps_of

_AT_ONCE = 8  # Rows whose gradients are held at the same time, where no rule is known.


def with_squared_norms(
    functions: Functions, leaves: Sequence[Any], block: Block
) -> tuple[Gradients, Any]:
    """Gradients of the sum over the rows, and the squared norm ``[R]`` of each row's own."""
    taps = taps_of(functions.outputs, leaves, block.x, block.key)

    def outputs(at: tuple[Sequence[Any], Any], x: Any, key: Any) -> Any:
        return tapped_outputs(functions.outputs, taps, *at, x, key)

    at = (list(leaves), jnp.zeros(len(block.x), leaves[0].dtype))
    found = gradients_of(functions._replace(outputs=outputs), at, block)
    gradients, norms_R = found.gradients
    tapped = {tap.parameter for tap in taps.values()}
    others = [number for number in range(len(leaves)) if number not in tapped]
    if others and len(block.x) == 1:  # The sum is the row's own gradient.
        norms_R += squared_norm([gradients[number] for number in others])
    elif others:
        norms_R += block.counted(_row_by_row(functions, leaves, others, block))
    return found._replace(gradients=gradients), norms_R


def _row_by_row(
    functions: Functions, leaves: Sequence[Any], others: Sequence[int], block: Block
) -> Any:
    """Squared norms ``[R]`` over the parameters of the numbers `others` alone."""

    def losses_of(own: Sequence[Any], x: Any, target: Any) -> Any:
        of_all = list(leaves)
        for number, leaf in zip(others, own, strict=True):
            of_all[number] = leaf
        return functions.losses(functions.outputs(of_all, x, block.key), target)

    own = [leaves[number] for number in others]
    if block.key is not None:  # What chance leaves of a row depends on its place in the block.
        _, pulled_back = jax.vjp(lambda own: losses_of(own, block.x, block.target), own)
        rows_RR = jnp.eye(len(block.x), dtype=own[0].dtype)
        return jax.lax.map(
            lambda row_R: squared_norm(pulled_back(row_R)), rows_RR, batch_size=_AT_ONCE
        )

    def norm(row: tuple[Any, Any]) -> Any:
        x, target = (it[None] for it in row)
        return squared_norm(jax.grad(lambda own: losses_of(own, x, target)[0])(own))

    return jax.lax.map(norm, (block.x, block.target), batch_size=_AT_ONCE)
