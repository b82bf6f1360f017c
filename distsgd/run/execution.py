"""Making the steps of a run that is written down.

The one way for training, replay and measuring. Nothing here changes a bit of the run.
"""

from __future__ import annotations

from collections.abc import Callable

from distsgd.parallel.launch.launch import launch
from distsgd.parallel.server.spec import Outcome, ServerSpec, Watch
from distsgd.parallel.server.step_runner import NO_HOOKS, EventHooks
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
    hooks: EventHooks = NO_HOOKS,
    changed: Callable[[ServerSpec], ServerSpec] = _as_it_is,
) -> Outcome:
    """Make the steps of `run` from where it is to its end; see `launch`. Blocks.

    Args:
        run: With its beginning in it (`run_files.begin`).
        run_spec: Of the same run.
        watch: Sees where the run is, and may end it.
        hooks: Called with the events of the loop.
        changed: What the server is told, where that is not all of what the run says.
    """
    initial_weights = read_initial_weights(run, run_spec)
    spec = changed(run_spec.server_spec(run.place, initial_weights))
    placement = run_spec.config.parallel.wanted_placement
    return launch(spec, run_spec.worker, watch, placement=placement, hooks=hooks)
