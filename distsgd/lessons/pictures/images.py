"""Rows of numbers drawn as images: samples, the weights of each class, gradients by the input.

Shape letters: K images, H and W their height and width, R rows of images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsgd.lessons.pictures.canvas import new_figure, save

MAX_IMAGES = 100
_CELL = 0.95  # Inches.
_CONTRAST = 0.995  # Share of the numbers that lie within the scale of grey.


def draw_images(
    images_KHW: NDArray[Any],
    out: Path,
    *,
    titles: Sequence[str] = (),
    title: str = "",
    is_signed: bool = False,
) -> None:
    """Images in a grid, all on one scale of grey.

    Args:
        images_KHW: Shape ``[K, H, W]``; K from 1 to `MAX_IMAGES`.
        out: The file to write.
        titles: One above each image, or none.
        title: Above all.
        is_signed: Bright is high, dark negative and mid-grey 0, with a scale next to the images;
            else the smallest number is black and the largest white.
    """
    columns = _columns(len(images_KHW))
    rows = -(-len(images_KHW) // columns)
    figure = new_figure(columns * _CELL + 1.2, rows * (_CELL + 0.22) + 0.6)
    cells = figure.subplots(rows, columns, squeeze=False)
    _fill(figure, cells, images_KHW, titles, is_signed=is_signed)
    figure.suptitle(title, fontsize=11)
    save(figure, out)


def draw_input_gradients(
    images_KHW: NDArray[Any],
    gradients_KHW: NDArray[Any],
    out: Path,
    *,
    titles: Sequence[str] = (),
    title: str = "",
) -> None:
    """Each input above the gradient of its loss by it: bright raises the loss, dark lowers it.

    Every gradient has a scale of its own, up to its largest size: that of a row the network is sure
    of is often thousands of times smaller than another's.

    Args:
        images_KHW: The inputs, ``[K, H, W]``.
        gradients_KHW: Likewise.
        out: The file to write.
        titles: One above each input, or none.
        title: Above all.
    """
    columns = min(len(images_KHW), 10)
    rows = -(-len(images_KHW) // columns)
    figure = new_figure(columns * _CELL + 0.9, rows * (2 * _CELL + 0.5) + 0.6)
    cells = figure.subplots(2 * rows, columns, squeeze=False)
    for row in range(rows):
        part = slice(row * columns, (row + 1) * columns)
        _fill(figure, cells[2 * row : 2 * row + 1], images_KHW[part], titles[part])
        sizes = np.abs(gradients_KHW[part]).max(axis=(1, 2), keepdims=True)
        own_scale = gradients_KHW[part] / np.where(sizes > 0, sizes, 1)
        words = [f"±{size:.1g}" for size in sizes.ravel()]
        below = cells[2 * row + 1 : 2 * row + 2]
        _fill(figure, below, own_scale, words, is_signed=True, has_scale=False)
        for name, cell in zip(("input", "gradient"), cells[2 * row : 2 * row + 2, 0], strict=True):
            cell.set_ylabel(name, fontsize=9)
            cell.yaxis.label.set_visible(True)
    figure.suptitle(title, fontsize=11)
    save(figure, out)


def _columns(count: int) -> int:
    """Few rows of ten for classes; about twice as wide as high for many."""
    return min(count, 5 if count <= 10 else max(10, round((1.6 * count) ** 0.5)))


def _fill(
    figure: Any,
    cells_RC: NDArray[Any],
    images_KHW: NDArray[Any],
    titles: Sequence[str],
    *,
    is_signed: bool = False,
    has_scale: bool = True,
) -> None:
    # A few extreme numbers would leave the rest in one grey.
    largest = float(np.quantile(np.abs(images_KHW), _CONTRAST)) or 1.0
    low, high = (-largest, largest) if is_signed else (images_KHW.min(), images_KHW.max())
    drawn = None
    for place, cell in enumerate(cells_RC.flat):
        cell.set(xticks=[], yticks=[])
        for spine in cell.spines.values():
            spine.set(visible=place < len(images_KHW), color="#bbbbbb", linewidth=0.6)
        if place >= len(images_KHW):
            continue
        drawn = cell.imshow(images_KHW[place], cmap="gray", vmin=low, vmax=high)
        if titles:
            cell.set_title(titles[place], fontsize=9, pad=2)
    if is_signed and has_scale and drawn is not None:
        ends = "both" if np.abs(images_KHW).max() > largest else "neither"
        bar = figure.colorbar(drawn, ax=cells_RC, shrink=0.8, aspect=25, pad=0.02, extend=ends)
        bar.ax.tick_params(labelsize=8)
        bar.outline.set(color="#bbbbbb", linewidth=0.6)
