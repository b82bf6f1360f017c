"""Arguments of public calls, checked where they come in: a mistake is answered by a ConfigError.

Nothing of ours but the errors is imported here.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from distsgd.errors import ConfigError

Call = TypeVar("Call", bound=Callable[..., Any])


def refuse(name: str, value: object, rule: str) -> NoReturn:
    """Raise ConfigError: argument `name` has `value` and must be what `rule` says."""
    raise ConfigError([f"{name} is {reprlib.repr(value)}; must be {rule}"])


def path_argument(name: str, value: object) -> Path:
    """`value` as a path. Raises ConfigError."""
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str) or not text or "\0" in text:
        refuse(name, value, "a path (a str or a pathlib.Path)")
    return Path(text)


def call_argument(name: str, value: Call | None, default: Call) -> Call:
    """`value`, or `default` where it is None. Raises ConfigError."""
    if value is not None and not callable(value):
        refuse(name, value, "a function, or None")
    return default if value is None else value


def count_argument(name: str, value: object) -> int:
    """`value` as a count. Raises ConfigError."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        refuse(name, value, "a whole number, 0 or more")
    return value
