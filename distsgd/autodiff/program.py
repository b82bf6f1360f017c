"""A program: a recorded tape made static, staged once over buffers that it owns.

Place in the loop: a worker binds a program to its rows, the weights and its gradient slot, once
for each number of rows, and then runs it for every block of every step. Nothing is allocated,
checked or looked up then. No I/O here.

Shape letters: N samples, O outputs, P parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from distsgd.autodiff.backward import Backward
from distsgd.autodiff.bound import Arena, BoundProgram, OpRecord, ParameterUse
from distsgd.autodiff.gate import OpContext, Operation
from distsgd.autodiff.graph import (
    Circuit,
    SampleLosses,
    Signature,
    check_per_sample,
    find_in_place,
    record,
    total_size,
    views,
)
from distsgd.base.arrays import Array
from distsgd.errors import ModelError

__all__ = ["BoundProgram", "OpRecord", "Program"]


class Program:
    """Per-sample losses and their gradient over buffers for at most `max_rows` samples.

    Args:
        sample_losses: From parameters by name, input and target to losses and raw outputs; run
            once, to record it.
        signature: What `sample_losses` takes.
        max_rows: Most samples that can be bound.
        per_sample: Whether `backward` gives exact per-sample squared norms; raises `ModelError`
            where it cannot.
        keep_all: Whether every value and gradient stays readable (`BoundProgram.steps`), at the
            cost of memory.
    """

    def __init__(
        self,
        sample_losses: SampleLosses,
        signature: Signature,
        *,
        max_rows: int,
        per_sample: bool,
        keep_all: bool = False,
    ) -> None:
        if max_rows < 1:
            raise ModelError(f"max_rows is {max_rows}; must be at least 1")
        self.signature, self.max_rows, self.per_sample, self.keep_all = (
            signature,
            max_rows,
            per_sample,
            keep_all,
        )
        self._arena = Arena()
        # Recorded twice where rows have keys: with what they decide, and without (evaluation).
        self._circuits = {
            with_keys: record(sample_losses, signature, with_keys=with_keys)
            for with_keys in ((True, False) if signature.has_keys else (False,))
        }
        if per_sample:
            for circuit in self._circuits.values():
                check_per_sample(circuit)
        self._in_place = {
            with_keys: frozenset() if keep_all else find_in_place(circuit)
            for with_keys, circuit in self._circuits.items()
        }
        self._bind_largest()

    def bind(
        self,
        x: Array,
        target: Array,
        *,
        weights: Array,
        gradients: Array | None = None,
        x_squared_norms: Array | None = None,
        x_gradient: Array | None = None,
        keys: Array | None = None,
    ) -> BoundProgram:
        """Stages the program over these arrays, which are used in place.

        Change their content and run again.

        All are C-contiguous and, but for class numbers, of the program's dtype; else `ModelError`.

        Args:
            x: Input, ``[N, ...]`` with N at most `max_rows`.
            target: Class numbers ``[N]``, int64, or numbers ``[N, O]``.
            weights: Flat parameters ``[P]``; may be read-only.
            gradients: Flat gradient sums ``[P]``; without it and `x_gradient` there is no backward.
            x_squared_norms: ``[N]``, the squared norm of each sample of `x`, where it is known
                beforehand.
            x_gradient: Like `x`: filled with the gradient of each sample's loss by its input.
            keys: ``[N]``, uint64: each row's key, for a signature that has keys; without them
                nothing is left to chance, as in an evaluation.
        """
        self._check_arrays(x, target, {"weights": weights, "gradients": gradients})
        for what, array, shape in (
            ("x_squared_norms", x_squared_norms, x.shape[:1]),
            ("x_gradient", x_gradient, x.shape),
        ):
            _check_array(what, array, shape, self.signature.dtype)
        _check_array("keys", keys, x.shape[:1], np.dtype(np.uint64))
        if keys is not None and not self.signature.has_keys:
            raise ModelError("the program has no use for keys; bind it without")
        circuit, in_place = self._circuits[keys is not None], self._in_place[keys is not None]
        self._arena.rewind()
        staging = _Staging(circuit, self._arena)
        norms_of = {} if x_squared_norms is None else {circuit.x: x_squared_norms}
        by_name = views(self.signature.parameters, weights)
        given = {number: by_name[name] for name, number in circuit.parameters.items()}
        given |= {circuit.x: x, circuit.target: target}
        if keys is not None and circuit.keys is not None:
            given[circuit.keys] = keys
        staging.stage_forward(given, in_place, norms_of)
        destinations = {} if x_gradient is None else {circuit.x: x_gradient}
        if gradients is not None:
            by_name = views(self.signature.parameters, gradients)
            destinations |= {number: by_name[name] for name, number in circuit.parameters.items()}
        with_norms = self.per_sample and gradients is not None
        return staging.finish(destinations, with_norms=with_norms, keep_all=self.keep_all)

    def _bind_largest(self) -> None:
        """Sizes the buffers, and asks every gate now for all that it must be able to do."""
        signature, rows = self.signature, self.max_rows
        flat = np.empty(total_size(signature.parameters), signature.dtype)
        self.bind(
            np.empty((rows, *signature.input_shape), signature.dtype),
            np.empty((rows, *signature.target_shape), signature.target_dtype),
            weights=flat,
            gradients=flat,
            keys=np.empty(rows, np.uint64) if signature.has_keys else None,
        )

    def _check_arrays(
        self, x: Array, target: Array, flat_by_name: Mapping[str, Array | None]
    ) -> None:
        for what, array in (("x", x), ("target", target), *flat_by_name.items()):
            is_left_out = array is None and what == "gradients"
            if not is_left_out and not (isinstance(array, np.ndarray) and array.ndim):
                raise ModelError(f"{what} is {array!r}; must be a numpy array of one axis or more")
        signature, rows = self.signature, len(x)
        if not 1 <= rows <= self.max_rows:
            raise ModelError(
                f"{rows} rows; must be 1 to {self.max_rows} (make the program with a larger "
                "max_rows)"
            )
        _check_array("x", x, (rows, *signature.input_shape), signature.dtype)
        _check_array("target", target, (rows, *signature.target_shape), signature.target_dtype)
        for what, flat in flat_by_name.items():
            _check_array(what, flat, (total_size(signature.parameters),), signature.dtype)


def _check_array(
    what: str, array: Array | None, shape: tuple[int, ...], dtype: np.dtype[np.generic]
) -> None:
    if array is not None and (
        array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous
    ):
        order = "" if array.flags.c_contiguous else ", not C-contiguous"
        raise ModelError(
            f"{what} is {array.dtype} {array.shape}{order}; must be C-contiguous {dtype} {shape}"
        )


def _refuse_backward() -> None:
    raise ModelError(
        "the program was bound without gradients; bind it with gradients= or x_gradient= to go "
        "backward"
    )


class _Staging:
    """One binding in the making: the arrays of its values, and the operations over them."""

    def __init__(self, circuit: Circuit, arena: Arena) -> None:
        self._circuit, self._arena = circuit, arena
        self._values: dict[int, Array] = dict(circuit.constants)
        self._squared_norms: dict[int, Array] = {}
        self._contexts: list[OpContext] = []
        self._forward: list[Operation] = []
        self._has_norms = False

    def stage_forward(
        self,
        given: Mapping[int, Array],
        in_place: frozenset[int],
        squared_norms: Mapping[int, Array],
    ) -> None:
        self._values |= given
        self._squared_norms |= squared_norms
        for position, node in enumerate(self._circuit.nodes):
            inputs = tuple(self._values[value] for value in node.inputs)
            view = node.gate.output_view(inputs[0])
            if view is not None:
                output = view
                if node.inputs[0] in self._squared_norms:  # a view holds the same numbers
                    self._squared_norms[node.output] = self._squared_norms[node.inputs[0]]
            elif position in in_place:
                output = inputs[0]
            else:
                shape = node.gate.output_shape(*(array.shape for array in inputs))
                output = self._arena.allocate(
                    shape, node.gate.output_dtype(*(array.dtype for array in inputs))
                )
            context = OpContext(inputs, output, self._arena.allocate)
            if view is None:
                self._forward += node.gate.stage_forward(context)
            self._values[node.output] = output
            self._contexts.append(context)

    def finish(
        self, destinations: Mapping[int, Array], *, with_norms: bool, keep_all: bool
    ) -> BoundProgram:
        circuit, values = self._circuit, self._values
        backward = Backward(
            circuit.nodes,
            self._contexts,
            destinations,
            self._arena.allocate,
            keep_all=keep_all,
            gradients={circuit.losses: None},
        )
        losses_N = values[circuit.losses]
        if losses_N.shape != values[circuit.x].shape[:1]:
            raise ModelError(
                f"the losses of {len(values[circuit.x])} samples have shape {losses_N.shape}; must "
                "be one for each sample (a subscript or a shape in the network counts samples; "
                "write x[:, 0] for x[0:2, 0], and reshape(-1, ...))"
            )
        norms_N = self._arena.allocate(losses_N.shape, losses_N.dtype) if with_norms else None
        operations: list[Operation] = [] if destinations else [_refuse_backward]
        of_nodes = backward.stage() if destinations else []
        for position, of_node in of_nodes:
            if norms_N is not None:
                # Before the node's own, which may take over the memory of the gradient that norms
                # are made from.
                operations += self._stage_squared_norms(position, backward.gradients, norms_N)
            operations += of_node
        # What nothing flowed to is zero.
        unreached = [array for n, array in destinations.items() if n not in backward.gradients]
        if norms_N is not None and not self._has_norms:
            unreached.append(norms_N)
        operations += [partial(array.fill, 0) for array in unreached]
        steps = tuple(
            OpRecord(
                node.gate.name, context.inputs, context.output, backward.gradients.get(node.output)
            )
            for node, context in zip(circuit.nodes, self._contexts, strict=True)
        )
        uses = self._parameter_uses(backward.gradients, destinations)
        return BoundProgram(
            self._forward,
            operations,
            (losses_N, values[circuit.outputs], norms_N),
            steps,
            uses=uses,
            keep_all=keep_all,
        )

    def _parameter_uses(
        self, gradients: Mapping[int, Array | None], destinations: Mapping[int, Array]
    ) -> dict[str, list[ParameterUse]]:
        """Where each parameter is used, for those that a backward gives the gradient of."""
        circuit, with_samples = self._circuit, self._circuit.with_samples
        uses: dict[str, list[ParameterUse]] = {}
        for name, value in circuit.parameters.items():
            uses[name] = [
                ParameterUse(
                    node.gate,
                    context,
                    index,
                    tuple(n in with_samples for n in node.inputs),
                    gradients[node.output],
                )
                for node, context in zip(circuit.nodes, self._contexts, strict=True)
                for index, used in enumerate(node.inputs)
                if used == value and value in destinations and node.output in gradients
            ]
        return uses

    def _stage_squared_norms(
        self, position: int, gradients: Mapping[int, Array | None], norms_N: Array
    ) -> list[Operation]:
        node, context = self._circuit.nodes[position], self._contexts[position]
        numbers = self._circuit.parameters.values()
        parameters = frozenset(index for index, value in enumerate(node.inputs) if value in numbers)
        if not parameters:
            return []
        is_first = not self._has_norms
        self._has_norms = True
        out_N = norms_N if is_first else context.buffer("squared_norms", norms_N.shape)
        known = self._squared_norms.get(node.inputs[0])
        operations = node.gate.stage_squared_norms(
            context, parameters, gradients[node.output], out_N, known
        )
        return operations if is_first else [*operations, partial(np.add, norms_N, out_N, norms_N)]
