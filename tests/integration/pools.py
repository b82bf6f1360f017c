"""Runs with real servers, transports and workers, the workers in threads.

A Ray is started only where Ray is under test.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from distsgd.config import TrainConfig
from distsgd.parallel.numerics import one_blas_thread
from distsgd.parallel.runner import MakeWorker, make_runner
from distsgd.parallel.server.server import ParameterServer
from distsgd.parallel.server.spec import Outcome, ServerSpec
from distsgd.parallel.server.step_runner import EventHooks, OnStep
from distsgd.parallel.service import serve
from distsgd.run.run_files import write_beginning
from distsgd.run.source import manifest_of, prepared_data
from distsgd.run.spec import make_run_spec
from distsgd.store.run_directory import RunDirectory
from distsgd_workers.gradient_worker import GradientWorker

SECRET = bytes(range(32))


def server_spec(config: TrainConfig, run: Path, *, cache_dir: Path) -> ServerSpec:
    """What the trainer would hand to a server that records into `run`, new or to be resumed."""
    data = prepared_data(config, cache_dir=cache_dir, on_message=lambda _: None)
    run_spec = make_run_spec(config, data, manifest_of(data))
    if not RunDirectory.is_run(run):
        write_beginning(RunDirectory.create(run), run_spec, None)
    spec = run_spec.server_spec(run, None)
    return replace(spec, pool=replace(spec.pool, secret=SECRET))


def train_with_threads(
    spec: ServerSpec,
    *,
    stop_after: int | None = None,
    on_step: OnStep | None = None,
    worker: str | MakeWorker = GradientWorker,
    meanwhile: Callable[[ParameterServer], None] | None = None,
) -> Outcome:
    """Train with as many workers as `spec` says, each in a thread, over the transport it names.

    `meanwhile` is called with the server in a thread of its own.
    """
    with one_blas_thread():
        make = partial(make_runner, worker)
        server = ParameterServer(spec, make, hooks=EventHooks(on_step=on_step))
        pool = [
            threading.Thread(
                target=serve,
                args=(make_runner(worker, spec.worker), server.address(), number),
                daemon=True,
            )
            for number in range(spec.pool.num_workers or 0)
        ]
        for thread in pool:
            thread.start()
        if stop_after is not None:
            meanwhile = partial(_stop_after, stop_after)
        if meanwhile is not None:
            threading.Thread(target=meanwhile, args=(server,), daemon=True).start()
        outcome = server.train()
        for thread in pool:
            thread.join(timeout=30)
            assert not thread.is_alive()
        return outcome


def _stop_after(step: int, server: ParameterServer) -> None:
    while server.status().step < step and server.status().phase != "ended":
        pass
    server.request_stop()
