"""Gates that sum along axes or change the shape. No I/O here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from distsgd.autodiff.gate import Array, Gate, Operation, Shape, Site, grad_or_ones
from distsgd.errors import ModelError


@dataclass(frozen=True, slots=True)
class Sum(Gate):
    """The sum along `axes`, or of everything where `axes` is None."""

    axes: tuple[int, ...] | None = None
    name: ClassVar[str] = "sum"
    reads_inputs: ClassVar[bool] = False
    reads_output: ClassVar[bool] = False

    def output_shape(self, *shapes: Shape) -> Shape:
        summed = self._summed(len(shapes[0]))
        return tuple(size for axis, size in enumerate(shapes[0]) if axis not in summed)

    def _summed(self, rank: int) -> frozenset[int]:
        axes = range(rank) if self.axes is None else self.axes
        if any(not -rank <= axis < rank for axis in axes):
            raise ModelError(
                f"sum along axes {self.axes}; must be from {-rank} to {rank - 1} for an array of "
                f"rank {rank}"
            )
        return frozenset(axis % rank for axis in axes)

    def stage_forward(self, site: Site) -> list[Operation]:
        axes = tuple(sorted(self._summed(site.inputs[0].ndim)))
        if not axes:
            return [partial(np.copyto, site.output, site.inputs[0])]
        return [partial(np.add.reduce, site.inputs[0], axes, None, site.output)]

    def stage_backward(
        self, site: Site, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        del index
        summed = self._summed(out.ndim)
        kept = tuple(1 if axis in summed else size for axis, size in enumerate(out.shape))
        return [partial(np.copyto, out, grad_or_ones(grad, site).reshape(kept))]

    def samples_stay_apart(self, shapes: tuple[Shape, ...], per_sample: tuple[bool, ...]) -> bool:
        del per_sample
        return 0 not in self._summed(len(shapes[0]))


@dataclass(frozen=True, slots=True)
class Reshape(Gate):
    """The same numbers in another shape; one size may be -1.

    Moves nothing: the output is a view.
    """

    shape: Shape
    name: ClassVar[str] = "reshape"
    reads_inputs: ClassVar[bool] = False
    reads_output: ClassVar[bool] = False

    def output_shape(self, *shapes: Shape) -> Shape:
        size, known = math.prod(shapes[0]), math.prod(n for n in self.shape if n != -1)
        if self.shape.count(-1) > 1 or (
            size % known if -1 in self.shape and known else size != known
        ):
            raise ModelError(
                f"cannot reshape {shapes[0]} to {self.shape}; both must hold {size} numbers"
            )
        return tuple(size // known if n == -1 else n for n in self.shape)

    def output_view(self, site_input: Array) -> Array | None:
        return site_input.reshape(self.output_shape(site_input.shape))

    def stage_forward(self, site: Site) -> list[Operation]:
        return [partial(np.copyto, site.output, site.inputs[0].reshape(site.output.shape))]

    def stage_backward(
        self, site: Site, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        del index
        return [partial(np.copyto, out, grad_or_ones(grad, site).reshape(out.shape))]

    def samples_stay_apart(self, shapes: tuple[Shape, ...], per_sample: tuple[bool, ...]) -> bool:
        del per_sample
        return self.output_shape(*shapes)[:1] == shapes[0][:1]
