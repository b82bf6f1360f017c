"""Losses: gates from outputs and targets to one number for each sample.

Shape letters: N samples, O outputs. None of them divides by N: sums travel, means do not. No I/O
here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from distsgd.autodiff.activations import stage_shifted_exponentials, stage_sigmoid
from distsgd.autodiff.gate import Array, Gate, Operation, Shape, Site, constant
from distsgd.autodiff.linear import stage_row_squared_norms
from distsgd.errors import ModelError


class NumberLoss(Gate):
    """What losses share: inputs are outputs ``[N, O]`` and targets, here numbers ``[N, O]``.

    There is no gradient by the targets.
    """

    reads_output: ClassVar[bool] = False
    __slots__ = ()

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

    def samples_stay_apart(self, shapes: tuple[Shape, ...], per_sample: tuple[bool, ...]) -> bool:
        del shapes
        return all(per_sample)

    def stage_backward(
        self, site: Site, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        if index != 0:
            raise ModelError(
                f"{self.name} has no gradient by its targets; watch the outputs instead"
            )
        operations = self.stage_gradient(site, out)
        if grad is not None:
            operations.append(partial(np.multiply, out, grad[:, None], out))
        return operations

    def stage_gradient(self, site: Site, out_NO: Array) -> list[Operation]:
        """Operations that write the gradient of each sample's loss by its outputs."""
        raise NotImplementedError


class ClassLoss(NumberLoss):
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

    def check_values(self, *inputs: Array) -> None:
        outputs_NO, class_N = inputs
        highest = outputs_NO.shape[1] - 1
        check_numbers(self.name, "class", class_N, lowest=0, highest=highest)


def check_numbers(
    gate: str,
    what: str,
    values: Array,
    *,
    lowest: float | None = None,
    highest: float | None = None,
    above: float | None = None,
) -> None:
    """Raises `ModelError` with the first of `values` outside its domain.

    Not-a-number passes: a run that has diverged is told apart from a wrong domain elsewhere.
    """
    outside = np.zeros(values.shape, np.bool_)
    rules = []
    if above is not None:
        outside |= values <= above
        rules.append(f"above {above:g}")
    if lowest is not None:
        outside |= values < lowest
        rules.append(f"from {lowest:g} to {highest:g}" if highest is not None else "0 or more")
    if highest is not None:
        outside |= values > highest
    if outside.any():
        index = tuple(int(i) for i in np.argwhere(outside)[0])
        raise ModelError(
            f"{gate} got the {what} {values[index]:g} at {list(index)}; must be "
            f"{' and '.join(rules)} (scale the targets, end the network with another activation, "
            "or choose another loss)"
        )


@dataclass(frozen=True, slots=True)
class SoftmaxCrossEntropy(ClassLoss):
    """``-ln softmax(z_n)[class of n]``, fused and stable.

    Its gradient is ``softmax(z) - one-hot``.

    Inputs are the raw outputs ``[N, O]`` and the classes ``[N]``, int64, each from 0 to O - 1.
    """

    name: ClassVar[str] = "softmax_cross_entropy"

    def stage_forward(self, site: Site) -> list[Operation]:
        z_NO, class_N = site.inputs
        loss_N, shape = site.output, z_NO.shape
        exp_ON, largest_N = site.buffer("exp", shape[::-1]), site.buffer("largest", shape[:1])
        sum_N, of_class_N = site.buffer("sum", shape[:1]), site.buffer("of_class", shape[:1])
        position_N = site.buffer("position", shape[:1], np.int64)
        row_start_N = np.arange(shape[0], dtype=np.int64) * shape[1]
        return [
            *stage_shifted_exponentials(z_NO, exp_ON, largest_N, sum_N),
            partial(np.add, row_start_N, class_N, position_N),
            partial(z_NO.reshape(-1).take, position_N, None, of_class_N, "clip"),
            partial(np.subtract, largest_N, of_class_N, of_class_N),
            partial(np.log, sum_N, loss_N),
            partial(np.add, loss_N, of_class_N, loss_N),
        ]

    def stage_gradient(self, site: Site, out_NO: Array) -> list[Operation]:
        shape = out_NO.shape
        exp_ON, sum_N = site.buffer("exp", shape[::-1]), site.buffer("sum", shape[:1])
        position_N = site.buffer("position", shape[:1], np.int64)
        return [
            partial(np.divide, exp_ON, sum_N, out_NO.T),
            partial(np.subtract.at, out_NO.reshape(-1), position_N, constant(1, out_NO.dtype)),
        ]


@dataclass(frozen=True, slots=True)
class SigmoidCrossEntropy(NumberLoss):
    """``Σ max(z, 0) - z·t + ln(1 + exp(-|z|))``, fused and stable.

    Its gradient is ``sigmoid(z) - t``.

    Targets are numbers from 0 to 1 (``-Σ t·ln s + (1 - t)·ln(1 - s), s the sigmoid``).
    """

    name: ClassVar[str] = "sigmoid_cross_entropy"

    def check_values(self, *inputs: Array) -> None:
        check_numbers(self.name, "target", inputs[1], lowest=0.0, highest=1.0)

    def stage_forward(self, site: Site) -> list[Operation]:
        z_NO, t_NO = site.inputs
        a_NO, b_NO = site.buffer("a", z_NO.shape), site.buffer("b", z_NO.shape)
        return [
            partial(np.abs, z_NO, a_NO),
            partial(np.negative, a_NO, a_NO),
            partial(np.exp, a_NO, a_NO),
            partial(np.log1p, a_NO, a_NO),
            partial(np.maximum, z_NO, constant(0, z_NO.dtype), out=b_NO),
            partial(np.add, a_NO, b_NO, a_NO),
            partial(np.multiply, z_NO, t_NO, b_NO),
            partial(np.subtract, a_NO, b_NO, a_NO),
            partial(np.add.reduce, a_NO, 1, None, site.output),
        ]

    def stage_gradient(self, site: Site, out_NO: Array) -> list[Operation]:
        z_NO, t_NO = site.inputs
        return [*stage_sigmoid(z_NO, out_NO), partial(np.subtract, out_NO, t_NO, out_NO)]


@dataclass(frozen=True, slots=True)
class SquaredError(NumberLoss):
    """``factor · Σ (a - t)²`` over the outputs, with gradient ``2 · factor · (a - t)``.

    A factor of 1 is the squared error, of one half the quadratic cost.
    """

    factor: float = 1.0
    name: ClassVar[str] = "squared_error"

    def stage_forward(self, site: Site) -> list[Operation]:
        error_NO, loss_N = site.buffer("error", site.inputs[0].shape), site.output
        operations: list[Operation] = [partial(np.subtract, *site.inputs, error_NO)]
        operations += stage_row_squared_norms(site, "squares", error_NO, loss_N)
        if self.factor != 1.0:
            operations.append(
                partial(np.multiply, loss_N, constant(self.factor, loss_N.dtype), loss_N)
            )
        return operations

    def stage_gradient(self, site: Site, out_NO: Array) -> list[Operation]:
        error_NO = site.buffer("error", out_NO.shape)
        return [partial(np.multiply, error_NO, constant(2.0 * self.factor, error_NO.dtype), out_NO)]
