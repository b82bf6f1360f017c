"""The commands ``draw ...`` and their arguments; `pictures` does what they say.

Nothing heavy is imported here: ``--help`` loads neither numpy nor matplotlib.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distsgd.cli.completion import complete_run
from distsgd.cli.options import CacheDirOption, RunArgument

draw_app = typer.Typer(
    help="Draw a run or a file as a picture; needs matplotlib (the extra 'plots').",
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
def draw_images(
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
    from distsgd.cli.pictures import draw_file  # noqa: PLC0415

    draw_file(data, out, label=label, rows=rows, shape=shape)


@draw_app.command("weights")
def draw_weights(
    run: RunArgument,
    *,
    out: OutOption,
    layer: Annotated[
        int | None, typer.Option(min=0, help="Number of a dense layer; the first unless given.")
    ] = None,
    shape: ShapeOption = None,
) -> None:
    """Draw the weights of each output of a layer as an image: bright high, dark negative."""
    from distsgd.cli.pictures import draw_layer  # noqa: PLC0415

    draw_layer(run, out, layer=layer, shape=shape)


@draw_app.command("input-gradient")
def draw_input_gradient(
    run: RunArgument,
    *,
    data: Annotated[Path, typer.Option(metavar="FILE", help="Rows with their labels.")],
    out: OutOption,
    rows: RowsOption = "0:10",
    shape: ShapeOption = None,
) -> None:
    """Draw the gradient of each row's loss by its input, below the input."""
    from distsgd.cli.pictures import draw_gradients  # noqa: PLC0415

    draw_gradients(run, data, out, rows=rows, shape=shape)


@draw_app.command("error")
def draw_error(
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
    cache_dir: CacheDirOption = None,
) -> None:
    """Draw the error over one weight as a curve, with its slope and the steps that were taken."""
    from distsgd.cli.pictures import draw_error_of  # noqa: PLC0415

    draw_error_of(run, weight, out, max_steps=steps, cache_dir=cache_dir)


@draw_app.command("histories")
def draw_histories(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run directories.", autocompletion=complete_run),
    ],
    *,
    out: OutOption,
) -> None:
    """Draw the loss of several runs on one plot, to compare them."""
    from distsgd.cli.history_pictures import draw_histories_of  # noqa: PLC0415

    draw_histories_of(runs, out)


@draw_app.command("circuit")
def draw_circuit(
    run: RunArgument,
    *,
    data: Annotated[Path, typer.Option(metavar="FILE", help="Rows with their labels.")],
    row: Annotated[int, typer.Option(min=0, help="Number of the row.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Where to draw; unless given, as text.")
    ] = None,
) -> None:
    """Draw a network's circuit for one row: values forward, gradients backward on each edge."""
    from distsgd.cli.pictures import draw_circuit_of  # noqa: PLC0415

    draw_circuit_of(run, data, row, out)
