"""Where parameters are used in a traced function, and which uses have a rule for norms.

A function is traced to a jaxpr, whose equations are walked through one by one; calls of jitted
functions are entered. A parameter is followed through what only moves its numbers. Which axis of a
value counts the rows is found by tracing for twice as many of them.

Shape letters: N samples, R rows of a program.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
from jax.extend.core import Literal

Shape = tuple[int, ...]

_CALLS = ("jit", "pjit", "closed_call")
_MOVES = ("copy", "expand_dims", "reshape", "rev", "squeeze", "transpose")
_BY_ELEMENT = ("add", "sub", "mul", "div", "max", "min")


class Use(NamedTuple):
    """One use of a parameter.

    Attributes:
        parameter: Its number.
        kind: The primitive that uses it.
        operand: Which operand it is.
        shapes: Of all operands, and of the result.
    """

    parameter: int
    kind: str
    operand: int
    shapes: tuple[Shape, ...]


class Tap(NamedTuple):
    """A use whose norms are known.

    Attributes:
        parameter: Its number.
        row_axes: The axis that counts the rows, of the other operand (None for none) and of the
            result.
    """

    parameter: int
    row_axes: tuple[int | None, int]


class Visitor(Protocol):
    """What is asked at each use."""

    def use(self, equation: Any, values: Sequence[Any], use: Use) -> Any:
        """The result of the equation."""

    def unknown(self, parameter: int) -> None:
        """It is used in a way that is not looked at."""


def walk(
    function: Callable[..., Any], leaves: Sequence[Any], x: Any, key: Any, visitor: Visitor
) -> Any:
    """The result of ``function(leaves, x, key)``, one array, with `visitor` asked at each use."""
    traced = jax.make_jaxpr(function)(leaves, x, key)
    values = jax.tree_util.tree_leaves((leaves, x, key))
    marks: list[int | None] = [*range(len(leaves)), *[None] * (len(values) - len(leaves))]
    (result,), (mark,) = _walk(traced.jaxpr, traced.consts, values, marks, visitor)
    if mark is not None:
        visitor.unknown(mark)
    return result


def taps_of(
    function: Callable[..., Any], leaves: Sequence[Any], x: Any, key: Any
) -> Mapping[int, Tap]:
    """The uses with a rule, by their number in the walk: of parameters that are used once."""
    uses, unknown = _recorded(function, leaves, x, key)
    twice = jax.ShapeDtypeStruct((2 * len(x), *x.shape[1:]), x.dtype)
    try:
        uses_of_twice, _ = _recorded(function, leaves, twice, key)
    except Exception:  # noqa: BLE001 - It takes no other number of rows; all is done row by row.
        return {}
    if [use[:3] for use in uses] != [use[:3] for use in uses_of_twice]:
        return {}
    counts = [use.parameter for use in uses]
    taps = {}
    for number, (use, of_twice) in enumerate(zip(uses, uses_of_twice, strict=True)):
        axes = _row_axes(use, of_twice, len(x))
        if axes and counts.count(use.parameter) == 1 and use.parameter not in unknown:
            taps[number] = Tap(use.parameter, axes)
    return taps


class _Recorder:
    """Notes the uses."""

    def __init__(self) -> None:
        self.uses: list[Use] = []
        self.unknown_parameters: set[int] = set()

    def use(self, equation: Any, values: Sequence[Any], use: Use) -> Any:
        self.uses.append(use)
        return bound(equation, values)

    def unknown(self, parameter: int) -> None:
        self.unknown_parameters.add(parameter)


def _recorded(
    function: Callable[..., Any], leaves: Sequence[Any], x: Any, key: Any
) -> tuple[list[Use], set[int]]:
    recorder = _Recorder()

    def walked(leaves: Sequence[Any], x: Any, key: Any) -> Any:
        return walk(function, leaves, x, key, recorder)

    jax.eval_shape(walked, list(leaves), x, key)
    return recorder.uses, recorder.unknown_parameters


def _row_axes(use: Use, of_twice: Use, num_rows: int) -> tuple[int | None, int] | None:
    """Of the other operand and of the result; None where rows are not on one axis of both."""
    axes: list[list[int]] = []
    for shape, twice in zip(use.shapes, of_twice.shapes, strict=True):
        if len(shape) != len(twice):
            return None
        found = [axis for axis in range(len(shape)) if shape[axis] != twice[axis]]
        if any((shape[axis], twice[axis]) != (num_rows, 2 * num_rows) for axis in found):
            return None
        axes.append(found)
    own, result = axes.pop(use.operand), axes.pop()
    (other,) = axes
    if own or len(result) != 1 or len(other) > 1:
        return None
    if use.kind in _BY_ELEMENT:
        return None, result[0]
    return (other[0], result[0]) if other else None


def bound(equation: Any, values: Sequence[Any]) -> Any:
    """What the equation computes from `values`."""
    primitive = equation.primitive
    return primitive.bind(*values, **primitive.get_bind_params(equation.params))


def _walk(
    jaxpr: Any, consts: Sequence[Any], values: Sequence[Any], marks: Sequence[Any], visitor: Visitor
) -> tuple[list[Any], list[int | None]]:
    known: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    known |= dict(zip(jaxpr.invars, values, strict=True))
    marked = {it: mark for it, mark in zip(jaxpr.invars, marks, strict=True) if mark is not None}

    def value_of(it: Any) -> Any:
        return it.val if isinstance(it, Literal) else known[it]

    def mark_of(it: Any) -> int | None:
        return None if isinstance(it, Literal) else marked.get(it)

    for equation in jaxpr.eqns:
        given = [value_of(it) for it in equation.invars]
        results, result_marks = _step(equation, given, list(map(mark_of, equation.invars)), visitor)
        for it, result, mark in zip(equation.outvars, results, result_marks, strict=True):
            known[it] = result
            if mark is not None:
                marked[it] = mark
    return list(map(value_of, jaxpr.outvars)), list(map(mark_of, jaxpr.outvars))


def _step(
    equation: Any, values: Sequence[Any], marks: Sequence[int | None], visitor: Visitor
) -> tuple[list[Any], list[int | None]]:
    """Results of one equation, and which of them are a parameter's numbers."""
    kind = equation.primitive.name
    none: list[int | None] = [None] * len(equation.outvars)
    parameters = [mark for mark in marks if mark is not None]
    if parameters and kind in _CALLS:
        inner = equation.params["jaxpr"]
        return _walk(inner.jaxpr, inner.consts, values, marks, visitor)
    if len(parameters) == 1:
        if _only_moves(equation):
            return [bound(equation, values)], [parameters[0]]
        if _has_rule(equation, operand := marks.index(parameters[0])):
            shapes = tuple(it.aval.shape for it in (*equation.invars, *equation.outvars))
            use = Use(parameters[0], kind, operand, shapes)
            return [visitor.use(equation, values, use)], none
    for parameter in parameters:
        visitor.unknown(parameter)
    results = bound(equation, values)
    return (list(results) if equation.primitive.multiple_results else [results]), none


def _only_moves(equation: Any) -> bool:
    """Does every number of the operand appear once in the result, as it is?"""
    kind, operand, result = (
        equation.primitive.name,
        equation.invars[0].aval,
        equation.outvars[0].aval,
    )
    is_move = kind in _MOVES or (
        kind in ("broadcast_in_dim", "convert_element_type") and len(equation.invars) == 1
    )
    return bool(is_move and operand.size == result.size and operand.dtype == result.dtype)


def _has_rule(equation: Any, operand: int) -> bool:
    kind, given = equation.primitive.name, equation.params
    if kind == "dot_general":
        return not any(given["dimension_numbers"][1])
    if kind == "conv_general_dilated":
        return operand == 1 and given["feature_group_count"] == given["batch_group_count"] == 1
    if kind == "gather":
        return operand == 0 and _takes_whole_rows(equation)
    return kind in _BY_ELEMENT


def _takes_whole_rows(equation: Any) -> bool:
    """Does a gather look up rows of a matrix, as an embedding does?"""
    given, table = equation.params["dimension_numbers"], equation.invars[0].aval
    return bool(
        table.ndim == 2
        and equation.params["slice_sizes"] == (1, table.shape[1])
        and given.collapsed_slice_dims == given.start_index_map == (0,)
        and given.offset_dims == (equation.outvars[0].aval.ndim - 1,)
        and not given.operand_batching_dims
    )
