"""Named weights from outside, held against a model. No I/O here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

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
        ModelError: A name is missing or unknown, a shape is another, a value is not a finite number
            of `dtype`, or what the model has besides its parameters has other values there; all
            problems at once.
    """
    shapes = {spec.name: tuple(spec.shape) for spec in model.parameters}
    problems = [
        f"{name} is missing; its shape must be {shapes[name]}"
        for name in shapes
        if name not in arrays
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
    if others := [name for name in arrays if name not in shapes]:
        problems += _wrong_others(model, flat, {name: arrays[name] for name in others})
    if problems:
        raise ModelError("weights do not fit: " + "; ".join(problems))
    return flat


def _wrong_others(model: Model, flat: Array, arrays: Mapping[str, Array]) -> Iterator[str]:
    """What is wrong with arrays that are no parameters: they may be what the model has besides."""
    own = model.state_dict(flat)
    for name, given in arrays.items():
        if name not in own:
            known = ", ".join(spec.name for spec in model.parameters)
            yield f"{name} is no parameter of this network; they are {known}"
        elif not np.array_equal(np.asarray(given).astype(own[name].dtype), own[name]):
            yield (
                f"{name} has other values than the model's own, and is no parameter, so that it "
                "stays as it is made (have the factory make it so, or leave it out)"
            )
