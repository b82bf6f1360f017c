"""What a shell offers where a command takes a run directory or a configuration. Loads nothing."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

_MOST_ENTRIES = 500  # Of a directory, looked at: a shell waits for the answer.


def complete_run(incomplete: str) -> list[str]:
    """Run directories that begin like `incomplete`, and those in directories that do."""
    return _wanted(incomplete, lambda path: (path / "config.json").is_file())


def complete_config(incomplete: str) -> list[str]:
    """TOML files that begin like `incomplete`, and those in directories that do."""
    return _wanted(incomplete, lambda path: path.suffix == ".toml" and path.is_file())


def _wanted(incomplete: str, is_wanted: Callable[[Path], bool]) -> list[str]:
    """As typed so far; where there are none a shell offers files by itself."""
    shown, begins = os.path.split(incomplete)
    found = []
    for path in _visible(Path(shown).expanduser()):
        name = os.path.join(shown, path.name)  # noqa: PTH118 -- as typed: "./" and "~" stay.
        if not path.name.startswith(begins):
            continue
        if is_wanted(path):
            found.append(name)
        elif path.is_dir():
            inside = (inner for inner in _visible(path) if is_wanted(inner))
            found += [f"{name}/{inner.name}" for inner in inside]
    return sorted(found)


def _visible(directory: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        for path in itertools.islice(directory.iterdir(), _MOST_ENTRIES):
            if not path.name.startswith("."):
                yield path
