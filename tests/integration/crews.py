"""Runs with real servers, exchanges and workers, the workers in threads.

A Ray is started only where Ray is under test.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

from distsgd.config import TrainConfig
from distsgd.parallel.exchange.service import serve
from distsgd.parallel.numerics import one_blas_thread
from distsgd.parallel.server.job import Outcome, ServerTask
from distsgd.parallel.server.server import ParameterServer
from distsgd.parallel.server.step_view import OnStep
from distsgd.run.blueprint import make_blueprint
from distsgd.run.record import write_beginning
from distsgd.run.source import manifest_of, prepared_data
from distsgd.store.run_directory import RunDirectory
from distsgd_workers.gradient_worker import GradientWorker

SECRET = bytes(range(32))


def server_task(config: TrainConfig, run: Path, *, cache_dir: Path) -> ServerTask:
    """What the trainer would hand to a server that records into `run`, new or to be resumed."""
    data = prepared_data(config, cache_dir=cache_dir, on_message=lambda _: None)
    blueprint = make_blueprint(config, data, manifest_of(data))
    if not RunDirectory.is_run(run):
        write_beginning(RunDirectory.create(run), blueprint, None)
    task = blueprint.server_task(run, None)
    return replace(task, crew=replace(task.crew, secret=SECRET))


def train_with_threads(
    task: ServerTask, *, stop_after: int | None = None, on_step: OnStep | None = None
) -> Outcome:
    """Train with as many workers as `task` says, each in a thread, over the exchange it names."""
    with one_blas_thread():
        server = ParameterServer(task, GradientWorker, on_step=on_step)
        crew = [
            threading.Thread(
                target=serve,
                args=(GradientWorker(task.worker), server.address(), number),
                daemon=True,
            )
            for number in range(task.crew.num_workers)
        ]
        for thread in crew:
            thread.start()
        if stop_after is not None:
            threading.Thread(target=_stop_after, args=(server, stop_after), daemon=True).start()
        outcome = server.train()
        for thread in crew:
            thread.join(timeout=30)
            assert not thread.is_alive()
        return outcome


def _stop_after(server: ParameterServer, step: int) -> None:
    while server.status().step < step and server.status().phase != "ended":
        pass
    server.request_stop()
