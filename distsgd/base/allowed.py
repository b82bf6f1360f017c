"""Whether a value may stand in a setting of a component, by the setting's type and bounds.

No I/O here. Where the settings themselves are said: `distsgd.base.settings`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from numbers import Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from distsgd.base.settings import Key, keys_of

_COMPARISONS = {
    "ge": lambda value, bound: value >= bound,
    "gt": lambda value, bound: value > bound,
    "le": lambda value, bound: value <= bound,
    "lt": lambda value, bound: value < bound,
}


def is_allowed(key: Key, value: Any) -> bool:
    """Whether `value` is of the key's type and within its bounds; a tuple: each, one or more.

    >>> from distsgd.base.settings import Setting
    >>> units = Key(int, Setting("outputs", "a whole number, 1 or more", ge=1), 1)
    >>> [is_allowed(units, value) for value in (3, 0, 2.0, True)]
    [True, False, False, False]
    """
    return _is_allowed(key.type, value, key.setting.bounds)


def wrong_settings(component: type[Any], values: Mapping[str, Any]) -> Iterator[tuple[str, Key]]:
    """Those of `values` that may not stand in a dataclass's settings, with what is known of them.

    Fields without a `Setting`, and names of no field, are passed over.
    """
    for name, key in keys_of(component).items():
        if name in values and not is_allowed(key, values[name]):
            yield name, key


def _is_allowed(kind: Any, value: Any, bounds: Mapping[str, float]) -> bool:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_is_allowed(one, value, bounds) for one in inner)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin is tuple:
        return (
            isinstance(value, tuple)
            and bool(value)
            and all(_is_allowed(inner[0], item, bounds) for item in value)
        )
    if kind in (bool, NoneType, str):
        return isinstance(value, kind)
    assert kind in (int, float), f"no setting is of type {kind}"
    if isinstance(value, bool) or not isinstance(value, int if kind is int else Real):
        return False
    return math.isfinite(value) and all(_COMPARISONS[b](value, at) for b, at in bounds.items())
