"""A recorded circuit drawn as text: values forward and gradients backward on each edge.

    with GradientTape() as tape:
        f = (x + y) * z
    print(draw_text(tape, f, names={"x": x, "y": y, "z": z}))

As a picture: `distsgd.lessons.circuits.svg`. The same tape gives the same characters. No I/O here:
what comes back is text to print or to write.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from distsgd.autodiff.tape import GradientTape, Variable
from distsgd.base.arrays import Array
from distsgd.errors import ModelError

_MOST_NUMBERS = 4  # Larger arrays are told by their shape and range.


@dataclass(frozen=True, slots=True)
class Edge:
    """A value on its way into a gate, and the share of its gradient that comes back there."""

    source: int
    value: Array
    gradient: Array | None


@dataclass(frozen=True, slots=True)
class Vertex:
    """A value of the circuit: given (no `gate`), or a gate's output with the edges into it."""

    number: int
    label: str
    gate: str | None
    value: Array
    gradient: Array | None
    edges: tuple[Edge, ...]


def vertices(
    tape: GradientTape, target: Variable, *, names: Mapping[str, Variable] | None = None
) -> list[Vertex]:
    """What `target` was made of, sources before what they go into; `target` has gradient 1.

    Args:
        tape: A tape that was asked for no gradient yet, or a persistent one.
        target: What was computed; gradients are those of its sum.
        names: What variables are to be called; others are called v1, v2, …, and constants by
            their value.
    """
    for what, variable in (("target", target), *(names or {}).items()):
        if not isinstance(variable, Variable):
            raise ModelError(f"{what} is {variable!r}; must be a Variable")
    gradients = tape.gradients(target)
    called = {id(variable): name for name, variable in (names or {}).items()}
    labels = {}
    computed = {node.output for node in tape.nodes}
    for number, variable in enumerate(tape.variables):
        name = called.get(id(variable))
        is_constant = number not in computed and number not in gradients
        labels[number] = name or (shown(variable.value, 3) if is_constant else f"v{number + 1}")
    made: dict[int, Vertex] = {}
    root = tape.number(target)
    for position, node in enumerate(tape.nodes):
        edges = tuple(_edges(tape, position, gradients))
        value, gradient = tape.variables[node.output].value, gradients.get(node.output)
        label = labels[node.output]
        made[node.output] = Vertex(node.output, label, node.gate.name, value, gradient, edges)
    needed = _needed(made, root)
    given = [n for n in sorted(needed) if n not in made]
    leaves = [
        Vertex(n, labels[n], None, tape.variables[n].value, gradients.get(n), ()) for n in given
    ]
    return leaves + [vertex for n, vertex in made.items() if n in needed]


def draw_text(
    tape: GradientTape,
    target: Variable,
    *,
    names: Mapping[str, Variable] | None = None,
    digits: int = 4,
) -> str:
    """A table of the circuit: each value with its gradient, below it the edges that go into it.

    Where branches meet, a value's gradient is the sum of those on the edges that leave it.

    Args:
        tape: A tape that was asked for no gradient yet, or a persistent one.
        target: What was computed; gradients are those of its sum.
        names: What variables are to be called.
        digits: Of each number.

    >>> x, y, z = (Variable(number) for number in (-2.0, 5.0, -4.0))
    >>> with GradientTape() as tape:
    ...     f = (x + y) * z
    >>> print(draw_text(tape, f, names={"x": x, "y": y, "z": z, "f": f}))
    value         forward  backward
    x                  -2        -4
    y                   5        -4
    z                  -4         3
    v3 = add            3        -4
      from x           -2        -4
      from y            5        -4
    f = multiply      -12         1
      from v3           3        -4
      from z           -4         3
    """
    drawn = vertices(tape, target, names=names)
    labels = {vertex.number: vertex.label for vertex in drawn}
    rows = [("value", "forward", "backward")]
    for vertex in drawn:
        head = vertex.label if vertex.gate is None else f"{vertex.label} = {vertex.gate}"
        rows.append((head, shown(vertex.value, digits), shown(vertex.gradient, digits)))
        rows += [
            (
                f"  from {labels[edge.source]}",
                shown(edge.value, digits),
                shown(edge.gradient, digits),
            )
            for edge in vertex.edges
        ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}" for a, b, c in rows]
    return "\n".join(line.rstrip() for line in lines)


def _edges(tape: GradientTape, position: int, gradients: Mapping[int, Array]) -> Iterator[Edge]:
    node, context = tape.nodes[position], tape.contexts[position]
    grad = gradients.get(node.output)
    for index, number in enumerate(node.inputs):
        gradient = None
        if grad is not None and number in gradients:
            gradient = np.empty(context.inputs[index].shape, context.output.dtype)
            for operation in node.gate.stage_backward(context, index, grad, gradient):
                operation()
        yield Edge(number, context.inputs[index], gradient)


def _needed(made: Mapping[int, Vertex], root: int) -> set[int]:
    needed, open_ = {root}, [root]
    while open_:
        vertex = made.get(open_.pop())
        for edge in vertex.edges if vertex else ():
            if edge.source not in needed:
                needed.add(edge.source)
                open_.append(edge.source)
    return needed


def shown(array: Array | None, digits: int) -> str:
    """Numbers in so many digits; large arrays by shape and range, nothing for None."""
    if array is None:
        return ""
    if array.size > _MOST_NUMBERS:
        size = "x".join(map(str, array.shape))
        return f"{size} in [{_number(array.min(), digits)}, {_number(array.max(), digits)}]"
    return _nested(array, digits)


def _nested(array: Array, digits: int) -> str:
    if array.ndim == 0:
        return _number(array, digits)
    return "[" + ", ".join(_nested(item, digits) for item in array) + "]"


def _number(number: Array, digits: int) -> str:
    # Adding 0 turns -0 into 0.
    return f"{float(number) + 0.0:.{digits}g}"
