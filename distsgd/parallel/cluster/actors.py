"""What runs in the processes that Ray starts: plain classes, made actors in `cluster`."""

from __future__ import annotations

from distsgd.parallel.chaos.injection import Chaos, FaultyWorker
from distsgd.parallel.exchange.contract import Address, Worker
from distsgd.parallel.exchange.service import serve
from distsgd.parallel.messages import WorkerTask
from distsgd.parallel.server.job import ServerTask
from distsgd.parallel.server.server import ParameterServer
from distsgd.parallel.server.step_view import StepView, ViewQueue
from distsgd.parallel.watch import worker_maker


class WorkerActor:
    """A worker's process."""

    def __init__(self, task: WorkerTask, worker: str, chaos: Chaos | None = None) -> None:
        made = worker_maker(worker)(task)
        self._worker: Worker = FaultyWorker(made, chaos) if chaos else made

    def serve(self, address: Address, number: int) -> int:
        """Serve the server at `address`; blocks until it is gone."""
        return serve(self._worker, address, number)


class ServerActor(ParameterServer):
    """The server's process; views of its steps wait here for the driver to take them."""

    def __init__(self, task: ServerTask, worker: str, incarnation: int) -> None:
        self._views = ViewQueue()
        super().__init__(
            task,
            worker_maker(worker),
            incarnation=incarnation,
            on_step=self._views.put if task.is_watched else None,
        )

    def take_views(self, timeout_s: float) -> list[StepView]:
        """All views that wait, in order; blocks up to `timeout_s` seconds until there is one."""
        return self._views.take(timeout_s)

    def stop_views(self) -> None:
        """Nobody looks any more: end after the present step, with a checkpoint."""
        self._views.close()
        self.request_stop()
