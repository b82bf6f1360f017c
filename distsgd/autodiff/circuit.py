"""A circuit: the gates that a function went through, and nothing of their values.

Place in the loop: recorded once when a program is made. What can be known without values is
decided here: which gates may work in place, and whether samples have gradients of their own. No
I/O here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from distsgd.autodiff.chain import Node, reached_from
from distsgd.autodiff.gate import Shape
from distsgd.autodiff.ops.shapes import Reshape
from distsgd.autodiff.parameters import ParameterSpec
from distsgd.autodiff.tape import GradientTape, Variable
from distsgd.base.arrays import Array
from distsgd.errors import ModelError

SampleLosses = Callable[..., tuple[Variable, Variable]]
"""From parameters by name, input and target to losses ``[N]`` and raw outputs ``[N, O]``.

With `Signature.has_keys` a fourth argument follows: the rows' keys ``[N]``, or None where nothing
is left to chance (evaluation).
"""

_ROWS = 2  # Samples that a function is recorded with.


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What a program takes: parameters, a sample of its input and of its target, a dtype.

    With `has_keys` also a key for each row, which chance in the network depends on.
    """

    parameters: tuple[ParameterSpec, ...]
    input_shape: Shape
    target_shape: Shape
    target_dtype: np.dtype[Any]
    dtype: np.dtype[Any]
    has_keys: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """Recorded gates; values are numbered.

    Attributes:
        nodes: The gates, in the order in which they were computed.
        shapes: Shape of each value as recorded, with two samples.
        x: The input's number; `target`, `losses`, `outputs` and `keys` (None without) likewise.
        parameters: Each parameter's number by its name.
        constants: Values that are neither given nor computed.
    """

    nodes: tuple[Node, ...]
    shapes: tuple[Shape, ...]
    x: int
    target: int
    losses: int
    outputs: int
    keys: int | None
    parameters: Mapping[str, int]
    constants: Mapping[int, Array]

    @property
    def with_samples(self) -> frozenset[int]:
        """The values that have a row for each sample."""
        given = {self.x, self.target} | ({self.keys} if self.keys is not None else set())
        return reached_from(self.nodes, given)


def record(
    sample_losses: SampleLosses, signature: Signature, *, with_keys: bool = False
) -> Circuit:
    """Runs a function once, on zeros, and keeps its gates.

    With a signature that has keys it is run with them or without, as `with_keys` says. Raises
    `ModelError` unless it gives a loss for each sample.
    """
    x = Variable(np.zeros((_ROWS, *signature.input_shape), signature.dtype))
    target = Variable(
        np.zeros((_ROWS, *signature.target_shape), signature.target_dtype),
        dtype=signature.target_dtype,
    )
    parameters = {
        spec.name: Variable(np.zeros(spec.shape, signature.dtype)) for spec in signature.parameters
    }
    keys = Variable(np.zeros(_ROWS, np.uint64), dtype=np.uint64) if with_keys else None
    arguments = (parameters, x, target, keys) if signature.has_keys else (parameters, x, target)
    # On zeros a logarithm or a quotient has no value, but the gates are the same.
    with np.errstate(all="ignore"), _recording_tape() as tape:
        losses, outputs = sample_losses(*arguments)
    if losses.shape != (_ROWS,):
        raise ModelError(
            f"the losses of {_ROWS} samples have shape {losses.shape}; must be ({_ROWS},), one "
            "loss for each sample "
            "(sum over the outputs, not over the samples)"
        )
    numbers = {name: tape.number(variable) for name, variable in parameters.items()}
    given = {
        tape.number(x),
        tape.number(target),
        tape.number(losses),
        tape.number(outputs),
        *numbers.values(),
    }
    if keys is not None:
        given.add(tape.number(keys))
    given |= {node.output for node in tape.nodes}
    return Circuit(
        nodes=tuple(tape.nodes),
        shapes=tuple(variable.shape for variable in tape.variables),
        x=tape.number(x),
        target=tape.number(target),
        losses=tape.number(losses),
        outputs=tape.number(outputs),
        keys=None if keys is None else tape.number(keys),
        parameters=numbers,
        constants={n: v.value for n, v in enumerate(tape.variables) if n not in given},
    )


def _recording_tape() -> GradientTape:
    return GradientTape(keep_unwatched=True, check_values=False)


def find_in_place(circuit: Circuit) -> frozenset[int]:
    """Positions of the nodes whose output may take their input's memory.

    Nobody needs the old value there.
    """
    maker = {node.output: node.gate for node in circuit.nodes}
    uses = [value for node in circuit.nodes for value in node.inputs]

    def is_free(value: int) -> bool:
        made_by = maker.get(value)
        if made_by is None or made_by.reads_output or isinstance(made_by, Reshape):
            return False  # given from outside, needed in the backward, or another value's memory
        return uses.count(value) == 1 and value not in (circuit.outputs, circuit.losses)

    return frozenset(
        position
        for position, node in enumerate(circuit.nodes)
        if node.gate.in_place and not node.gate.reads_inputs and is_free(node.inputs[0])
    )


def check_per_sample(circuit: Circuit) -> None:
    """Raises `ModelError` where a sample has no gradient of its own.

    The same where its exact norm would need cross terms.
    """
    off = "or switch per-sample statistics off (set [statistics] per_sample = false)"
    with_samples = circuit.with_samples
    for node in circuit.nodes:
        has_samples = tuple(value in with_samples for value in node.inputs)
        shapes = tuple(circuit.shapes[value] for value in node.inputs)
        if any(has_samples) and not node.gate.samples_stay_apart(shapes, has_samples):
            raise ModelError(
                f"gate {node.gate.name!r} mixes samples, so that no sample has a gradient of its "
                f"own; take it out, {off}"
            )
    for name, value in circuit.parameters.items():
        users = [node for node in circuit.nodes for used in node.inputs if used == value]
        if len(users) > 1:
            raise ModelError(
                f"parameter {name!r} is used by several gates "
                f"({', '.join(node.gate.name for node in users)}), and the "
                "exact norm of its per-sample gradients needs their cross terms; give each gate "
                f"its own, {off}"
            )
        if users and users[0].inputs[0] not in with_samples:
            raise ModelError(
                f"parameter {name!r} enters gate {users[0].gate.name!r} apart from the samples, "
                "for which there is no "
                f"exact per-sample rule; apply it to the samples directly, {off}"
            )
