"""SVG as text: elements, shapes, marks. Pure; colours are classes, so that a style sheet decides.

No shape has a style of its own: a page whose policy forbids inline styles shows it all the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

Point = tuple[float, float]

MARKERS = ("circle", "square", "triangle", "diamond", "down", "plus", "hexagon", "bar")
DASHES = ("", "6 3", "2 3", "8 3 2 3", "12 4", "1 4")
_CHAR = 0.58  # Mean width of a character of DejaVu Sans, the widest font used, in font sizes.


def element(name: str, content: str = "", /, **attributes: object) -> str:
    """An element; of the attributes' names ``_`` becomes ``-`` and a last one falls away.

    >>> element("circle", cx=1.25, class_="dot")
    '<circle cx="1.2" class="dot"/>'
    """
    parts = [name]
    for key, value in attributes.items():
        if value is not None and value != "":
            parts.append(f'{key.rstrip("_").replace("_", "-")}="{_shown(value)}"')
    opening = " ".join(parts)
    return f"<{opening}>{content}</{name}>" if content else f"<{opening}/>"


def text(at: Point, content: str, class_: str = "", **attributes: object) -> str:
    """Text as text, escaped."""
    return element("text", escape(content), x=at[0], y=at[1], class_=class_, **attributes)


def line(start: Point, end: Point, class_: str, dash: str = "") -> str:
    """A straight line."""
    ends = {"x1": start[0], "y1": start[1], "x2": end[0], "y2": end[1]}
    return element("line", class_=class_, stroke_dasharray=dash, **ends)


def path(points: Sequence[Point], class_: str, dash: str = "") -> str:
    """A line through points; none through fewer than two."""
    if len(points) < 2:
        return ""
    way = "L".join(f"{_shown(x)} {_shown(y)}" for x, y in points)
    return element("path", d=f"M{way}", class_=class_, stroke_dasharray=dash)


def whisker(x: float, top: float, foot: float, class_: str) -> str:
    """A vertical bar with a cap at both ends."""
    left, middle, high, low = map(_shown, (x - 3.0, x, top, foot))
    return element(
        "path", d=f"M{left} {high}h6M{middle} {high}V{low}M{left} {low}h6", class_=class_
    )


def box(corner: Point, size: Point, class_: str, title: str = "") -> str:
    """A rectangle; `title` is shown when pointed at."""
    inside = element("title", escape(title)) if title else ""
    width, height = (max(0.0, side) for side in size)
    place = {"x": corner[0], "y": corner[1], "width": width, "height": height}
    return element("rect", inside, class_=class_, **place)


def marker(at: Point, kind: str, class_: str, title: str = "") -> str:
    """A mark of the `MARKERS`, or "cross" for what is missing; `title` as for a box."""
    inside = element("title", escape(title)) if title else ""
    if kind == "circle":
        return element("circle", inside, cx=at[0], cy=at[1], r=3.8, class_=class_)
    corners = "L".join(f"{_shown(at[0] + x)} {_shown(at[1] + y)}" for x, y in _outline(kind))
    if kind in {"cross", "plus"}:
        x, y = at
        arms = ((4, 4), (4, -4)) if kind == "cross" else ((5, 0), (0, 5))
        way = "".join(
            f"M{_shown(x - a)} {_shown(y - b)}L{_shown(x + a)} {_shown(y + b)}" for a, b in arms
        )
        return element("path", inside, d=way, class_=f"{class_} open")
    return element("path", inside, d=f"M{corners}Z", class_=class_)


def width_of(content: str, size: float) -> float:
    """An estimate of a text's width at a font size, rather too much than too little."""
    return _CHAR * size * len(content)


def document(name: str, size: Point, title: str, description: str, body: Iterable[str]) -> str:
    """A whole picture; `name` is unlike that of any other on the page."""
    width, height = (math.ceil(side) for side in size)
    head = element("title", escape(title), id=f"{name}-title")
    head += element("desc", escape(description), id=f"{name}-desc")
    return element(
        "svg",
        head + "\n" + "\n".join(part for part in body if part),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
        class_="picture",
    )


def _outline(kind: str) -> list[Point]:
    shapes: dict[str, list[Point]] = {
        "square": [(-3.5, -3.5), (3.5, -3.5), (3.5, 3.5), (-3.5, 3.5)],
        "triangle": [(0, -4.8), (4.4, 3.2), (-4.4, 3.2)],
        "diamond": [(0, -5), (5, 0), (0, 5), (-5, 0)],
        "down": [(0, 4.8), (4.4, -3.2), (-4.4, -3.2)],
        "hexagon": [(-4.4, 0), (-2.2, -4), (2.2, -4), (4.4, 0), (2.2, 4), (-2.2, 4)],
        "bar": [(-1.8, -5), (1.8, -5), (1.8, 5), (-1.8, 5)],
        "big-down": [(0, 8), (7.5, -5.5), (-7.5, -5.5)],
        "big-diamond": [(0, -8), (8, 0), (0, 8), (-8, 0)],
        "big-square": [(-6.2, -6.2), (6.2, -6.2), (6.2, 6.2), (-6.2, 6.2)],
    }
    return shapes.get(kind, [])


def _shown(value: object) -> str:
    if isinstance(value, float):
        short = f"{value:.1f}"
        return short.removesuffix(".0") if short != "-0.0" else "0"
    return escape(str(value))
