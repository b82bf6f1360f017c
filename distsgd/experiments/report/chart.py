"""A picture with two axes: frame, ticks, curves, points with intervals, bands, a legend. Pure.

Everything outside the range of an axis is clipped; what is missing stands as a cross at the upper
border, with its reason in the legend.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from distsgd.experiments.report import svg
from distsgd.experiments.report.scale import Scale, Tick, apart, log_scale
from distsgd.experiments.report.svg import Point
from distsgd.statistics.intervals import Interval

WIDTH = 440.0
NUM_COLOURS = 8
_LEFT, _RIGHT, _TOP = 62.0, 14.0, 44.0
_STRIP_ROW = 11.0
_FONT, _ROW = 11.0, 16.0


@dataclass(frozen=True, slots=True)
class Style:
    """How a series looks: a colour's class, a dash and a marker, each enough to tell it apart."""

    colour: str
    dash: str = ""
    marker: str = ""


def series_style(index: int) -> Style:
    """The style of the series number `index`; colours come again only with another dash."""
    turn = index + index // NUM_COLOURS
    dash, marker = svg.DASHES[turn % len(svg.DASHES)], svg.MARKERS[turn % len(svg.MARKERS)]
    return Style(f"c{index % NUM_COLOURS}", dash, marker)


BASE = Style("base", "", "circle")  # One core.
IDEAL = Style("ideal", "5 4")
MODEL = Style("model", "2 3")
MISSING = Style("missing", "", "cross")


def peer_style(index: int) -> Style:
    """The style of a peer: its lines are long dashes."""
    return Style(
        f"p{index % 3}",
        svg.DASHES[3 + index % 3],
        ("big-down", "big-diamond", "big-square")[index % 3],
    )


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: what it says, its scale and its ticks; `notes` stand below the labels."""

    label: str
    scale: Scale
    ticks: Sequence[Tick]
    notes: Sequence[Tick] = ()


class Chart:
    """One picture being drawn; places are in points, values in the axes' units."""

    def __init__(
        self,
        name: str,
        title: str,
        x: Axis,
        y: Axis,
        *,
        height: float = 224.0,
        num_spans: int = 0,
    ) -> None:
        """`num_spans` rows above the values are kept free for spans of the x axis."""
        self.name, self.title, self._x, self._y = name, title, x, y
        self._height = height
        self.x = x.scale.at(_LEFT, WIDTH - _RIGHT)
        strip = 14.0 + num_spans * _STRIP_ROW if num_spans else 0.0
        self.y = y.scale.at(_TOP + height, _TOP + strip)
        self._num_spans = 0
        self._behind: list[str] = []
        self._shapes: list[str] = []
        self._marks: list[str] = []
        self._legend: list[tuple[str, str]] = []

    def curve(
        self, points: Sequence[Point], style: Style, extra: str = "", *, shift: float = 0.0
    ) -> None:
        """A line through points; one whose value no axis has is left out of the line."""
        places = [self._place(point, shift) for point in points if self._can_show(point)]
        self._shapes.append(svg.path(places, f"line {style.colour} {extra}".strip(), style.dash))

    def point(
        self, x: float, y: Interval | float, style: Style, *, title: str = "", shift: float = 0.0
    ) -> None:
        """A mark at (x, y), `shift` points to the right, with a bar where `y` is an interval."""
        within = y if isinstance(y, Interval) else Interval(y, y, y)
        if not self._can_show((x, within.mid)):
            return
        left = self.x.clamped(x) + shift
        if within.low < within.high:
            top, foot = self.y.clamped(within.high), self.y.clamped(max(within.low, self.y.low))
            self._marks.append(svg.whisker(left, top, foot, f"bar {style.colour}"))
        at = left, self.y.clamped(within.mid)
        self._marks.append(svg.marker(at, style.marker or "circle", f"dot {style.colour}", title))

    def span(self, within: Interval, style: Style, title: str) -> None:
        """An interval of the x axis as a bar in a row of its own, with a line down from its mid."""
        row = _TOP + 18.0 + self._num_spans * _STRIP_ROW
        self._num_spans += 1
        left, right = (self.x.clamped(max(end, self.x.low)) for end in (within.low, within.high))
        corner, size = (left, row - 3.0), (max(2.0, right - left), 6.0)
        self._marks.append(svg.box(corner, size, f"band {style.colour}", title))
        if self.x.holds(within.mid):
            place = self.x.place(within.mid)
            ends = (place, row), (place, _TOP + self._height)
            self._behind.append(svg.line(*ends, f"line thin {style.colour}", style.dash))
            self._marks.append(svg.marker((place, row), "diamond", f"dot {style.colour}", title))

    def upright(self, x: float, style: Style) -> None:
        """A vertical line across the picture."""
        place = self.x.place(x)
        ends = (place, _TOP), (place, _TOP + self._height)
        self._behind.append(svg.line(*ends, f"line thin {style.colour}", style.dash))

    def level(self, y: float, style: Style, extra: str = "thin") -> None:
        """A horizontal line across the picture."""
        if self.y.holds(y):
            place = self.y.place(y)
            ends = (_LEFT, place), (WIDTH - _RIGHT, place)
            self._behind.append(svg.line(*ends, f"line {extra} {style.colour}", style.dash))

    def missing(self, x: float, reason: str, shift: float = 0.0) -> None:
        """A cross at the upper border."""
        at = self.x.clamped(x) + shift, _TOP + 9.0
        self._marks.append(svg.marker(at, "cross", "dot missing", reason))

    def note(self, text: str) -> None:
        """A word in the middle of the picture."""
        middle = (_LEFT + WIDTH - _RIGHT) / 2, _TOP + self._height / 2
        self._marks.append(svg.text(middle, text, "note middle"))

    def key(self, style: Style, text: str, *, is_span: bool = False) -> None:
        """An entry of the legend; each text once."""
        if all(text != known for _, known in self._legend):
            self._legend.append((_glyph(style, is_span=is_span), text))

    def render(self, description: str) -> str:
        """The SVG."""
        if not self._marks and not self._shapes:
            self.note("nothing was measured")
        below = _TOP + self._height + (66.0 if self._x.notes else 54.0)
        legend, rows = _legend(self._legend, below)
        size = WIDTH, below + rows * _ROW - 6.0
        frame = (_LEFT, _TOP), (WIDTH - _LEFT - _RIGHT, self._height)
        clip = svg.element("clipPath", svg.box(*frame, ""), id=f"{self.name}-clip")
        inside = "\n".join(part for part in (*self._behind, *self._shapes) if part)
        body = [
            svg.box((0, 0), size, "paper"),
            svg.element("defs", clip),
            svg.text((0, 14), self.title, "title"),
            *self._grid(),
            svg.element("g", inside, clip_path=f"url(#{self.name}-clip)"),
            *self._marks,
            *legend,
        ]
        return svg.document(self.name, size, self.title, description, body)

    def _place(self, point: Point, shift: float) -> Point:
        return self.x.place(point[0]) + shift, self.y.place(point[1])

    def _can_show(self, point: Point) -> bool:
        scales = zip(point, (self.x, self.y), strict=True)
        return all(math.isfinite(one) and (one > 0 or not scale.is_log) for one, scale in scales)

    def _grid(self) -> list[str]:
        bottom, right = _TOP + self._height, WIDTH - _RIGHT
        parts = [svg.text((0, _TOP - 10), self._y.label, "label")]
        for value, label in self._y.ticks:
            place = self.y.place(value)
            parts.append(svg.line((_LEFT, place), (right, place), "grid"))
            parts.append(svg.text((_LEFT - 6, place + 4), label, "tick end"))
        widest = max((svg.width_of(label, _FONT) for _, label in self._x.ticks), default=0.0)
        shown = apart(self._x.ticks, self.x.place, widest + 6)
        for value, _ in self._x.ticks:
            place = self.x.place(value)
            parts.append(svg.line((place, bottom), (place, bottom + 4), "axis"))
        for value, label in shown:
            place = self.x.place(value)
            parts.append(svg.line((place, _TOP), (place, bottom), "grid"))
            parts.append(svg.text((place, bottom + 16), label, "tick middle"))
        for value, label in self._x.notes:
            half = svg.width_of(label, _FONT - 1) / 2
            place = min(max(self.x.place(value), half + 2), WIDTH - half)
            parts.append(svg.text((place, bottom + 30), label, "note middle"))
        parts.append(svg.line((_LEFT, bottom), (right, bottom), "axis"))
        foot = bottom + (45 if self._x.notes else 33)
        middle = (_LEFT + right) / 2
        return [*parts, svg.text((middle, foot), self._x.label, "label middle")]


def log_axis(
    label: str, values: Iterable[float], shown: Callable[[float], str], margin: float = 0.06
) -> Axis:
    """A log axis that holds the values, with ticks at round ones; without values, none."""
    some = list(values)
    scale = log_scale(some, margin)
    return Axis(label, scale, scale.ticks(shown) if some else ())


def legend_rows(entries: Sequence[tuple[str, str]], top: float) -> tuple[list[str], int]:
    """As the legend of a chart: entries (glyph around (0, 0), text) from `top` on; parts, rows."""
    return _legend(entries, top)


def _glyph(style: Style, *, is_span: bool) -> str:
    if is_span:
        mark = svg.marker((0, 0), "diamond", f"dot {style.colour}")
        return svg.box((-11, -3), (22, 6), f"band {style.colour}") + mark
    is_line = style.colour != "missing" and not style.colour.startswith("p")
    line = svg.line((-11, 0), (11, 0), f"line {style.colour}", style.dash) if is_line else ""
    dot = svg.marker((0, 0), style.marker, f"dot {style.colour}") if style.marker else ""
    return line + dot


def _legend(entries: Sequence[tuple[str, str]], top: float) -> tuple[list[str], int]:
    """Entries in a row as long as they fit; long texts wrap."""
    parts: list[str] = []
    row, left = 0, 0.0
    most = int((WIDTH - 34) / svg.width_of("x", _FONT))
    for glyph, content in entries:
        width = 34 + svg.width_of(content, _FONT) + 10
        if left > 0 and left + width > WIDTH:
            row, left = row + 1, 0.0
        at = left + 12, top + row * _ROW
        parts.append(svg.element("g", glyph, transform=f"translate({at[0]:.1f} {at[1] - 4:.1f})"))
        lines = wrapped(content, most)
        for number, part in enumerate(lines):
            parts.append(svg.text((left + 30, at[1] + number * _ROW), part, "key"))
        row += len(lines) - 1
        left = WIDTH if len(lines) > 1 else left + width
    return parts, row + bool(entries)


def wrapped(content: str, most: int) -> list[str]:
    """A text in lines of at most `most` characters, broken between words.

    >>> wrapped("one two three", 8)
    ['one two', 'three']
    """
    lines = [""]
    for word in content.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > most:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
