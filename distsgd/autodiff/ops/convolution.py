"""Convolution of images, and the largest of each window.

Images lie as samples x rows x columns x channels: a flat row of pixels, its colours side by side,
is such an image without moving a number, and the product of patches and kernel is the next one.
Work goes in pieces of a few samples, so that what a piece unfolds to stays in the cache; pieces
depend on shapes only.

Shape letters: N samples, H rows, W columns, C channels; K numbers of a patch (kernel x kernel x C),
O output channels, S places of the kernel on an image. No I/O here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from distsgd.autodiff.gate import Gate, OpContext, Operation, Shape, grad_or_ones
from distsgd.base.arrays import Array
from distsgd.errors import ModelError

Padding = Literal["valid", "same"]
PIECE_BYTES = 256 * 1024  # What a piece of work may unfold to: about the second cache of a core.


class _Axis(NamedTuple):
    """One axis of an image under a kernel: zeros before and behind, places, distance of places."""

    before: int
    behind: int
    places: int
    stride: int

    @classmethod
    def of(cls, size: int, kernel: int, stride: int, padding: Padding) -> _Axis:
        if padding == "valid":
            return cls(0, 0, (size - kernel) // stride + 1 if size >= kernel else 0, stride)
        places = -(-size // stride)
        zeros = max((places - 1) * stride + kernel - size, 0)
        return cls(zeros // 2, zeros - zeros // 2, places, stride)

    def under(self, offset: int) -> slice:
        """Positions that lie under number `offset` of the kernel, one for each place."""
        return slice(offset, offset + (self.places - 1) * self.stride + 1, self.stride)


def _check_at_least_one(what: str, given: int) -> None:
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise ModelError(f"{what} is {given!r}; must be a whole number from 1 on")


@dataclass(frozen=True, slots=True)
class Convolution(Gate):
    """Each place's patch times a kernel ``[kernel, kernel, C, O]``, plus a bias ``[O]`` if given.

    As everywhere in learning the kernel is not turned around (a cross-correlation). With "same"
    padding an image is surrounded by zeros, where these are odd the more behind, so that there are
    ``ceil(size / stride)`` places.

    A sample's kernel gradient is formed on its own and added up, so its exact norm costs hardly
    more than the gradient alone.
    """

    stride: int = 1
    padding: Padding = "valid"
    name: ClassVar[str] = "convolution"
    reads_output: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_at_least_one("stride of convolution", self.stride)
        if self.padding not in ("valid", "same"):
            raise ModelError(f'padding is {self.padding!r}; must be "valid" or "same"')

    def output_shape(self, *shapes: Shape) -> Shape:
        x, kernel, *bias = shapes
        if len(x) != 4 or len(kernel) != 4 or x[3] != kernel[2]:
            raise ModelError(
                f"convolution got images of shape {x} and a kernel of shape {kernel}; must be "
                "[samples, rows, columns, channels] and [rows, columns, channels, outputs] "
                "(reshape the images first)"
            )
        if bias and bias[0] != kernel[3:]:
            raise ModelError(f"the bias has shape {bias[0]}; must be {kernel[3:]}")
        rows, columns = self._axes(x, kernel)
        if not (rows.places and columns.places):
            raise ModelError(
                f"a kernel of {kernel[0]} x {kernel[1]} does not fit into images of {x[1]} x "
                f'{x[2]}; must be at most as large (or set padding = "same")'
            )
        return x[0], rows.places, columns.places, kernel[3]

    def _axes(self, x: Shape, kernel: Shape) -> tuple[_Axis, _Axis]:
        return (
            _Axis.of(x[1], kernel[0], self.stride, self.padding),
            _Axis.of(x[2], kernel[1], self.stride, self.padding),
        )

    def samples_stay_apart(self, shapes: tuple[Shape, ...], per_sample: tuple[bool, ...]) -> bool:
        del shapes
        return per_sample[0] and not any(per_sample[1:])

    def stage_forward(self, context: OpContext) -> list[Operation]:
        x_NHWC, kernel, *bias_O = context.inputs
        shape, y_NSO = context.output.shape, _flat_places(context.output)
        rows, columns = self._axes(x_NHWC.shape, kernel.shape)
        operations, padded = _stage_padded(context, rows, columns)
        patches = context.buffer("patches", (*shape[:3], *kernel.shape[:3]))
        w_KO = kernel.reshape(-1, shape[3])
        flat_NSK = patches.reshape(*y_NSO.shape[:2], len(w_KO))
        for piece in _pieces(len(x_NHWC), patches[0].nbytes):
            for i, j in np.ndindex(*kernel.shape[:2]):
                under = padded[piece, rows.under(i), columns.under(j)]
                operations.append(partial(np.copyto, patches[piece, :, :, i, j], under))
            into = y_NSO[piece].reshape(-1, shape[3])
            operations.append(partial(np.dot, flat_NSK[piece].reshape(len(into), -1), w_KO, into))
            if bias_O:
                operations.append(partial(np.add, into, bias_O[0], into))
        return operations

    def stage_backward(
        self, context: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        d_NHWO = grad_or_ones(grad, context)
        if index == 0:
            return self._stage_input_gradient(context, d_NHWO, out)
        if index == 1:
            if context.holds("kernel_gradient"):  # The norms were asked for, and left it here.
                return [partial(np.copyto, out, context.buffer("kernel_gradient", out.shape))]
            return _stage_kernel_gradient(context, d_NHWO, out, None)
        d_MO = d_NHWO.reshape(-1, d_NHWO.shape[3])
        return [partial(np.dot, np.ones(len(d_MO), d_MO.dtype), d_MO, out)]

    def _stage_input_gradient(
        self, context: OpContext, d_NHWO: Array, out: Array
    ) -> list[Operation]:
        kernel, shape = context.inputs[1], out.shape
        rows, columns = self._axes(shape, kernel.shape)
        w_OK = kernel.reshape(-1, kernel.shape[3]).T
        zeros = rows.before + rows.behind + columns.before + columns.behind
        wide = (shape[1] + rows.before + rows.behind, shape[2] + columns.before + columns.behind)
        into = context.buffer("padded_grad", (shape[0], *wide, shape[3])) if zeros else out
        patch_bytes = math.prod(d_NHWO.shape[1:3]) * w_OK.shape[1] * out.itemsize
        pieces = _pieces(shape[0], patch_bytes)
        most = pieces[0].stop
        patches = context.buffer("patch_grads", (most, *d_NHWO.shape[1:3], *kernel.shape[:3]))
        operations: list[Operation] = [partial(into.fill, 0)]
        for piece in pieces:
            own = patches[: piece.stop - piece.start]
            d_MO = d_NHWO[piece].reshape(-1, d_NHWO.shape[3])
            operations.append(partial(np.dot, d_MO, w_OK, own.reshape(len(d_MO), -1)))
            for i, j in np.ndindex(*kernel.shape[:2]):
                under = into[piece, rows.under(i), columns.under(j)]
                operations.append(partial(np.add, under, own[:, :, :, i, j], under))
        if zeros:
            inner = _inner(into, rows, columns)
            operations.append(partial(np.copyto, out, inner))
        return operations

    def stage_squared_norms(
        self,
        context: OpContext,
        parameters: frozenset[int],
        grad: Array | None,
        out: Array,
        input_squared_norms: Array | None,
    ) -> list[Operation]:
        """Squared norms of each sample's kernel gradient and of its bias gradient, added."""
        del input_squared_norms
        d_NHWO = grad_or_ones(grad, context)
        operations: list[Operation] = []
        if 1 in parameters:
            into = context.buffer("kernel_gradient", context.inputs[1].shape)
            operations += _stage_kernel_gradient(context, d_NHWO, into, out)
        if 2 in parameters:
            d_NSO, sum_NO = _flat_places(d_NHWO), context.buffer("bias_grads", d_NHWO.shape[::3])
            ones_1S = np.ones((1, d_NSO.shape[1]), d_NSO.dtype)
            norm_N = context.buffer("bias_norms", out.shape) if operations else out
            operations += [
                # A product with ones: several times as fast as a sum along the middle axis.
                partial(np.matmul, ones_1S, d_NSO, sum_NO[:, None]),
                partial(np.vecdot, sum_NO, sum_NO, norm_N),
            ]
            if norm_N is not out:
                operations.append(partial(np.add, out, norm_N, out))
        return operations


def _stage_kernel_gradient(
    context: OpContext, d_NHWO: Array, out: Array, squared_norms_N: Array | None
) -> list[Operation]:
    """The kernel's gradient, sample by sample and added; with each one's squared norm if wanted.

    The same operations either way, but for the norms, so that statistics change no bits.
    """
    d_NSO, outputs = _flat_places(d_NHWO), d_NHWO.shape[3]
    size = out.size // outputs
    places = d_NHWO.shape[:3]
    patches = context.buffer("patches", (*places, *out.shape[:3])).reshape(*d_NSO.shape[:2], size)
    pieces = _pieces(len(d_NSO), out.nbytes)
    own_NKO = context.buffer("kernel_grads", (pieces[0].stop, size, outputs))
    sum_P, term_P = out.reshape(-1), context.buffer("kernel_term", (out.size,))
    operations: list[Operation] = []
    for piece in pieces:
        count = piece.stop - piece.start
        own_NP, ones_N = own_NKO[:count].reshape(count, -1), np.ones(count, out.dtype)
        operations.append(
            partial(np.matmul, patches[piece].swapaxes(1, 2), d_NSO[piece], own_NKO[:count])
        )
        if squared_norms_N is not None:
            operations.append(partial(np.vecdot, own_NP, own_NP, squared_norms_N[piece]))
        if piece.start == 0:
            operations.append(partial(np.dot, ones_N, own_NP, sum_P))
        else:
            operations.append(partial(np.dot, ones_N, own_NP, term_P))
            operations.append(partial(np.add, sum_P, term_P, sum_P))
    return operations


def _flat_places(images: Array) -> Array:
    return images.reshape(len(images), -1, images.shape[3])


def _pieces(num_samples: int, sample_bytes: int) -> list[slice]:
    """Runs of samples whose share is about `PIECE_BYTES`; a sample at least, the first largest."""
    size = max(1, PIECE_BYTES // max(1, sample_bytes))
    return [slice(first, min(first + size, num_samples)) for first in range(0, num_samples, size)]


def _inner(padded: Array, rows: _Axis, columns: _Axis) -> Array:
    height, width = padded.shape[1:3]
    return padded[:, rows.before : height - rows.behind, columns.before : width - columns.behind]


def _stage_padded(context: OpContext, rows: _Axis, columns: _Axis) -> tuple[list[Operation], Array]:
    """The images with their zeros around them, and what fills that; the images where no zeros are.

    The border is filled each time: other bindings of a program use the same memory.
    """
    x_NHWC = context.inputs[0]
    num, height, width, channels = x_NHWC.shape
    if not (rows.before or rows.behind or columns.before or columns.behind):
        return [], x_NHWC
    wide = (height + rows.before + rows.behind, width + columns.before + columns.behind)
    padded = context.buffer("padded", (num, *wide, channels))
    operations: list[Operation] = [
        partial(border.fill, 0) for border in _borders(padded, rows, columns) if border.size
    ]
    return [*operations, partial(np.copyto, _inner(padded, rows, columns), x_NHWC)], padded


def _borders(padded: Array, rows: _Axis, columns: _Axis) -> Iterator[Array]:
    height, width = padded.shape[1:3]
    yield padded[:, : rows.before]
    yield padded[:, height - rows.behind :]
    yield padded[:, :, : columns.before]
    yield padded[:, :, width - columns.behind :]


@dataclass(frozen=True, slots=True)
class MaxPool(Gate):
    """The largest number of each window of `size` x `size`; windows lie side by side.

    Rows and columns that fill no window are left out. The gradient goes to the largest number, of
    equal ones to the first.
    """

    size: int
    name: ClassVar[str] = "max_pool"

    def __post_init__(self) -> None:
        _check_at_least_one("size of max-pooling", self.size)

    def output_shape(self, *shapes: Shape) -> Shape:
        (x,) = shapes
        if len(x) != 4 or min(x[1:3]) < self.size:
            raise ModelError(
                f"max-pooling of {self.size} x {self.size} got images of shape {x}; must be "
                "[samples, rows, columns, channels] and no smaller than a window"
            )
        return x[0], x[1] // self.size, x[2] // self.size, x[3]

    def samples_stay_apart(self, shapes: tuple[Shape, ...], per_sample: tuple[bool, ...]) -> bool:
        del shapes, per_sample
        return True

    def _windows(self, x_NHWC: Array, places: Shape) -> list[Array]:
        """For each position in a window, the numbers there of all windows."""
        height, width = places[1] * self.size, places[2] * self.size
        return [
            x_NHWC[:, i : height : self.size, j : width : self.size]
            for i, j in np.ndindex(self.size, self.size)
        ]

    def stage_forward(self, context: OpContext) -> list[Operation]:
        y = context.output
        first, *others = self._windows(context.inputs[0], y.shape)
        return [
            partial(np.copyto, y, first),
            *(partial(np.maximum, y, other, out=y) for other in others),
        ]

    def stage_backward(
        self, context: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        del index
        y, d = context.output, grad_or_ones(grad, context)
        is_free = context.buffer("is_free", y.shape, np.bool_)
        is_largest = context.buffer("is_largest", y.shape, np.bool_)
        operations: list[Operation] = [partial(is_free.fill, True)]
        if (y.shape[1] * self.size, y.shape[2] * self.size) != out.shape[1:3]:
            operations.append(partial(out.fill, 0))
        windows = self._windows(context.inputs[0], y.shape)
        for x, into in zip(windows, self._windows(out, y.shape), strict=True):
            operations += [
                partial(np.equal, x, y, is_largest),
                partial(np.logical_and, is_largest, is_free, is_largest),
                partial(np.multiply, d, is_largest, into),
                partial(np.logical_xor, is_free, is_largest, is_free),
            ]
        return operations
