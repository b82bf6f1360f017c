"""``status``, ``scale-to``, ``stop``: a run that trains, from any host of its cluster."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distsgd.cli.options import JsonOption, given_place, run_argument
from distsgd.cli.terminal.messages import failures_as_json, number, print_facts, print_json, say
from distsgd.errors import ClusterError, WaitTimeoutError

if TYPE_CHECKING:
    from distsgd.run.control import Control

STOP_TIMEOUT_S, LOOK_S = 120.0, 0.2
_OVER = ("done", "interrupted", "diverged", "not running", "ended")


def given_run(typed: str) -> str:
    """What was typed; an empty one (a shell's variable that is not set) is refused."""
    given_place(typed)
    return typed


TrainedRunArgument = Annotated[
    str, run_argument(given_run, "A run directory; on a cluster its path, address or name.")
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT|auto",
        help="The Ray cluster that trains it; the one that the run directory names unless given.",
    ),
]


def status(
    run: TrainedRunArgument, *, address: AddressOption = None, as_json: JsonOption = False
) -> None:
    """Say where a run that trains is: step, loss, speed, workers by node, restarts."""
    from distsgd.run.control import control_of

    with failures_as_json(as_json, run=run), control_of(run, address) as control:
        report = control.report()
        if as_json:
            print_json(report)
        else:
            print_facts(list(facts(report)))


def scale_to(
    run: TrainedRunArgument,
    num_workers: Annotated[int, typer.Argument(metavar="N", help="Worker processes.")],
    *,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change the number of workers of a run while it trains."""
    from distsgd.run.control import control_of

    with failures_as_json(as_json, run=run), control_of(run, address) as control:
        before = control.want(num_workers)
        say(f"{run}: workers from now on: {num_workers} (before: {before})")
        if as_json:
            print_json({"run": run, "wanted": num_workers, "before": before})


def stop(
    run: TrainedRunArgument, *, address: AddressOption = None, as_json: JsonOption = False
) -> None:
    """Stop a run that trains, after its present step and with a checkpoint; waits for that."""
    from distsgd.run.control import control_of

    with failures_as_json(as_json, run=run), control_of(run, address) as control:
        last = _stopped(control)
        say(f"{run}: {last['status']}, with a checkpoint; seen last at step {last['step']}")
        if as_json:
            print_json(last)


def _stopped(control: Control) -> dict[str, Any]:
    """Ask, wait for the end, and return what was seen last."""
    last = control.report()
    control.stop()
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while last["status"] not in _OVER:
        if time.monotonic() > deadline:
            raise WaitTimeoutError("the run to end after its present step", STOP_TIMEOUT_S)
        time.sleep(LOOK_S)
        try:
            last = control.report()
        except ClusterError:  # Its server has ended, and the actor with it.
            return last | {"status": "stopped"}
    return last


def facts(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """A report for people."""
    total = report["total_steps"]
    yield "run", f"{report['run']}"
    yield "status", report["status"]
    yield "step", f"{report['step']:,}" + (f" of {total:,}" if total else "")
    yield "epoch", number(report["epoch"], 1)
    yield "train loss", number(report["train_loss"])
    yield "test loss", number(report["test_loss"])
    yield "accuracy", number(report["test_accuracy"])
    yield "samples/s", number(report["samples_per_s"], 0)
    yield "workers", _workers(report)
    yield "restarts", f"server {report['server_restarts']}, workers {report['worker_restarts']}"


def _workers(report: dict[str, Any]) -> str:
    """How many there are, and which on which node."""
    by_node = report["nodes"].items()
    nodes = "; ".join(f"{node}: {', '.join(map(str, them))}" for node, them in by_node)
    return f"{report['num_workers']}" + (f" ({nodes})" if nodes else "")
