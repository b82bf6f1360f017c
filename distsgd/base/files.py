"""Files that exist whole or not at all, locks that end with their holder, logs of JSON lines.

Files are staged, synced, renamed. Whatever the operating system refuses becomes a `DiskError`, or
where it is no fault of the disk a `RunError`, that names the path. Blocks until the disk has the
bytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from distsgd.errors import CheckpointError, DiskError, DistSGDError, RunError

# What begins like this is no part of a run yet, or no more; see `remove_leftover_files`.
STAGING = ".staging-"
_POLL_S = 0.02


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


def replace_text(path: Path, text: str) -> None:
    """Write a private file whole or not at all; not synced: nobody reads it after a loss of power.

    `OSError` passes through; nothing is left aside.
    """
    staging = staging_path(path)
    try:
        staging.touch(mode=0o600)
        staging.write_text(text)
        staging.replace(path)
    except BaseException:
        staging.unlink(missing_ok=True)
        raise


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


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock the open file or directory, alone or `shared` with others of that kind.

    Returns:
        Whether it is locked now; closing the descriptor unlocks it. `OSError` passes through.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock_within(
    descriptor: int,
    timeout_s: float,
    *,
    shared: bool = False,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """As `try_lock`, again and again for up to `timeout_s` seconds; blocks."""
    deadline = clock() + timeout_s
    while not try_lock(descriptor, shared=shared):
        left_s = deadline - clock()
        if left_s <= 0.0:
            return False
        sleep(min(_POLL_S, left_s))
    return True


class JsonLines:
    """The log at `path`: JSON objects, one a line, each with a ``step``, ascending.

    Rows are appended in memory and are durable after `flush`. A crash in the middle of a flush
    leaves a last line without its end: readers pass over it, the next flush removes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: list[dict[str, Any]] = []

    def append_object(self, row: dict[str, Any]) -> None:
        """Remember `row`, which has a ``step``."""
        self._rows.append(row)

    def flush(self) -> None:
        """Append the remembered rows to the file and sync it. Blocks.

        Raises:
            RunError: The operating system refuses; the rows stay remembered.
        """
        if not self._rows:
            return
        data = b"".join(encode_json(self.path, row) for row in self._rows)
        with as_run_error(self.path):
            is_new = not self.path.exists()
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            with open(descriptor, "r+b", buffering=0) as file:  # noqa: PTH123 -- of a descriptor.
                whole = file.seek(_whole_lines_size(file.read()))
                file.truncate()
                _append_whole(descriptor, data, whole)
            if is_new:
                sync_directory(self.path.parent)
        self._rows.clear()

    def drop_after(self, step: int) -> None:
        """Forget the rows beyond `step`, in memory and on disk.

        Raises:
            CheckpointError: A line is damaged.
            RunError: The operating system refuses.
        """
        self._rows = [row for row in self._rows if row["step"] <= step]
        rows = [row for _, row in self.read_objects()]
        kept = [row for row in rows if row["step"] <= step]
        if len(kept) < len(rows):
            write_bytes_atomic(self.path, b"".join(encode_json(self.path, row) for row in kept))

    def read_objects(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The lines on disk, as (number counted from 1, object); none where there is no file.

        Raises:
            CheckpointError: A line is damaged, or the steps do not ascend.
        """
        last = -1
        for number, line in enumerate(self._read_lines(), 1):
            try:
                row = decode_json(line)
            except ValueError as error:
                raise self.damaged(number, f"is not JSON: {error}") from error
            step = row.get("step") if isinstance(row, dict) else None
            if type(step) is not int or step <= last:
                raise self.damaged(number, f"its step is {step!r}; must be an integer above {last}")
            last = step
            yield number, row

    def damaged(self, number: int, reason: str) -> CheckpointError:
        """The error for line `number`."""
        return CheckpointError(self.path, f"line {number}: {reason}")

    def _read_lines(self) -> list[bytes]:
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CheckpointError(self.path, f"cannot be read: {error.strerror}") from error
        return data[: _whole_lines_size(data)].splitlines()


def _append_whole(descriptor: int, data: bytes, whole: int) -> None:
    """Write `data` behind the first `whole` bytes and sync it; `OSError` leaves these alone."""
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    except OSError:
        # Whole lines of it may be there: a second flush would write them twice.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, whole)
        raise


def _whole_lines_size(data: bytes) -> int:
    return data.rfind(b"\n") + 1
