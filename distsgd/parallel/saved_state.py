"""The JSON state of a checkpoint, held against that of the run that shall go on with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from distsgd.errors import CheckpointError

_LARGEST = 1 << 63
# What is no number yet at the beginning of a run, or is fixed by the configuration.
_FIXED = frozenset({"window"})


def check_state(state: Any, *, like: Any, name: str = "state") -> None:
    """Refuse a state that this program did not write for a run like this one.

    Every object has the keys, every list the length that it has in `like`; where that has a number
    there is a number, and where it has null there may be a number, or an object of such.

    Raises:
        CheckpointError: Names the first value that cannot be.
    """
    if isinstance(like, Mapping):
        if not isinstance(state, Mapping) or set(state) != set(like):
            _refuse(name, state, f"an object with {', '.join(like)}")
        for key, inner in like.items():
            check_state(state[key], like=inner, name=f"{name}.{key}")
            if key in _FIXED and state[key] != inner:
                _refuse(f"{name}.{key}", state[key], f"{inner}, as in this run")
    elif isinstance(like, list):
        if not isinstance(state, list) or len(state) != len(like):
            _refuse(name, state, f"a list of {len(like)} numbers")
        for i, inner in enumerate(like):
            check_state(state[i], like=inner, name=f"{name}[{i}]")
    elif isinstance(like, bool | str):
        if type(state) is not type(like):
            _refuse(name, state, "true or false" if isinstance(like, bool) else "text")
    elif isinstance(like, int):
        if type(state) is not int or not 0 <= state < _LARGEST:
            _refuse(name, state, "an integer, 0 or more")
    elif like is None and isinstance(state, Mapping):
        for key, inner in state.items():
            _check_number(f"{name}.{key}", inner, may_be_none=True)
    else:
        _check_number(name, state, may_be_none=like is None)


def _check_number(name: str, value: Any, *, may_be_none: bool) -> None:
    # Compared before it is converted: an integer of JSON may be too large for a float.
    is_number = type(value) in {int, float} and abs(value) <= 1.7e308 and math.isfinite(value)
    if not is_number and not (may_be_none and value is None):
        _refuse(name, value, "a finite number" + (" or null" if may_be_none else ""))


def _refuse(name: str, value: Any, rule: str) -> None:
    shown = repr(value) if not isinstance(value, int) or abs(value) < _LARGEST else "too large"
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    raise CheckpointError(
        "checkpoint",
        f"{name} is {shown}; must be {rule} (use the configuration and the distsgd it was made "
        "with, or resume from an older checkpoint)",
    )
