"""A run that trains, looked at and told what to do by another process.

On the driver's machine that goes by two small files in the run directory, which the driver writes
and reads (`live_files`); from the other hosts of a cluster by the run's server, which has a name
there. No input to the bits.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, get_args

from distsgd.base.files import as_run_error
from distsgd.base.locations import Location, place_of
from distsgd.errors import RunError, WaitTimeoutError
from distsgd.parallel.launch.actors.desired_workers import DesiredWorkers, is_alive
from distsgd.parallel.launch.session.address import chosen_address
from distsgd.parallel.server.report import NOTHING
from distsgd.parallel.server.spec import LOOK_S, Phase
from distsgd.run.live_files import STATUS_FILE, STOP_FILE
from distsgd.store.checkpoint import CheckpointStore
from distsgd.store.run_directory import RunDirectory


class Control(Protocol):
    """What can be asked of a run."""

    def report(self) -> dict[str, Any]:
        """Where it is: see `distsgd.parallel.server.report`."""

    def want(self, num_workers: int) -> int:
        """Have another number of workers; returns how many were wanted before."""

    def stop(self) -> None:
        """Have it stop after its present step, with a checkpoint."""

    def stopped(self, timeout_s: float) -> dict[str, Any]:
        """The same, and wait for its end: the report that says how it ended.

        Raises:
            WaitTimeoutError: It has not ended within `timeout_s` seconds.
        """


def when_taken(control: Control, num_workers: int, timeout_s: float) -> dict[str, Any]:
    """The report of a run that is to have `num_workers`, once its driver knows; blocks.

    The last one where the run ends before that.

    Raises:
        WaitTimeoutError: Its driver has not taken it within `timeout_s` seconds.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        found = control.report()
        if found["wanted_workers"] == num_workers or found["status"] not in get_args(Phase):
            return found
        if time.monotonic() > deadline:
            raise WaitTimeoutError("the driver of the run to take the number", timeout_s)
        time.sleep(LOOK_S)


class LocalControl:
    """A run that a driver on this machine trains, or that nobody does; or one at an address."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run

    def report(self) -> dict[str, Any]:
        """Where it is, or how it ended. Raises RunError."""
        if (live := self._live()) is not None:
            return live
        run, result = self._run, {}
        if run.result_path.is_file():
            result = run.read_json(run.result_path)
        steps = CheckpointStore(run.checkpoints).steps()
        known = {key: result[key] for key in NOTHING if key in result}
        found = {"status": "not running", "step": max(steps, default=0)}
        if result:
            found = {"step": result["steps"], "epoch": result["epochs"]}
        if run.copy and run.holder():  # What an earlier session came to is not how it is.
            found = {"status": "training", "step": max(steps, default=0)}
        return NOTHING | known | found | {"run": str(run.place), "num_workers": 0}

    def want(self, num_workers: int) -> int:
        """See `DesiredWorkers.ask`."""
        if self._run.copy:
            raise self._not_here()
        return DesiredWorkers(self._run.path).ask(num_workers)

    def stop(self) -> None:
        """Raises RunError where nobody would see it."""
        if self._live() is None:
            raise self._not_here()
        with as_run_error(self._run.path / STOP_FILE):
            (self._run.path / STOP_FILE).touch()

    def stopped(self, timeout_s: float) -> dict[str, Any]:
        """See `Control`. Raises RunError where no driver on this machine has it."""
        self.stop()
        deadline = time.monotonic() + timeout_s
        while self._live() is not None:
            if time.monotonic() > deadline:
                raise WaitTimeoutError("the run to end after its present step", timeout_s)
            time.sleep(LOOK_S)
        return self.report()

    def _not_here(self) -> RunError:
        """Where the run is instead."""
        place, reason = str(self._run.place), "is not being trained on this machine"
        if holder := self._run.holder():
            by = f"process {holder} trains it; name its cluster: --address HOST:PORT"
            return RunError(place, f"{reason}: {by}")
        last = self.report()
        where = f"{last['status']}, step {last['step']:,}"
        is_over = last["status"] in ("done", "diverged")
        show = shlex.join(["distsgd", "show", str(place)])
        way_on = "" if is_over else f"; {show} has the command that resumes it"
        return RunError(place, f"{reason} ({where}){way_on}")

    def _live(self) -> dict[str, Any] | None:
        """What a driver that lives has written last."""
        try:
            values = json.loads((self._run.path / STATUS_FILE).read_text())
            driver = values.pop("driver")
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return NOTHING | values if is_alive(driver) else None


@contextlib.contextmanager
def control_of(run: str, address: str | None) -> Iterator[Control]:
    """What can be asked of `run`, a run directory; or of a run on the cluster at `address`.

    Without an address, a directory whose driver is on another machine says where its cluster is,
    and a run on object storage is what it holds.

    Raises:
        RunError: There is no such run.
        StorageError: The storage refuses, or does not answer.
        ClusterError: The cluster is not there, or does not answer.
    """
    place = place_of(run)
    if address is None and isinstance(place, Path) and RunDirectory.is_run(place):
        address = DesiredWorkers(place).elsewhere()
        if address is None:
            yield LocalControl(RunDirectory.open(place))
            return
    address = chosen_address(address)
    if address == "local" and isinstance(place, Location):
        yield LocalControl(RunDirectory.open(place))
        return
    if address == "local":
        reason = "is no run directory here; name the cluster that trains it: --address HOST:PORT"
        raise RunError(run, reason)
    from distsgd.parallel.launch.actors.named_servers import named_run  # noqa: PLC0415 -- loads Ray.

    if isinstance(place, Path) and RunDirectory.is_run(place):
        place = place.absolute()  # Anything else of that name may have nothing to do with it.
    with named_run(str(place), address) as found:
        yield found
