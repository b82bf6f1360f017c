"""Files that exist whole or not at all: staged, synced, renamed.

Blocks until the disk has the bytes. Whatever the operating system refuses becomes a `DiskError`, or
where it is no fault of the disk a `RunError`, that names the path.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distsgd.errors import DiskError, DistSGDError, RunError

# What begins like this is no part of a run yet, or no more; see `remove_leftovers`.
STAGING = ".staging-"


def write_bytes_atomic(path: Path, data: bytes | memoryview) -> None:
    """Put `data` at `path`, mode 0600; a reader sees the old bytes or the new ones.

    Raises:
        RunError: The operating system refuses; nothing is left aside.
    """
    staging = staging_path(path)
    with as_run_error(path):
        try:
            write_new_file(staging, data)
            os.replace(staging, path)  # noqa: PTH105 -- the call that is atomic, by its name.
        except BaseException:
            staging.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def write_json_atomic(path: Path, value: Any) -> None:
    """Put `value` at `path` as JSON, as `write_bytes_atomic` does.

    Raises:
        RunError: As there, or `value` holds what JSON has no word for (a NaN: say null).
    """
    write_bytes_atomic(path, encode_json(path, value, indent=2))


def encode_json(path: Path, value: Any, *, indent: int | None = None) -> bytes:
    """UTF-8 JSON with a line end; `path` is where it shall go, for the message.

    Raises:
        RunError: `value` holds what JSON has no word for.
    """
    try:
        return (
            json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False) + "\n"
        ).encode()
    except (TypeError, ValueError) as error:
        raise RunError(
            path, f"cannot hold this as JSON: {error} (a number that is none is written as null)"
        ) from error


def read_json(path: Path, *, error: type[DistSGDError] = RunError) -> dict[str, Any]:
    """The JSON object at `path`.

    Args:
        path: The file.
        error: What to raise, of (path, reason): `RunError` or `CheckpointError`.

    Raises:
        DistSGDError: `error`: the file is missing, unreadable, or no JSON object.
    """
    try:
        value = decode_json(path.read_bytes())
    except FileNotFoundError:
        raise error(path, "is missing; restore it") from None
    except OSError as reason:
        raise error(path, f"cannot be read: {reason.strerror}") from reason
    except ValueError as reason:
        raise error(path, f"is not JSON ({reason}); restore it") from reason
    if not isinstance(value, dict):
        raise error(path, f"holds a JSON {type(value).__name__}; must hold an object; restore it")
    return value


def decode_json(data: bytes) -> Any:
    """What the JSON `data` says; NaN and infinity are no JSON.

    Raises:
        ValueError: It is not JSON.
    """
    try:
        return json.loads(data, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def make_private_directory(path: Path) -> None:
    """Make `path` with mode 0700 unless it exists; its parents are made as the system does.

    Raises:
        RunError: The operating system refuses.
    """
    with as_run_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        sync_directory(path.parent)


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """A private staging directory next to `path` that takes its place if all goes well.

    Raises:
        DiskError: The operating system refuses; nothing is left.
    """
    path = path.absolute()
    # Named before it exists: whatever interrupts the making of it leaves nothing.
    staging = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    try:
        with as_disk_error(path, "check the path and its permissions"):
            path.parent.mkdir(parents=True, exist_ok=True)
            staging.mkdir(mode=0o700)
        with as_disk_error(path, "make room or name another place"):
            yield staging
            sync_directory(staging)
            staging.rename(path)
            sync_directory(path.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_new_file(path: Path, data: bytes | memoryview) -> None:
    """Write and sync a file that is not there yet, mode 0600. `OSError` passes through."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123 -- of a descriptor.
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[file.write(rest) or 0 :]
        os.fsync(descriptor)


def sync_directory(path: Path) -> None:
    """Make the names in `path` durable. `OSError` passes through."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def staging_path(path: Path) -> Path:
    """A fresh name next to `path` that says it is no part of the run."""
    return path.with_name(f"{STAGING}{path.name}-{secrets.token_hex(6)}")


def remove_leftover_files(directory: Path) -> None:
    """Remove what interrupted writes left in `directory`; only for who holds the run's lock."""
    for path in directory.glob(f"{STAGING}*"):
        if path.is_file():
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def as_run_error(path: Path) -> Iterator[None]:
    """Turn an `OSError` inside into a `DiskError` on `path`; a `TimeoutError` into a `RunError`."""
    try:
        yield
    except TimeoutError as error:
        raise RunError(path, f"cannot be written: {error.strerror} (wait for it)") from error
    except (FileExistsError, NotADirectoryError) as error:
        reason = f"cannot be a directory: {_file_above(path)} is a file (choose another place)"
        raise RunError(path, reason) from error
    except OSError as error:
        reason = f"cannot be written: {error.strerror or error}"
        raise DiskError(path, f"{reason} (make room or rights there, then resume)") from error


@contextlib.contextmanager
def as_disk_error(path: Path, way_out: str) -> Iterator[None]:
    """Turn an `OSError` inside into a `DiskError` on `path`."""
    try:
        yield
    except OSError as error:
        reason = f"cannot be written ({error.strerror or error}); {way_out}"
        raise DiskError(path, reason) from error


def _file_above(path: Path) -> Path:
    return next((place for place in (path, *path.parents) if place.is_file()), path)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
