"""Variables and the tape that records what is computed with them, gate by gate.

    with GradientTape() as tape:
        loss = ((x @ w + b) ** 2).mean()
    dw, db = tape.gradient(loss, [w, b])

The behaviour follows TensorFlow's `tf.GradientTape`. A tape belongs to the thread that opened it.
No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from distsgd.autodiff import arithmetic, elementwise, shapes
from distsgd.autodiff.chain import Backward, Node
from distsgd.autodiff.gate import Array, Gate, Shape, Site
from distsgd.autodiff.linear import MatMul
from distsgd.errors import ModelError

_open_tapes: ContextVar[tuple[GradientTape, ...]] = ContextVar("_open_tapes", default=())


class Variable:
    """An array that gates can be applied to; its operators work as those of numpy arrays.

    Plain numbers and lists beside it are constants.

    Args:
        value: Numbers; integers become float64, float32 stays float32.
        watched: Whether tapes record what is computed with it without being asked to
            (`GradientTape.watch`).
        dtype: The dtype to convert to.

    >>> x = Variable(3.0)
    >>> with GradientTape() as tape:
    ...     y = x * x
    >>> float(tape.gradient(y, x))
    6.0
    """

    __slots__ = ("value", "watched")
    __array_ufunc__ = None  # array + variable is answered by the variable
    __hash__ = object.__hash__

    def __init__(
        self, value: ArrayLike, *, watched: bool = True, dtype: DTypeLike | None = None
    ) -> None:
        array = np.asarray(value, dtype)
        self.value: Array = (
            array if array.dtype.kind == "f" or dtype is not None else array.astype(np.float64)
        )
        self.watched = watched

    @property
    def shape(self) -> Shape:
        """Shape of the value."""
        return self.value.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the value."""
        return self.value.dtype

    def __repr__(self) -> str:
        return f"Variable({self.value!r})"

    def __float__(self) -> float:
        return float(self.value)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:  # noqa: FBT001 -- numpy's protocol.
        return np.array(self.value, dtype, copy=copy)

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

    def __pow__(self, exponent: float) -> Variable:
        if isinstance(exponent, Variable):
            raise ModelError(
                "the exponent is a Variable; must be a plain number (write x ** y as exp(y * "
                "log(x)))"
            )
        return apply(elementwise.Power(float(exponent)), self)

    def sum(self, axis: int | tuple[int, ...] | None = None) -> Variable:
        """The sum along `axis`, or of everything."""
        return apply(shapes.Sum((axis,) if isinstance(axis, int) else axis), self)

    def mean(self, axis: int | tuple[int, ...] | None = None) -> Variable:
        """The mean along `axis`, or of everything."""
        total = self.sum(axis)
        return total / (self.value.size / max(total.value.size, 1))

    def reshape(self, *shape: int) -> Variable:
        """The same numbers in another shape; one size may be -1."""
        return apply(shapes.Reshape(shape), self)


Operand = Variable | ArrayLike
Nested = Variable | Sequence["Nested"] | Mapping[Any, "Nested"]


def apply(gate: Gate, *operands: Operand) -> Variable:
    """The output of `gate`, computed at once.

    It is recorded by every open tape that watches one of the operands. Raises `ModelError` where
    shapes do not fit, and for numbers outside the gate's domain.

    Args:
        gate: The operation.
        operands: Variables; anything else is a constant in the dtype of the variables.
    """
    variables = _as_variables(operands)
    arrays = tuple(variable.value for variable in variables)
    tapes = _open_tapes.get()
    if all(tape.check_values for tape in tapes):
        gate.check_values(*arrays)
    output = gate.output_view(arrays[0])
    is_view = output is not None
    if output is None:
        output = np.empty(
            gate.output_shape(*(a.shape for a in arrays)),
            gate.output_dtype(*(a.dtype for a in arrays)),
        )
    site = Site(arrays, output, np.empty)
    if not is_view:
        for operation in gate.stage_forward(site):
            operation()
    result = Variable(output, watched=False, dtype=output.dtype)
    for tape in tapes:
        tape.record(gate, variables, result, site)
    return result


def _as_variables(operands: tuple[Operand, ...]) -> tuple[Variable, ...]:
    dtypes = [operand.dtype for operand in operands if isinstance(operand, Variable)]
    dtype = np.result_type(*dtypes) if dtypes else None
    return tuple(
        operand
        if isinstance(operand, Variable)
        else Variable(operand, watched=False, dtype=None if _is_float_array(operand) else dtype)
        for operand in operands
    )


def _is_float_array(operand: Operand) -> bool:
    return isinstance(operand, np.ndarray) and operand.dtype.kind == "f"


class GradientTape:
    """Records gates while it is open, and gives gradients by the chain rule.

    Args:
        persistent: Whether `gradient` can be asked more than once.
        keep_unwatched: Whether gates that depend on nothing watched are recorded too (a program
            needs them).
        check_values: Whether numbers outside a gate's domain are refused (a program, recorded on
            zeros, must not).
    """

    def __init__(
        self, *, persistent: bool = False, keep_unwatched: bool = False, check_values: bool = True
    ) -> None:
        self.check_values = check_values
        self.nodes: list[Node] = []
        self.sites: list[Site] = []
        self.variables: list[Variable] = []
        self._numbers: dict[int, int] = {}
        self._tracked: set[int] = set()
        self._persistent, self._keep_unwatched = persistent, keep_unwatched
        self._is_spent = False

    def __enter__(self) -> Self:
        _open_tapes.set((*_open_tapes.get(), self))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _open_tapes.set(tuple(tape for tape in _open_tapes.get() if tape is not self))

    def watch(self, *variables: Variable) -> None:
        """Records from now on what is computed with `variables`, watched or not by themselves."""
        for variable in variables:
            self._tracked.add(self.number(variable))

    def number(self, variable: Variable) -> int:
        """The number of `variable` on this tape; a new one for a new variable."""
        number = self._numbers.get(id(variable))
        if number is None:
            number = len(self.variables)
            self.variables.append(variable)  # which also keeps its id from being given to another
            self._numbers[id(variable)] = number
            if variable.watched:
                self._tracked.add(number)
        return number

    def record(
        self, gate: Gate, inputs: tuple[Variable, ...], output: Variable, site: Site
    ) -> None:
        """Takes down one gate, if it depends on anything watched."""
        if not self._keep_unwatched and not any(
            v.watched or self._numbers.get(id(v)) in self._tracked for v in inputs
        ):
            return
        numbers = tuple(self.number(variable) for variable in inputs)
        number = self.number(output)
        self._tracked.add(number)
        self.nodes.append(Node(gate, numbers, number))
        self.sites.append(site)

    def gradient(self, target: Variable | Sequence[Variable], sources: Any) -> Any:
        """The gradient of the sum of all numbers of `target` by each source.

        Args:
            target: What was computed; of any shape, or several.
            sources: A variable, or lists, tuples and dictionaries of them, nested in any way.
                Intermediate results count.

        Returns:
            Arrays in the structure of `sources`; None for a source that was not watched or that
            `target` does not depend on.
        """
        self._check_not_spent()
        self._is_spent = not self._persistent
        targets = [target] if isinstance(target, Variable) else list(target)
        destinations: dict[int, Array] = {}

        def note(source: Variable) -> None:
            number = self._numbers.get(id(source))
            if number is not None and number in self._tracked:
                destinations[number] = np.zeros(source.shape, source.dtype)

        _map_nested(note, sources)
        reached = self._fill_inplace(targets, destinations)
        if not self._persistent:
            self.sites.clear()
        return _map_nested(lambda source: reached.get(self._numbers.get(id(source), -1)), sources)

    def gradients(self, target: Variable) -> dict[int, Array]:
        """The gradient of the sum of `target` by every value that it depends on, by its number.

        Unlike `gradient` it can be asked again and again, as long as `gradient` was not.
        """
        self._check_not_spent()
        every = {
            number: np.zeros(self.variables[number].shape, self.variables[number].dtype)
            for number in self._tracked
        }
        reached = self._fill_inplace([target], every)
        return {number: array for number, array in reached.items() if array is not None}

    def recompute(self) -> None:
        """Computes every recorded value again, in place, from what its sources hold now.

        Forward values are kept from the first computation on; after ``x.value[...] = 2.0`` this
        brings them up to date, and gradients asked for afterwards are those at the new place.
        """
        self._check_not_spent()
        for node, site in zip(self.nodes, self.sites, strict=True):
            if self.check_values:
                node.gate.check_values(*site.inputs)
            for operation in node.gate.stage_forward(site):
                operation()

    def _check_not_spent(self) -> None:
        if self._is_spent:
            raise ModelError(
                "the tape was asked for a gradient already; open it with "
                "GradientTape(persistent=True)"
            )

    def _fill_inplace(
        self, targets: list[Variable], destinations: dict[int, Array]
    ) -> dict[int, Array | None]:
        seeds: dict[int, Array] = {}
        for target in targets:
            number = self._numbers.get(id(target))
            if number is None or number not in self._tracked:
                continue
            if number not in seeds:
                seeds[number] = destinations.get(number, np.zeros_like(target.value))
            seeds[number] += target.dtype.type(1)
        backward = Backward(
            self.nodes, self.sites, destinations, np.empty, keep_all=True, gradients={**seeds}
        )
        for _, operations in backward.stage():
            for operation in operations:
                operation()
        return backward.gradients


def _map_nested(function: Callable[[Variable], Any], nested: Any) -> Any:
    if isinstance(nested, Variable):
        return function(nested)
    if isinstance(nested, Mapping):
        return {key: _map_nested(function, item) for key, item in nested.items()}
    if isinstance(nested, tuple | list):
        items = [_map_nested(function, item) for item in nested]
        if isinstance(nested, tuple):
            return type(nested)(*items) if hasattr(nested, "_fields") else tuple(items)
        return items
    raise ModelError(
        f"a source is {nested!r}; must be a Variable, or a list, tuple or dictionary of Variables"
    )
