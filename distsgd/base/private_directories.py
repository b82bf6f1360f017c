"""Temporary directories that only this user can enter, each locked while its process lives.

What killed processes have left is removed by the next one that makes a directory of the same name.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable
from pathlib import Path

from distsgd.base.files import as_run_error, lock_within, try_lock
from distsgd.errors import WaitTimeoutError

_LOCK = "lock"
LOCK_TIMEOUT_S = 30.0
YOUNG_S = 60.0  # A directory is locked at once after it was made; much later nobody will lock it.


def locked_directory(root: Path, name: str) -> tuple[Path, int]:
    """A new directory below `root`, and the descriptor of its lock; what was left is removed first.

    A sweep that comes between making and locking takes the directory away: then another is made.
    `OSError` passes through.
    """
    sweep(root, name)
    while True:
        directory = Path(tempfile.mkdtemp(prefix=_prefix(name), dir=root))
        try:
            lock = os.open(directory / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue
        # Only a sweep can have it, for as long as it takes to remove an empty directory.
        if not lock_within(lock, LOCK_TIMEOUT_S):
            os.close(lock)
            waited_for = f"another run that sweeps to let go of {directory / _LOCK}"
            raise WaitTimeoutError(waited_for, LOCK_TIMEOUT_S)
        if os.fstat(lock).st_nlink:
            return directory, lock
        os.close(lock)


def directory_of(owner: object, name: str) -> tuple[Path, Callable[[], object]]:
    """A new directory in the place for temporary files, which is gone with `owner`.

    Returns:
        It, and what removes it before that.

    Raises DiskError where the disk refuses.
    """
    root = Path(tempfile.gettempdir())
    with as_run_error(root):
        outer, lock = locked_directory(root, name)
        remove = weakref.finalize(owner, _remove, outer, lock)
        directory = outer / "d"  # Its names are free: the lock is not one of them.
        directory.mkdir(mode=0o700)
    return directory, remove


def sweep(root: Path, name: str, *, now_s: float | None = None) -> list[Path]:
    """Remove directories of this user under `root` whose process is gone; returns them.

    One without a lock is as good as gone when it is `YOUNG_S` old: its process died before it had
    one.
    """
    now_s = time.time() if now_s is None else now_s
    swept = []
    for directory in root.glob(f"{_prefix(name)}*"):
        with contextlib.suppress(OSError):
            if directory.is_symlink() or directory.stat().st_uid != os.getuid():
                continue
            try:
                lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                if now_s - directory.stat().st_mtime > YOUNG_S:
                    shutil.rmtree(directory, ignore_errors=True)
                    swept.append(directory)
                continue
            try:
                if try_lock(lock):
                    shutil.rmtree(directory, ignore_errors=True)
                    swept.append(directory)
            finally:
                os.close(lock)
    return swept


def _prefix(name: str) -> str:
    return f"{name}-{os.getuid()}-"


def _remove(directory: Path, lock: int) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    os.close(lock)
