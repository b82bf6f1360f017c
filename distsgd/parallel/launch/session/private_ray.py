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

from distsgd.base.private_directories import locked_directory

_NAME = "dsgd"
_OBJECT_STORE_BYTES = 80 * 1024 * 1024  # Ray's minimum; the arrays take another way.
REMOVE_TIMEOUT_S, _POLL_S = 3.0, 0.05
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
    if len(f"{root}/{_NAME}-{os.getuid()}-") + 11 > _LONGEST_PATH:
        root = Path("/tmp")  # noqa: S108 -- private by its mode; the usual place is too long a path for Ray's sockets.
    directory, lock = locked_directory(root, _NAME)
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
