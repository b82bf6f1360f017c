"""A bound program: operations over given arrays, its memory, and what they leave to be read.

Place in the loop: what a worker runs, block after block. No I/O here.

Shape letters: N samples, O outputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from distsgd.autodiff.gate import Gate, OpContext, Operation, Shape, grad_or_ones
from distsgd.base.arrays import Array
from distsgd.errors import ModelError

_ALIGNMENT = 64  # bytes: a cache line, and the widest vector register


class Arena:
    """The memory that a program owns, handed out in order.

    Rewound before each binding: the same request of every binding gets the same memory.
    """

    def __init__(self) -> None:
        self._buffers: list[NDArray[np.uint8]] = []
        self._next = 0

    def rewind(self) -> None:
        """Starts again with the first buffer."""
        self._next = 0

    def allocate(self, shape: Shape, dtype: DTypeLike) -> Array:
        """The next buffer, its content undefined; grown where an earlier binding needed less."""
        dtype = np.dtype(dtype)
        size_bytes = math.prod(shape) * dtype.itemsize
        if self._next == len(self._buffers):
            self._buffers.append(_aligned(size_bytes))
        elif self._buffers[self._next].size < size_bytes:
            self._buffers[self._next] = _aligned(size_bytes)
        buffer = self._buffers[self._next]
        self._next += 1
        return buffer[:size_bytes].view(dtype).reshape(shape)


def _aligned(size_bytes: int) -> NDArray[np.uint8]:
    raw = np.empty(size_bytes + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size_bytes]


class OpRecord(NamedTuple):
    """One gate of a bound program, to be read after a forward and a backward.

    Element-wise gates work in place unless the program was made with ``keep_all=True``; without it
    their input holds their output. What a dense layer's `grad_output` holds after a backward is δ,
    the gradient by its weighted input.

    Attributes:
        name: The gate's.
        inputs: What went in, weights included.
        output: What came out.
        grad_output: Gradient of each sample's loss by the output; None where nothing flowed back,
            and for the losses.
    """

    name: str
    inputs: tuple[Array, ...]
    output: Array
    grad_output: Array | None


class LayerReading(NamedTuple):
    """A layer with parameters, sample by sample.

    Attributes:
        inputs: What came in: the activations ``a`` of the layer before.
        weighted_input: ``z = a @ W + b``; None unless the program was made with ``keep_all=True``,
            since activations otherwise work in place.
        delta: ``∂L/∂z`` of each sample's own loss, the δ of the layer.
    """

    inputs: Array
    weighted_input: Array | None
    delta: Array


class ParameterUse(NamedTuple):
    """A place where a parameter enters a gate, and the gradient that came back there."""

    gate: Gate
    context: OpContext
    position: int
    has_samples: tuple[bool, ...]
    grad: Array | None

    def sample_gradients(self) -> Array:
        """Each sample's own gradient by the parameter, by the gate's rule for one row."""
        context, grad = self.context, grad_or_ones(self.grad, self.context)
        found = np.empty((len(grad), *context.inputs[self.position].shape), grad.dtype)
        for n, out in enumerate(found):
            row = slice(n, n + 1)
            inputs = tuple(
                array[row] if has_samples else array
                for array, has_samples in zip(context.inputs, self.has_samples, strict=True)
            )
            alone = OpContext(inputs, np.empty_like(context.output[row]), np.empty)
            operations = self.gate.stage_forward(alone)
            operations += self.gate.stage_backward(alone, self.position, grad[row], out)
            for operation in operations:
                operation()
        return found


class BoundProgram:
    """A program over given arrays: runs what was staged, and allocates nothing.

    Numbers may overflow in a run that diverges, and numpy then warns: a loop sets ``np.errstate``
    once around itself.

    Attributes:
        losses_N: Loss of each sample, filled by `forward`; good until the next forward of any
            binding of the program.
        outputs_NO: The network's raw outputs, likewise.
        squared_norms_N: Squared norm of each sample's own gradient over all parameters, filled by
            `backward` of a per-sample program; None for others.
        steps: Every gate with its arrays, in the order of the forward.
    """

    __slots__ = (
        "_backward",
        "_forward",
        "_keep_all",
        "_uses",
        "losses_N",
        "outputs_NO",
        "squared_norms_N",
        "steps",
    )

    def __init__(
        self,
        forward: list[Operation],
        backward: list[Operation],
        results: tuple[Array, Array, Array | None],
        steps: tuple[OpRecord, ...],
        *,
        uses: Mapping[str, Sequence[ParameterUse]],
        keep_all: bool,
    ) -> None:
        self._forward, self._backward = tuple(forward), tuple(backward)
        self.losses_N, self.outputs_NO, self.squared_norms_N = results
        self.steps = steps
        self._uses, self._keep_all = uses, keep_all

    def forward(self) -> None:
        """Fills `losses_N` and `outputs_NO` from the arrays that were bound."""
        for operation in self._forward:
            operation()

    def backward(self) -> None:
        """Overwrites the bound gradients with their sum over the samples, after a `forward`."""
        for operation in self._backward:
            operation()

    def layer(self, name: str) -> LayerReading:
        """What a layer with parameters saw and was told, after a forward and a backward.

        Nothing is computed for it; the arrays are the program's own, good until its next forward.

        Args:
            name: As in the parameters' names: "layers.0" for "layers.0.weight".
        """
        found = [parameter for parameter in self._uses if parameter.rpartition(".")[0] == name]
        use = self._only_use(found[0] if found else name)
        delta = grad_or_ones(use.grad, use.context)
        z = use.context.output if self._keep_all else None
        return LayerReading(inputs=use.context.inputs[0], weighted_input=z, delta=delta)

    def sample_gradients(self, parameter: str) -> Array:
        """Each sample's own gradient by a parameter, ``[N, *shape]``, after a backward.

        Formed from what the backward left, by the gate's own rule for one sample; no other layer is
        touched. For reading, not for the loop: a whole gradient for each sample is formed.

        Args:
            parameter: Its full name: "layers.0.weight".
        """
        uses = self._uses_of(parameter)
        total = uses[0].sample_gradients()
        for use in uses[1:]:
            total += use.sample_gradients()
        return total

    def _only_use(self, parameter: str) -> ParameterUse:
        uses = self._uses_of(parameter)
        if len(uses) > 1:
            raise ModelError(
                f"parameter {parameter!r} is used by {len(uses)} gates; read them in steps"
            )
        return uses[0]

    def _uses_of(self, parameter: str) -> Sequence[ParameterUse]:
        uses = self._uses.get(parameter)
        if not uses:
            names = [name for name, found in self._uses.items() if found]
            raise ModelError(
                f"{parameter!r} has no gradient here; those that have are "
                f"{', '.join(names) or 'none (bind with gradients=)'}"
            )
        return uses
