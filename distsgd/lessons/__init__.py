"""What teaches: pictures, circuits, losses, coordinate search, two-stage sampling.

The names below are loaded when they are first used. `distsgd.lessons.losses` has the losses.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distsgd.lessons.circuits.svg import draw_svg
    from distsgd.lessons.circuits.text import draw_text
    from distsgd.lessons.slope import Slope, slope_at

__all__ = ["Slope", "draw_svg", "draw_text", "slope_at"]

_HOMES = {
    "Slope": "distsgd.lessons.slope",
    "draw_svg": "distsgd.lessons.circuits.svg",
    "draw_text": "distsgd.lessons.circuits.text",
    "slope_at": "distsgd.lessons.slope",
}


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
