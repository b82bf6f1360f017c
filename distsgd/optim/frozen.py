"""Frozen weights: entries of the weights that no rule moves. No I/O here.

Between the mean gradient and the rule: their gradient is made 0, so that they count in no norm and
gather no momentum; and after the rule they are what they were, bit for bit, whatever it did to them
(decay).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from distsgd.base.arrays import Array

Shape = tuple[int, ...]
_ENTRY = re.compile(r"(?P<name>[^\[\]]+)(?:\[(?P<index>\d+(?:\s*,\s*\d+)*)\])?\Z")


class Frozen:
    """The frozen places of a flat vector, as runs of neighbours; nothing at all where empty.

    Examples:
        >>> frozen = Frozen(np.array([0, 1, 4]))
        >>> weights, gradient = np.arange(5.0), np.ones(5)
        >>> kept = frozen.take_out_inplace(weights, gradient)
        >>> weights -= 10.0
        >>> frozen.put_back_inplace(weights, kept)
        >>> weights.tolist(), gradient.tolist()
        ([0.0, 1.0, -8.0, -7.0, 4.0], [0.0, 0.0, 1.0, 1.0, 0.0])
    """

    def __init__(self, places: NDArray[np.int64]) -> None:
        self.places = np.unique(places)
        starts = np.flatnonzero(np.diff(self.places, prepend=-2) != 1)
        self._runs = [
            slice(int(run[0]), int(run[-1]) + 1)
            for run in np.split(self.places, starts[1:])
            if run.size
        ]

    def __bool__(self) -> bool:
        return bool(self._runs)

    def take_out_inplace(self, weights: Array, mean_grad: Array) -> list[Array]:
        """Make their places in the gradient ``[P]`` 0; returns `values`."""
        for run in self._runs:
            mean_grad[run] = 0
        return self.values(weights)

    def values(self, weights: Array) -> list[Array]:
        """A copy of their weights out of all ``[P]``, for `put_back_inplace`."""
        return [weights[run].copy() for run in self._runs]

    def put_back_inplace(self, weights: Array, kept: Sequence[Array]) -> None:
        """After the rule: these places of the weights ``[P]`` are what they were."""
        for run, values in zip(self._runs, kept, strict=True):
            weights[run] = values


def find_frozen(
    names: Sequence[str], shapes: Mapping[str, Shape]
) -> tuple[NDArray[np.int64], list[str]]:
    """The places of the named parameters and entries, and a line for each name that fits none.

    Args:
        names: ``layers.0.weight`` for a whole parameter, ``layers.0.weight[2,3]`` for one entry,
            ``layers.0.weight[2]`` for a row of it (of a bias: an entry).
        shapes: Of all parameters, in the order in which they lie in the flat vector.

    Returns:
        Places, int64, and problems with value, rule and way out.

    Examples:
        >>> shapes = {"layers.0.weight": (2, 3), "layers.0.bias": (3,)}
        >>> places, problems = find_frozen(["layers.0.bias", "layers.0.weight[1,0]"], shapes)
        >>> places.tolist(), problems
        ([6, 7, 8, 3], [])
    """
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])
    numbers = {
        name: np.arange(end - int(np.prod(shape)), end).reshape(shape)
        for (name, shape), end in zip(shapes.items(), ends, strict=True)
    }
    places: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    problems = []
    for name in names:
        found = _ENTRY.match(name)
        number = numbers.get(found["name"].strip()) if found else None
        if found is None or number is None:
            problems.append(
                f'optimizer.frozen names "{name}"; must be one of {", ".join(shapes)}, or an entry '
                "of one as name[row,column] (edit [optimizer] frozen)"
            )
            continue
        index = tuple(int(part) for part in (found["index"] or "").split(",") if part)
        if len(index) > number.ndim or any(
            at >= size for at, size in zip(index, number.shape, strict=False)
        ):
            problems.append(
                f'optimizer.frozen names "{name}"; {found["name"]} has shape {number.shape}, '
                "counted from 0 (edit [optimizer] frozen)"
            )
            continue
        places.append(np.atleast_1d(number[index]).reshape(-1))
    return np.concatenate(places), problems
