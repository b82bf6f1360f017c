"""Old names of keys and values: accepted for one release, each with a `FutureWarning`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from distsgd.errors import ConfigError

Raw = dict[str, Any]  # Tables by name, as in the file; values not yet checked.

COORDINATE_SEARCH = "distsgd.lessons.coordinate_search:CoordinateSearch"
INJECTION = "distsgd.lab.faults.injection:FaultInjection"
TWO_STAGE = "distsgd.lessons.two_stage:TwoStageSampler.of"

# From "table.key" to the name it has now, in the same table.
KEYS: dict[str, str] = {
    "parallel.plan": "parallel.assignment",
    "parallel.exchange": "parallel.transport",
    "batch.sampling": "batch.sampler",
}
# From "table.key" (its name now) to what its old values are called now.
VALUES: dict[str, dict[Any, Any]] = {
    "parallel.assignment": {"measured": "autotune"},
    "optimizer.type": {"hot_and_cold": COORDINATE_SEARCH, "coordinate_search": COORDINATE_SEARCH},
    "batch.sampler": {"one_stage": "permutation", "two_stage": TWO_STAGE},
}


def _into_options(old: str, named: tuple[str, str], options: str) -> Callable[[Raw], str]:
    """A move of a key into the options of the object that it was for; elsewhere it had no effect.

    Args:
        old: "table.key".
        named: The key of the same table that names the object, and the name for which it counts.
        options: The key of its options.
    """
    section, _, key = old.partition(".")

    def move(raw: Raw) -> str:
        table = raw.get(section)
        if not isinstance(table, dict) or key not in table:
            return ""
        value = table.pop(key)
        if table.get(named[0]) != named[1]:
            return f"{old} is no key any more; it had no effect here, and is left out"
        table[options] = {**table.get(options, {}), key: value}
        return _note(old, f"{section}.{options}.{key}")

    return move


def _chaos_to_observer(raw: Raw) -> str:
    """``[chaos] faults`` are the options of an observer; the old records name none of them."""
    table, parallel = raw.get("chaos"), raw.get("parallel", {})
    if not isinstance(table, dict) or table.keys() - {"faults"} or not isinstance(parallel, dict):
        return ""
    faults = raw.pop("chaos").get("faults", ())
    known = parallel.get("observer")
    if known not in (None, INJECTION):
        text = f'chaos.faults is set with parallel.observer "{known}"; a run has one observer'
        raise ConfigError([f"{text}, and faults are injected by one (remove one of the two)"])
    if not faults and known is None:
        return ""
    raw["parallel"] = parallel | {"observer": INJECTION, "observer_options": {"faults": faults}}
    return (
        f'chaos.faults = [...] is now parallel.observer = "{INJECTION}" with observer_options = '
        "{faults = [...]}, or --inject on the command line; the old name is accepted until the "
        "next release"
    )


# What takes more than another name: changes `raw` in place, returns what to say, or "".
MOVES: tuple[Callable[[Raw], str], ...] = (
    _into_options("optimizer.step_size", ("type", COORDINATE_SEARCH), "options"),
    _into_options("batch.pool", ("sampler", TWO_STAGE), "sampler_options"),
    _chaos_to_observer,
)


def new_name(dotted: str) -> str:
    """The present name of ``table.key``, itself where it has no other; warns of an old one.

    >>> new_name("batch.size")
    'batch.size'
    """
    if dotted in KEYS:
        warnings.warn(_note(dotted, KEYS[dotted]), FutureWarning, stacklevel=3)
    return KEYS.get(dotted, dotted)


def with_new_names(values: Mapping[str, Any]) -> Raw:
    """`values` with present names only; warns of each old one.

    >>> with_new_names({"batch": {"size": 8}})
    {'batch': {'size': 8}}

    Raises:
        ConfigError: A key is set by its old name and by its new one.
    """
    raw: Raw = {
        name: dict(table) if isinstance(table, Mapping) else table for name, table in values.items()
    }
    notes = [_renamed(raw, old, new) for old, new in KEYS.items()]
    notes += [_reworded(raw, dotted, table) for dotted, table in VALUES.items()]
    notes += [move(raw) for move in MOVES]
    for note in filter(None, notes):
        warnings.warn(note, FutureWarning, stacklevel=3)
    return raw


def _renamed(raw: Raw, old: str, new: str) -> str:
    section, _, old_key = old.partition(".")
    new_key = new.partition(".")[2]
    table = raw.get(section)
    if not isinstance(table, dict) or old_key not in table:
        return ""
    if new_key in table:
        raise ConfigError([f"{old} is the old name of {new}, which is set too (remove {old_key})"])
    table[new_key] = table.pop(old_key)
    return _note(old, new)


def _note(old: str, new: str) -> str:
    return f"{old} is now {new}; the old name is accepted until the next release"


def _reworded(raw: Raw, dotted: str, new_values: Mapping[Any, Any]) -> str:
    section, _, key = dotted.partition(".")
    table = raw.get(section)
    old = table.get(key) if isinstance(table, dict) else None
    if not isinstance(old, str) or old not in new_values:
        return ""
    raw[section][key] = new_values[old]
    return (
        f'{dotted} = "{old}" is now "{new_values[old]}"; the old value is accepted until the next '
        "release"
    )
