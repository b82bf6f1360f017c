"""Typed access to a JSON object from a disk; ShardError names the first bad value."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from distsgd.data.options import ClassName
from distsgd.errors import ShardError, shortened

Choice = TypeVar("Choice", bound=str)

_FILE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}\.arrow")
_HEXADECIMAL = re.compile(r"[0-9a-f]{64}")
_LARGEST_INTEGER = (1 << 64) - 1


class ManifestReader:
    """The values of one object of the manifest at `path`."""

    def __init__(self, path: Path, raw: Any, where: str = "") -> None:
        self._path, self._where = path, where
        if not isinstance(raw, dict):
            self._fail(where or "the file", raw, "an object")
        self._raw: dict[str, Any] = raw

    def expect(self, key: str, value: object) -> None:
        """Refuse any other value."""
        self.require(self._get(key) == value, key, f"{value!r}")

    def require(self, holds: bool, key: str, rule: str) -> None:  # noqa: FBT001 -- the condition is the subject.
        """Refuse the value of `key` unless the rule holds."""
        if not holds:
            self._fail(key, self._raw.get(key), rule)

    def text(self, key: str) -> str:
        """Any text."""
        value = self._get(key)
        return value if isinstance(value, str) else self._fail(key, value, "text")

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of different texts."""
        values = self._list(key)
        self.require(all(isinstance(value, str) for value in values), key, "a list of texts")
        self.require(len(set(values)) == len(values), key, "a list of different texts")
        return tuple(values)

    def optional_texts(self, key: str) -> tuple[str, ...] | None:
        """A list of different texts, or null."""
        return None if self._get(key) is None else self.texts(key)

    def file_name(self, key: str) -> str:
        """A plain file name of ours: no directories, nothing hidden."""
        value = self.text(key)
        return (
            value
            if _FILE_NAME.fullmatch(value)
            else self._fail(key, value, "the plain name of a shard file")
        )

    def hexadecimal(self, key: str) -> str:
        """A blake3 checksum."""
        value = self.text(key)
        return (
            value
            if _HEXADECIMAL.fullmatch(value)
            else self._fail(key, value, "64 hexadecimal digits")
        )

    def choice(self, key: str, choices: tuple[Choice, ...]) -> Choice:
        """One of some texts."""
        value = self.text(key)
        for choice in choices:
            if value == choice:
                return choice
        return self._fail(key, value, f"one of {', '.join(choices)}")

    def integer(self, key: str, *, least: int) -> int:
        """An integer from `least` to 2**64 - 1."""
        value = self._get(key)
        if (
            isinstance(value, int)
            and not isinstance(value, bool)
            and least <= value <= _LARGEST_INTEGER
        ):
            return value
        return self._fail(key, value, f"an integer of at least {least}")

    def boolean(self, key: str) -> bool:
        """True or false."""
        value = self._get(key)
        return value if isinstance(value, bool) else self._fail(key, value, "true or false")

    def optional_integer(self, key: str, *, least: int) -> int | None:
        """An integer or null."""
        return None if self._get(key) is None else self.integer(key, least=least)

    def number(self, key: str) -> float:
        """A finite number."""
        value = self._get(key)
        return float(value) if _is_number(value) else self._fail(key, value, "a finite number")

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of finite numbers."""
        values = self._list(key)
        self.require(all(_is_number(value) for value in values), key, "a list of finite numbers")
        return tuple(float(value) for value in values)

    def class_names(self, key: str) -> tuple[ClassName, ...]:
        """A list of different texts, or of integers, or of booleans."""
        values = self._list(key)
        kinds = {type(value) for value in values}
        self.require(
            len(kinds) <= 1 and kinds <= {str, int, bool}, key, "texts, or integers, or booleans"
        )
        self.require(len(set(values)) == len(values), key, "different values")
        return tuple(values)

    def child(self, key: str) -> ManifestReader:
        """An object within this one."""
        return ManifestReader(self._path, self._get(key), f"{self._where}{key}.")

    def children(self, key: str) -> Iterator[ManifestReader]:
        """The objects of a list."""
        for i, raw in enumerate(self._list(key)):
            yield ManifestReader(self._path, raw, f"{self._where}{key}[{i}].")

    def _get(self, key: str) -> Any:
        if key not in self._raw:
            self._fail(key, None, "there")
        return self._raw[key]

    def _list(self, key: str) -> list[Any]:
        value = self._get(key)
        return value if isinstance(value, list) else self._fail(key, value, "a list")

    def _fail(self, key: str, value: object, rule: str) -> NoReturn:
        shown = shortened(repr(value))
        raise ShardError(
            self._path, f"{self._where}{key} is {shown}; must be {rule}; prepare the data again"
        )


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
