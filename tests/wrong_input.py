"""Junk for public calls, which must answer with an error of ours, or take it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from distsgd.errors import DistSGDError


def check_only_ours(
    call: Callable[[Any], object],
    values: Iterable[Any],
    error: type[DistSGDError] = DistSGDError,
) -> None:
    """Fail where `call` raises anything but `error` with a text, for any of `values`."""
    for value in values:
        try:
            call(value)
        except error as ours:
            said = str(ours)
        except Exception as foreign:
            raise AssertionError(f"{value!r} gives {foreign!r}") from foreign
        else:
            continue
        assert said.strip()
