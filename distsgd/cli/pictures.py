"""What the commands ``draw ...`` do: read rows or a run, hand plain arrays to `plots`."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsgd.autodiff import draw_svg, draw_text
from distsgd.cli.cache import cache_directory
from distsgd.cli.messages import say
from distsgd.data.prepare.rows import read_rows
from distsgd.errors import ConfigError
from distsgd.lessons.circuits.of_run import row_circuit
from distsgd.lessons.inspect import error_over_weight, input_gradients, layer_weights
from distsgd.lessons.pictures.canvas import write_picture
from distsgd.lessons.pictures.error_curve import Curve, Steps, draw_error_curve
from distsgd.lessons.pictures.images import MAX_IMAGES, draw_images, draw_input_gradients

_GRADIENT_IMAGES = 40


def draw_file(data: Path, out: Path, *, label: str | None, rows: str, shape: str | None) -> None:
    """Draw rows of a file as images, with their labels where they have some."""
    first, end = _rows(rows, MAX_IMAGES)
    found = read_rows(data, first, end, label=label)
    images = _as_images(found.x_NI, shape or found.shape)
    title = f"{data.name}, rows {first} to {first + len(images) - 1}"
    draw_images(images, out, titles=found.labels, title=title)
    say(f"wrote {out}")


def draw_layer(run: Path, out: Path, *, layer: int | None, shape: str | None) -> None:
    """Draw the weights of a layer's outputs."""
    found = layer_weights(run, layer)
    images = _as_images(found.weights_KI[:MAX_IMAGES], shape)
    which = "each output" if len(images) == len(found.weights_KI) else f"the first {len(images)}"
    title = f"weights of {which} ({found.name})"
    draw_images(images, out, titles=found.outputs[: len(images)], title=title, is_signed=True)
    say(f"wrote {out}")


def draw_gradients(run: Path, data: Path, out: Path, *, rows: str, shape: str | None) -> None:
    """Draw inputs, and below them the gradients of their losses."""
    first, end = _rows(rows, _GRADIENT_IMAGES)
    found = input_gradients(run, data, first=first, last=end)
    images, gradients = (_as_images(x, shape) for x in (found.x_NI, found.gradients_NI))
    title = (
        "gradient of the loss by each standardised input: bright raises the loss, dark lowers it"
    )
    draw_input_gradients(images, gradients, out, titles=found.labels, title=title)
    say(f"wrote {out}")


def draw_error_of(
    run: Path, weight: str, out: Path, *, max_steps: int, cache_dir: Path | None = None
) -> None:
    """Draw the error over a weight."""
    found = error_over_weight(
        run, weight, max_steps=max_steps, cache_dir=cache_directory(cache_dir)
    )
    curves = [Curve(weight_G=found.grid_G, error_G=found.last_error_G, label="loss")]
    if not np.allclose(found.first_error_G, found.last_error_G):
        before = Curve(
            weight_G=found.grid_G,
            error_G=found.first_error_G,
            label="other weights as at the start",
        )
        after = "other weights as after the last step"
        curves = [before, Curve(weight_G=found.grid_G, error_G=found.last_error_G, label=after)]
    steps = Steps(weight_T=found.weight_T, error_T=found.error_T, slope_T=found.slope_T)
    what = f"mean loss of {found.rows:,} rows" if found.rows > 1 else "loss"
    draw_error_curve(curves, steps, out, weight=found.weight, error=what)
    say(f"wrote {out}")


def draw_circuit_of(run: Path, data: Path, row: int, out: Path | None) -> None:
    """Draw the circuit of one row as SVG, or print it."""
    if out is not None and out.suffix.lower() != ".svg":
        raise ConfigError([f"--out is {str(out)!r}; a circuit is drawn as .svg (or as text)"])
    found = row_circuit(run, data, row)
    if out is None:
        print(draw_text(found.tape, found.loss, names=found.names))  # noqa: T201 -- the result.
        return
    write_picture(out, draw_svg(found.tape, found.loss, names=found.names).encode())
    say(f"wrote {out}")


def _rows(text: str, most: int) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+):(\d+)", text)
    first, end = (int(match[1]), int(match[2])) if match else (0, 0)
    if not first < end <= first + most:
        rule = f"must be FIRST:END, as 0:10, of 1 to {most} rows"
        raise ConfigError([f"--rows is {text!r}; {rule}"])
    return first, end


def _as_images(rows_KI: NDArray[Any], shape: str | None) -> NDArray[Any]:
    """Rows as images ``[K, H, W]``."""
    width = rows_KI.shape[1]
    side = math.isqrt(width)
    if shape is None and side * side != width:
        rule = "set --shape HxW, or leave a label out of them (draw images: --label COLUMN)"
        raise ConfigError([f"a row has {width} numbers, which is no square; {rule}"])
    match = re.fullmatch(r"(\d+)x(\d+)(x1)?", shape or f"{side}x{side}")
    height, across = (int(match[1]), int(match[2])) if match else (0, 0)
    if height * across != width:
        rule = f"must be HxW, as 8x8, of {width} numbers in all (set --shape)"
        raise ConfigError([f"the shape is {shape!r}; {rule}"])
    return rows_KI.reshape(-1, height, across)
