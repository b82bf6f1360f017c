"""The directory of a run: what lies where, and the lock that one process holds.

In it::

    config.json        the resolved configuration; its presence says "a run"
    environment.json   versions, numerics profile, digest of the data
    model.json         the network, class names, standardising statistics
    result.json        written at the end
    checkpoints/       see `checkpoint`
    history/           see `logs`
    evaluations.jsonl  see `logs`
    digests.jsonl      see `logs`
    lock               names the process that has the run, while it has it
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distsgd.base.files import (
    STAGING,
    as_run_error,
    lock_within,
    make_private_directory,
    read_json,
    remove_leftover_files,
    try_lock,
    write_json_atomic,
)
from distsgd.errors import RunError

_LOCK = "lock"
# What a creation that was interrupted before it wrote the configuration may have left.
_BEFORE_CONFIG = frozenset(
    {
        _LOCK,
        "checkpoints",
        "history",
        "model.json",
        "environment.json",
        "initial_weights.safetensors",
    }
)


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The paths of a run; make one with `create` or `open`."""

    path: Path

    @classmethod
    def create(cls, path: Path | str) -> RunDirectory:
        """A new run at `path`: absent, empty, or left by a creation that was interrupted.

        Raises:
            RunError: There is a run already, or something else, or no right to write.
        """
        run = cls(Path(path))
        if run.is_run(path):
            raise RunError(
                path,
                "holds a run already (resume it with --resume auto, or choose another --run-dir)",
            )
        if run.path.exists() and not run.path.is_dir():
            raise RunError(path, "is a file; must be a directory (choose another --run-dir)")
        make_private_directory(run.path)
        with as_run_error(run.path):
            run._refuse_foreign_content()
            if run.path.stat().st_uid == os.geteuid():
                run.path.chmod(0o700)
        make_private_directory(run.checkpoints)
        make_private_directory(run.history)
        return run

    @classmethod
    def open(cls, path: Path | str) -> RunDirectory:
        """The run at `path`.

        Raises:
            RunError: There is none.
        """
        run = cls(Path(path))
        if not run.path.is_dir():
            raise RunError(
                path, "is no directory; must be that of a run (see the path that train printed)"
            )
        if not run.is_run(path):
            raise RunError(
                path, "holds no config.json, so it is no run (see the path that train printed)"
            )
        return run

    @staticmethod
    def is_run(path: Path | str) -> bool:
        """Whether `path` holds a run: what ``--resume auto`` asks."""
        return (Path(path) / "config.json").exists()

    @property
    def config_path(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.json"

    @property
    def environment_path(self) -> Path:
        """Versions, numerics profile, digest of the data."""
        return self.path / "environment.json"

    @property
    def model_path(self) -> Path:
        """The network, class names and standardising statistics."""
        return self.path / "model.json"

    @property
    def result_path(self) -> Path:
        """How the run ended."""
        return self.path / "result.json"

    @property
    def checkpoints(self) -> Path:
        """The directory for `CheckpointStore`."""
        return self.path / "checkpoints"

    @property
    def history(self) -> Path:
        """The directory for `HistoryWriter`."""
        return self.path / "history"

    @property
    def evaluations_path(self) -> Path:
        """The file for `EvaluationLog`."""
        return self.path / "evaluations.jsonl"

    @property
    def digests_path(self) -> Path:
        """The file for `DigestLog`."""
        return self.path / "digests.jsonl"

    def write_json(self, path: Path, value: Any) -> None:
        """Write one of the JSON files; see `write_json_atomic`."""
        write_json_atomic(path, value)

    def read_json(self, path: Path) -> dict[str, Any]:
        """Read one of the JSON files.

        Raises:
            RunError: It is missing or damaged.
        """
        return read_json(path)

    @contextlib.contextmanager
    def lock(
        self,
        timeout_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Iterator[None]:
        """Have the run for oneself; blocks up to `timeout_s` while another process has it.

        The kernel lets go of the lock when its holder ends, however it ends. Files left by
        interrupted writes are removed on entry, as nobody else can be writing.

        Raises:
            RunError: Another process kept it; names that process.
        """
        with as_run_error(self.path / _LOCK):
            descriptor = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            with as_run_error(self.path / _LOCK):
                if not lock_within(descriptor, timeout_s, clock=clock, sleep=sleep):
                    raise self._is_in_use(descriptor)
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()} on {socket.gethostname()}\n".encode(), 0)
                remove_leftover_files(self.path)
                remove_leftover_files(self.history)
            try:
                yield
            finally:
                os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)

    def holder(self) -> str | None:
        """The process that has the run now, as "NUMBER on HOST"; None where nobody has it."""
        try:
            descriptor = os.open(self.path / _LOCK, os.O_RDONLY)
        except OSError:
            return None
        try:
            # Nobody is kept out by this: whoever wants the lock tries again.
            return None if try_lock(descriptor, shared=True) else _who(descriptor)
        finally:
            os.close(descriptor)

    def _is_in_use(self, descriptor: int) -> RunError:
        return RunError(
            self.path,
            f"is in use by process {_who(descriptor)}; one process at a time may train a run "
            "(wait for it, end it, or choose another --run-dir)",
        )

    def _refuse_foreign_content(self) -> None:
        for entry in self.path.iterdir():
            known = entry.name in _BEFORE_CONFIG or entry.name.startswith(STAGING)
            known = known or (entry.name == "data" and (entry / "manifest.json").is_file())
            if not known or (entry.name == "checkpoints" and any(entry.glob("step-*"))):
                raise RunError(
                    self.path,
                    f"holds {entry.name} and no config.json, so it is no run; "
                    "must be empty (choose another --run-dir)",
                )


def _who(descriptor: int) -> str:
    """What the lock says of the process that has it."""
    return os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "(unknown)"
