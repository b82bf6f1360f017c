"""Subscripts: whatever numpy takes between the brackets of ``x[...]``. No I/O here."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import partial
from types import EllipsisType
from typing import Any, ClassVar

import numpy as np

from distsgd.autodiff.gate import Gate, OpContext, Operation, Shape, grad_or_ones, shown
from distsgd.base.arrays import Array
from distsgd.errors import ModelError

Part = int | slice | EllipsisType | None | Array


@dataclass(frozen=True, slots=True, eq=False)
class Subscript(Gate):
    """``x[key]``; a number that is taken several times gets the sum of what comes back.

    Attributes:
        key: Integers, slices, ``...`` and None, or arrays of integers or booleans (see `of`).
    """

    key: tuple[Part, ...]
    name: ClassVar[str] = "subscript"
    reads_inputs: ClassVar[bool] = False
    reads_output: ClassVar[bool] = False

    @classmethod
    def of(cls, key: Any) -> Subscript:
        """The gate for what stands between the brackets; raises `ModelError` where that is none."""
        return cls(tuple(_part(part) for part in (key if isinstance(key, tuple) else (key,))))

    def output_shape(self, *shapes: Shape) -> Shape:
        shape = shapes[0]
        # An array of one number, read with strides of 0, stands for any.
        return self._taken(np.broadcast_to(np.zeros((), np.bool_), shape)).shape

    def _taken(self, x: Array) -> Array:
        try:
            return np.asarray(x[self.key])
        except (IndexError, ValueError) as error:
            raise ModelError(
                f"cannot take {_written(self.key)} of shape {x.shape} ({error}); must lie within it"
            ) from None

    def _is_basic(self) -> bool:
        return not any(isinstance(part, np.ndarray) for part in self.key)

    def _positions(self, shape: Shape) -> Array:
        """Where in a flat array each number of the output stands."""
        size = int(np.prod(shape, dtype=np.int64))
        return self._taken(np.arange(size, dtype=np.intp).reshape(shape))

    def _window(self, x: Array) -> Array:
        """The numbers taken as a view, also where it is but one."""
        return x[self.key] if Ellipsis in self.key else x[(*self.key, ...)]

    def output_dtype(self, *dtypes: np.dtype[Any]) -> np.dtype[Any]:
        return np.result_type(*dtypes)  # also whole numbers stay what they are

    def stage_forward(self, context: OpContext) -> list[Operation]:
        x = context.inputs[0]
        if self._is_basic():
            return [partial(np.copyto, context.output, self._window(x))]
        taken = self._positions(x.shape)
        return [partial(x.reshape(-1).take, taken, None, context.output, "clip")]

    def stage_backward(
        self, context: OpContext, index: int, grad: Array | None, out: Array
    ) -> list[Operation]:
        del index
        d = grad_or_ones(grad, context)
        operations: list[Operation] = [partial(out.fill, 0)]
        if self._is_basic():
            return [*operations, partial(np.copyto, self._window(out), d)]
        return [*operations, partial(np.add.at, out.reshape(-1), self._positions(out.shape), d)]

    def samples_stay_apart(self, shapes: tuple[Shape, ...], per_sample: tuple[bool, ...]) -> bool:
        """Whether the first axis is taken whole and stays the first one."""
        del per_sample
        rank, named = len(shapes[0]), sum(part is not None for part in self.key) - 1
        first = self.key[0] if self.key else ...
        if isinstance(first, slice):
            is_whole = not first.start and first.stop is None and first.step in (None, 1)
        else:
            is_whole = first is ... and self._is_basic() and named < rank
        if not is_whole or not rank:
            return False
        # Beside arrays numpy may put another axis first: rows that carry their numbers tell.
        rows = np.arange(shapes[0][0]).reshape(-1, *(1,) * (rank - 1))
        taken = self._taken(np.broadcast_to(rows, shapes[0]))
        own = np.arange(len(taken)).reshape(-1, *(1,) * (taken.ndim - 1))
        return taken.ndim > 0 and bool((taken == own).all())


def _part(part: Any) -> Part:
    if part is None or part is ...:
        return part
    if isinstance(part, slice):
        return slice(*(_bound(part, bound) for bound in (part.start, part.stop, part.step)))
    if isinstance(part, list | tuple | range | np.ndarray | bool | np.bool_):
        try:
            array = np.array(part)
        except ValueError:
            raise _refusal(part) from None
        array = (
            array.astype(np.intp)
            if not array.size and isinstance(part, list | tuple | range)
            else array
        )
        if array.dtype.kind not in "iub":
            raise _refusal(part)
        return array if array.ndim or array.dtype.kind == "b" else int(array)
    whole: int = _bound(part, part)
    return whole


def _bound(part: Any, bound: Any) -> Any:
    try:
        return None if bound is None else operator.index(bound)
    except TypeError:
        raise _refusal(part) from None


def _refusal(part: Any) -> ModelError:
    return ModelError(
        f"a subscript is {shown(part)}; must be integers, "
        "slices, ..., None, or arrays of integers or booleans (of a Variable its value, as an "
        "array of integers)"
    )


def _written(key: tuple[Part, ...]) -> str:
    return f"[{', '.join(_written_part(part) for part in key)}]"


def _written_part(part: Part) -> str:
    if isinstance(part, slice):
        ends = ("" if bound is None else str(bound) for bound in (part.start, part.stop))
        return ":".join(ends) + ("" if part.step is None else f":{part.step}")
    if isinstance(part, np.ndarray):
        whole = part.size <= 6
        return str(part.tolist()) if whole else f"an array of shape {part.shape}"
    return "..." if part is ... else str(part)
