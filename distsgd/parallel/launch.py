"""How a server is launched and watched: in a thread of this process, or on Ray."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from typing import Protocol

from distsgd.errors import ClusterError
from distsgd.parallel.chaos import DriverFaults
from distsgd.parallel.exchange.contract import OwnWorker
from distsgd.parallel.job import Outcome, ServerTask, Status
from distsgd.parallel.messages import WorkerTask
from distsgd.parallel.numerics import one_blas_thread
from distsgd.parallel.server import ParameterServer
from distsgd.parallel.step_view import OnStep

LOOK_S = 0.1  # How often a run is looked at.


class Watch(Protocol):
    """Whoever looks on."""

    def __call__(self, status: Status) -> bool:
        """Show `status`; should the run stop now?"""


def worker_maker(path: str) -> Callable[[WorkerTask], OwnWorker]:
    """The worker class named ``module:class``: the only place where the package meets its worker.

    Raises:
        ClusterError: There is no such class.
    """
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
    except (ImportError, AttributeError) as error:
        raise ClusterError(
            f'the worker "{path}" cannot be loaded: {error}; is another '
            f'"{module.split(".")[0]}" first on the path?'
        ) from None


def launch(
    task: ServerTask, worker: str, watch: Watch, *, address: str, on_step: OnStep | None = None
) -> Outcome:
    """Make the run: without workers in a thread of this process, else on the Ray at `address`.

    Blocks. `on_step` is called for every step: without workers in the thread that trains, so that
    the run waits for it and ends at the very step at which it raises an error; on Ray in this
    thread, a little behind the run.

    Raises:
        DistSGDError: What `ParameterServer.train` raises, and ClusterError where Ray or a worker is
            missing.
    """
    if task.chaos:
        watch = _watched_by(DriverFaults(task.chaos), watch)
    if not task.crew.num_workers:
        return train_in_process(task, worker, watch, on_step=on_step)
    from distsgd.parallel.cluster import train_on_ray  # noqa: PLC0415 -- loads Ray.

    return train_on_ray(task, worker, watch, address=address, on_step=on_step)


def _watched_by(faults: DriverFaults, watch: Watch) -> Watch:
    def look(status: Status) -> bool:
        faults(status.step)
        return watch(status)

    return look


def train_in_process(
    task: ServerTask, worker: str, watch: Watch, *, on_step: OnStep | None = None
) -> Outcome:
    """Train in a thread of this process; blocks, and calls `watch` now and then.

    That thread calls `on_step` for every step.

    Raises:
        DistSGDError: What `ParameterServer.train` raises.
    """
    with one_blas_thread():  # As in a worker process; what the caller had comes back afterwards.
        server = ParameterServer(task, worker_maker(worker), on_step=on_step)
        thread = _TrainingThread(server)
        thread.start()
        while thread.is_alive():
            try:
                thread.join(LOOK_S)
                if watch(server.status()):
                    server.request_stop()
            except KeyboardInterrupt:
                server.request_stop()
            except BaseException:
                server.request_stop()
                thread.join()
                raise
        watch(server.status())
        return thread.outcome()


class _TrainingThread(threading.Thread):
    """A thread that keeps what training gave or raised."""

    def __init__(self, server: ParameterServer) -> None:
        super().__init__(name="distsgd-server", daemon=True)
        self._server = server
        self._outcome: Outcome | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Train."""
        try:
            self._outcome = self._server.train()
        except BaseException as error:  # noqa: BLE001 -- raised again in the thread that waits.
            self._error = error

    def outcome(self) -> Outcome:
        """What training gave; raises what it raised."""
        if self._error is not None:
            raise self._error
        assert self._outcome is not None
        return self._outcome
