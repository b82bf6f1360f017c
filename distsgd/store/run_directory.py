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
    job.json           which job's run it is, where a job trains it
    metrics.prom       where it is while it trains, for Prometheus (README: as another user)
    lock               names the process that has the run, while it has it
    driver.lock        the same of the process that drives it: that started it, and sees to it
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
from distsgd.base.locations import Location
from distsgd.errors import RunError
from distsgd.store.beginning import BEFORE_CONFIG, DRIVER_LOCK, LOCK
from distsgd.store.pointer import DEATHS
from distsgd.store.remote_run import RemoteRun
from distsgd.store.working_copy import WorkingCopy

Place = Path | str | Location


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The paths of a run; make one with `create` or `open`.

    Attributes:
        path: The directory; of a run on object storage, a working copy.
        copy: What keeps the working copy; None for a run on a disk.
    """

    path: Path
    copy: WorkingCopy | None = None

    @classmethod
    def of(cls, place: Place) -> RunDirectory:
        """The one at `place`, whether there is a run or not."""
        if isinstance(place, Location):
            copy = WorkingCopy(place)
            return cls(copy.path, copy)
        return cls(Path(place))

    @classmethod
    def create(cls, place: Place) -> RunDirectory:
        """A new run at `place`: absent, empty, or left by a creation that was interrupted.

        On object storage it is a run when it is published (`begin`).

        Raises:
            RunError: There is a run already, or something else, or no right to write.
            StorageError: The storage refuses, or does not answer.
        """
        run = cls.of(place)
        path = run.path
        if run.copy.exists() if run.copy else run.is_run(path):
            raise RunError(
                run.place,
                "holds a run already (resume it with --resume auto, or choose another --run-dir)",
            )
        if run.path.exists() and not run.path.is_dir():
            raise RunError(path, "is a file; must be a directory (choose another --run-dir)")
        make_private_directory(run.path)
        with as_run_error(run.path):
            run._refuse_foreign_content()  # noqa: SLF001 -- its own.
            if run.path.stat().st_uid == os.geteuid():
                run.path.chmod(0o700)
        make_private_directory(run.checkpoints)
        make_private_directory(run.history)
        return run

    @classmethod
    def open(cls, place: Place) -> RunDirectory:
        """The run at `place`; blocks where that is an address, since it is fetched.

        Raises:
            RunError: There is none.
            CheckpointError: What is on object storage is damaged.
            StorageError: The storage refuses, or does not answer.
        """
        run = cls.of(place)
        path = run.path
        run.fetch()
        if not run.path.is_dir():
            raise RunError(
                path, "is no directory; must be that of a run (see the path that train printed)"
            )
        if not run.is_run(path):
            raise RunError(
                path, "holds no config.json, so it is no run (see the path that train printed)"
            )
        return run

    @classmethod
    @contextlib.contextmanager
    def held(
        cls, place: Place, timeout_s: float, *, take_over: bool, session: str
    ) -> Iterator[RunDirectory]:
        """The run at `place` for oneself. See `lock`. A working copy ends with it."""
        run = cls.open(place)
        try:
            with run.lock(timeout_s, take_over=take_over, session=session):
                yield run
        finally:
            if run.copy is not None:
                run.copy.remove()

    @staticmethod
    def is_run(place: Place) -> bool:
        """Whether `place` holds a run: what ``--resume auto`` asks."""
        if isinstance(place, Location):
            return RemoteRun(place).exists()
        return (Path(place) / "config.json").exists()

    @property
    def place(self) -> Path | Location:
        """Where the run is for people and for other processes: its path, or its address."""
        return self.copy.location if self.copy else self.path

    def fetch(self) -> None:
        """Bring a working copy up to date; nothing for a run on a disk."""
        if self.copy is not None:
            self.copy.fetch()

    def begin(self) -> None:
        """Publish a working copy as a new run; nothing for a run on a disk."""
        if self.copy is not None:
            self.copy.begin()

    def publish(self) -> None:
        """Publish a working copy, under the lock; nothing for a run on a disk."""
        if self.copy is not None:
            self.copy.publish()

    def check(self) -> None:
        """Raises RunError where another has taken the run over, which no one can on a disk."""
        if self.copy is not None:
            self.copy.check()

    def doubts(self) -> list[str]:
        """What a person should know of who else may have the run, once it is had."""
        return self.copy.doubts() if self.copy else []

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

    @property
    def deaths_place(self) -> Path | Location:
        """The file for `CrashLoopGuard`: it outlives the process, and so a working copy."""
        return self.place / DEATHS

    @property
    def metrics_path(self) -> Path | None:
        """The file for metrics; None on object storage, where nobody collects it."""
        return None if self.copy else self.path / "metrics.prom"

    def write_json(self, path: Path, value: Any) -> None:
        """Write one of the JSON files; see `write_json_atomic`."""
        write_json_atomic(path, value)

    def read_result(self) -> dict[str, Any]:
        """How the run ended; empty where it has not. Raises RunError where the file is damaged."""
        return self.read_json(self.result_path) if self.result_path.is_file() else {}

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
        take_over: bool = False,
        session: str = "",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Iterator[None]:
        """Have the run for oneself; blocks up to `timeout_s` while another process has it.

        The kernel lets go of the lock when its holder ends, however it ends. Files left by
        interrupted writes are removed on entry, as nobody else can be writing.

        On object storage it is a lease (`RemoteRun.lease`), with a time of its own; the working
        copy is brought up to date. With `take_over` its present owner is superseded; one of the
        same `session` is succeeded.

        Args:
            timeout_s: The longest wait for a lock on a disk.
            take_over: See above.
            session: See above; "" for one that succeeds nobody.
            clock: Seconds.
            sleep: Waits so many of them.

        Raises:
            RunError: Another process kept it; names that process.
            StorageError: The storage refuses, or does not answer.
        """
        if self.copy is not None:
            with self.copy.lease(take_over=take_over, session=session):
                yield
            return
        with self._locked(LOCK, timeout_s, clock, sleep):
            with as_run_error(self.path / LOCK):
                remove_leftover_files(self.path)
                remove_leftover_files(self.history)
            yield

    @contextlib.contextmanager
    def driver_lock(self, timeout_s: float) -> Iterator[None]:
        """Be the one process that drives the run; blocks up to `timeout_s` while another does.

        It has it from before its server does until after it.

        Raises:
            RunError: Another process kept it; names that process.
        """
        with self._locked(DRIVER_LOCK, timeout_s, time.monotonic, time.sleep):
            yield

    @contextlib.contextmanager
    def _locked(
        self,
        name: str,
        timeout_s: float,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> Iterator[None]:
        path = self.path / name
        with as_run_error(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            with as_run_error(path):
                if not lock_within(descriptor, timeout_s, clock=clock, sleep=sleep):
                    raise self._is_in_use(descriptor)
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()} on {socket.gethostname()}\n".encode(), 0)
            try:
                yield
            finally:
                os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)

    def holder(self) -> str | None:
        """The process that has the run now, as "NUMBER on HOST"; None where nobody has it.

        On object storage it blocks until a named owner has shown that it lives, or has not.
        """
        if self.copy is not None:
            return self.copy.holder()
        try:
            descriptor = os.open(self.path / LOCK, os.O_RDONLY)
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
            known = entry.name in BEFORE_CONFIG or entry.name.startswith(STAGING)
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
