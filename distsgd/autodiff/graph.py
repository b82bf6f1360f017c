"""A circuit: the graph of gates that a function went through, and nothing of their values.

Place in the loop: recorded once when a program is made, over parameters by name that lie in one
flat array, one behind the other, row-major. What can be known without values is decided here:
which gates may work in place, and whether samples have gradients of their own. No I/O here.

Shape letters: N samples, O outputs, P parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from distsgd.autodiff.backward import Node, reached_from
from distsgd.autodiff.gate import Gate, OpContext, Shape
from distsgd.autodiff.ops.shapes import Reshape
from distsgd.autodiff.variable import Variable, open_tapes
from distsgd.base.arrays import Array
from distsgd.errors import ModelError

SampleLosses = Callable[..., tuple[Variable, Variable]]
"""From parameters by name, input and target to losses ``[N]`` and raw outputs ``[N, O]``.

With `Signature.has_keys` a fourth argument follows: the rows' keys ``[N]``, or None where nothing
is left to chance (evaluation).
"""

_ROWS = 2  # Samples that a function is recorded with.


class ParameterSpec(NamedTuple):
    """The name and shape of a parameter."""

    name: str
    shape: Shape

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def total_size(parameters: Sequence[ParameterSpec]) -> int:
    """P, how many numbers all of them hold."""
    return sum(spec.size for spec in parameters)


def views(parameters: Sequence[ParameterSpec], flat: Array) -> dict[str, Array]:
    """The parameters by name, as views of `flat`, shape ``[P]``; nothing is copied."""
    ends = list(accumulate((spec.size for spec in parameters), initial=0))
    if flat.shape != (ends[-1],):
        raise ModelError(f"the flat parameters have shape {flat.shape}; must be ({ends[-1]},)")
    return {
        spec.name: flat[start : start + spec.size].reshape(spec.shape)
        for spec, start in zip(parameters, ends, strict=False)
    }


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
    recording = _Recording()
    token = open_tapes.set((*open_tapes.get(), recording))
    try:
        # On zeros a logarithm or a quotient has no value, but the gates are the same.
        with np.errstate(all="ignore"):
            losses, outputs = sample_losses(*arguments)
    finally:
        open_tapes.reset(token)
    if losses.shape != (_ROWS,):
        raise ModelError(
            f"the losses of {_ROWS} samples have shape {losses.shape}; must be ({_ROWS},), one "
            "loss for each sample (sum over the outputs, not over the samples)"
        )
    named = {name: recording.number(variable) for name, variable in parameters.items()}
    x_at, target_at, losses_at, outputs_at = map(recording.number, (x, target, losses, outputs))
    keys_at = None if keys is None else recording.number(keys)
    known = {x_at, target_at, losses_at, outputs_at, keys_at, *named.values(), *recording.made}
    return Circuit(
        nodes=tuple(recording.nodes),
        shapes=tuple(variable.shape for variable in recording.variables),
        x=x_at,
        target=target_at,
        losses=losses_at,
        outputs=outputs_at,
        keys=keys_at,
        parameters=named,
        constants={n: v.value for n, v in enumerate(recording.variables) if n not in known},
    )


class _Recording:
    """A tape that takes down every gate, and asks no value: what is recorded are zeros."""

    check_values = False

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.variables: list[Variable] = []
        self.made: set[int] = set()
        self._numbers: dict[int, int] = {}

    def number(self, variable: Variable) -> int:
        """The number of `variable`; a new one for a new variable."""
        number = self._numbers.setdefault(id(variable), len(self.variables))
        if number == len(self.variables):
            self.variables.append(variable)  # which also keeps its id from being given to another
        return number

    def record(
        self, gate: Gate, inputs: tuple[Variable, ...], output: Variable, context: OpContext
    ) -> bool:
        """Takes down one gate."""
        del context
        numbers = tuple(map(self.number, inputs))
        self.nodes.append(Node(gate, numbers, self.number(output)))
        self.made.add(self.nodes[-1].output)
        return True

    def tracks(self, variable: Variable) -> bool:
        """Whether `variable` is here, and a watched one or made by a gate."""
        number = self._numbers.get(id(variable))
        return number is not None and (number in self.made or variable.can_be_watched)

    def sees(self, variable: Variable) -> bool:
        """Whether a gradient could go through `variable`."""
        return variable.can_be_watched or self.tracks(variable)


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
