"""Settings of components and arguments of calls: what each may be, and what is said of a mistake.

A component is a frozen dataclass. A field annotated with a `Setting` is a key of the configuration,
which reads meaning, rule and bounds from here, written once; any other field is given by the
program. Arguments of public calls are checked where they come in. No I/O here.
"""

from __future__ import annotations

import math
import os
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from numbers import Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from distsgd.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Setting:
    """What a setting means and what it may be; stands in an ``Annotated`` behind its type.

    Attributes:
        meaning: What it does, in a few words.
        rule: What it must be, in words: "value X; must be <rule>".
        ge, gt, le, lt: The same for numbers: the value is at least, above, at most, below it.
    """

    meaning: str
    rule: str
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    @property
    def bounds(self) -> dict[str, float]:
        """The bounds that are set, by name."""
        named = {"ge": self.ge, "gt": self.gt, "le": self.le, "lt": self.lt}
        return {name: bound for name, bound in named.items() if bound is not None}


def count(meaning: str, rule: str = "a whole number, 1 or more") -> Setting:
    """A setting that is a count."""
    return Setting(meaning, rule, ge=1)


@dataclass(frozen=True, slots=True)
class Key:
    """A field of a component as a key of the configuration.

    Attributes:
        type: Without the setting.
        default: Of the component; `dataclasses.MISSING` where it has to be set.
    """

    type: Any
    setting: Setting
    default: Any

    @property
    def is_needed(self) -> bool:
        """Has it to be set?"""
        return self.default is MISSING


def keys_of(component: type[Any]) -> dict[str, Key]:
    """The fields of a dataclass that are keys of the configuration.

    >>> from dataclasses import make_dataclass
    >>> from typing import Annotated
    >>> degrees = Annotated[float, Setting("heat", "a number above 0", gt=0)]
    >>> Oven = make_dataclass("Oven", [("name", str), ("degrees", degrees, 180.0)])
    >>> {name: (key.default, key.setting.bounds) for name, key in keys_of(Oven).items()}
    {'degrees': (180.0, {'gt': 0})}
    """
    hints = get_type_hints(component, include_extras=True)
    found = {}
    for field in fields(component):
        kind, *extras = get_args(hints[field.name]) or (None,)
        settings = [extra for extra in extras if isinstance(extra, Setting)]
        if settings:
            found[field.name] = Key(kind, settings[0], field.default)
    return found


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
