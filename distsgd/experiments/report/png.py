"""The pictures as PNG, from the same SVGs. Needs the extra "plots"; no I/O but that of a font."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from distsgd.errors import MissingExtraError
from distsgd.experiments.report import theme

_SCALE = 2  # Pixels a point: sharp in print and on dense screens.


class Rasterizer:
    """Turns SVGs into PNGs, on light ground, with one font for every machine.

    Raises:
        MissingExtraError: On making it: resvg or matplotlib, whose font is used, is missing.
    """

    def __init__(self) -> None:
        self._resvg = _resvg()
        self._fonts = _fonts()
        self._css = theme.resolved(theme.picture_css(), theme.LIGHT)

    def png(self, svg: str) -> bytes:
        """The picture, two pixels a point."""
        made = self._resvg.svg_to_bytes(
            svg_string=svg,
            style_sheet=self._css,
            zoom=_SCALE,
            skip_system_fonts=True,
            font_files=[str(path) for path in self._fonts],
            font_family="DejaVu Sans",
            sans_serif_family="DejaVu Sans",
        )
        return bytes(made)


def _resvg() -> Any:
    try:
        import resvg_py  # noqa: PLC0415 -- optional.
    except ModuleNotFoundError as error:
        raise MissingExtraError("resvg_py", "plots") from error
    return resvg_py


def _fonts() -> list[Path]:
    """DejaVu Sans, which comes with matplotlib; that itself is not imported."""
    found = importlib.util.find_spec("matplotlib")
    places = [] if found is None else list(found.submodule_search_locations or ())
    for place in places:
        room = Path(place, "mpl-data", "fonts", "ttf")
        paths = [room / "DejaVuSans.ttf", room / "DejaVuSans-Bold.ttf"]
        if all(path.is_file() for path in paths):
            return paths
    raise MissingExtraError("matplotlib", "plots")
