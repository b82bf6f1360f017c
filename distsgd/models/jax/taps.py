"""Taps: a value passes unchanged, and its gradient leaves each row's squared norm behind.

A tap has an argument of zeros ``[R]``, which the result does not depend on; what is handed back as
the gradient by it are the squared norms of the rows' gradients by the parameter that was used.

Shape letters: N samples, R rows of a program, T places of a row (in time or in an image), I inputs,
O outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp

from distsgd.models.jax.functions import squared_norm
from distsgd.models.jax.uses import Tap, Use, bound, walk

Rule = Callable[[Any, Any], Any]
"""From what a parameter met, and the gradient by the result, to squared norms ``[R]``."""


def tapped_outputs(
    function: Callable[..., Any],
    taps: Mapping[int, Tap],
    leaves: Sequence[Any],
    zeros_R: Any,
    x: Any,
    key: Any,
) -> Any:
    """``function(leaves, x, key)``, with its uses of the numbers in `taps` tapped."""
    return walk(function, leaves, x, key, _Tapper(taps, zeros_R))


class _Tapper:
    def __init__(self, taps: Mapping[int, Tap], zeros_R: Any) -> None:
        self._taps, self._zeros_R, self._num_uses = taps, zeros_R, 0

    def use(self, equation: Any, values: Sequence[Any], use: Use) -> Any:
        tap = self._taps.get(self._num_uses)
        self._num_uses += 1
        if tap is None:
            return bound(equation, values)
        other_axis, axis = tap.row_axes
        if other_axis is None:
            return self._by_element(equation, values, use, axis)
        other = jax.lax.stop_gradient(values[1 - use.operand])
        result = bound(equation, values)
        return _tap(
            partial(_RULES[use.kind], equation.params, use, other_axis),
            result,
            other,
            self._zeros_R,
        )

    def unknown(self, parameter: int) -> None:
        """It has no tap."""

    def _by_element(self, equation: Any, values: Sequence[Any], use: Use, axis: int) -> Any:
        given, shape = list(values), use.shapes[-1]
        own = given[use.operand]
        own = own if own.ndim else own.reshape((1,) * len(shape))
        spread = jax.lax.broadcast_in_dim(own, shape, range(len(shape)))
        axes = [it for it in range(len(shape)) if own.shape[it] == 1 != shape[it] and it != axis]
        rule = partial(_spread, axis, axes)
        given[use.operand] = _tap(rule, spread, jnp.zeros(0, own.dtype), self._zeros_R)
        return bound(equation, given)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _tap(rule: Rule, result: Any, met: Any, zeros_R: Any) -> Any:
    del rule, met, zeros_R
    return result


def _tap_forward(rule: Rule, result: Any, met: Any, zeros_R: Any) -> tuple[Any, Any]:
    del rule, zeros_R
    return result, met


def _tap_backward(rule: Rule, met: Any, gradient: Any) -> tuple[Any, None, Any]:
    return gradient, None, rule(met, gradient)


_tap.defvjp(_tap_forward, _tap_backward)


def _spread(axis: int, axes: Sequence[int], met: Any, gradient: Any) -> Any:
    """Of a bias or a gain, which is the same for all rows and along `axes`."""
    del met
    of_rows = jnp.moveaxis(gradient.sum(axes, keepdims=True), axis, 0)
    return (of_rows.reshape(len(of_rows), -1) ** 2).sum(1)


def _dense(given: Mapping[str, Any], use: Use, row_axis: int, met: Any, gradient: Any) -> Any:
    """Of a weight that multiplies `met`."""
    contracted = given["dimension_numbers"][0][1 - use.operand]
    free = [axis for axis in range(met.ndim) if axis not in contracted]
    others = [axis for axis in free if axis != row_axis]
    num_rows, places = met.shape[row_axis], math.prod(met.shape[axis] for axis in others)
    met = met.transpose(row_axis, *others, *contracted).reshape(num_rows, places, -1)
    if use.operand == 0:  # The axes of the weight come first.
        gradient = jnp.moveaxis(gradient, range(-len(free), 0), range(len(free)))
    gradient = jnp.moveaxis(gradient, free.index(row_axis), 0)
    return products(met, gradient.reshape(num_rows, places, -1))


def _convolution(given: Mapping[str, Any], use: Use, row_axis: int, met: Any, gradient: Any) -> Any:
    """Of a kernel that is laid over `met`: each place of the result is a product with a patch."""
    del row_axis  # It is the one of the dimension numbers.
    of_met, of_kernel, of_result = given["dimension_numbers"]
    sizes = [use.shapes[1][axis] for axis in of_kernel[2:]]
    patches = _patches(met.transpose(_features_last(of_met)), sizes, given)
    gradient = gradient.transpose(_features_last(of_result))
    num_rows, num_outputs = len(gradient), gradient.shape[-1]
    gradient = gradient.reshape(num_rows, -1, num_outputs)
    return products(patches.reshape(*gradient.shape[:2], -1), gradient)


def _features_last(axes: Sequence[int]) -> Sequence[int]:
    return (axes[0], *axes[2:], axes[1])


def _patches(met: Any, sizes: Sequence[int], given: Mapping[str, Any]) -> Any:
    """What each place of the result sees, on the last axis; of ``[R, ..., channels]``."""
    dilation = given["lhs_dilation"]
    widths = [(*pad, by - 1) for pad, by in zip(given["padding"], dilation, strict=True)]
    met = jax.lax.pad(met, jnp.zeros((), met.dtype), [(0, 0, 0), *widths, (0, 0, 0)])
    num_rows, *whole, channels = met.shape
    steps, strides = given["rhs_dilation"], given["window_strides"]
    reach = [(size - 1) * step for size, step in zip(sizes, steps, strict=True)]
    seen = []
    for offsets in product(*map(range, sizes)):
        starts = [offset * step for offset, step in zip(offsets, steps, strict=True)]
        stops = [it + all_ - far for it, all_, far in zip(starts, whole, reach, strict=True)]
        limits = (num_rows, *stops, channels)
        seen.append(jax.lax.slice(met, (0, *starts, 0), limits, (1, *strides, 1)))
    return jnp.concatenate(seen, -1)


def _rows_of_a_table(
    given: Mapping[str, Any], use: Use, row_axis: int, met: Any, gradient: Any
) -> Any:
    """Of an embedding, whose rows of the numbers `met` were looked up: those met twice add up."""
    del given, use
    numbers_RT = jnp.moveaxis(met[..., 0], row_axis, 0).reshape(met.shape[row_axis], -1)
    gradient = jnp.moveaxis(gradient, row_axis, 0).reshape(*numbers_RT.shape, -1)
    is_same_RTT = numbers_RT[:, :, None] == numbers_RT[:, None, :]
    pairs_RTT = jnp.einsum("rto,rso->rts", gradient, gradient)
    return jnp.where(is_same_RTT, pairs_RTT, 0).sum((1, 2))


def products(met_RTI: Any, gradient_RTO: Any) -> Any:
    """Squared norms ``[R]`` of ``sum over t of met[t] x gradient[t]``.

    With one place each, a product of norms (Goodfellow, "Efficient Per-Example Gradient
    Computations", 2015, arXiv:1510.01799); else from the products of all pairs of places, or from
    the gradient itself, whichever takes fewer multiplications.
    """
    (_, places, inputs), outputs = met_RTI.shape, gradient_RTO.shape[-1]
    if places == 1:
        return (met_RTI[:, 0] ** 2).sum(1) * (gradient_RTO[:, 0] ** 2).sum(1)
    if places * (inputs + outputs) < inputs * outputs:
        pairs = jnp.einsum("rti,rsi->rts", met_RTI, met_RTI)
        return (pairs * jnp.einsum("rto,rso->rts", gradient_RTO, gradient_RTO)).sum((1, 2))
    return jax.lax.map(lambda row: squared_norm(row[0].T @ row[1]), (met_RTI, gradient_RTO))


_RULES = {
    "dot_general": _dense,
    "conv_general_dilated": _convolution,
    "gather": _rows_of_a_table,
}
