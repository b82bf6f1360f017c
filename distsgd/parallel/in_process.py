"""A server in a thread of this process: the shortest way to a run, without Ray."""

from __future__ import annotations

import threading

from distsgd.parallel.numerics import one_blas_thread
from distsgd.parallel.server.job import Outcome, ServerTask
from distsgd.parallel.server.server import ParameterServer
from distsgd.parallel.server.step_view import OnStep
from distsgd.parallel.watch import LOOK_S, Watch, worker_maker


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
        # Not `is_alive`: an interrupted `join` may take a living thread for dead (bpo-46726).
        while not thread.has_ended.is_set():
            try:
                thread.has_ended.wait(LOOK_S)
                if watch(server.status()):
                    server.request_stop()
            except KeyboardInterrupt:
                server.request_stop()
            except BaseException:
                server.request_stop()
                thread.has_ended.wait()
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
        self.has_ended = threading.Event()

    def run(self) -> None:
        """Train."""
        try:
            self._outcome = self._server.train()
        except BaseException as error:  # noqa: BLE001 -- raised again in the thread that waits.
            self._error = error
        finally:
            self.has_ended.set()

    def outcome(self) -> Outcome:
        """What training gave; raises what it raised."""
        if self._error is not None:
            raise self._error
        assert self._outcome is not None
        return self._outcome
