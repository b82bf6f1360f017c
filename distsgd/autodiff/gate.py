"""What a gate is: an operation that knows its output and its local gradient.

It is staged over arrays that its caller owns. What users give for numbers becomes arrays here too.

Place in the loop: the lowest layer of differentiation. A tape stages gates over fresh arrays and
runs them at once; a program stages them once over its own buffers and runs them millions of times.
Both run the same operations, so they give the same bits. No I/O here, no chance, no global state.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from distsgd.base.arrays import Array
from distsgd.errors import ModelError

Shape = tuple[int, ...]
Operation = Callable[[], object]
Allocate = Callable[[Shape, DTypeLike], Array]


class OpContext:
    """The place of one gate in a circuit: its arrays, and what its forward leaves its backward.

    Attributes:
        inputs: What goes in; never written.
        output: What comes out; shape and dtype as the gate said. May be the first input's memory
            (see `Gate.in_place`).
    """

    __slots__ = ("_allocate", "_buffers", "inputs", "output")

    def __init__(self, inputs: tuple[Array, ...], output: Array, allocate: Allocate) -> None:
        self.inputs, self.output = inputs, output
        self._allocate = allocate
        self._buffers: dict[str, Array] = {}

    def buffer(self, name: str, shape: Shape, dtype: DTypeLike | None = None) -> Array:
        """The array of that name, the same each time: a backward finds what the forward wrote.

        Args:
            name: Any word; the context's own.
            shape: Shape of the array; its content is undefined at first.
            dtype: The output's dtype unless given.
        """
        if name not in self._buffers:
            self._buffers[name] = self._allocate(
                shape, self.output.dtype if dtype is None else dtype
            )
        return self._buffers[name]

    def holds(self, name: str) -> bool:
        """Whether a buffer of that name was asked for before."""
        return name in self._buffers


class Gate:
    """An operation with a local gradient; subclasses are frozen and hold only their settings.

    One that works number by number is two formulas: see `distsgd.autodiff.Elementwise`.

    A gate of one's own says the shape of its output, and fills arrays that it is given; `apply`
    puts it on the tape like any other:

    >>> from functools import partial
    >>> from distsgd.autodiff import Gate, GradientTape, Variable, apply, check_gradient
    >>> from distsgd.autodiff import grad_or_ones
    >>> class Softplus(Gate):
    ...     name = "softplus"
    ...
    ...     def output_shape(self, *shapes):
    ...         return shapes[0]
    ...
    ...     def stage_forward(self, context):  # y = ln(1 + exp(x))
    ...         return [partial(np.logaddexp, 0.0, context.inputs[0], context.output)]
    ...
    ...     def stage_backward(self, context, index, grad, out):  # dy/dx = 1 - exp(-y)
    ...         d = grad_or_ones(grad, context)
    ...         return [lambda: np.multiply(d, -np.expm1(-context.output), out)]
    >>> def loss_and_gradient(x):
    ...     x = Variable(x)
    ...     with GradientTape() as tape:
    ...         loss = (apply(Softplus(), x) ** 2).sum()
    ...     return loss, tape.gradient(loss, x)
    >>> check_gradient(loss_and_gradient, [[-1.0, 0.0], [0.5, 3.0]]).passed
    True

    The methods that start with `stage` run nothing: they return zero-argument operations that work
    on the given arrays in place, however often they are called. They may look at shapes (one row
    has a faster way), never at values. `output_shape` should raise `ModelError` for shapes that do
    not fit. A gate that keeps samples apart says so in `samples_stay_apart`; without it a network
    with per-sample statistics refuses the gate.
    """

    name: ClassVar[str] = "gate"
    """What drawings and errors call it."""
    reads_inputs: ClassVar[bool] = True
    """Whether the backward looks at the inputs, so that they must survive until then."""
    reads_output: ClassVar[bool] = True
    """Whether the backward looks at the output."""
    in_place: ClassVar[bool] = False
    """Whether the output may share the first input's memory, and that input's gradient the output
    gradient's."""

    def output_shape(self, *shapes: Shape) -> Shape:
        """Shape of the output for inputs of `shapes`; raises `ModelError` where they do not fit."""
        del shapes
        raise self._missing("output_shape")

    def output_dtype(self, *dtypes: np.dtype[Any]) -> np.dtype[Any]:
        """Dtype of the output; that of the inputs together unless a gate says otherwise.

        Of whole numbers alone it is float64.
        """
        dtype = np.result_type(*dtypes)
        return dtype if dtype.kind == "f" else np.dtype(np.float64)

    def output_view(self, array: Array) -> Array | None:
        """The output as a view of the only input, of any shape; None unless nothing is moved."""
        del array
        return None

    def check_values(self, *inputs: Array) -> None:
        """Raises `ModelError` for numbers outside the gate's domain; inputs of any shape.

        Asked where a gate runs at once; a program, whose steps must cost nothing more, never asks.
        """

    def stage_forward(self, context: OpContext) -> list[Operation]:
        """Operations that fill ``context.output`` from ``context.inputs``."""
        del context
        raise self._missing("stage_forward")

    def stage_backward(
        self, context: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        """Operations that write the vector-Jacobian product by input `index` into `out`.

        For an input that all samples share (a weight) this is the gradient summed over the samples.

        Args:
            context: Where the gate stands.
            index: Which input; only those that the gate can differentiate by.
            grad: Gradient of the root by the output, the output's shape; None stands for ones.
            out: The input's shape; overwritten. May be `grad`'s memory when `in_place` is set.
        """
        del context, index, grad, out
        raise self._missing("stage_backward")

    def _missing(self, method: str) -> ModelError:
        return ModelError(
            f"gate {self.name!r} ({type(self).__name__}) has no {method}; write it, as "
            "distsgd.autodiff.Gate says"
        )

    def samples_stay_apart(self, shapes: tuple[Shape, ...], per_sample: tuple[bool, ...]) -> bool:
        """Whether row n of the output depends on row n alone of the inputs that have samples."""
        del shapes, per_sample
        return False

    def stage_squared_norms(
        self,
        context: OpContext,
        parameters: frozenset[int],
        grad: Array | None,
        out: Array,
        input_squared_norms: Array | None,
    ) -> list[Operation]:
        """Operations for the squared norm of each sample's own gradient by the inputs `parameters`.

        Exact and without those gradients. Raises `ModelError` where a gate has no such rule.

        Args:
            context: Where the gate stands; its first input and its output have a row a sample.
            parameters: Which inputs are parameters.
            grad: Gradient of each sample's own loss by the output; None stands for ones.
            out: Shape ``[N]``; overwritten.
            input_squared_norms: ``[N]``, the squared norm of each row of the first input where it
                is known already.
        """
        del context, parameters, grad, out, input_squared_norms
        raise ModelError(
            f"gate {self.name!r} has no exact rule for per-sample gradient norms; build the "
            "layer from an affine gate, "
            "or switch them off (set [statistics] per_sample = false)"
        )


def grad_or_ones(grad: Array | None, context: OpContext) -> Array:
    """The gradient by the context's output; ones of its shape where None stands for them."""
    return np.ones(context.output.shape, context.output.dtype) if grad is None else grad


def constant(number: float, dtype: DTypeLike) -> Array:
    """A number as an array without axes, which ufuncs take faster than a scalar.

    Being of `dtype` it keeps float32 float32.
    """
    return np.array(number, dtype)


def as_numbers(value: Any) -> Array:
    """`value` as an array of floats, integers or booleans."""
    try:
        array = np.asarray(value)
        if array.dtype.kind == "O" and all(isinstance(number, Real) for number in array.flat):
            array = array.astype(np.float64)  # fractions, and integers beyond 64 bits
    except (TypeError, ValueError, OverflowError) as error:
        raise ModelError(
            f"{shown(value)} is no array ({error}); must be numbers that floats can hold, in rows "
            "of equal length"
        ) from None
    if array.dtype.kind not in "fiub":
        raise ModelError(
            f"{shown(value)} is of dtype {array.dtype}; must be real numbers (convert them)"
        )
    return array


def as_dtype(given: DTypeLike | None) -> np.dtype[Any] | None:
    """A dtype of real numbers; None for None."""
    try:
        dtype = None if given is None else np.dtype(given)
    except TypeError:
        dtype = np.dtype(object)
    if dtype is not None and dtype.kind not in "fiub":
        raise ModelError(f"dtype is {given!r}; must be of real numbers, as float64 or float32")
    return dtype


def shown(value: Any) -> str:
    """`value` as an error shows it, in one line of at most 60 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
