"""Objects by name, ``module:qualname``: found in the process that uses them, never pickled.

The one way by which a configuration, or a message between processes, speaks of code that the rooms
below it do not import: update rules, losses, samplers, observers and workers of one's own.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from distsgd.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Named:
    """A class or function by its name, and the keyword arguments that it is called with.

    Attributes:
        name: ``module:qualname``.
        options: Plain values (JSON).
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def find(self, *arguments: Any) -> Any:
        """The class or function itself, once it is seen to take `arguments` and the options.

        Raises:
            ConfigError: It cannot be found, or does not take such options.
        """
        found = find_object(self.name)
        try:
            inspect.signature(found).bind(*arguments, **self.options)
        except TypeError as error:
            options = ", ".join(f"{key} = {value!r}" for key, value in self.options.items())
            raise ConfigError(
                [f"{self.name} does not take the options {{{options}}}: {error} (edit them)"]
            ) from None
        return found

    def make(self, *arguments: Any) -> Any:
        """Call it, with `arguments` before its options. Raises ConfigError, as `find`."""
        return self.find(*arguments)(*arguments, **self.options)


def find_object(name: str) -> Any:
    """The object that `name`, ``module:qualname``, names.

    >>> find_object("distsgd.base.random_keys:permutation").__name__
    'permutation'

    Raises:
        ConfigError: No such module, or no such name in it.
    """
    module_name, colon, qualname = name.partition(":")
    if not (module_name and colon and qualname):
        raise ConfigError([f'"{name}" is no name of an object; write it as "module:name"'])
    try:
        found: Any = importlib.import_module(module_name)
        for part in qualname.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            [f'"{name}" cannot be found: {error} (install it, or run where its module lies)']
        ) from error
    return found


def name_of(thing: Any) -> str | None:
    """The name by which another process finds `thing`; None where there is none (a closure).

    >>> from distsgd.base.random_keys import permutation
    >>> name_of(permutation)
    'distsgd.base.random_keys:permutation'
    >>> name_of(lambda: 0) is None
    True
    """
    module, qualname = getattr(thing, "__module__", None), getattr(thing, "__qualname__", "")
    if not module or module == "__main__" or not qualname or "<" in qualname:
        return None
    name = f"{module}:{qualname}"
    try:
        return name if find_object(name) is thing else None
    except ConfigError:
        return None
