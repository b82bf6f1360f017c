"""``draw ...``: a run or rows of a file, drawn from plain arrays."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distsgd.cli.completion import complete_run
from distsgd.cli.options import CachePlaceOption, RunArgument, cache_place
from distsgd.cli.terminal.messages import say
from distsgd.cli.terminal.start_again import compute_as
from distsgd.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from distsgd.lessons.inspect import LossOverWeight
    from distsgd.lessons.pictures.loss_curve import Curve

_GRADIENT_IMAGES = 40

draw_app = typer.Typer(
    help="Draw plots of a run and images of rows; needs matplotlib (the extra 'plots').",
    no_args_is_help=True,
)

OutOption = Annotated[
    Path, typer.Option("--out", metavar="FILE", help="Where to draw: .png, .svg or .pdf.")
]
ShapeOption = Annotated[
    str | None,
    typer.Option(
        "--shape",
        metavar="HxW",
        help="Height and width of a row as an image, as 8x8; a square unless given.",
    ),
]
RowsOption = Annotated[
    str, typer.Option("--rows", metavar="FIRST:END", help="Which rows of the file.")
]


@draw_app.command("images")
def images(
    data: Annotated[Path, typer.Argument(metavar="FILE", help="Rows that are images.")],
    *,
    out: OutOption,
    label: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="The label, above each image (IDX: found by itself)."),
    ] = None,
    rows: RowsOption = "0:40",
    shape: ShapeOption = None,
) -> None:
    """Draw rows of a file as images."""
    from distsgd.data.prepare.rows import read_rows
    from distsgd.lessons.pictures.images import MAX_IMAGES, draw_images

    first, end = _rows(rows, MAX_IMAGES)
    found = read_rows(data, first, end, label=label)
    images_KHW = _as_images(found.x_NI, shape or found.shape)
    title = f"{data.name}, rows {first} to {first + len(images_KHW) - 1}"
    draw_images(images_KHW, out, titles=found.labels, title=title)
    say(f"wrote {out}")


@draw_app.command("weights")
def weights(
    run: RunArgument,
    *,
    out: OutOption,
    layer: Annotated[
        int | None, typer.Option(min=0, help="Number of a dense layer; the first unless given.")
    ] = None,
    shape: ShapeOption = None,
) -> None:
    """Draw the weights of each output of a layer as an image: bright high, dark negative."""
    from distsgd.lessons.inspect import layer_weights
    from distsgd.lessons.pictures.images import MAX_IMAGES, draw_images

    found = layer_weights(run, layer)
    images_KHW = _as_images(found.weights_KI[:MAX_IMAGES], shape)
    count = len(images_KHW)
    which = "each output" if count == len(found.weights_KI) else f"the first {count}"
    title = f"weights of {which} ({found.name})"
    draw_images(images_KHW, out, titles=found.outputs[:count], title=title, is_signed=True)
    say(f"wrote {out}")


@draw_app.command("input-gradient")
def input_gradient(
    run: RunArgument,
    *,
    data: Annotated[Path, typer.Option(metavar="FILE", help="Rows with their labels.")],
    out: OutOption,
    rows: RowsOption = "0:10",
    shape: ShapeOption = None,
) -> None:
    """Draw the gradient of each row's loss with respect to its input, below the input."""
    from distsgd.lessons.inspect import input_gradients
    from distsgd.lessons.pictures.images import draw_input_gradients

    first, end = _rows(rows, _GRADIENT_IMAGES)
    found = input_gradients(run, data, first=first, last=end)
    images_KHW, gradients_KHW = (_as_images(x, shape) for x in (found.x_NI, found.gradients_NI))
    title = (
        "gradient of the loss by each standardised input: bright raises the loss, dark lowers it"
    )
    draw_input_gradients(images_KHW, gradients_KHW, out, titles=found.labels, title=title)
    say(f"wrote {out}")


@draw_app.command("loss")
@draw_app.command("error", hidden=True)  # Its name before.
def loss(
    run: RunArgument,
    *,
    weight: Annotated[
        str,
        typer.Option(metavar="NAME[PLACE]", help="As layers.0.weight[0,3] or layers.0.bias[3]."),
    ],
    out: OutOption,
    steps: Annotated[
        int, typer.Option(min=1, help="How many of the run's first steps to draw.")
    ] = 30,
    cache_dir: CachePlaceOption = None,
) -> None:
    """Draw the loss as a curve over one weight, with its slope and the steps taken."""
    from distsgd.lessons.inspect import loss_over_weight
    from distsgd.lessons.pictures.loss_curve import Steps, draw_loss_curve
    from distsgd.run.run import Run

    compute_as(Run.open(run).config)
    cache = cache_place(cache_dir)
    found = loss_over_weight(run, weight, max_steps=steps, cache_dir=cache)
    taken = Steps(weight_T=found.weight_T, loss_T=found.loss_T, slope_T=found.slope_T)
    what = f"mean loss of {found.rows:,} rows" if found.rows > 1 else "loss"
    draw_loss_curve(_curves(found), taken, out, weight=found.weight, loss=what)
    say(f"wrote {out}")


@draw_app.command("histories")
def histories(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run directories.", autocompletion=complete_run),
    ],
    *,
    out: OutOption,
) -> None:
    """Draw the loss of several runs on one plot, to compare them."""
    from distsgd.cli.plots import draw_histories

    draw_histories(runs, out)
    say(f"wrote {out}")


@draw_app.command("circuit")
def circuit(
    run: RunArgument,
    *,
    data: Annotated[Path, typer.Option(metavar="FILE", help="Rows with their labels.")],
    row: Annotated[int, typer.Option(min=0, help="Number of the row.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Where to draw; unless given, as text.")
    ] = None,
) -> None:
    """Draw a network's circuit for one row: values forward, gradients backward on each edge."""
    from distsgd.lessons.circuits.of_run import row_circuit
    from distsgd.lessons.circuits.svg import draw_svg
    from distsgd.lessons.circuits.text import draw_text
    from distsgd.lessons.pictures.canvas import write_picture

    if out is not None and out.suffix.lower() != ".svg":
        raise ConfigError([f"--out is {str(out)!r}; a circuit is drawn as .svg (or as text)"])
    found = row_circuit(run, data, row)
    if out is None:
        print(draw_text(found.tape, found.loss, names=found.names))  # noqa: T201 -- the result.
        return
    write_picture(out, draw_svg(found.tape, found.loss, names=found.names).encode())
    say(f"wrote {out}")


def _curves(found: LossOverWeight) -> list[Curve]:
    """The loss with the other weights as they were last, and as at first where that differs."""
    import numpy as np

    from distsgd.lessons.pictures.loss_curve import Curve as Drawn

    first_G, last_G = found.first_loss_G, found.last_loss_G
    if np.allclose(first_G, last_G):
        return [Drawn(weight_G=found.grid_G, loss_G=last_G, label="loss")]
    before, after = "other weights as at the start", "other weights as after the last step"
    return [
        Drawn(weight_G=found.grid_G, loss_G=first_G, label=before),
        Drawn(weight_G=found.grid_G, loss_G=last_G, label=after),
    ]


def _rows(text: str, most: int) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+):(\d+)", text)
    first, end = (int(match[1]), int(match[2])) if match else (0, 0)
    if not first < end <= first + most:
        rule = f"must be FIRST:END, as 0:10, of 1 to {most} rows"
        raise ConfigError([f"--rows is {text!r}; {rule}"])
    return first, end


def _as_images(rows_KI: NDArray[Any], shape: str | None) -> NDArray[Any]:
    """Rows as images ``[K, H, W]``; square ones unless `shape` says otherwise."""
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
