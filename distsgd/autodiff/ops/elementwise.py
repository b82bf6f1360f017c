"""Gates that work number by number: a rule of differentiation is a line. No I/O here.

Each class below is given formulas: `value` of the inputs, and `gradient`, for each input one, from
``d``, the gradient by the output, to that by the input. A formula reads what its parameters name:
the input ``x``, or the inputs ``a`` and ``b``; the output ``y``; a setting of the gate; ``kept``,
which is what the formula `keep` left in the forward.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from distsgd.autodiff.formula import arguments_of, stage_formula
from distsgd.autodiff.gate import Gate, OpContext, Operation, Shape, grad_or_ones
from distsgd.base.arrays import Array
from distsgd.errors import ModelError

Formula = Callable[..., Any]


def stage_summed_to(context: OpContext, name: str, out: Array) -> tuple[Array, list[Operation]]:
    """Where to write a gradient so that it arrives in `out`, summed where that was repeated.

    Returns:
        The array to write (`out` itself where nothing was repeated), and what to run afterwards.
    """
    full = context.output.shape
    if out.shape == full:
        return out, []
    gradient = context.buffer(name, full)
    padded = (1,) * (len(full) - out.ndim) + out.shape
    repeated = tuple(axis for axis, size in enumerate(padded) if size != full[axis])
    into = out.reshape(padded)
    keep = partial(np.add.reduce, gradient, repeated or None, None, into, keepdims=True)
    return gradient, [keep if repeated else partial(np.copyto, into, gradient)]


@dataclass(frozen=True, slots=True)
class Elementwise(Gate):
    """A gate written as formulas, with numpy's broadcasting: what was repeated has its gradient
    summed.

    What the backward reads is what `gradient` names, and a gate of one input that does not read it
    works in place. The name is that of the class, in small letters.

    >>> class Cube(Elementwise, value=lambda x: x * x * x, gradient=lambda d, x: d * (3 * x * x)):
    ...     pass
    >>> Cube(), Cube.name, Cube.reads_inputs, Cube.reads_output, Cube.in_place
    (Cube(), 'cube', True, False, False)
    """  # noqa: D205 -- one sentence, longer than a line.

    _value: ClassVar[Formula]
    _gradients: ClassVar[tuple[Formula, ...]] = ()
    _keep: ClassVar[Formula | None] = None

    def __init_subclass__(
        cls,
        *,
        value: Formula | None = None,
        gradient: Formula | tuple[Formula, ...] = (),
        keep: Formula | None = None,
    ) -> None:
        if value is None:
            return  # Staged by methods of its own; or made anew for its slots, with all in place.
        cls._value, cls._keep = staticmethod(value), staticmethod(keep) if keep else None
        cls._gradients = gradient if isinstance(gradient, tuple) else (gradient,)
        cls.name = cls.__name__.lower()
        reads = {name for formula in cls._gradients for name in arguments_of(formula)}
        cls.reads_inputs, cls.reads_output = not reads.isdisjoint("xab"), "y" in reads
        cls.in_place = len(cls._gradients) == 1 and not cls.reads_inputs

    def output_shape(self, *shapes: Shape) -> Shape:
        try:
            return np.broadcast_shapes(*shapes)
        except ValueError:
            raise ModelError(
                f"cannot {self.name} shapes {' and '.join(map(str, shapes))}; sizes must be "
                "equal or 1, counted from the "
                "last axis (reshape one of them)"
            ) from None

    def samples_stay_apart(self, shapes: tuple[Shape, ...], per_sample: tuple[bool, ...]) -> bool:
        # The first axis holds the samples of the output only if it does so in every input that has
        # samples.
        rank = len(self.output_shape(*shapes))
        return all(
            len(shape) == rank
            for shape, has_samples in zip(shapes, per_sample, strict=True)
            if has_samples
        )

    def numbers_held(self) -> int:
        """How many numbers training holds for each of its output, besides those that come in.

        Those of its buffers; and the output and its gradient, unless it works in place.
        """
        size_bytes = [0 if self.in_place else 8]

        def allocate(shape: Shape, dtype: DTypeLike) -> Array:
            size_bytes.append(np.dtype(dtype).itemsize)
            return np.empty(shape, dtype)

        x, d = np.zeros(1, np.float32), np.zeros(1, np.float32)
        context = OpContext((x,), x if self.in_place else np.empty_like(x), allocate)
        self.stage_forward(context)
        self.stage_backward(context, 0, d, d if self.in_place else np.empty_like(d))
        return -(-sum(size_bytes) // x.itemsize)

    def _inputs(self, context: OpContext) -> dict[str, Array]:
        return dict(zip("x" if len(context.inputs) == 1 else "ab", context.inputs, strict=True))

    def stage_forward(self, context: OpContext) -> list[Operation]:
        arrays, operations = self._inputs(context), list[Operation]()
        if self._keep:
            kept = context.buffer("kept", context.output.shape)
            operations += stage_formula(self._keep, context, kept, arrays=arrays, settings=self)
            arrays["kept"] = kept
        return operations + stage_formula(
            self._value, context, context.output, arrays=arrays, settings=self
        )

    def stage_backward(
        self, context: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        arrays = self._inputs(context) | {"y": context.output, "d": grad_or_ones(grad, context)}
        if self._keep:
            arrays["kept"] = context.buffer("kept", context.output.shape)
        into, finish = stage_summed_to(context, f"grad_{index}", out)
        formula = self._gradients[index]
        return stage_formula(formula, context, into, arrays=arrays, settings=self) + finish


class Negative(Elementwise, value=np.negative, gradient=lambda d: -d):
    """``-x``."""


class Exp(Elementwise, value=np.exp, gradient=lambda d, y: d * y):
    """``exp(x)``."""


class Log(Elementwise, value=np.log, gradient=lambda d, x: d / x):
    """The natural logarithm."""


class Reciprocal(Elementwise, value=np.reciprocal, gradient=lambda d, y: d * -(y * y)):
    """``1 / x``."""


class Absolute(Elementwise, value=np.abs, gradient=lambda d, x: d * np.sign(x)):
    """``|x|``; its derivative at 0 is 0."""


class Sin(Elementwise, value=np.sin, gradient=lambda d, x: d * np.cos(x)):
    """The sine, of radians."""


class Cos(Elementwise, value=np.cos, gradient=lambda d, x: d * -np.sin(x)):
    """The cosine, of radians."""


@dataclass(frozen=True, slots=True)
class Power(
    Elementwise,
    value=lambda x, exponent: np.square(x) if exponent == 2.0 else np.power(x, exponent),
    # Of an exponent 0 the gradient is 0; 0 · x**-1 would be no number at 0.
    gradient=lambda d, x, exponent: d * (np.power(x, exponent - 1.0) * exponent) if exponent else 0,
):
    """``x ** exponent`` for a fixed number."""

    exponent: float
