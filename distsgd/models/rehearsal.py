"""A rehearsal: a model runs on one block before training, by the protocol alone. No I/O here.

Shape letters: N samples, O outputs, P parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from blake3 import blake3
from numpy.typing import DTypeLike

from distsgd.base.arrays import Array
from distsgd.base.random_keys import Purpose, raw_integers, uniform
from distsgd.models.factory import RowSpec
from distsgd.models.protocol import Bound, Model, Program

MOVED_BY = 0.02  # So that no weight is zero, which would hide what lies before it.


class Found(NamedTuple):
    """What came of a block; copies."""

    losses_N: Array
    outputs_NO: Array
    gradient_P: Array | None = None
    squared_norms_N: Array | None = None

    @property
    def digest(self) -> str:
        """Of all bits."""
        digest = blake3()
        for array in self:
            if array is not None:
                digest.update(np.ascontiguousarray(array).tobytes())
        return str(digest.hexdigest()[:32])


@dataclass(frozen=True, slots=True)
class Block:
    """Rows and their targets; ``[N, *input_shape]`` and ``[N, *target_shape]``."""

    x: Array
    target: Array

    def __len__(self) -> int:
        return len(self.x)

    def alone(self, row: int) -> Block:
        """One row as a block."""
        return Block(self.x[row : row + 1], self.target[row : row + 1])

    def take(self, rows_N: Array) -> Block:
        """These rows."""
        return Block(self.x[rows_N], self.target[rows_N])

    def turned(self) -> Block:
        """The same rows, each in the place of the next."""
        return Block(np.roll(self.x, 1, axis=0), np.roll(self.target, 1, axis=0))

    def keeping(self, kept: int | Array, others: Block) -> Block:
        """The rows `kept` of this, in their places among `others`."""
        x, target = others.x.copy(), others.target.copy()
        x[kept], target[kept] = self.x[kept], self.target[kept]
        return Block(x, target)

    def cast(self, dtype: DTypeLike) -> Block:
        """The same rows in another dtype; classes stay as they are."""
        is_class = self.target.dtype.kind == "i"
        return Block(self.x.astype(dtype), self.target if is_class else self.target.astype(dtype))

    def with_other_rows(self, kept: int | Array, rows: RowSpec) -> Iterator[Block]:
        """The same row, or rows, among others: real ones in other places, and ones far off."""
        turned = self.turned()
        if rows.num_levels is None:
            far = self.x[::-1] * self.x.dtype.type(-8) + self.x.dtype.type(1)
        else:
            far = (self.x[::-1] + 1) % self.x.dtype.type(rows.num_levels)
        target = turned.target
        if rows.target_kind == "class":
            target = (target + 1) % rows.num_outputs
        for others in (turned, Block(far, target)):
            yield self.keeping(kept, others)


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A model, a block and weights ``[P]`` of one dtype."""

    model: Model
    block: Block
    weights_P: Array
    per_sample: bool

    def program(self) -> Program:
        """A new one for such a block, of the weights' dtype."""
        dtype = self.weights_P.dtype
        return self.model.program(len(self.block), dtype, per_sample=self.per_sample)

    def train(self, program: Program, block: Block | None = None, *, seed: int = 0) -> Found:
        """Forward and backward, with what training leaves to chance keyed by `seed`."""
        block = block or self.block
        return self._both(program, block, self.keys(len(block), seed))

    def train_without_chance(self, program: Program, block: Block) -> Found:
        """Forward and backward as in evaluation."""
        return self._both(program, block, None)

    def look(self, program: Program, block: Block, *, is_training: bool) -> Found:
        """Forward alone; in training with gradients bound, by which a model without chance knows.

        Whether a model that takes keys trains, they say, with gradients or without.
        """
        gradient_P = np.zeros_like(self.weights_P) if is_training else None
        keys = self.keys(len(block)) if is_training else None
        return self._forward(program, block, gradient_P, keys)[1]

    def keys(self, num_rows: int, seed: int = 0) -> Array | None:
        """The same for every block of this size; None where nothing is left to chance."""
        count = {"none": 0, "row": num_rows, "block": 1}[self.model.chance]
        return raw_integers(seed, Purpose.PROBE, count=count) if count else None

    def moved(self) -> Rehearsal:
        """With weights a little larger than these, and none of them zero."""
        weights_P = self.weights_P
        by_P = MOVED_BY * uniform(0, Purpose.PROBE, 1, count=len(weights_P))
        moved_P = weights_P + by_P * np.where(weights_P == 0, 1, weights_P)
        return replace(self, weights_P=moved_P.astype(weights_P.dtype))

    def cast(self, dtype: DTypeLike) -> Rehearsal:
        """In another dtype."""
        block, weights_P = self.block.cast(dtype), self.weights_P.astype(dtype)
        return replace(self, block=block, weights_P=weights_P)

    def _both(self, program: Program, block: Block, keys: Array | None) -> Found:
        gradient_P = np.zeros_like(self.weights_P)
        bound, found = self._forward(program, block, gradient_P, keys)
        bound.backward()
        norms_N = bound.squared_norms_N
        return found._replace(
            gradient_P=gradient_P, squared_norms_N=None if norms_N is None else norms_N.copy()
        )

    def _forward(
        self, program: Program, block: Block, gradient_P: Array | None, keys: Array | None
    ) -> tuple[Bound, Found]:
        norms_N = (block.x.reshape(len(block), -1) ** 2).sum(1) if self.per_sample else None
        bound = program.bind(
            block.x,
            block.target,
            weights=self.weights_P,
            gradients=gradient_P,
            x_squared_norms=None if gradient_P is None else norms_N,
            keys=keys,
        )
        bound.forward()
        return bound, Found(bound.losses_N.copy(), bound.outputs_NO.copy())
