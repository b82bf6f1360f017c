"""A server in a thread of this process: the shortest way to a run, without Ray."""

from __future__ import annotations

import threading
from functools import partial

from distsgd.errors import WaitTimeoutError
from distsgd.parallel.launch.watch import LOOK_S, Watch
from distsgd.parallel.numerics import one_blas_thread
from distsgd.parallel.runner import MakeWorker, make_runner
from distsgd.parallel.server.metrics import Outcome
from distsgd.parallel.server.server import ParameterServer
from distsgd.parallel.server.spec import ServerSpec
from distsgd.parallel.server.step_view import NO_OBSERVERS, Observers

STOP_TIMEOUT_S = 60.0


def train_in_process(
    spec: ServerSpec,
    worker: str | MakeWorker,
    watch: Watch,
    *,
    observers: Observers = NO_OBSERVERS,
) -> Outcome:
    """Train in a thread of this process; blocks, and calls `watch` now and then.

    That thread calls `observers` with the events of the loop, and waits for them.

    Raises:
        DistSGDError: What `ParameterServer.train` raises.
    """
    with one_blas_thread():
        server = ParameterServer(spec, partial(make_runner, worker), observers=observers)
    thread = _TrainingThread(server)
    thread.start()
    try:
        _look_on(server, thread, watch)
    except KeyboardInterrupt:
        raise  # The second: the thread ends after its step, or with the process.
    except BaseException as error:
        server.request_stop()
        if not thread.has_ended.wait(STOP_TIMEOUT_S):
            waited_for = f"the present step to end, after an error in a callback ({error})"
            raise WaitTimeoutError(waited_for, STOP_TIMEOUT_S) from error
        raise
    return thread.outcome()


def _look_on(server: ParameterServer, thread: _TrainingThread, watch: Watch) -> None:
    """Show where the run is until it has ended; the second Ctrl-C does not wait for that."""
    known, is_stopping = 0, False
    # Not `is_alive`: an interrupted `join` may take a living thread for dead (bpo-46726).
    while True:
        try:
            has_ended = thread.has_ended.wait(LOOK_S)
            status = server.status(known)
            known = status.num_messages
            if watch(status):
                is_stopping = True
                server.request_stop()
            if has_ended:
                return
        except KeyboardInterrupt:
            if is_stopping:
                raise
            is_stopping = True
            server.request_stop()


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
            # As in a worker process, for as long as it computes.
            with one_blas_thread():
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
