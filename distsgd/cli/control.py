"""``status``, ``scale-to``, ``stop``: a run that trains, from any host of its cluster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from distsgd.cli.options import JsonOption, given_place, run_argument
from distsgd.cli.terminal.messages import (
    command_line,
    failures_as_json,
    number,
    print_facts,
    print_json,
    say,
)
from distsgd.errors import ClusterError

STOP_TIMEOUT_S = 120.0
TAKEN_TIMEOUT_S = 20.0  # The driver looks each second, and asks the cluster for room.
_SAID = {
    "interrupted": "interrupted, with a checkpoint",
    "done": "done, before it could be stopped",
    "diverged": "diverged, before it could be stopped",
}
_ELSE = "it ended without saying how; what it has saved is kept (--resume auto)"


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
            if report["status"] in ("interrupted", "not running"):
                say(f"resumed as `{command_line('show', report['run'])}` says")


def scale_to(
    run: TrainedRunArgument,
    num_workers: Annotated[int, typer.Argument(metavar="N", help="Worker processes.")],
    *,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change the number of workers of a run while it trains."""
    from distsgd.run.control import control_of, when_taken

    with failures_as_json(as_json, run=run), control_of(run, address) as control:
        before = control.want(num_workers)
        say(f"{run}: workers from now on: {num_workers} (before: {before})")
        found = when_taken(control, num_workers, TAKEN_TIMEOUT_S)
        if lack := found["no_room"]:
            say(f"warning: {lack}; the others join when there is room for them")
        if as_json:
            print_json({"run": run, "wanted": num_workers, "before": before, "no_room": lack})


def stop(
    run: TrainedRunArgument, *, address: AddressOption = None, as_json: JsonOption = False
) -> None:
    """Stop a run that trains, after its present step and with a checkpoint; waits for that."""
    from distsgd.run.control import control_of

    with failures_as_json(as_json, run=run), control_of(run, address) as control:
        last = control.stopped(STOP_TIMEOUT_S)
        if last["status"] not in _SAID:
            raise ClusterError(f"{run}: {_ELSE}")
        say(f"{run}: {_SAID[last['status']]}; seen last at step {last['step']}")
        if as_json:
            print_json(last)


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
    there, wanted = report["num_workers"], report["wanted_workers"]
    count = f"{there} of {wanted}" if there < wanted else f"{there}"
    lack = f"; {report['no_room']}" if report["no_room"] else ""
    return count + (f" ({nodes})" if nodes else "") + lack
