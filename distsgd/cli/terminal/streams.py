"""Standard output and standard error that outlive their readers.

A closed pipe (``| head``) or terminal must not end a run: what cannot be read any more is dropped.
"""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from distsgd.errors import DiskError

_NO_READER = frozenset({errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO, errno.ENOTCONN})
_RESULTS, _MESSAGES = 1, 2  # File descriptors.


@contextmanager
def lasting_streams() -> Iterator[None]:
    """Inside, writing to the standard streams never fails for want of a reader.

    Messages (standard error) are dropped whatever refuses them; results (standard output) that a
    full disk refuses end in a DiskError. Streams put in place of Python's own
    are left alone.
    """
    before = sys.stdout, sys.stderr
    sys.stdout = _lasting(sys.stdout, sys.__stdout__, _RESULTS)
    sys.stderr = _lasting(sys.stderr, sys.__stderr__, _MESSAGES)
    try:
        yield
    finally:
        try:
            sys.stderr.flush()
            sys.stdout.flush()
        finally:
            sys.stdout, sys.stderr = before


def _lasting(stream: TextIO, own: TextIO | None, descriptor: int) -> TextIO:
    if stream is None:  # Closed before this process began: Python has no stream then.
        return io.StringIO()
    if stream is not own or not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Lasting(descriptor)),
        encoding=stream.encoding,
        # A letter that the terminal's encoding lacks is no reason to fail.
        errors="replace" if stream.errors == "strict" else stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class _Lasting(io.FileIO):
    """A descriptor that takes everything, also once nothing can be written to it any more."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._is_result = descriptor == _RESULTS
        self._is_broken = False

    def write(self, data: Any) -> int:
        """Write what can be written; the whole of it counts as written where nobody reads."""
        if not self._is_broken:
            try:
                return super().write(data)
            except OSError as error:
                self._is_broken = True
                if self._is_result and error.errno not in _NO_READER:
                    reason = f"cannot be written: {error.strerror} (make room where it goes)"
                    raise DiskError("standard output", reason) from error
        return memoryview(data).nbytes
