"""Settings that a component owns: what each means and what it may be, said once, at its field.

A component is a frozen dataclass. A field annotated with a `Setting` is a key of the configuration,
which reads meaning, rule and bounds from here; any other field is given by the program.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import Any, get_args, get_type_hints


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
