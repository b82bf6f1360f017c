"""Trying to admit a model of a factory, for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from distsgd.base.arrays import Array
from distsgd.errors import ModelError
from distsgd.models import Recipe, RowSpec, model_of
from distsgd.models.admission import Admission
from distsgd.models.rehearsal import Block, Rehearsal

ROWS = RowSpec((64,), "class", 10)
TOKENS = RowSpec((6,), "class", 12, (6,), num_levels=12)


def block(rows: RowSpec = ROWS, count: int = 24) -> Block:
    chance = np.random.default_rng(0)
    target: Array = chance.integers(0, rows.num_outputs, (count, *rows.target_shape))
    if rows.target_kind == "number":
        target = chance.random((count, *rows.target_shape), np.float32)
    if rows.num_levels is None:
        return Block(chance.random((count, *rows.input_shape), np.float32), target)
    levels = chance.integers(0, rows.num_levels, (count, *rows.input_shape))
    return Block(levels.astype(np.float32), target)


def admit(
    factory: Any, *, rows: RowSpec = ROWS, count: int = 24, per_sample: bool = True
) -> str | None:
    """Why the model of `factory` is refused; None where it is not."""
    recipe = Recipe(factory, {}, rows)
    model = model_of(recipe)
    weights = model.initialise("", 0, np.float32)
    try:
        admission = Admission(recipe, Rehearsal(model, block(rows, count), weights, per_sample))
        admission.check(admission.first())
    except ModelError as error:
        return str(error)
    return None
