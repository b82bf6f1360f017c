"""What all pictures share: a figure without a screen, its looks, and writing it to a file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from distsgd.errors import DataError, MissingExtraError

# Told apart by eyes of every kind, in print too (Okabe and Ito, 2008).
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
INK, FAINT = "#222222", "#9a9a9a"
_DPI = 150
_FORMATS = (".png", ".svg", ".pdf")


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure of that many inches, drawn by Agg: no screen, no global state.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 -- optional.
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "plots") from error
    figure = Figure(figsize=(width, height), layout="constrained", dpi=_DPI)
    FigureCanvasAgg(figure)
    return figure


def new_axes(figure: Any, *, x: str, y: str, title: str = "") -> Any:
    """The only axes of a figure, with labels, a faint grid and no frame on top and right."""
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if title:
        axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def save(figure: Any, out: Path) -> None:
    """Write a figure as the format that the file's name says; the same bytes for the same figure.

    Raises:
        DataError: The name says no known format, or the file cannot be written.
    """
    kind = out.suffix.lower()
    if kind not in _FORMATS:
        raise DataError(out, f"has a name that says no format; end it in {', '.join(_FORMATS)}")
    from matplotlib import rc_context  # noqa: PLC0415 -- optional; the figure has it already.

    content = io.BytesIO()
    # What would differ from day to day or from version to version is left out.
    metadata = {"Software": None} if kind == ".png" else {"Date": None, "Creator": None}
    if kind == ".pdf":
        metadata = {"CreationDate": None, "Creator": None, "Producer": None}
    with rc_context({"svg.hashsalt": "distsgd"}):
        figure.savefig(content, format=kind.removeprefix("."), metadata=metadata)
    write_picture(out, content.getvalue())


def write_picture(out: Path, content: bytes) -> None:
    """Write a file, and its folder if need be. Raises DataError where it cannot be written."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(content)
    except OSError as error:
        reason = f"cannot be written ({error.strerror}); name another file"
        raise DataError(out, reason) from error
