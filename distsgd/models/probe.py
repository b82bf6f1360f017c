"""A model's own probe: a seeded block through it, hashed, without any data. No I/O here.

Shape letters: N samples, P parameters.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from functools import lru_cache
from typing import Any, cast

import numpy as np
from blake3 import blake3
from numpy.typing import DTypeLike

from distsgd.base.arrays import Array
from distsgd.base.random_keys import Purpose, raw_integers, uniform
from distsgd.models.factory import RowSpec
from distsgd.models.own_errors import OwnCodeError
from distsgd.models.protocol import Model
from distsgd.models.rehearsal import Block, Rehearsal

ROWS = (1, 31)  # One, and an odd number.


def probe(model: Model, rows: RowSpec, dtype: DTypeLike) -> str:
    """Losses and gradients of seeded blocks under seeded weights, hashed.

    Two processes in which it is equal compute equal bits. Of a model whose code refuses seeded
    rows, what it raises: real rows are tried by `distsgd.models.admission`.
    """
    return _probe(cast(Hashable, model), rows, np.dtype(dtype).name)


@lru_cache(maxsize=4)
def _probe(model: Any, rows: RowSpec, dtype: str) -> str:
    digest = blake3()
    weights_P = model.initialise("glorot", 0, np.dtype(dtype))
    try:
        program = model.program(max(ROWS), weights_P.dtype, per_sample=False)
        for block in _blocks(model, rows, dtype):
            rehearsal = Rehearsal(model, block, weights_P, per_sample=False)
            digest.update(rehearsal.train(program).digest.encode())
    except OwnCodeError as error:
        digest.update(error.reason.encode())
    return str(digest.hexdigest()[:32])


def _blocks(model: Model, rows: RowSpec, dtype: str) -> Iterator[Block]:
    for count in ROWS:
        shape, target_shape = (count, *model.input_shape), (count, *model.target_shape)
        x = _uniform(shape) if rows.num_levels is None else _below(rows.num_levels, shape)
        if model.target_kind == "class":
            target = _below(model.num_outputs, target_shape)
        else:
            target = _uniform(target_shape).astype(dtype)
        yield Block(x.astype(dtype), target)


def _uniform(shape: tuple[int, ...]) -> Array:
    return uniform(0, Purpose.PROBE, 2, count=int(np.prod(shape))).reshape(shape)


def _below(end: int, shape: tuple[int, ...]) -> Array:
    raw = raw_integers(0, Purpose.PROBE, 3, count=int(np.prod(shape)))
    return (raw % np.uint64(end)).astype(np.int64).reshape(shape)
