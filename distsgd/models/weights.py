"""Named weights from outside, held against a model. No I/O here."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import DTypeLike

from distsgd.autodiff.gate import as_numbers
from distsgd.base.arrays import Array
from distsgd.errors import ModelError
from distsgd.models.protocol import Model


def weights_vector(
    model: Model, arrays: Mapping[str, Array], dtype: DTypeLike, *, must_be_finite: bool = True
) -> Array:
    """The named `arrays` as one vector in the model's order; shape ``[P]``.

    Args:
        model: Whose weights they are.
        arrays: By parameter name.
        dtype: Of the vector.
        must_be_finite: False for those of a run that was told to train on through divergence.

    Raises:
        ModelError: A name is missing or unknown, a shape is another, or a value is not a finite
            number of `dtype`; all problems at once.
    """
    shapes = {spec.name: tuple(spec.shape) for spec in model.parameters}
    problems = [
        f"{name} is missing; its shape must be {shapes[name]}"
        for name in shapes
        if name not in arrays
    ]
    problems += [
        f"{name} is no parameter of this network; they are {', '.join(shapes)}"
        for name in arrays
        if name not in shapes
    ]
    flat = np.zeros(model.num_parameters, dtype)
    for name, view in model.views(flat).items():
        try:
            given = as_numbers(arrays[name]) if name in arrays else view
        except ModelError as error:
            problems.append(f"{name}: {error}")
            continue
        if given.shape != view.shape:
            problems.append(f"{name} has shape {given.shape}; must be {view.shape}")
        elif must_be_finite and not np.isfinite(given).all():
            problems.append(f"{name} holds values that are not finite; start from finite ones")
        else:
            with np.errstate(over="ignore"):
                view[...] = given
            if must_be_finite and not np.isfinite(view).all():
                largest = np.abs(given).max()
                problems.append(
                    f"{name} holds {largest:g}, too large for {view.dtype}; scale it, or take "
                    'float64 (set [train] dtype = "float64")'
                )
    if problems:
        raise ModelError("weights do not fit: " + "; ".join(problems))
    return flat
