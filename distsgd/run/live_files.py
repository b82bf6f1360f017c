"""What a driver writes down of its run while it trains, and the file by which it is stopped.

One status of the server at a time, about once a second, in every form: ``status.json`` for other
processes of this machine (`control` reads it), ``metrics.prom`` for a collector, Ray's metrics.
Written by the process that called `Trainer.fit`, never by the server: no input to the bits.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from distsgd.base.files import as_run_error, replace_text
from distsgd.parallel.launch.actors.desired_workers import forget_drivers, this_process
from distsgd.parallel.launch.ray_metrics import RayMetrics
from distsgd.parallel.server.report import NOTHING, report
from distsgd.parallel.server.spec import Status, Watch
from distsgd.run.metrics import HELP, as_text, samples_of
from distsgd.store.run_directory import RunDirectory

STATUS_FILE, STOP_FILE = "status.json", "stop"
EVERY_S = 1.0
DRIVER_TIMEOUT_S = 30.0  # As long as a server waits for another that has the run.


class LiveFiles:
    """The files of a run while it trains; those that `control` reads are removed at the end.

    Only for who has `RunDirectory.driver_lock`: what another has left is removed.

    Args:
        run: The run.
        total_steps: Of the whole run.
        say: Called once where the metrics cannot be written.
        clock: Seconds.
    """

    def __init__(
        self,
        run: RunDirectory,
        total_steps: int,
        say: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run, self._total_steps = str(run.place), total_steps
        self._say, self._clock = say, clock
        # A working copy is nobody else's: no other process could look into it.
        self._status = None if run.copy else run.path / STATUS_FILE
        self._stop = None if run.copy else run.path / STOP_FILE
        self._metrics: Path | None = run.metrics_path
        self._ray = RayMetrics(self._run, {f"distsgd_{name}": text for name, text in HELP.items()})
        self._shown_s = -math.inf

    def __enter__(self) -> Self:
        if self._stop is not None:
            with as_run_error(self._stop):
                self._stop.unlink(missing_ok=True)
                forget_drivers(self._stop.parent)
        self._write_status(NOTHING | {"run": self._run, "status": "starting"})
        return self

    def __exit__(self, *_: object) -> None:
        for path in filter(None, (self._status, self._stop)):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def show(self, status: Status) -> bool:
        """Called often: write `status` down now and then, and at the end; is the run to stop?"""
        if status.phase == "ended" or self._clock() - self._shown_s >= EVERY_S:
            self._shown_s = self._clock()
            self._write_status(report(self._run, self._total_steps, status))
            if status.num_samples:  # A start that fails leaves the metrics as they were.
                self._write_metrics(status)
        return self._stop is not None and self._stop.exists()

    def _write_status(self, values: dict[str, Any]) -> None:
        if self._status is None:
            return
        with contextlib.suppress(OSError):  # A disk that is full ends no run by this.
            replace_text(self._status, json.dumps({"driver": this_process(), **values}))

    def _write_metrics(self, status: Status) -> None:
        for sample in samples_of(status):
            self._ray.set(f"distsgd_{sample.name}", sample.value, sample.phase)
        if (path := self._metrics) is None:
            return
        try:
            replace_text(path, as_text(self._run, samples_of(status)))
        except OSError as error:
            self._metrics = None
            self._say(f"warning: {path} is not written any more: {error.strerror}")


@contextlib.contextmanager
def seen_by_others(
    run: RunDirectory, total_steps: int, watch: Watch, say: Callable[[str], None]
) -> Iterator[Watch]:
    """`watch` that other processes can look through too, and stop the run by; see `LiveFiles`.

    Meanwhile this process is the run's one driver. Blocks while another is, for some time.

    Raises:
        RunError: Another driver has the run, and keeps it; names that process.
    """
    with run.driver_lock(DRIVER_TIMEOUT_S), LiveFiles(run, total_steps, say) as files:

        def both(status: Status) -> bool:
            is_to_stop = files.show(status)
            return watch(status) or is_to_stop

        yield both
