"""Gates that work number by number: a rule of differentiation is a line. No I/O here.

Each class below is given formulas: `value` of the inputs, and `gradient`, for each input one, from
``d``, the gradient by the output, to that by the input. A formula reads what its parameters name:
the input ``x``, or the inputs ``a`` and ``b``; the output ``y``; a setting of the gate; ``kept``,
which is what the formula `keep` left in the forward.

A formula, ``d * np.cos(x)``, becomes operations that allocate nothing when they run. It is a plain
function, called once, when a gate is staged, with terms in place of arrays, and each ufunc or
operator that it uses becomes one operation in the order of the calls. So the bits are those of the
same ufuncs called by hand. No values are known then: only shapes and dtypes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import DTypeLike

from distsgd.autodiff.gate import Gate, OpContext, Operation, Shape, constant, grad_or_ones
from distsgd.base.arrays import Array
from distsgd.errors import ModelError

Formula = Callable[..., Any]

_ANSWERS = frozenset({np.greater, np.greater_equal, np.less, np.less_equal, np.signbit})


def arguments_of(formula: Formula) -> tuple[str, ...]:
    """What a formula reads, by its parameters' names; a ufunc ``x``, or ``a`` and ``b``."""
    if isinstance(formula, np.ufunc):
        return ("x",) if formula.nin == 1 else ("a", "b")
    return tuple(inspect.signature(formula).parameters)


class Term(NDArrayOperatorsMixin):
    """An array of a formula while it is taken down: given, or the result of one of its steps.

    Attributes:
        shape: Of the array.
        dtype: In which the formula is computed: that of the gate's output.
    """

    __slots__ = ("_steps", "array", "dtype", "is_answer", "shape")
    # A term is itself alone: ``==`` is no step of a formula.
    __eq__, __ne__, __hash__ = object.__eq__, object.__ne__, object.__hash__

    def __init__(self, steps: list[_Step], like: Array, array: Array | None = None) -> None:
        self._steps, self.array = steps, array
        self.shape, self.dtype, self.is_answer = like.shape, like.dtype, False

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *operands: Any) -> Term:
        assert method == "__call__", f"a formula has {ufunc.__name__}.{method}"
        result = Term(self._steps, np.broadcast_to(np.zeros((), self.dtype), self.shape))
        result.is_answer = ufunc in _ANSWERS
        taken = (
            operand if isinstance(operand, Term | np.ndarray) else constant(operand, self.dtype)
            for operand in operands
        )
        self._steps.append(_Step(ufunc, tuple(taken), result))
        return result


class _Step(NamedTuple):
    ufunc: np.ufunc
    operands: tuple[Term | Array, ...]
    result: Term

    def reads(self, terms: Iterable[Term]) -> bool:
        return any(operand is term for operand in self.operands for term in terms)


def stage_formula(
    formula: Formula,
    context: OpContext,
    out: Array,
    *,
    arrays: Mapping[str, Array],
    settings: object = None,
) -> list[Operation]:
    """Operations that write what `formula` gives into `out`.

    Intermediate results take memory that is free by then: `out` itself where that is not the memory
    of an array still to be read, or buffers of the context, as few as the formula needs.

    Args:
        formula: A function of arrays by name that uses ufuncs and operators only, or a ufunc. Of
            its parameters, those that are not in `arrays` are attributes of `settings`.
        context: Whose buffers are used.
        out: Overwritten; may be the very memory of one of `arrays`.
        arrays: What the formula may read, by name; never written, but for `out`.
        settings: The gate.
    """
    steps: list[_Step] = []
    given = {name: Term(steps, out, array) for name, array in arrays.items()}
    names = arguments_of(formula)
    result = formula(*(given[name] if name in given else getattr(settings, name) for name in names))
    if not isinstance(result, Term):
        return [partial(out.fill, result)]
    if result.array is not None:
        return [partial(np.copyto, out, result.array)]
    assert steps[-1].result is result, "a formula has a step that it does not use"
    shared = [term for name, term in given.items() if np.may_share_memory(arrays[name], out)]
    free_from = max((i for i, step in enumerate(steps) if step.reads(shared)), default=0)
    memory = _Memory(context, out)
    operations: list[Operation] = []
    for i, step in enumerate(steps):
        spent = [
            term
            for term in dict.fromkeys(o for o in step.operands if isinstance(o, Term))
            if term.array is None and not any(later.reads([term]) for later in steps[i + 1 :])
        ]
        operands = [o if isinstance(o, np.ndarray) else memory.of(o) for o in step.operands]
        memory.release(spent)
        into = memory.take(step.result, is_last=step.result is result, out_is_free=i >= free_from)
        # By position, which is faster; numpy takes it so of all but these two.
        by_name = step.ufunc in (np.maximum, np.minimum)
        operations.append(
            partial(step.ufunc, *operands, out=into)
            if by_name
            else partial(step.ufunc, *operands, into)
        )
    return operations


class _Memory:
    """Where the intermediate results of a formula lie."""

    def __init__(self, context: OpContext, out: Array) -> None:
        self._site, self._out = context, out
        self._places: dict[Term, Array] = {}

    def of(self, term: Term) -> Array:
        return self._places[term] if term.array is None else term.array

    def release(self, terms: Iterable[Term]) -> None:
        for term in terms:
            del self._places[term]

    def take(self, term: Term, *, is_last: bool, out_is_free: bool) -> Array:
        taken = self._places.values()
        if is_last or (
            out_is_free and not term.is_answer and not any(place is self._out for place in taken)
        ):
            place = self._out
        else:
            kind, dtype = ("answer", np.bool_) if term.is_answer else ("term", self._out.dtype)
            number = 0
            while any(place is self._buffer(kind, number, dtype) for place in taken):
                number += 1
            place = self._buffer(kind, number, dtype)
        self._places[term] = place
        return place

    def _buffer(self, kind: str, number: int, dtype: Any) -> Array:
        return self._site.buffer(f"{kind}_{number}", self._out.shape, dtype)


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
