"""Known names in error messages: all of them, or the nearest. No I/O here."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'relu'?)`` or nothing."""
    matches = get_close_matches(name, list(known), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def quoted(names: Iterable[str]) -> str:
    """Names as a rule has them.

    >>> quoted(["relu", "tanh"])
    '"relu", "tanh"'
    """
    return ", ".join(f'"{name}"' for name in names)
