"""Losses: gates from outputs and targets to one number for each sample.

Shape letters: N samples, O outputs. None of them divides by N: sums travel, means do not. The
cross-entropies are in a file of their own. No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from distsgd.autodiff.gate import Gate, OpContext, Operation, Shape, constant
from distsgd.autodiff.ops.domain import EVERY_NUMBER, Domain
from distsgd.autodiff.ops.elementwise import stage_formula
from distsgd.autodiff.ops.linear import stage_row_squared_norms
from distsgd.base.arrays import Array
from distsgd.base.settings import Setting, keys_of, wrong_settings
from distsgd.errors import ModelError


def stage_row_sums(x_NO: Array, context: OpContext) -> Operation:
    """The operation that writes the sum of each row as the losses."""
    return partial(np.add.reduce, x_NO, 1, None, context.output)


class SampleLoss(Gate):
    """What losses share: inputs are outputs ``[N, O]`` and targets, here numbers ``[N, O]``.

    There is no gradient by the targets.
    """

    reads_output: ClassVar[bool] = False
    output_domain: ClassVar[Domain] = EVERY_NUMBER
    """Which numbers an output may be."""
    target_domain: ClassVar[Domain] = EVERY_NUMBER
    """Which numbers a target may be; classes are checked by their names."""
    fused_activation: ClassVar[Literal["softmax", "sigmoid"] | None] = None
    """The activation that the loss applies itself; it must not end the network as well."""
    compares_probabilities: ClassVar[bool] = False
    """Whether outputs are read as probabilities, where they can be only such."""
    __slots__ = ()

    def __post_init__(self) -> None:
        values = {name: getattr(self, name) for name in keys_of(type(self))}
        for name, key in wrong_settings(type(self), values):
            rule = key.setting.rule
            raise ModelError(f"{name} of {self.name} is {values[name]!r}; must be {rule}")

    def output_shape(self, *shapes: Shape) -> Shape:
        outputs, target = shapes
        if len(outputs) != 2 or target != outputs:
            raise ModelError(
                f"{self.name} got outputs of shape {outputs} and targets of shape {target}; both "
                "must be [samples, outputs] (one column of targets for each output)"
            )
        return outputs[:1]

    def output_dtype(self, *dtypes: np.dtype[Any]) -> np.dtype[Any]:
        return dtypes[0]

    def check_values(self, *inputs: Array) -> None:
        outputs_NO, target = inputs
        self.output_shape(outputs_NO.shape, target.shape)
        self.output_domain.check(self.name, "output", outputs_NO)
        self.target_domain.check(self.name, "target", target)

    def samples_stay_apart(self, shapes: tuple[Shape, ...], per_sample: tuple[bool, ...]) -> bool:
        del shapes
        return all(per_sample)

    def stage_backward(
        self, context: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        if index != 0:
            raise ModelError(
                f"{self.name} has no gradient by its targets; watch the outputs instead"
            )
        operations = self.stage_gradient(context, out)
        if grad is not None:
            operations.append(partial(np.multiply, out, grad[:, None], out))
        return operations

    def stage_gradient(self, context: OpContext, out_NO: Array) -> list[Operation]:
        """Operations that write the gradient of each sample's loss by its outputs, ``[N, O]``."""
        del context, out_NO
        raise self._missing("stage_gradient")


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberLoss(SampleLoss):
    """A loss of each output, added up over the outputs of a sample, or averaged.

    One of one's own is two formulas (`distsgd.autodiff.ops.elementwise`) of the output ``a``, the
    target ``t`` and the loss's settings: `value`, of each output, and its derivative by ``a``:

    >>> from distsgd.autodiff.rows import number_loss
    >>> class LogCosh(
    ...     NumberLoss,
    ...     value=lambda a, t: np.log(np.cosh(a - t)),
    ...     gradient=lambda a, t: np.tanh(a - t),
    ... ):
    ...     pass
    >>> number_loss(LogCosh(), [[1.0, 2.0], [3.0, 3.0]], [[0.0, 2.0], [3.0, 3.0]]).value.round(4)
    array([0.4338, 0.    ])

    Attributes:
        reduction: "sum", or "mean": the sum divided by the number of outputs.
    """

    reduction: Annotated[
        Literal["sum", "mean"], Setting("over the outputs of a sample", '"sum" or "mean"')
    ] = "sum"
    _value: ClassVar[Callable[..., Any] | None] = None
    _gradient: ClassVar[Callable[..., Any] | None] = None

    def __init_subclass__(
        cls,
        *,
        value: Callable[..., Any] | None = None,
        gradient: Callable[..., Any] | None = None,
    ) -> None:
        if value is not None and gradient is not None:
            cls._value, cls._gradient = staticmethod(value), staticmethod(gradient)
            cls.name = cls.__name__.lower()

    def stage_forward(self, context: OpContext) -> list[Operation]:
        return [*self.stage_sums(context), *self._stage_mean(context, context.output)]

    def stage_backward(
        self, context: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        # Not by `super()`, which a class made anew for its slots does not know.
        return [
            *SampleLoss.stage_backward(self, context, index, grad, out),
            *self._stage_mean(context, out),
        ]

    def stage_sums(self, context: OpContext) -> list[Operation]:
        """Operations that write each sample's sum over its outputs."""
        if self._value is None:
            raise self._missing("stage_sums")
        term_NO = context.buffer("term", context.inputs[0].shape)
        return [*self._stage(self._value, context, term_NO), stage_row_sums(term_NO, context)]

    def stage_gradient(self, context: OpContext, out_NO: Array) -> list[Operation]:
        if self._gradient is None:
            raise self._missing("stage_gradient")
        return self._stage(self._gradient, context, out_NO)

    def _stage(
        self, formula: Callable[..., Any], context: OpContext, out: Array
    ) -> list[Operation]:
        arrays = dict(zip("at", context.inputs, strict=True))
        return stage_formula(formula, context, out, arrays=arrays, settings=self)

    def _stage_mean(self, context: OpContext, out: Array) -> list[Operation]:
        num_outputs = context.inputs[0].shape[1]
        if self.reduction == "sum" or num_outputs == 1:
            return []
        return [partial(np.divide, out, constant(num_outputs, out.dtype), out)]


class ClassLoss(SampleLoss):
    """A loss whose targets are classes ``[N]``, int64, each from 0 to O - 1."""

    __slots__ = ()

    def output_shape(self, *shapes: Shape) -> Shape:
        outputs, target = shapes
        if len(outputs) != 2 or target != outputs[:1]:
            raise ModelError(
                f"{self.name} got outputs of shape {outputs} and targets of shape {target}; must "
                "be [samples, classes] and [samples] (targets are class numbers)"
            )
        return target

    def output_dtype(self, *dtypes: np.dtype[Any]) -> np.dtype[Any]:
        if not np.can_cast(dtypes[1], np.int64):
            raise ModelError(
                f"{self.name} got targets of dtype {dtypes[1]}; must be class numbers, int64 "
                "(convert with astype)"
            )
        return dtypes[0]

    def check_values(self, *inputs: Array) -> None:
        outputs_NO, class_N = inputs
        self.output_shape(outputs_NO.shape, class_N.shape)
        advice = "number the classes from 0, and end the network with an output for each"
        Domain(0, outputs_NO.shape[1] - 1).check(self.name, "class", class_N, advice)


@dataclass(frozen=True, slots=True)
class SquaredError(NumberLoss):
    """``factor · Σ (a - t)²`` over the outputs, with gradient ``2 · factor · (a - t)``."""

    factor: ClassVar[float] = 1.0
    name: ClassVar[str] = "squared_error"

    def stage_sums(self, context: OpContext) -> list[Operation]:
        error_NO, loss_N = context.buffer("error", context.inputs[0].shape), context.output
        operations: list[Operation] = [partial(np.subtract, *context.inputs, error_NO)]
        operations += stage_row_squared_norms(context, "squares", error_NO, loss_N)
        if self.factor != 1.0:
            operations.append(
                partial(np.multiply, loss_N, constant(self.factor, loss_N.dtype), loss_N)
            )
        return operations

    def stage_gradient(self, context: OpContext, out_NO: Array) -> list[Operation]:
        error_NO = context.buffer("error", out_NO.shape)
        return [partial(np.multiply, error_NO, constant(2.0 * self.factor, error_NO.dtype), out_NO)]


class QuadraticError(SquaredError):
    """Half the squared error: its gradient is ``a - t``."""

    factor: ClassVar[float] = 0.5


@dataclass(frozen=True, slots=True)
class MeanAbsolute(SampleLoss):
    """``Σ |a - E| / O``, the mean over the outputs; its derivative at 0 is 0."""

    name: ClassVar[str] = "mean_absolute"

    def stage_forward(self, context: OpContext) -> list[Operation]:
        error_NO, size_NO = (
            context.buffer(name, context.inputs[0].shape) for name in ("error", "size")
        )
        loss_N = context.output
        return [
            partial(np.subtract, *context.inputs, error_NO),
            partial(np.abs, error_NO, size_NO),
            stage_row_sums(size_NO, context),
            partial(np.divide, loss_N, constant(error_NO.shape[1], loss_N.dtype), loss_N),
        ]

    def stage_gradient(self, context: OpContext, out_NO: Array) -> list[Operation]:
        error_NO = context.buffer("error", out_NO.shape)
        return [
            partial(np.sign, error_NO, out_NO),
            partial(np.divide, out_NO, constant(out_NO.shape[1], out_NO.dtype), out_NO),
        ]


@dataclass(frozen=True, slots=True)
class Huber(NumberLoss):
    """``Σ ½ε²`` where ``|ε| ≤ delta``, beyond it ``Σ delta·(|ε| - ½ delta)``, with ε = a - E.

    Source: Huber, "Robust estimation of a location parameter", 1964.
    """

    delta: Annotated[
        float, Setting("where the parabola becomes straight", "a number above 0", gt=0)
    ] = 1.0
    name: ClassVar[str] = "huber"

    def stage_sums(self, context: OpContext) -> list[Operation]:
        shape, dtype = context.inputs[0].shape, context.output.dtype
        error_NO, cut_NO = context.buffer("error", shape), context.buffer("cut", shape)
        half_NO, delta = context.buffer("half", shape), constant(self.delta, dtype)
        # With c, the error cut to ±delta, both branches are c·(ε - c/2), and the gradient is c.
        return [
            partial(np.subtract, *context.inputs, error_NO),
            partial(np.clip, error_NO, -delta, delta, cut_NO),
            partial(np.multiply, cut_NO, constant(0.5, dtype), half_NO),
            partial(np.subtract, error_NO, half_NO, half_NO),
            partial(np.vecdot, cut_NO, half_NO, context.output),
        ]

    def stage_gradient(self, context: OpContext, out_NO: Array) -> list[Operation]:
        return [partial(np.copyto, out_NO, context.buffer("cut", out_NO.shape))]


@dataclass(frozen=True, slots=True)
class Hinge(ClassLoss):
    """``Σ max(0, a_j - a_c + 1)`` over the classes j other than a sample's own class c.

    Source: Weston and Watkins, "Support vector machines for multi-class pattern recognition", 1999.
    """

    name: ClassVar[str] = "hinge"

    def stage_forward(self, context: OpContext) -> list[Operation]:
        a_NO, class_N = context.inputs
        loss_N, one = context.output, constant(1, a_NO.dtype)
        over_NO, own_N = context.buffer("over", a_NO.shape), context.buffer("own", loss_N.shape)
        position_N = context.buffer("position", loss_N.shape, np.int64)
        row_start_N = np.arange(len(a_NO), dtype=np.int64) * a_NO.shape[1]
        return [
            partial(np.add, row_start_N, class_N, position_N),
            partial(a_NO.reshape(-1).take, position_N, None, own_N, "clip"),
            # In this order, since of two large outputs the difference is exact where it is small.
            partial(np.subtract, a_NO, own_N[:, None], over_NO),
            partial(np.add, over_NO, one, over_NO),
            partial(np.maximum, over_NO, constant(0, a_NO.dtype), out=over_NO),
            # The class itself is 1 over; it does not count.
            partial(np.put, over_NO, position_N, constant(0, a_NO.dtype), "clip"),
            stage_row_sums(over_NO, context),
        ]

    def stage_gradient(self, context: OpContext, out_NO: Array) -> list[Operation]:
        over_NO = context.buffer("over", out_NO.shape)
        position_N = context.buffer("position", out_NO.shape[:1], np.int64)
        count_N = context.buffer("count", out_NO.shape[:1])
        return [
            partial(np.sign, over_NO, out_NO),
            partial(np.add.reduce, out_NO, 1, None, count_N),
            partial(np.negative, count_N, count_N),
            partial(np.put, out_NO, position_N, count_N, "clip"),
        ]
