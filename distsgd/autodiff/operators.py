"""What numpy's operators and functions do with a variable: each is a gate, or refused.

``np.exp(x)`` of a variable is on the tape, and so is ``np.sum(x)``, for which
`distsgd.autodiff.functions` enters what it has. No I/O here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from numbers import Real
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from distsgd.autodiff.gate import Gate, Shape, as_numbers
from distsgd.autodiff.ops import activations, arithmetic, elementwise, shapes
from distsgd.autodiff.ops.linear import MatMul
from distsgd.autodiff.ops.subscript import Subscript
from distsgd.base.arrays import Array
from distsgd.errors import ModelError

if TYPE_CHECKING:
    from distsgd.autodiff.variable import Operand, Variable

Axis = int | tuple[int, ...] | None

GATES: dict[np.ufunc, Gate] = {
    np.add: arithmetic.Add(),
    np.subtract: arithmetic.Subtract(),
    np.multiply: arithmetic.Multiply(),
    np.divide: arithmetic.Divide(),
    np.maximum: arithmetic.Maximum(),
    np.minimum: arithmetic.Minimum(),
    np.matmul: MatMul(),
    np.negative: elementwise.Negative(),
    np.absolute: elementwise.Absolute(),
    np.exp: elementwise.Exp(),
    np.log: elementwise.Log(),
    np.sin: elementwise.Sin(),
    np.cos: elementwise.Cos(),
    np.reciprocal: elementwise.Reciprocal(),
    np.square: elementwise.Power(2.0),
    np.sqrt: elementwise.Power(0.5),
    np.tanh: activations.Tanh(),
}

# Functions that are no ufuncs, and what stands for them; with numpy's names of the arguments.
FUNCTIONS: dict[Any, Callable[..., Any]] = {}

# What they say has no gradient, or one that is 0: they answer with plain arrays.
QUESTIONS: frozenset[Any] = frozenset(
    {np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal}
    | {np.isnan, np.isfinite, np.isinf, np.sign, np.floor, np.ceil, np.rint}
    | {np.shape, np.ndim, np.size, np.argmax, np.argmin, np.argsort, np.any, np.all}
    | {np.isclose, np.allclose, np.array_equal, np.zeros_like, np.ones_like, np.empty_like}
    | {np.full_like, np.count_nonzero, np.array_repr, np.array_str, np.array2string}
)


class Operators:
    """What a variable takes from numpy: operators, functions, and comparisons, which give arrays.

    Attributes:
        value: The numbers.
    """

    __slots__ = ()
    # Equal numbers do not make two variables one: sets and dictionaries tell them apart.
    __hash__ = object.__hash__

    @property
    def value(self) -> Array:
        """The numbers."""
        raise NotImplementedError

    def _through(self, gate: Gate, *operands: Any) -> Variable:
        """The output of `gate`; all below computes by this."""
        raise NotImplementedError

    @property
    def T(self) -> Variable:  # noqa: N802 -- numpy's name.
        """The transpose: all axes in the opposite order."""
        return self.transpose()

    def __len__(self) -> int:
        if not self.value.ndim:
            raise ModelError(
                "a Variable of shape () has no length and no parts; must have an axis (use it as "
                "the number that it is)"
            )
        return len(self.value)

    def __iter__(self) -> Iterator[Variable]:
        return (self[place] for place in range(len(self)))

    def __getitem__(self, key: Any) -> Variable:
        return self._through(Subscript.of(key), self)

    def __setitem__(self, key: Any, numbers: Any) -> None:
        raise ModelError(
            "a Variable cannot be changed by x[...] = numbers, which no gradient would go through; "
            "write x.value[...] = numbers between the tapes, or make a new Variable"
        )

    def __add__(self, other: Operand) -> Variable:
        return self._through(arithmetic.Add(), self, other)

    def __radd__(self, other: Operand) -> Variable:
        return self._through(arithmetic.Add(), other, self)

    def __sub__(self, other: Operand) -> Variable:
        return self._through(arithmetic.Subtract(), self, other)

    def __rsub__(self, other: Operand) -> Variable:
        return self._through(arithmetic.Subtract(), other, self)

    def __mul__(self, other: Operand) -> Variable:
        return self._through(arithmetic.Multiply(), self, other)

    def __rmul__(self, other: Operand) -> Variable:
        return self._through(arithmetic.Multiply(), other, self)

    def __truediv__(self, other: Operand) -> Variable:
        return self._through(arithmetic.Divide(), self, other)

    def __rtruediv__(self, other: Operand) -> Variable:
        return self._through(arithmetic.Divide(), other, self)

    def __matmul__(self, other: Operand) -> Variable:
        return self._through(MatMul(), self, other)

    def __rmatmul__(self, other: Operand) -> Variable:
        return self._through(MatMul(), other, self)

    def __neg__(self) -> Variable:
        return self._through(elementwise.Negative(), self)

    def __abs__(self) -> Variable:
        return self._through(elementwise.Absolute(), self)

    def __pow__(self, exponent: Operand) -> Variable:
        if isinstance(exponent, Real):
            return self._through(elementwise.Power(float(exponent)), self)
        return self._through(arithmetic.Raise(), self, exponent)

    def __rpow__(self, base: Operand) -> Variable:
        return self._through(arithmetic.Raise(), base, self)

    def sum(self, axis: Axis = None, *, keepdims: bool = False) -> Variable:
        """The sum along `axis`, or of everything; with `keepdims` the axis stays, of length 1."""
        return self._through(shapes.Sum(shapes.as_axes(axis), keepdims), self)

    def mean(self, axis: Axis = None, *, keepdims: bool = False) -> Variable:
        """The mean, as `sum`."""
        return self._through(shapes.Mean(shapes.as_axes(axis), keepdims), self)

    def max(self, axis: Axis = None, *, keepdims: bool = False) -> Variable:
        """The largest, as `sum`; equal ones share the gradient."""
        return self._through(shapes.Max(shapes.as_axes(axis), keepdims), self)

    def min(self, axis: Axis = None, *, keepdims: bool = False) -> Variable:
        """The smallest, as `sum`; equal ones share the gradient."""
        return self._through(shapes.Min(shapes.as_axes(axis), keepdims), self)

    def reshape(self, *shape: int | Shape) -> Variable:
        """The same numbers in another shape, as ``(2, 3)`` or ``2, 3``; one size may be -1."""
        return self._through(shapes.Reshape(shapes.as_sizes("shape", shape)), self)

    def transpose(self, *axes: int | Shape) -> Variable:
        """The axes in another order, as ``(1, 0)`` or ``1, 0``; the opposite one unless given."""
        return self._through(
            shapes.Transpose(shapes.as_sizes("axes", axes) if axes else None), self
        )

    def __eq__(self, other: object) -> Any:
        return self.value == np.asarray(_plain(other))

    def __ne__(self, other: object) -> Any:
        return self.value != np.asarray(_plain(other))

    def __lt__(self, other: Any) -> Any:
        return self.value < as_numbers(_plain(other))

    def __le__(self, other: Any) -> Any:
        return self.value <= as_numbers(_plain(other))

    def __gt__(self, other: Any) -> Any:
        return self.value > as_numbers(_plain(other))

    def __ge__(self, other: Any) -> Any:
        return self.value >= as_numbers(_plain(other))

    def __contains__(self, number: ArrayLike) -> bool:
        return bool(np.any(self.value == np.asarray(_plain(number))))

    def __mod__(self, other: object) -> NoReturn:
        raise _no_gate("x % y")

    def __rmod__(self, other: object) -> NoReturn:
        raise _no_gate("x % y")

    def __floordiv__(self, other: object) -> NoReturn:
        raise _no_gate("x // y")

    def __rfloordiv__(self, other: object) -> NoReturn:
        raise _no_gate("x // y")

    def __divmod__(self, other: object) -> NoReturn:
        raise _no_gate("divmod(x, y)")


def with_gates(function: Any, inputs: Any, settings: Any) -> Any:
    """What stands for `function`; refused where it has not all of numpy's arguments."""
    ours = FUNCTIONS[function]
    try:
        inspect.signature(ours).bind(*inputs, **settings)
    except TypeError as error:
        raise ModelError(
            f"numpy's {function.__name__} got a Variable, for which it stands for "
            f"distsgd.autodiff.{ours.__name__}, which does not take all of that ({error}); leave "
            "it out, or use x.value where no gradient is wanted"
        ) from None
    return ours(*inputs, **settings)


def refusal(function: Any) -> ModelError:
    """For a function of numpy that a tape would not see."""
    return ModelError(
        f"numpy's {function.__name__} got a Variable, and a tape would not see it; use what "
        "distsgd.autodiff has (from distsgd.autodiff import ...), or x.value where no gradient is "
        "wanted"
    )


def as_plain(given: Any) -> Any:
    """`given` with the numbers of variables in their place, also within lists and tuples."""
    if isinstance(given, list | tuple):
        return type(given)(as_plain(item) for item in given)
    return _plain(given)


def _plain(given: Any) -> Any:
    return given.value if isinstance(given, Operators) else given


def _no_gate(written: str) -> ModelError:
    return ModelError(
        f"{written} got a Variable, and there is no gate for it; must be one of + - * / ** @ "
        "(write x.value where no gradient is wanted)"
    )
