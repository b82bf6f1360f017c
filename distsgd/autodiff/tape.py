"""The tape that records what is computed with variables, gate by gate.

    with GradientTape() as tape:
        loss = ((x @ w + b) ** 2).mean()
    dw, db = tape.gradient(loss, [w, b])

The behaviour follows TensorFlow's class of that name. A tape belongs to the thread that opened it.
No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from distsgd.autodiff.backward import Backward, Node
from distsgd.autodiff.checksums import Checksums
from distsgd.autodiff.gate import Gate, OpContext, shown
from distsgd.autodiff.variable import (
    Operand,
    UnrecordedGradient,
    Variable,
    apply,
    open_tapes,
)
from distsgd.base.arrays import Array
from distsgd.errors import ModelError

__all__ = ["GradientTape", "Operand", "Variable", "apply"]

Nested = Variable | Sequence["Nested"] | Mapping[Any, "Nested"]


class GradientTape:
    """Records gates while it is open, and gives gradients by the chain rule.

    Args:
        persistent: Whether `gradient` can be asked more than once.
        watch_accessed_variables: Whether every watched variable that is used is recorded by itself;
            else only those given to `watch`, before they are used.
        check_values: Whether numbers outside a gate's domain are refused.
    """

    def __init__(
        self,
        *,
        persistent: bool = False,
        watch_accessed_variables: bool = True,
        check_values: bool = True,
    ) -> None:
        self.check_values = check_values
        self.nodes: list[Node] = []
        self.contexts: list[OpContext] = []
        self.variables: list[Variable] = []
        self._numbers: dict[int, int] = {}
        self._tracked: set[int] = set()
        self._seen = Checksums()
        self._persistent, self._watches_accessed = persistent, watch_accessed_variables
        self._is_spent = False

    def __enter__(self) -> Self:
        open_tapes.set((*open_tapes.get(), self))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        open_tapes.set(tuple(tape for tape in open_tapes.get() if tape is not self))

    def watch(self, *variables: Nested) -> None:
        """Records from now on what is computed with `variables`, watched or not by themselves.

        Lists, tuples and dictionaries of them are taken apart. `ModelError` for anything else, and
        for a variable of whole numbers, which nothing can be differentiated by.
        """
        for variable in _flat(variables, "watch got"):
            _check_is_float(variable)
            self._tracked.add(self.number(variable))

    def number(self, variable: Variable) -> int:
        """The number of `variable` on this tape; a new one for a new variable."""
        number = self._numbers.get(id(variable))
        if number is None:
            number = len(self.variables)
            self.variables.append(variable)  # which also keeps its id from being given to another
            self._numbers[id(variable)] = number
            if self._watches(variable):
                self._tracked.add(number)
        return number

    def _watches(self, variable: Variable) -> bool:
        return self._watches_accessed and variable.can_be_watched

    def record(
        self, gate: Gate, inputs: tuple[Variable, ...], output: Variable, context: OpContext
    ) -> bool:
        """Takes down one gate, if it depends on anything watched; says whether it did.

        Args:
            gate: What was computed.
            inputs: What went in.
            output: What came out.
            context: The gate's arrays.
        """
        if not any(self.sees(v) for v in inputs):
            return False
        numbers = tuple(self.number(variable) for variable in inputs)
        number = self.number(output)
        self._tracked.add(number)
        self.nodes.append(Node(gate, numbers, number))
        self.contexts.append(context)
        self._seen.note(context.inputs)
        return True

    def tracks(self, variable: Variable) -> bool:
        """Whether `variable` is on this tape, and watched or dependent on what is."""
        return self._numbers.get(id(variable)) in self._tracked

    def sees(self, variable: Variable) -> bool:
        """Whether a gate of `variable` would be recorded."""
        return self._watches(variable) or self.tracks(variable)

    def gradient(
        self,
        target: Variable | Sequence[Variable],
        sources: Any,
        output_gradients: ArrayLike | Sequence[ArrayLike | None] | None = None,
    ) -> Any:
        """The gradient of the sum of all numbers of `target` by each source.

        Raises `ModelError` for what is no Variable, for shapes that do not fit, and on the second
        call unless the tape is persistent, and where an array that the backward reads was
        changed in place since it was recorded.

        Args:
            target: What was computed; of any shape, or several.
            sources: A variable, or lists, tuples and dictionaries of them, nested in any way.
                Intermediate results count.
            output_gradients: What the gradient by each number of `target` is to begin with, instead
                of 1: an array of its shape; for several targets a list with one for each, where
                None stands for ones.

        Returns:
            Arrays in the structure of `sources`; None for a source that was not watched or that
            `target` does not depend on. Gradients of gradients are not given: where an open tape
            saw `target`, what is computed with the answer and Variables is refused.

        >>> x = Variable([1.0, 2.0])
        >>> with GradientTape() as tape:
        ...     y = x**2
        >>> tape.gradient(y, x, output_gradients=[10.0, 100.0]).tolist()
        [20.0, 400.0]
        """
        self._check_not_spent()
        targets = list(_flat(target, "the target is"))
        seeds = _seeds(targets, output_gradients, is_one=isinstance(target, Variable))
        destinations: dict[int, Array] = {}

        def note(source: Variable) -> None:
            _check_is_float(source)
            number = self._numbers.get(id(source))
            if number is not None and number in self._tracked:
                destinations[number] = np.zeros(source.shape, source.dtype)

        _map_nested(note, sources)
        self._is_spent = not self._persistent
        reached = self._fill_inplace(targets, seeds, destinations)
        if not self._persistent:
            self.contexts.clear()
        going_on = [tape for tape in open_tapes.get() if tape is not self or self._persistent]
        is_seen = any(tape.tracks(target) for tape in going_on for target in targets)

        def answer(source: Variable) -> Array | None:
            found = reached.get(self._numbers.get(id(source), -1))
            return found.view(UnrecordedGradient) if is_seen and found is not None else found

        return _map_nested(answer, sources)

    def gradients(self, target: Variable) -> dict[int, Array]:
        """The gradient of the sum of `target` by every value that it depends on, by its number.

        Each has the shape and dtype of its value.
        Unlike `gradient` it can be asked again and again, as long as `gradient` was not.
        """
        self._check_not_spent()
        every = {
            number: np.zeros(self.variables[number].shape, self.variables[number].dtype)
            for number in self._tracked
        }
        reached = self._fill_inplace([target], [None], every)
        return {number: array for number, array in reached.items() if array is not None}

    def recompute(self) -> None:
        """Computes every recorded value again, in place, from what its sources hold now.

        Forward values are kept from the first computation on; after ``x.value[...] = 2.0`` this
        brings them up to date, and gradients asked for afterwards are those at the new place.
        `ModelError` where a source was given another array by ``x.value = …`` in the meantime.
        """
        self._check_not_spent()
        made = {node.output for node in self.nodes}
        for node, context in zip(self.nodes, self.contexts, strict=True):
            for number, array in zip(node.inputs, context.inputs, strict=True):
                if number not in made and self.variables[number].value is not array:
                    raise ModelError(
                        "a Variable was given another array by x.value = numbers after it was "
                        "recorded; must be changed in place (write x.value[...] = numbers)"
                    )
        for node, context in zip(self.nodes, self.contexts, strict=True):
            if self.check_values:
                node.gate.check_values(*context.inputs)
            if node.gate.output_view(context.inputs[0]) is None:
                for operation in node.gate.stage_forward(context):
                    operation()
        self._seen.renew()

    def _check_not_spent(self) -> None:
        if self._is_spent:
            raise ModelError(
                "the tape was asked for a gradient already; open it with "
                "GradientTape(persistent=True)"
            )

    def _fill_inplace(
        self,
        targets: Sequence[Variable],
        seeds: Sequence[Array | None],
        destinations: dict[int, Array],
    ) -> dict[int, Array | None]:
        roots: dict[int, Array] = {}
        for target, seed in zip(targets, seeds, strict=True):
            number = self._numbers.get(id(target))
            if number is None or number not in self._tracked:
                continue
            if number not in roots:
                zeros = np.zeros(target.shape, target.dtype)
                roots[number] = destinations.get(number, zeros)
            roots[number] += target.dtype.type(1) if seed is None else seed
        backward = Backward(
            self.nodes, self.contexts, destinations, np.empty, keep_all=True, gradients={**roots}
        )
        for position, operations in backward.stage():
            if operations and self.nodes[position].gate.reads_inputs:
                self._seen.check(self.contexts[position].inputs)
            for operation in operations:
                operation()
        return backward.gradients


def _map_nested(function: Callable[[Variable], Any], nested: Any) -> Any:
    if isinstance(nested, Variable):
        return function(nested)
    if isinstance(nested, Mapping):
        return {key: _map_nested(function, item) for key, item in nested.items()}
    if isinstance(nested, tuple | list):
        items = [_map_nested(function, item) for item in nested]
        if isinstance(nested, tuple):
            return type(nested)(*items) if hasattr(nested, "_fields") else tuple(items)
        return items
    raise ModelError(
        f"a source is {nested!r}; must be a Variable, or a list, tuple or dictionary of Variables"
    )


def _check_is_float(variable: Variable) -> None:
    if variable.dtype.kind != "f":
        raise ModelError(
            f"a Variable of dtype {variable.dtype} has no gradient (as classes and keys have "
            "none); must be of floats"
        )


def _flat(nested: Any, what: str) -> Iterator[Variable]:
    if isinstance(nested, Variable):
        yield nested
    elif isinstance(nested, tuple | list | Mapping):
        for item in nested.values() if isinstance(nested, Mapping) else nested:
            yield from _flat(item, what)
    else:
        raise ModelError(
            f"{what} {shown(nested)}; must be a Variable or a list of them (plain arrays are on no "
            "tape: compute with Variables and what distsgd.autodiff has)"
        )


def _seeds(targets: Sequence[Variable], given: Any, *, is_one: bool) -> list[Array | None]:
    """The gradient that each target begins with; None for ones."""
    if given is None:
        return [None] * len(targets)
    if is_one:
        # A list of the only target's is taken too, as TensorFlow does.
        is_listed = isinstance(given, list | tuple) and len(given) == 1
        return [_seed(targets[0], given[0] if is_listed and _fits(given[0], targets[0]) else given)]
    if not isinstance(given, list | tuple) or len(given) != len(targets):
        count = f"{len(given)}" if isinstance(given, list | tuple) else "no list"
        raise ModelError(
            f"output_gradients has {count} for {len(targets)} targets; must be a list with one for "
            "each (None for ones)"
        )
    return [
        None if one is None else _seed(target, one)
        for target, one in zip(targets, given, strict=True)
    ]


def _fits(given: Any, target: Variable) -> bool:
    return given is None or Variable(given).shape == target.shape


def _seed(target: Variable, given: Any) -> Array | None:
    if given is None:
        return None
    array = Variable(given).value
    if array.shape != target.shape:
        raise ModelError(
            f"output_gradients has shape {array.shape} for a target of shape {target.shape}; both "
            "must be equal"
        )
    return array.astype(target.dtype)
