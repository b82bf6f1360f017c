"""Colours, light and dark, and the style sheet of the pictures. Pure.

Series are told apart by eyes of every kind (Okabe and Ito, 2008), and by dash and marker as well.
On the dark ground each is lighter, in the same order.
"""

from __future__ import annotations

import re

LIGHT = {
    "paper": "#ffffff",
    "ink": "#1b1f24",
    "soft": "#59636e",
    "faint": "#8c959f",
    "grid": "#e4e8ec",
    "wash": "#f5f7f9",
    "accent": "#0b5cad",
    "alarm": "#b3261e",
    "alarm-wash": "#fdecea",
    "good": "#1a6b3c",
    "c0": "#0072b2",
    "c1": "#d55e00",
    "c2": "#009e73",
    "c3": "#a8508a",
    "c4": "#b98300",
    "c5": "#3a9bd6",
    "c6": "#6b4fbb",
    "c7": "#7a6a4f",
    "peer0": "#8a1c5b",
    "peer1": "#5b5b00",
    "peer2": "#00565b",
    "compute": "#0072b2",
    "read": "#8fc7e8",
    "exchange": "#e69f00",
    "sum": "#009e73",
    "update": "#cc79a7",
    "h0": "#084a7c",
    "h1": "#1f6da8",
    "h2": "#4a90c2",
    "h3": "#7db2d8",
    "h4": "#b0d1e8",
    "h5": "#dcebf6",
    "on-strong": "#ffffff",
    "on-weak": "#1b1f24",
}
DARK = LIGHT | {
    "paper": "#14181d",
    "ink": "#e8ecf0",
    "soft": "#a8b2bd",
    "faint": "#7d8894",
    "grid": "#2a313a",
    "wash": "#1b2127",
    "accent": "#7ab8f5",
    "alarm": "#ff8a80",
    "alarm-wash": "#3a1a18",
    "good": "#6fcf97",
    "c0": "#56b4e9",
    "c1": "#ff8c42",
    "c2": "#2fc79a",
    "c3": "#e08fc0",
    "c4": "#f0c242",
    "c5": "#9ad7ff",
    "c6": "#b09bf5",
    "c7": "#c8b48c",
    "peer0": "#ff8fc8",
    "peer1": "#d6d65c",
    "peer2": "#5fd6de",
    "compute": "#2a86c4",
    "read": "#a9d8f2",
    "h0": "#8fd0ff",
    "h1": "#62aee6",
    "h2": "#3f8cc6",
    "h3": "#2b6ca0",
    "h4": "#1f4f78",
    "h5": "#183652",
    "on-strong": "#0d1117",
    "on-weak": "#e8ecf0",
}

_SHAPES = """
.picture { font-family: system-ui, "Segoe UI", "DejaVu Sans", sans-serif; font-size: 11px; }
.picture .paper { fill: var(--paper); }
.picture text { fill: var(--ink); }
.picture .title { font-size: 13px; font-weight: 600; }
.picture .label { fill: var(--soft); }
.picture .tick, .picture .value { fill: var(--ink); }
.picture .note { fill: var(--soft); font-size: 10px; }
.picture .key { fill: var(--ink); }
.picture .end { text-anchor: end; }
.picture .middle, .picture .inside, .picture .why { text-anchor: middle; }
.picture .grid { stroke: var(--grid); stroke-width: 1; }
.picture .axis { stroke: var(--faint); stroke-width: 1; }
.picture .line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.picture .thin { stroke-width: 1; }
.picture .faint { stroke-width: 1.2; opacity: 0.75; }
.picture .bar { stroke-width: 1.2; fill: none; }
.picture .dot { stroke: var(--paper); stroke-width: 0.8; }
.picture .open { fill: none; stroke-width: 2; }
.picture .ringed { stroke-width: 1.4; }
.picture .band { opacity: 0.35; }
.picture .base-line { stroke-width: 1.4; }
.picture .line.base, .picture .bar.base { stroke: var(--ink); }
.picture .dot.base { fill: var(--ink); }
.picture .line.ideal { stroke: var(--faint); stroke-width: 1.4; }
.picture .line.model { stroke: var(--soft); stroke-width: 1.4; }
.picture .dot.missing { stroke: var(--alarm); fill: none; }
.picture .line.none { stroke: none; }
.picture .dot.edge { fill: var(--alarm); }
.picture .cell.untried { fill: var(--wash); }
.picture .cell.failed { fill: var(--wash); stroke: var(--grid); }
.picture .why { fill: var(--soft); }
.picture .chosen { fill: none; stroke: var(--c1); stroke-width: 2.4; }
.picture .phase { stroke: var(--paper); stroke-width: 0.6; }
"""
_PHASES = ("read", "compute", "exchange", "sum", "update")


def variables(colours: dict[str, str]) -> str:
    """The colours as custom properties."""
    return "".join(f"--{name}:{value};" for name, value in colours.items())


def picture_css() -> str:
    """The style sheet of the pictures, in custom properties."""
    rules = [_SHAPES.strip()]
    series = [(f"c{i}", f"c{i}") for i in range(8)] + [("w0", "c2"), ("w1", "c6"), ("w2", "c4")]
    peers = [(f"{kind}{i}", f"peer{i}") for kind in "pq" for i in range(3)]
    for name, colour in series + peers:
        rules.append(
            f".picture .line.{name}, .picture .bar.{name} {{ stroke: var(--{colour}); }}\n"
            f".picture .dot.{name}, .picture .band.{name} {{ fill: var(--{colour}); }}\n"
            f".picture .open.{name} {{ fill: none; stroke: var(--{colour}); }}"
        )
    # What is no part of this project is hollow, so that it hides nothing.
    for number in range(3):
        hollow = f"fill: var(--paper); fill-opacity: 0.6; stroke: var(--peer{number})"
        rules.append(f".picture .dot.p{number} {{ {hollow}; stroke-width: 2; }}")
    for name in _PHASES:
        ink = "#ffffff" if name == "compute" else "#1b1f24"
        rules.append(f".picture .f-{name} {{ fill: var(--{name}); }}")
        rules.append(f".picture .on-f-{name} {{ fill: {ink}; }}")
    rules.append(".picture .f-unknown { fill: var(--c6); }")
    rules.append(".picture .on-f-unknown { fill: #ffffff; }")
    for shade in range(6):
        ink = "on-strong" if shade < 3 else "on-weak"
        rules.append(f".picture .h{shade} {{ fill: var(--h{shade}); }}")
        rules.append(f".picture .on-h{shade} {{ fill: var(--{ink}); }}")
    return "\n".join(rules) + "\n"


def resolved(css: str, colours: dict[str, str]) -> str:
    """The same without custom properties, for what does not know them.

    >>> resolved("a { fill: var(--ink); }", {"ink": "#000"})
    'a { fill: #000; }'
    """
    return re.sub(r"var\(--([\w-]+)\)", lambda found: colours[found[1]], css)
