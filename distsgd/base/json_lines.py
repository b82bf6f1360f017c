"""A log of JSON objects, one a line, each with a ``step``, ascending; durable once flushed.

A crash in the middle of a flush leaves a last line without its end: readers pass over it, the next
flush removes it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distsgd.base.atomic_files import (
    as_run_error,
    decode_json,
    encode_json,
    sync_directory,
    write_bytes_atomic,
)
from distsgd.errors import CheckpointError


class JsonLines:
    """The log at `path`; rows are appended in memory and reach the disk by `flush`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: list[dict[str, Any]] = []

    def append(self, row: dict[str, Any]) -> None:
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
        rows = [row for _, row in self.read()]
        kept = [row for row in rows if row["step"] <= step]
        if len(kept) < len(rows):
            write_bytes_atomic(self.path, b"".join(encode_json(self.path, row) for row in kept))

    def read(self) -> Iterator[tuple[int, dict[str, Any]]]:
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
