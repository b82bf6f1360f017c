"""Objects by name, ``module:qualname``: found in the process that uses them, checked, then called.

The one way by which a configuration, or a message between processes, speaks of code that the rooms
below it do not import: update rules, losses, samplers, observers and workers of one's own.

Nothing of ours is unpickled from a file or from a socket of ours. Observers and workers travel by
name, and each process makes its own; rules and samplers are made in the driver, and travel to the
processes of a cluster inside the specs, by Ray's own serialisation.

A name in a file is a stranger's word. Its module is imported, which runs the module's code; what is
found there is called only where it is of the stated `Kind`.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from distsgd.base.places import raised_at
from distsgd.errors import ConfigError, DistSGDError

_DOTTED = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
NAMED = rf"^{_DOTTED}:{_DOTTED}$"  # "module:qualname", absolute.


@dataclass(frozen=True, slots=True)
class Kind:
    """What a name must name before it is called: a class, or a class method that makes one.

    Attributes:
        key: Of the configuration; problems begin with it.
        rule: What the class must be or have, for people.
        way_out: What to do about it.
        methods: The class has all methods of one of these groups, in its body or from its bases.
        base: The class is derived from it.
        attributes: What is made has them too.
    """

    key: str
    rule: str
    way_out: str
    methods: tuple[tuple[str, ...], ...] = ((),)
    base: type = object
    attributes: tuple[str, ...] = ()

    def check(self, name: str, found: object) -> None:
        """Raises ConfigError where `found` must not be called; calls nothing itself."""
        if isinstance(found, type):
            lacking = self._lacking(found)
            what = f"a class without {', '.join(lacking)}" if lacking else "another class"
            is_right = not lacking and issubclass(found, self.base)
        else:
            what = f"a {type(found).__name__}"
            owner = getattr(found, "__self__", None) if inspect.ismethod(found) else None
            is_right = isinstance(owner, type) and self._fits(owner)
        if not is_right:
            raise self._problem(name, f"is {what}")

    def make(self, name: str, found: Any, *arguments: Any, **options: Any) -> Any:
        """What `found` makes, once it is made and looked at.

        Raises:
            ConfigError: It raises an error that is none of ours, or makes something else.
        """
        try:
            made = found(*arguments, **options)
        except (DistSGDError, MemoryError):
            raise
        except Exception as error:
            problem = (
                f'{self.key} is "{name}", which raises {_shown(error)}{raised_at(error)}, when it '
                "is made (mend it, or edit its options)"
            )
            raise ConfigError([problem]) from error
        missing = [*self._lacking(type(made))]
        missing += [each for each in self.attributes if not hasattr(made, each)]
        if missing:
            problem = f"makes a {type(made).__name__} without {', '.join(missing)}"
            raise self._problem(name, f"{problem}")
        if not isinstance(made, self.base):
            raise self._problem(name, f"makes a {type(made).__name__}")
        return made

    def _lacking(self, found: type) -> tuple[str, ...]:
        """The methods it has not, of the group that it comes nearest to."""
        groups = (
            tuple(method for method in group if not callable(getattr(found, method, None)))
            for group in self.methods
        )
        return min(groups, key=len)

    def _fits(self, found: type) -> bool:
        return not self._lacking(found) and issubclass(found, self.base)

    def _problem(self, name: str, what: str) -> ConfigError:
        return ConfigError(
            [f'{self.key} is "{name}", which {what}; must be {self.rule} ({self.way_out})']
        )


@dataclass(frozen=True, slots=True)
class Named:
    """A class or its class method by name, and the keyword arguments that it is called with.

    Attributes:
        name: ``module:qualname``.
        options: Plain values (JSON).
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def find(self, kind: Kind, *arguments: Any) -> Any:
        """What is named, once it is seen to be of `kind` and to take `arguments` and the options.

        Nothing is called.

        Raises:
            ConfigError: It cannot be found, is of another kind, or does not take such options.
        """
        try:
            found = find_object(self.name)
        except ConfigError as error:
            raise ConfigError([f"{kind.key}: {text}" for text in error.problems]) from error
        kind.check(self.name, found)
        try:
            inspect.signature(found).bind(*arguments, **self.options)
        except TypeError as error:
            options = ", ".join(f"{key} = {value!r}" for key, value in self.options.items())
            problem = f"{self.name} does not take the options {{{options}}}: {error} (edit them)"
            raise ConfigError([f"{kind.key}: {problem}"]) from None
        except ValueError:
            pass  # Compiled, and without a signature: the call will tell.
        return found

    def make(self, kind: Kind, *arguments: Any) -> Any:
        """Call it, with `arguments` before its options. Raises ConfigError, as `find`."""
        return kind.make(self.name, self.find(kind, *arguments), *arguments, **self.options)


def find_object(name: str) -> Any:
    """The object that `name`, ``module:qualname``, names; it is not called.

    >>> find_object("distsgd.base.random_keys:permutation").__name__
    'permutation'

    Raises:
        ConfigError: No such module, one that cannot be imported, or no such name in it.
    """
    found: Any = find_module(name)
    qualname = name.partition(":")[2]
    try:
        for part in qualname.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        problem = f'"{name}" cannot be found: {error} (edit the name, or write it there)'
        raise ConfigError([problem]) from error
    return found


def find_module(name: str) -> ModuleType:
    """The module of ``module:qualname``; its code runs where it was not imported before.

    A module that is not found otherwise is looked for in the current directory.

    Raises:
        ConfigError: It is no such name, there is no such module, or importing it raises an error.
    """
    if not (isinstance(name, str) and re.fullmatch(NAMED, name)):
        raise ConfigError([f'"{name}" is no name of an object; write it as "module:name"'])
    module = name.partition(":")[0]
    try:
        return _imported(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            problem = (
                f'"{name}" cannot be found: {error} (install it, or run where its module lies)'
            )
        else:
            problem = _raises(name, module, error)
        raise ConfigError([problem]) from error
    except (Exception, SystemExit) as error:
        raise ConfigError([_raises(name, module, error)]) from error


def _imported(module: str) -> ModuleType:
    """Last of all places, the current directory; it is on the path for those alone who need it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        here = _current_directory()
        if error.name != module.partition(".")[0] or here is None or here in sys.path:
            raise
    sys.path.append(here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name == module.partition(".")[0]:
            sys.path.remove(here)
        raise


def _current_directory() -> str | None:
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        return None


def _raises(name: str, module: str, error: BaseException) -> str:
    return (
        f'"{name}" cannot be imported: module {module} raises {_shown(error)}{raised_at(error)}, '
        "while it is imported (mend it)"
    )


def _shown(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


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
