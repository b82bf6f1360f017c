"""Starting a Ray of one's own.

On loopback only, with token authentication, at full priority, in a private directory.

Ray reads most of this from the environment. No Ray is imported here.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distsgd.base.files import lock_within, try_lock
from distsgd.errors import WaitTimeoutError

_PREFIX = f"dsgd-{os.getuid()}-"
_LOCK = "lock"
_OBJECT_STORE_BYTES = 80 * 1024 * 1024  # Ray's minimum; the arrays take another way.
LOCK_TIMEOUT_S = 30.0
REMOVE_TIMEOUT_S, _POLL_S = 3.0, 0.05
YOUNG_S = 60.0  # A directory is locked at once after it was made; much later nobody will lock it.
# The kernel allows 107 bytes for a socket's path, and Ray adds about 75 to its directory.
_LONGEST_PATH = 107 - 75

_SETTINGS = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # All listeners on loopback.
    "RAY_worker_niceness": "0",  # At 15, steps are twenty times slower beside busy processes.
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
}
# What would lead a Ray of our own elsewhere, or break its processes.
_LEFT_OUT = (
    "RAY_ADDRESS",
    "RAY_REDIS_ADDRESS",
    "RAY_JOB_CONFIG_JSON_ENV_VAR",  # Inside a job: the environment of the cluster's processes.
    "RAY_AUTH_TOKEN_PATH",
    "PYTHONOPTIMIZE",  # At 2 there are no docstrings, and Ray's own processes need them.
)


def options(directory: Path, num_cpus: int) -> dict[str, Any]:
    """What `ray.init` is told for a Ray of our own in `directory`."""
    return {
        "num_cpus": num_cpus,
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE_BYTES,
        # Ray hands this to a shell as it is; its own choice breaks at a space in the path.
        "runtime_env": {"py_executable": shlex.quote(sys.executable)},
        "_temp_dir": str(directory),
    }


def set_environment() -> None:
    """The settings for a local Ray, with a new token; see `environment_kept`."""
    for name in _LEFT_OUT:
        os.environ.pop(name, None)
    os.environ.update(_SETTINGS, RAY_AUTH_TOKEN=secrets.token_hex(32))


@contextlib.contextmanager
def environment_kept() -> Iterator[None]:
    """Put back, at the end, all variables that a start of Ray sets or that we set for it."""
    before = {name: value for name, value in os.environ.items() if _is_rays(name)}
    try:
        yield
    finally:
        for name in [name for name in os.environ if _is_rays(name) and name not in before]:
            del os.environ[name]
        os.environ.update(before)


def _is_rays(name: str) -> bool:
    return name.startswith("RAY_") or name in ("PYTHONBREAKPOINT", "PYTHONOPTIMIZE")


@contextlib.contextmanager
def private_directory() -> Iterator[Path]:
    """A new directory that only this user can enter, removed at the end.

    What killed runs left is removed first.
    """
    root = Path(tempfile.gettempdir())
    if len(str(root)) + len(_PREFIX) + 12 > _LONGEST_PATH:
        root = Path("/tmp")  # noqa: S108 -- private by its mode; the usual place is too long a path for Ray's sockets.
    sweep(root)
    directory, lock = _locked_directory(root)
    try:
        # Ray opens its own directory to everybody; the one around it stays closed.
        yield directory / "r"
    finally:
        _remove(directory)
        os.close(lock)


def _remove(directory: Path) -> None:
    """Remove it though a process of Ray's that is just ending may still write there."""
    deadline = time.monotonic() + REMOVE_TIMEOUT_S
    while True:
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists() or time.monotonic() >= deadline:
            return
        time.sleep(_POLL_S)


def _locked_directory(root: Path) -> tuple[Path, int]:
    """A new directory and the descriptor of its lock.

    A sweep that comes between making and locking takes the directory away: then another is made.
    """
    while True:
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
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


def sweep(root: Path, *, now_s: float | None = None) -> list[Path]:
    """Remove directories of this user under `root` whose run is gone; returns them.

    One without a lock is as good as gone when it is `YOUNG_S` old: its run died before it had one.
    """
    now_s = time.time() if now_s is None else now_s
    swept = []
    for directory in root.glob(f"{_PREFIX}*"):
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
