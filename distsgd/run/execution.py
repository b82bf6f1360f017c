"""Making the steps of a run that is written down: the one way, for training, replay and bench."""

from __future__ import annotations

from collections.abc import Callable

from distsgd.parallel.launch.launch import launch
from distsgd.parallel.launch.watch import Watch
from distsgd.parallel.server.metrics import Outcome
from distsgd.parallel.server.spec import ServerSpec
from distsgd.parallel.server.step_view import NO_OBSERVERS, Observers
from distsgd.run.run_files import read_initial_weights
from distsgd.run.spec import RunSpec
from distsgd.store.run_directory import RunDirectory


def _as_it_is(spec: ServerSpec) -> ServerSpec:
    return spec


def execute(
    run: RunDirectory,
    run_spec: RunSpec,
    watch: Watch,
    *,
    observers: Observers = NO_OBSERVERS,
    changed: Callable[[ServerSpec], ServerSpec] = _as_it_is,
) -> Outcome:
    """Make the steps of `run` from where it is to its end; see `launch`. Blocks.

    Args:
        run: With its beginning in it (`run_files.begin`).
        run_spec: Of the same run.
        watch: Sees where the run is, and may end it.
        observers: Called with the events of the loop.
        changed: What the server is told, where that is not all of what the run says.
    """
    initial_weights = read_initial_weights(run, run_spec)
    spec = changed(run_spec.server_spec(run.path, initial_weights))
    address = run_spec.config.parallel.address
    return launch(spec, run_spec.worker, watch, address=address, observers=observers)
