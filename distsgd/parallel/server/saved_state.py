"""The JSON state of a checkpoint, held against that of the run that shall continue."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from distsgd.errors import CheckpointError

_LARGEST = 1 << 63
_NOT_FINITE = ("inf", "-inf", "nan")  # JSON has no such numbers; a run may train on beyond them.
_FIXED = frozenset({"window"})  # By the configuration.


def plain(value: Any) -> Any:
    """A number as JSON can hold it; see `number`.

    >>> plain(float("inf")), plain(1.5), plain(None)
    ('inf', 1.5, None)
    """
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def number(value: Any) -> Any:
    """The number that `plain` gave; the same bits."""
    return float(value) if value in _NOT_FINITE else value


def does_not_fit(error: Exception) -> CheckpointError:
    """The refusal of a checkpoint of another run, which `error` showed."""
    text = f"does not fit this run ({error}); use the configuration it was made with"
    return CheckpointError("checkpoint", text)


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
    elif like is None and isinstance(state, Mapping):
        for key, inner in state.items():
            _check_value(inner, None, f"{name}.{key}")
    else:
        _check_value(state, like, name)


def _check_value(value: Any, like: Any, name: str) -> None:
    """The same for what is no object and no list."""
    if isinstance(like, bool | str):
        if type(value) is not type(like):
            _refuse(name, value, "true or false" if isinstance(like, bool) else "text")
    elif isinstance(like, int):
        if type(value) is not int or not 0 <= value < _LARGEST:
            _refuse(name, value, "an integer, 0 or more")
    elif value in _NOT_FINITE and isinstance(like, float | None):
        return
    elif not _is_number(value) and (value is not None or like is not None):
        _refuse(name, value, "a finite number" + (" or null" if like is None else ""))


def _is_number(value: Any) -> bool:
    # Compared before it is converted: an integer of JSON may be too large for a float.
    return type(value) in {int, float} and abs(value) <= 1.7e308 and math.isfinite(value)


def _refuse(name: str, value: Any, rule: str) -> None:
    shown = repr(value) if not isinstance(value, int) or abs(value) < _LARGEST else "too large"
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    raise CheckpointError(
        "checkpoint",
        f"{name} is {shown}; must be {rule} (use the configuration and the distsgd it was made "
        "with, or resume from an older checkpoint)",
    )
