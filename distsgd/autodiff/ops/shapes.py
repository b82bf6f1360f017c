"""Gates that take numbers together along axes, or change the shape. No I/O here."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from distsgd.autodiff.gate import Gate, OpContext, Operation, Shape, constant, grad_or_ones
from distsgd.base.arrays import Array
from distsgd.errors import ModelError


def as_sizes(what: str, given: Sequence[Any]) -> Shape:
    """Whole numbers, given one by one or as one sequence; `ModelError` for anything else."""
    numbers = given[0] if len(given) == 1 and isinstance(given[0], tuple | list) else given
    try:
        return tuple(operator.index(number) for number in numbers)
    except TypeError:
        raise ModelError(f"the {what} is {tuple(numbers)!r}; must be whole numbers") from None


def as_axes(axis: Any) -> tuple[int, ...] | None:
    """One axis, several, or None for all."""
    return None if axis is None else as_sizes("axis", (axis,))


@dataclass(frozen=True, slots=True)
class Reduction(Gate):
    """What the gates share that take along `axes`, or everything where `axes` is None.

    With `keepdims` an axis that is gone stays, with length 1.
    """

    axes: tuple[int, ...] | None = None
    keepdims: bool = False
    ufunc: ClassVar[np.ufunc] = np.add

    def output_shape(self, *shapes: Shape) -> Shape:
        reduced = self._reduced(len(shapes[0]))
        if self.keepdims:
            return self.kept_shape(shapes[0])
        return tuple(size for axis, size in enumerate(shapes[0]) if axis not in reduced)

    def kept_shape(self, shape: Shape) -> Shape:
        """The output's shape with a 1 for each axis that is gone."""
        reduced = self._reduced(len(shape))
        return tuple(1 if axis in reduced else size for axis, size in enumerate(shape))

    def _reduced(self, rank: int) -> frozenset[int]:
        """The axes of an array of `rank` that are gone, counted from the first."""
        axes = range(rank) if self.axes is None else self.axes
        if any(not -rank <= axis < rank for axis in axes):
            raise ModelError(
                f"{self.name} along axes {self.axes}; must be from {-rank} to {rank - 1} for an "
                f"array of rank {rank}"
            )
        return frozenset(axis % rank for axis in axes)

    def count(self, shape: Shape) -> int:
        """How many numbers go into one."""
        return math.prod(shape[axis] for axis in self._reduced(len(shape)))

    def stage_forward(self, context: OpContext) -> list[Operation]:
        x, axes = context.inputs[0], tuple(sorted(self._reduced(context.inputs[0].ndim)))
        if not axes:
            return [partial(np.copyto, context.output, x)]
        return [partial(self.ufunc.reduce, x, axes, None, context.output, keepdims=self.keepdims)]

    def samples_stay_apart(self, shapes: tuple[Shape, ...], per_sample: tuple[bool, ...]) -> bool:
        del per_sample
        return 0 not in self._reduced(len(shapes[0]))


@dataclass(frozen=True, slots=True)
class Sum(Reduction):
    """The sum along `axes`, or of everything."""

    name: ClassVar[str] = "sum"
    reads_inputs: ClassVar[bool] = False
    reads_output: ClassVar[bool] = False

    def stage_backward(
        self, context: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        del index
        kept = self.kept_shape(out.shape)
        return [partial(np.copyto, out, grad_or_ones(grad, context).reshape(kept))]


@dataclass(frozen=True, slots=True)
class Mean(Reduction):
    """The mean along `axes`, or of everything."""

    name: ClassVar[str] = "mean"
    reads_inputs: ClassVar[bool] = False
    reads_output: ClassVar[bool] = False

    def stage_forward(self, context: OpContext) -> list[Operation]:
        count = constant(self.count(context.inputs[0].shape), context.output.dtype)
        return [
            *Reduction.stage_forward(self, context),
            partial(np.divide, context.output, count, context.output),
        ]

    def stage_backward(
        self, context: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        del index
        kept = self.kept_shape(out.shape)
        share = context.buffer("share", kept)
        d, count = grad_or_ones(grad, context), constant(self.count(out.shape), share.dtype)
        return [partial(np.divide, d.reshape(kept), count, share), partial(np.copyto, out, share)]


@dataclass(frozen=True, slots=True)
class _Extreme(Reduction):
    """What `Max` and `Min` share: where several are equal, each has the same share of the gradient.

    This is TensorFlow's `reduce_max`; a shift of all of them together changes the output as much.
    """

    def output_shape(self, *shapes: Shape) -> Shape:
        if self.count(shapes[0]) == 0:
            raise ModelError(f"{self.name} got shape {shapes[0]}; must have numbers to choose from")
        return Reduction.output_shape(self, *shapes)

    def stage_backward(
        self, context: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        del index
        x, kept = context.inputs[0], self.kept_shape(out.shape)
        axes = tuple(sorted(self._reduced(x.ndim)))
        is_it, count = context.buffer("is_it", x.shape, np.bool_), context.buffer("count", kept)
        share = context.buffer("share", kept)
        d = grad_or_ones(grad, context).reshape(kept)
        return [
            partial(np.equal, x, context.output.reshape(kept), is_it),
            partial(np.add.reduce, is_it, axes, count.dtype, count, keepdims=True),
            partial(np.divide, d, count, share),
            partial(np.multiply, is_it, share, out),
        ]


@dataclass(frozen=True, slots=True)
class Max(_Extreme):
    """The largest along `axes`, or of everything; equal ones share the gradient."""

    name: ClassVar[str] = "max"
    ufunc: ClassVar[np.ufunc] = np.maximum


@dataclass(frozen=True, slots=True)
class Min(_Extreme):
    """The smallest along `axes`, or of everything; equal ones share the gradient."""

    name: ClassVar[str] = "min"
    ufunc: ClassVar[np.ufunc] = np.minimum


@dataclass(frozen=True, slots=True)
class Reshape(Gate):
    """The same numbers in another shape; one size may be -1.

    Moves nothing: the output is a view.
    """

    shape: Shape
    name: ClassVar[str] = "reshape"
    reads_inputs: ClassVar[bool] = False
    reads_output: ClassVar[bool] = False

    def output_shape(self, *shapes: Shape) -> Shape:
        size, known = math.prod(shapes[0]), math.prod(n for n in self.shape if n != -1)
        if (
            self.shape.count(-1) > 1
            or min(self.shape, default=0) < -1
            or (size % known if -1 in self.shape and known else size != known)
        ):
            raise ModelError(
                f"cannot reshape {shapes[0]} to {self.shape}; both must hold {size} numbers"
            )
        return tuple(size // known if n == -1 else n for n in self.shape)

    def output_view(self, array: Array) -> Array | None:
        return array.reshape(self.output_shape(array.shape))

    def stage_forward(self, context: OpContext) -> list[Operation]:
        return [partial(np.copyto, context.output, context.inputs[0].reshape(context.output.shape))]

    def stage_backward(
        self, context: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        del index
        return [partial(np.copyto, out, grad_or_ones(grad, context).reshape(out.shape))]

    def samples_stay_apart(self, shapes: tuple[Shape, ...], per_sample: tuple[bool, ...]) -> bool:
        del per_sample
        return self.output_shape(*shapes)[:1] == shapes[0][:1]


@dataclass(frozen=True, slots=True)
class Transpose(Gate):
    """The axes in another order; the opposite one where `axes` is None.

    Copies, so that every array of a circuit lies in C order.
    """

    axes: tuple[int, ...] | None = None
    name: ClassVar[str] = "transpose"
    reads_inputs: ClassVar[bool] = False
    reads_output: ClassVar[bool] = False

    def order(self, rank: int) -> tuple[int, ...]:
        """Which input axis each output axis is."""
        if self.axes is None:
            return tuple(range(rank))[::-1]
        order = tuple(axis + rank if axis < 0 else axis for axis in self.axes)
        if sorted(order) != list(range(rank)):
            raise ModelError(
                f"transpose got axes {self.axes} for an array of rank {rank}; must name each of "
                f"0 to {rank - 1} once"
            )
        return order

    def output_shape(self, *shapes: Shape) -> Shape:
        return tuple(shapes[0][axis] for axis in self.order(len(shapes[0])))

    def output_dtype(self, *dtypes: np.dtype[Any]) -> np.dtype[Any]:
        return np.result_type(*dtypes)  # also whole numbers stay what they are

    def stage_forward(self, context: OpContext) -> list[Operation]:
        x = context.inputs[0]
        return [partial(np.copyto, context.output, x.transpose(self.order(x.ndim)))]

    def stage_backward(
        self, context: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        del index
        turned = out.transpose(self.order(out.ndim))
        return [partial(np.copyto, turned, grad_or_ones(grad, context))]

    def samples_stay_apart(self, shapes: tuple[Shape, ...], per_sample: tuple[bool, ...]) -> bool:
        del per_sample
        return self.order(len(shapes[0]))[:1] == (0,)


@dataclass(frozen=True, slots=True)
class Stack(Gate):
    """Arrays of one shape put side by side along a new first axis."""

    name: ClassVar[str] = "stack"
    reads_inputs: ClassVar[bool] = False
    reads_output: ClassVar[bool] = False

    def output_shape(self, *shapes: Shape) -> Shape:
        if len(set(shapes)) > 1:
            raise ModelError(
                f"cannot stack shapes {' and '.join(map(str, shapes))}; must be of one shape"
            )
        return len(shapes), *shapes[0]

    def output_dtype(self, *dtypes: np.dtype[Any]) -> np.dtype[Any]:
        return np.result_type(*dtypes)  # also whole numbers stay what they are

    def stage_forward(self, context: OpContext) -> list[Operation]:
        return [
            partial(np.copyto, context.output[place, ...], x)
            for place, x in enumerate(context.inputs)
        ]

    def stage_backward(
        self, context: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        return [partial(np.copyto, out, grad_or_ones(grad, context)[index, ...])]


@dataclass(frozen=True, slots=True)
class Concatenate(Gate):
    """Arrays put one behind the other along an axis that they have."""

    axis: int = 0
    name: ClassVar[str] = "concatenate"
    reads_inputs: ClassVar[bool] = False
    reads_output: ClassVar[bool] = False

    def output_shape(self, *shapes: Shape) -> Shape:
        rank, axis = len(shapes[0]), self.axis
        if not -rank <= axis < rank:
            raise ModelError(
                f"concatenate along axis {axis}; must be from {-rank} to {rank - 1} for arrays of "
                f"rank {rank} (numbers are put side by side by stack)"
            )
        axis %= rank
        others = {(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}
        if len(others) > 1 or any(len(shape) != rank for shape in shapes):
            raise ModelError(
                f"cannot concatenate shapes {' and '.join(map(str, shapes))}; must be equal but "
                f"for axis {axis}"
            )
        total = sum(shape[axis] for shape in shapes)
        return (*shapes[0][:axis], total, *shapes[0][axis + 1 :])

    def output_dtype(self, *dtypes: np.dtype[Any]) -> np.dtype[Any]:
        return np.result_type(*dtypes)  # also whole numbers stay what they are

    def _parts(self, context: OpContext, whole: Array) -> list[Array]:
        ends = np.cumsum([x.shape[self.axis] for x in context.inputs])[:-1]
        return np.split(whole, ends, self.axis)

    def stage_forward(self, context: OpContext) -> list[Operation]:
        parts = self._parts(context, context.output)
        return [partial(np.copyto, part, x) for part, x in zip(parts, context.inputs, strict=True)]

    def stage_backward(
        self, context: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        return [partial(np.copyto, out, self._parts(context, grad_or_ones(grad, context))[index])]

    def samples_stay_apart(self, shapes: tuple[Shape, ...], per_sample: tuple[bool, ...]) -> bool:
        return all(per_sample) and self.axis % len(shapes[0]) != 0
