"""A recorded circuit drawn as a picture in SVG, without any library.

The same tape gives the same bytes. No I/O here: what comes back is text to write to a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from itertools import chain, pairwise

from distsgd.autodiff.tape import GradientTape, Variable
from distsgd.lessons.circuits.text import Edge, Vertex, shown, vertices

_Place = tuple[float, float]
_Key = tuple[int, int, int]  # Ends and column of an edge on its way; a vertex: itself twice, -1.

_COLUMN, _ROW, _MARGIN = 190, 104, 70  # Distances in the picture, in points.
_SYMBOLS = {
    "add": "+",
    "subtract": "\N{MINUS SIGN}",
    "multiply": "\N{MULTIPLICATION SIGN}",
    "divide": "\N{DIVISION SIGN}",
    "negative": "\N{MINUS SIGN}x",
    "sum": "\N{GREEK CAPITAL LETTER SIGMA}",
    "reciprocal": "1/x",
}


def draw_svg(
    tape: GradientTape,
    target: Variable,
    *,
    names: Mapping[str, Variable] | None = None,
    digits: int = 4,
) -> str:
    """The circuit as a picture, from left to right; on each edge its value above, in green, and
    its gradient below, in red.

    Args:
        tape: A tape that was asked for no gradient yet, or a persistent one.
        target: What was computed; gradients are those of its sum.
        names: What variables are to be called.
        digits: Of each number.
    """  # noqa: D205 -- one sentence, longer than a line.
    drawn = vertices(tape, target, names=names)
    places, passed = _layout(drawn)
    width = max(x for x, _ in places.values()) + _MARGIN + 90
    rows = [y for _, y in [*places.values(), *chain(*passed.values())]]
    height = max(rows) + _MARGIN
    size = f'width="{width:.0f}" height="{height:.0f}"'
    style = 'font-family="sans-serif" font-size="13" text-anchor="middle"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>',
        f'<rect {size} fill="white"/>',
    ]
    for vertex in drawn:
        for edge in vertex.edges:
            between = passed[edge.source, vertex.number]
            way = [places[edge.source], *between, places[vertex.number]]
            parts += _edge_parts(edge, way, digits)
    for vertex in drawn:
        parts += _vertex_parts(vertex, places[vertex.number])
    last = drawn[-1]
    x, y = places[last.number]
    parts += [_line((x + 26, y), (x + 116, y)), *_numbers(x + 71, y, last, digits)]
    return "\n".join([*parts, "</svg>", ""])


def _layout(drawn: list[Vertex]) -> tuple[dict[int, _Place], dict[tuple[int, int], list[_Place]]]:
    """Where each vertex stands, and the places that each edge passes (by source and target).

    An edge takes a place of its own in every column that it passes, so that it meets no vertex.
    """
    depth = _depths(drawn)
    ends = [(edge.source, vertex.number) for vertex in drawn for edge in vertex.edges]
    row: dict[_Key, float] = {}
    for level in range(max(depth.values()) + 1):
        wished = _wished_rows(level, drawn, depth, row)
        taken = -1.0
        for key in sorted(wished, key=lambda key: (wished[key], key)):
            taken = row[key] = max(wished[key], taken + 1.0)
    places = {v.number: _place(depth[v.number], row[v.number, v.number, -1]) for v in drawn}
    passed = {
        (source, target): [
            _place(level, row[source, target, level])
            for level in range(depth[source] + 1, depth[target])
        ]
        for source, target in ends
    }
    return places, passed


def _depths(drawn: list[Vertex]) -> dict[int, int]:
    """The column of each vertex: right of all that goes into it.

    Given values stand just left of what they go into first.
    """
    depth: dict[int, int] = {}
    for vertex in drawn:
        depth[vertex.number] = 1 + max((depth[edge.source] for edge in vertex.edges), default=-1)
    users: dict[int, list[int]] = {}
    for vertex in drawn:
        for edge in vertex.edges:
            users.setdefault(edge.source, []).append(depth[vertex.number])
    for vertex in drawn:
        if not vertex.edges and vertex.number in users:
            depth[vertex.number] = min(users[vertex.number]) - 1
    return depth


def _wished_rows(
    level: int, drawn: list[Vertex], depth: Mapping[int, int], row: Mapping[_Key, float]
) -> dict[_Key, float]:
    """Where what stands in column `level` would like to stand: at the mean of what comes in."""
    wished: dict[_Key, float] = {}
    for vertex in drawn:
        before = [row.get(_key(e.source, vertex.number, level - 1, depth)) for e in vertex.edges]
        for edge, at in zip(vertex.edges, before, strict=True):
            if depth[edge.source] < level < depth[vertex.number] and at is not None:
                wished[edge.source, vertex.number, level] = at
        if depth[vertex.number] == level:
            rows = [at for at in before if at is not None]
            # A given value stands above the others.
            wished[vertex.number, vertex.number, -1] = sum(rows) / len(rows) if rows else -0.5
    return wished


def _key(source: int, target: int, level: int, depth: Mapping[int, int]) -> _Key:
    """What stands in column `level` on the way from `source` to `target`."""
    return (source, source, -1) if depth[source] == level else (source, target, level)


def _place(level: int, row: float) -> _Place:
    return _MARGIN + _COLUMN * level, _MARGIN + _ROW * row


def _edge_parts(edge: Edge, way: list[_Place], digits: int) -> list[str]:
    """A curve along `way`, from the middle of a vertex to that of another, with its numbers."""
    (x0, y0), (x1, y1) = way[0], way[1]
    points = [(x0 + 26, y0), *way[1:-1], (way[-1][0] - 26, way[-1][1])]
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (xa, ya), (xb, yb) in pairwise(points):
        bend = (xb - xa) / 2
        path += f" C{xa + bend:.1f} {ya:.1f} {xb - bend:.1f} {yb:.1f} {xb:.1f} {yb:.1f}"
    # Numbers stand where edges out of one vertex, and into one, are both apart.
    x, y = x0 + 0.5 * (x1 - x0), y0 + 0.5 * (y1 - y0)
    return [
        f'<path d="{path}" fill="none" stroke="#888" stroke-width="1.2"/>',
        *_numbers(x, y, edge, digits),
    ]


def _numbers(x: float, y: float, of: Edge | Vertex, digits: int) -> list[str]:
    halo = 'stroke="white" stroke-width="4" paint-order="stroke"'
    value, gradient = (escape(shown(array, digits)) for array in (of.value, of.gradient))
    above = f'<text x="{x:.1f}" y="{y - 6:.1f}" fill="#1a7f37" {halo}>{value}</text>'
    below = f'<text x="{x:.1f}" y="{y + 17:.1f}" fill="#c62828" {halo}>{gradient}</text>'
    return [above, below] if gradient else [above]


def _vertex_parts(vertex: Vertex, place: tuple[float, float]) -> list[str]:
    x, y = place
    if vertex.gate is None:
        return [
            f'<text x="{x:.1f}" y="{y + 5:.1f}" font-weight="bold">{escape(vertex.label)}</text>'
        ]
    symbol = _SYMBOLS.get(vertex.gate, vertex.gate)
    size = 9 if len(symbol) > 6 else 14
    parts = [
        f'<ellipse cx="{x:.1f}" cy="{y:.1f}" rx="26" ry="20" fill="#eef3fb" stroke="#345"/>',
        f'<text x="{x:.1f}" y="{y + 5:.1f}" font-size="{size}">{escape(symbol)}</text>',
    ]
    if not vertex.label.startswith("v") or not vertex.label[1:].isdigit():
        parts.append(
            f'<text x="{x:.1f}" y="{y - 26:.1f}" fill="#555">{escape(vertex.label)}</text>'
        )
    return parts


def _line(start: tuple[float, float], end: tuple[float, float]) -> str:
    return (
        f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" '
        'stroke="#888" stroke-width="1.2"/>'
    )
