"""Variables, and `apply`, the one way by which gates take them in.

Place in the loop: what tutorials, layers and losses compute with. What is computed is taken down
by the open tapes (`distsgd.autodiff.tape`). No I/O here.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from distsgd.autodiff.gate import Gate, OpContext, Shape, as_dtype, as_numbers
from distsgd.autodiff.operators import (
    FUNCTIONS,
    GATES,
    QUESTIONS,
    Operators,
    as_plain,
    refusal,
    with_gates,
)
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


class Variable(Operators):
    """An array that gates can be applied to; its operators work as those of numpy arrays.

    Plain numbers and lists next to it are constants; a ``np.exp(x)`` is the gate of that name, and
    comparisons give plain arrays. ``x[...]`` takes whatever numpy takes, and
    ``a, b = x`` goes along the first axis. A value is never changed by an operator; change it in
    place by ``x.value[...] = numbers``, outside of what a tape has recorded, or set `value`.

    Args:
        value: Numbers; integers become float64, float32 stays float32. `ModelError` for anything
            else.
        watched: Whether tapes record what is computed with it without being asked to
            (`GradientTape.watch`); what was computed with watched Variables is watched too, so that
            after ``w = w - step`` the next tape continues with the new one.
        dtype: The dtype to convert to.

    >>> from distsgd.autodiff import GradientTape
    >>> x = Variable(3.0)
    >>> with GradientTape() as tape:
    ...     y = x * x
    >>> float(tape.gradient(y, x))
    6.0
    """

    __slots__ = ("_is_fixed", "_value", "watched")

    def __init__(
        self, value: ArrayLike, *, watched: bool = True, dtype: DTypeLike | None = None
    ) -> None:
        _refuse_variables_within(value)
        if isinstance(value, UnrecordedGradient) and open_tapes.get():
            raise _unrecorded()
        array, kept = as_numbers(_plain(value)), as_dtype(dtype)
        if kept is None and array.dtype.kind != "f":
            kept = np.dtype(np.float64)
        self._value: Array = array if kept is None else array.astype(kept, copy=False)
        self._is_fixed = False
        self.watched = watched

    @property
    def can_be_watched(self) -> bool:
        """Whether tapes record it by themselves: it is watched, and of floats."""
        return self.watched and self.dtype.kind == "f"

    def _through(self, gate: Gate, *operands: Any) -> Variable:
        return apply(gate, *operands)

    @property
    def value(self) -> Array:
        """The numbers; can be set to anything real, also of another shape.

        Floats keep their dtype, other numbers get the one that the variable had. What a tape
        recorded before still has the old numbers. What a tape computed is read-only, and
        `ModelError` where it is set.
        """
        return self._value

    @value.setter
    def value(self, numbers: ArrayLike) -> None:
        if self._is_fixed:
            raise ModelError(
                "the value of a Variable was set that a tape computed, which no gradient would go "
                "through; multiply or add Variables instead, or make a new Variable"
            )
        array = as_numbers(_plain(numbers))
        if array.dtype.kind != "f" or self.dtype.kind != "f":
            array = array.astype(self.dtype, copy=False)
        self._value = array

    def fix(self) -> None:
        """Keeps the value as it is from now on: not in place, nor by another one."""
        if self._is_fixed:
            return
        self._value = self._value.view()
        self._value.flags.writeable = False
        self._is_fixed = True

    @property
    def shape(self) -> Shape:
        """Shape of the value."""
        return self._value.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the value."""
        return self._value.dtype

    @property
    def ndim(self) -> int:
        """How many axes the value has."""
        return self._value.ndim

    @property
    def size(self) -> int:
        """How many numbers the value has."""
        return self._value.size

    def item(self) -> float:
        """The only number, as a plain one; `ModelError` where there are others."""
        number: float = self._only_number("a number").item()
        return number

    def __float__(self) -> float:
        return float(self._only_number("a number"))

    def __int__(self) -> int:
        return int(self._only_number("a number"))

    def __round__(self, digits: int | None = None) -> float:
        return round(float(self), digits)

    def __bool__(self) -> bool:
        return bool(self._only_number("true or false"))

    def __format__(self, spec: str) -> str:
        return format(float(self), spec) if spec else str(self)

    def _only_number(self, as_what: str) -> Array:
        if self.size != 1:
            raise ModelError(
                f"a Variable of shape {self.shape} cannot be taken as {as_what}; must hold one "
                "number (sum it, or take one: x[0])"
            )
        return self._value.reshape(())

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
                return ufunc(*as_plain(inputs))
        raise refusal(ufunc)

    def __array_function__(self, function: Any, types: Any, inputs: Any, settings: Any) -> Any:
        del types
        if function in FUNCTIONS:
            return with_gates(function, inputs, settings)
        if open_tapes.get() and function not in QUESTIONS:
            raise refusal(function)
        settings = {name: as_plain(setting) for name, setting in settings.items()}
        return function(*as_plain(inputs), **settings)


Operand = Variable | ArrayLike


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


def _plain(given: Any) -> Any:
    return given.value if isinstance(given, Variable) else given


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
