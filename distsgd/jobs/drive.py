"""The driver of a job: trains in a child process, and starts it again where it died.

On the cluster, where it outlives the machine that submitted the job. What is started again
continues from the run's last checkpoint, so that nothing is lost but time. No Ray here.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from distsgd import __version__
from distsgd.base.files import as_disk_error, make_private_directory, write_json_atomic
from distsgd.base.locations import Location, place_of
from distsgd.errors import ClusterError
from distsgd.store.beginning import JOB_FILE
from distsgd.store.run_directory import RunDirectory

WORKING_DIRECTORIES = ".distsgd-jobs"  # In the home directory.
PAUSE_S = 10.0  # Before the cluster is asked again, after it failed.
PASS_ON_S = 5.0  # Much more than the command needs to take a signal of Ray's.
LOOK_S = 1.0
_CLUSTER, _INTERRUPTED = 4, 6  # Exit codes; another try may mend the first.
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Driver:
    """Runs one command until it comes to an end that is its own.

    Args:
        command: What trains, and continues when it is started again.
        retries: How often it is started again: where it was killed without a wish to stop, and
            where it ended with exit code 4.
        say: Called with what a person should know.
        pause_s: Before it is started again where the cluster failed.
        pass_on_s: From a wish to stop until the command is told of it.
        prepare: Called before each start of the command.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        retries: int,
        say: Callable[[str], None],
        pause_s: float = PAUSE_S,
        pass_on_s: float = PASS_ON_S,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        self._prepare = prepare
        self._command, self._retries, self._say = list(command), retries, say
        self._pause_s, self._pass_on_s = pause_s, pass_on_s
        self._asked_s: float | None = None  # When the first wish to stop came.

    def run(self) -> int:
        """Blocks until there is nothing more to do.

        Returns:
            The command's last exit code.

        Raises:
            ClusterError: Its process was killed every time.
        """
        left = self._retries
        with self._signals_taken():
            while True:
                code = self._run_once()
                if self._asked_s is not None or not (code < 0 or code == _CLUSTER):
                    return _INTERRUPTED if code < 0 else code
                if not left:
                    return self._given_up(code)
                left -= 1
                then = f"{left} more at most" if left else "for the last time"
                self._say(f"{_ended(code)}; starting it again ({then})")
                self._pause(0.0 if code < 0 else self._pause_s)

    def _run_once(self) -> int:
        self._prepare()
        # In the group of this process: Ray kills that when it loses its own.
        process = subprocess.Popen(self._command)  # noqa: S603 -- our own program.
        descriptor = os.pidfd_open(process.pid)
        is_told = False
        try:
            while not select.select([descriptor], [], [], LOOK_S)[0]:
                if self._is_due() and not is_told:
                    is_told = True
                    process.send_signal(signal.SIGHUP)
        finally:
            os.close(descriptor)
        return process.wait()

    def _is_due(self) -> bool:
        """Is the command to be told of a wish to stop?

        Ray signals every process of a job by itself, Kubernetes and people only this one. Told
        twice, the command would stop at once and lose its present work, so it is told much later,
        and by SIGHUP, which counts for nothing where it stops already.
        """
        return self._asked_s is not None and time.monotonic() - self._asked_s >= self._pass_on_s

    def _given_up(self, code: int) -> int:
        if code < 0:
            raise ClusterError(
                f"{_ended(code)}, and it was started {self._retries + 1} times; the run is kept: "
                "submit the job again to continue it, with more memory for its driver if that "
                "is what it lacked"
            )
        return code

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self._asked_s is None and (left_s := end - time.monotonic()) > 0.0:
            time.sleep(min(left_s, 0.1))

    @contextmanager
    def _signals_taken(self) -> Iterator[None]:
        before: dict[signal.Signals, Any] = {one: signal.getsignal(one) for one in _SIGNALS}
        try:
            for one in before:
                # A child has the handlers of its own; what is ignored here it would ignore, too.
                signal.signal(one, self._on_signal)
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self._asked_s is None:
            self._asked_s = time.monotonic()


def steady_path(name: str) -> Path:
    """A path to the present directory that is the same for all submissions of `name`.

    Ray unpacks each package into a directory named after its content; a run whose rows lie in it
    would be another run as soon as a file of it changes. Relative paths in a configuration are
    relative to this.

    Raises:
        DiskError: The home directory cannot be written.
    """
    link = Path.home() / WORKING_DIRECTORIES / name
    with as_disk_error(link, "the driver needs a home directory"):
        link.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        staging = link.with_name(f".{name}-{os.getpid()}")
        staging.unlink(missing_ok=True)
        staging.symlink_to(Path.cwd())
        staging.replace(link)
    return link


def mark_run(run: str, run_id: str) -> None:
    """Have the directory `run` say of which job's run it is, so that no other is taken for it.

    What is no run, and not empty, is left for the command to refuse; an address is itself wherever
    it is seen.

    Raises:
        RunError: It cannot be written.
    """
    place = place_of(run)
    if isinstance(place, Location) or not run_id:
        return
    if RunDirectory.is_run(place) or not place.exists() or not any(place.iterdir()):
        make_private_directory(place)
        write_json_atomic(place / JOB_FILE, {"run_id": run_id})


def check_version(submitted_with: str) -> None:
    """Raises ClusterError where the node has another version than the one that submitted."""
    if submitted_with != __version__:
        raise ClusterError(
            f"this job was submitted with distsgd {submitted_with}, but its node has distsgd "
            f"{__version__}; install one version on both, or name an image that has it"
        )


def _ended(code: int) -> str:
    if code >= 0:
        return f"the driver ended with exit code {code}"
    try:
        return f"the driver was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"the driver was ended by signal {-code}"
