"""Variables, and `apply`, the one way by which gates take them in.

Place in the loop: what tutorials, layers and losses compute with. What is computed is taken down
by the open tapes (`distsgd.autodiff.tape`). No I/O here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from numbers import Real
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from distsgd.autodiff.gate import Gate, OpContext, Shape
from distsgd.autodiff.held import Held
from distsgd.autodiff.ops import arithmetic, elementwise, shapes
from distsgd.autodiff.ops.linear import MatMul
from distsgd.autodiff.ops.subscript import Subscript
from distsgd.autodiff.ufuncs import FUNCTIONS, GATES, QUESTIONS, refusal, with_gates
from distsgd.base.arrays import Array
from distsgd.errors import ModelError


class Recorder(Protocol):
    """A tape, as `apply` sees it."""

    check_values: bool

    def record(
        self, gate: Gate, inputs: tuple[Variable, ...], output: Variable, context: OpContext
    ) -> bool:
        """Takes down one gate, if it depends on anything watched; says whether it did."""

    def tracks(self, variable: Variable) -> bool:
        """Whether `variable` is on this tape, and watched or dependent on what is."""

    def sees(self, variable: Variable) -> bool:
        """Whether a gate of `variable` would be recorded."""


open_tapes: ContextVar[tuple[Recorder, ...]] = ContextVar("open_tapes", default=())


class UnrecordedGradient(np.ndarray[Any, np.dtype[Any]]):
    """A gradient that was computed under an open tape, which did not see how.

    What numpy computes with it is of its kind too.
    """


class Variable(Held):
    """An array that gates can be applied to; its operators work as those of numpy arrays.

    Plain numbers and lists beside it are constants; a ``np.exp(x)`` is the gate of that name, and
    comparisons give plain arrays. ``x[...]`` takes whatever numpy takes, and
    ``a, b = x`` goes along the first axis. A value is never changed by an operator; change it in
    place by ``x.value[...] = numbers``, outside of what a tape has recorded, or set `value`.

    Args:
        value: Numbers; integers become float64, float32 stays float32. `ModelError` for anything
            else.
        watched: Whether tapes record what is computed with it without being asked to
            (`GradientTape.watch`); what was computed with watched Variables is watched too, so that
            after ``w = w - step`` the next tape goes on with the new one.
        dtype: The dtype to convert to.

    >>> from distsgd.autodiff import GradientTape
    >>> x = Variable(3.0)
    >>> with GradientTape() as tape:
    ...     y = x * x
    >>> float(tape.gradient(y, x))
    6.0
    """

    __slots__ = ("watched",)

    def __init__(
        self, value: ArrayLike, *, watched: bool = True, dtype: DTypeLike | None = None
    ) -> None:
        _refuse_variables_within(value)
        if isinstance(value, UnrecordedGradient) and open_tapes.get():
            raise _unrecorded()
        super().__init__(value, dtype)
        self.watched = watched

    @property
    def T(self) -> Variable:  # noqa: N802 -- numpy's name.
        """The transpose: all axes in the opposite order."""
        return self.transpose()

    def __repr__(self) -> str:
        return f"Variable({self.value!r})"

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:  # noqa: FBT001 -- numpy's protocol.
        if any(tape.sees(self) for tape in open_tapes.get()):
            raise ModelError(
                "a Variable was made a plain array while a tape records (as by np.mean of a list "
                "of Variables), which no gradient would go through; put Variables together by "
                "stack, or write x.value where no gradient is wanted"
            )
        return np.array(self.value, dtype, copy=copy)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **settings: Any) -> Any:
        # Also array + variable comes here.
        if method == "__call__" and not settings:
            if ufunc in GATES:
                return apply(GATES[ufunc], *inputs)
            if ufunc is np.power:
                base, exponent = inputs
                return as_variable(base) ** exponent
            if ufunc in QUESTIONS:
                return ufunc(*_as_plain(inputs))
        raise refusal(ufunc)

    def __array_function__(self, function: Any, types: Any, inputs: Any, settings: Any) -> Any:
        del types
        if function in FUNCTIONS:
            return with_gates(function, inputs, settings)
        if open_tapes.get() and function not in QUESTIONS:
            raise refusal(function)
        settings = {name: _as_plain(setting) for name, setting in settings.items()}
        return function(*_as_plain(inputs), **settings)

    def __iter__(self) -> Iterator[Variable]:
        return (self[place] for place in range(len(self)))

    def __getitem__(self, key: Any) -> Variable:
        return apply(Subscript.of(key), self)

    def __setitem__(self, key: Any, numbers: Any) -> None:
        raise ModelError(
            "a Variable cannot be changed by x[...] = numbers, which no gradient would go through; "
            "write x.value[...] = numbers between the tapes, or make a new Variable"
        )

    def __add__(self, other: Operand) -> Variable:
        return apply(arithmetic.Add(), self, other)

    def __radd__(self, other: Operand) -> Variable:
        return apply(arithmetic.Add(), other, self)

    def __sub__(self, other: Operand) -> Variable:
        return apply(arithmetic.Subtract(), self, other)

    def __rsub__(self, other: Operand) -> Variable:
        return apply(arithmetic.Subtract(), other, self)

    def __mul__(self, other: Operand) -> Variable:
        return apply(arithmetic.Multiply(), self, other)

    def __rmul__(self, other: Operand) -> Variable:
        return apply(arithmetic.Multiply(), other, self)

    def __truediv__(self, other: Operand) -> Variable:
        return apply(arithmetic.Divide(), self, other)

    def __rtruediv__(self, other: Operand) -> Variable:
        return apply(arithmetic.Divide(), other, self)

    def __matmul__(self, other: Operand) -> Variable:
        return apply(MatMul(), self, other)

    def __rmatmul__(self, other: Operand) -> Variable:
        return apply(MatMul(), other, self)

    def __neg__(self) -> Variable:
        return apply(elementwise.Negative(), self)

    def __abs__(self) -> Variable:
        return apply(elementwise.Absolute(), self)

    def __pow__(self, exponent: Operand) -> Variable:
        if isinstance(exponent, Real):
            return apply(elementwise.Power(float(exponent)), self)
        return apply(arithmetic.Raise(), self, exponent)

    def __rpow__(self, base: Operand) -> Variable:
        return apply(arithmetic.Raise(), base, self)

    def sum(self, axis: Axis = None, *, keepdims: bool = False) -> Variable:
        """The sum along `axis`, or of everything; with `keepdims` the axis stays, of length 1."""
        return apply(shapes.Sum(shapes.as_axes(axis), keepdims), self)

    def mean(self, axis: Axis = None, *, keepdims: bool = False) -> Variable:
        """The mean, as `sum`."""
        return apply(shapes.Mean(shapes.as_axes(axis), keepdims), self)

    def max(self, axis: Axis = None, *, keepdims: bool = False) -> Variable:
        """The largest, as `sum`; equal ones share the gradient."""
        return apply(shapes.Max(shapes.as_axes(axis), keepdims), self)

    def min(self, axis: Axis = None, *, keepdims: bool = False) -> Variable:
        """The smallest, as `sum`; equal ones share the gradient."""
        return apply(shapes.Min(shapes.as_axes(axis), keepdims), self)

    def reshape(self, *shape: int | Shape) -> Variable:
        """The same numbers in another shape, as ``(2, 3)`` or ``2, 3``; one size may be -1."""
        return apply(shapes.Reshape(shapes.as_sizes("shape", shape)), self)

    def transpose(self, *axes: int | Shape) -> Variable:
        """The axes in another order, as ``(1, 0)`` or ``1, 0``; the opposite one unless given."""
        return apply(shapes.Transpose(shapes.as_sizes("axes", axes) if axes else None), self)


Operand = Variable | ArrayLike
Axis = int | tuple[int, ...] | None


def apply(gate: Gate, *operands: Operand) -> Variable:
    """The output of `gate`, computed at once.

    It is recorded by every open tape that watches one of the operands. Raises `ModelError` where
    shapes do not fit, and for numbers outside the gate's domain.

    Args:
        gate: The operation.
        operands: Variables; anything else is a constant in the dtype of the variables.
    """
    if not isinstance(gate, Gate) or not operands:
        raise ModelError(
            f"apply got {gate!r} and {len(operands)} operands; must be a Gate (an object: "
            "Exp(), not Exp) and what it is applied to"
        )
    tapes = open_tapes.get()
    if tapes:
        _refuse_unrecorded(operands)
    variables = _as_variables(operands)
    arrays = tuple(variable.value for variable in variables)
    output = gate.output_view(arrays[0])
    is_view = output is not None
    if output is None:
        # Asked first: where shapes do not fit, values mean nothing.
        shape = gate.output_shape(*(a.shape for a in arrays))
        output = np.empty(shape, gate.output_dtype(*(a.dtype for a in arrays)))
    if all(tape.check_values for tape in tapes):
        gate.check_values(*arrays)
    context = OpContext(arrays, output, np.empty)
    if not is_view:
        for operation in gate.stage_forward(context):
            operation()
    is_watched = any(variable.watched for variable in variables)
    result = Variable(output, watched=is_watched, dtype=output.dtype)
    for tape in tapes:
        if tape.record(gate, variables, result, context):
            result.fix()
    return result


def _refuse_unrecorded(operands: tuple[Operand, ...]) -> None:
    if any(isinstance(operand, UnrecordedGradient) for operand in operands):
        raise _unrecorded()


def _unrecorded() -> ModelError:
    return ModelError(
        "a gradient that was computed under an open tape was given, which that tape would "
        "take for a constant; gradients of gradients are not given (close that tape first, or "
        "write np.array(gradient) to have a constant)"
    )


def as_variable(operand: Operand) -> Variable:
    """`operand` itself if it is a variable, else a constant."""
    return operand if isinstance(operand, Variable) else Variable(operand, watched=False)


def _as_variables(operands: tuple[Operand, ...]) -> tuple[Variable, ...]:
    dtypes = [
        operand.dtype
        for operand in operands
        if isinstance(operand, Variable) and operand.dtype.kind == "f"
    ]
    dtype = np.result_type(*dtypes) if dtypes else None
    return tuple(
        operand
        if isinstance(operand, Variable)
        else Variable(operand, watched=False, dtype=None if _is_float_array(operand) else dtype)
        for operand in operands
    )


def _is_float_array(operand: Operand) -> bool:
    return isinstance(operand, np.ndarray) and operand.dtype.kind == "f"


def _as_plain(given: Any) -> Any:
    if isinstance(given, Variable):
        return given.value
    if isinstance(given, list | tuple):
        return type(given)(_as_plain(item) for item in given)
    return given


def _refuse_variables_within(value: Any) -> None:
    """A list of Variables made an array would be a constant, and its gradient lost in silence."""
    if isinstance(value, list | tuple):
        for item in value:
            if isinstance(item, Variable):
                raise ModelError(
                    "a list of Variables was given for an array, which no gradient would go "
                    "through; must be plain numbers or one Variable (put them together by stack)"
                )
            _refuse_variables_within(item)
