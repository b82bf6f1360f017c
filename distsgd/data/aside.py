"""Writing a directory that is there whole or not at all: aside, flushed to the disk, renamed."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distsgd.errors import DataError, DiskError


def check_out(out: Path) -> None:
    """Raise DataError unless `out` is free: not there, or an empty directory."""
    if out.is_dir() and any(out.iterdir()):
        raise DataError(out, "is not empty; name a new directory")
    if out.exists() and not out.is_dir():
        raise DataError(out, "is a file; name a new directory")


@contextmanager
def written_aside(out: Path) -> Iterator[Path]:
    """A private directory beside `out` that takes its place if all goes well, else is removed."""
    out = out.absolute()
    # Named before it is there: whatever interrupts the making of it leaves nothing.
    aside = out.parent / f".{out.name}.{secrets.token_hex(4)}"
    try:
        _make(aside, out)
        yield aside
        _sync_directory(aside)
        aside.rename(out)
        _sync_directory(out.parent)
    except OSError as error:
        raise DiskError(
            out, f"cannot be written ({error.strerror}); make room or name another place"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _make(aside: Path, out: Path) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        aside.mkdir(mode=0o700)
    except OSError as error:
        raise DiskError(
            out, f"cannot be written ({error.strerror}); check the path and its permissions"
        ) from error


def write_durably(path: Path, text: str) -> None:
    """Write text and flush it to the disk."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
