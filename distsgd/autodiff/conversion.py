"""What users give for numbers, made arrays, or refused with the reason. No I/O here."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from distsgd.base.arrays import Array
from distsgd.errors import ModelError


def as_numbers(value: Any) -> Array:
    """`value` as an array of floats, integers or booleans."""
    try:
        array = np.asarray(value)
        if array.dtype.kind == "O" and all(isinstance(number, Real) for number in array.flat):
            array = array.astype(np.float64)  # fractions, and integers beyond 64 bits
    except (TypeError, ValueError, OverflowError) as error:
        raise ModelError(
            f"{shown(value)} is no array ({error}); must be numbers that floats can hold, in rows "
            "of equal length"
        ) from None
    if array.dtype.kind not in "fiub":
        raise ModelError(
            f"{shown(value)} is of dtype {array.dtype}; must be real numbers (convert them)"
        )
    return array


def as_dtype(given: DTypeLike | None) -> np.dtype[Any] | None:
    """A dtype of real numbers; None for None."""
    try:
        dtype = None if given is None else np.dtype(given)
    except TypeError:
        dtype = np.dtype(object)
    if dtype is not None and dtype.kind not in "fiub":
        raise ModelError(f"dtype is {given!r}; must be of real numbers, as float64 or float32")
    return dtype


def shown(value: Any) -> str:
    """`value` as an error shows it, in one line of at most 60 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
