"""``doctor``: what this machine can do, for people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any

import typer

from distsgd.cli.options import JsonOption
from distsgd.cli.terminal.messages import print_facts, print_json, say


def doctor(
    *,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT|auto",
            help="Look at the nodes of this Ray cluster instead of this machine.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what this machine can do, or a cluster, what is wrong with it, and how to mend that."""
    if address is None:
        from distsgd.lab.doctor import examine

        report = examine()
    else:
        from distsgd.lab.doctor_cluster import examine_nodes

        report = examine_nodes(address)
    if as_json:
        print_json(asdict(report))
        return
    print_facts(list(rows(report.facts) if address is None else node_rows(report.facts)))
    for advice in report.advice:
        say(f"to mend: {advice}")
    if not report.advice:
        say("nothing is wrong")


def node_rows(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """A line a node, and who can train with whom."""
    for node in facts["nodes"]:
        if node["error"] is not None and not node["python"]:
            said = node["error"]
        else:
            said = (
                f"distsgd {node['distsgd'] or '-'}, Python {node['python']}, Ray {node['ray']}, "
                f"workers at nice {node['niceness']}, clock {node['clock_s']:+g} s"
            )
        yield node["name"], f"{node['cpus']} CPUs, {node['memory_gib']} GiB; {said}"
        if node["arithmetic"]:
            yield "", node["arithmetic"]
    together = facts["can_train_together"]
    yield "the same bits", " | ".join(", ".join(names) for names in together) or "not found out"


def rows(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and values in words."""
    yield "distsgd", f"{facts['distsgd']}, Python {facts['python']}"
    yield "packages", ", ".join(f"{name} {number}" for name, number in facts["packages"].items())
    yield "cores", str(facts["cores"])
    yield "memory", f"{facts['memory_gib']} GiB"
    yield "BLAS", f"{facts['blas']}, kernel {facts['kernel']}"
    yield "a core reaches", _gflops(facts["gflops_a_core"])
    yield "by kernel", _kernels(facts)
    yield "OPENBLAS_CORETYPE", _inherited(facts)
    if "ray_error" in facts:
        yield "Ray", "does not start"
    else:
        yield "Ray", f"starts in {facts['ray_start_s']} s"
        yield "Ray's workers", f"run at nice {facts['worker_niceness']}"
    yield "transport", "shared memory" if facts["shared_memory"] else "ZeroMQ (no shared memory)"
    yield "empty step", f"{facts['empty_step_us']} us (transport alone, 2 workers, 100,000 weights)"


def _gflops(value: float | None) -> str:
    return "not found out" if value is None else f"{value} GFLOP/s (float32, one thread)"


def _kernels(facts: dict[str, Any]) -> str:
    """Every kernel that ran, the fastest first; where there is one only, that is all."""
    marks = {facts["detected_kernel"]: "as detected"}
    by_speed = sorted(facts["gflops_by_kernel"].items(), key=lambda item: -item[1])
    named = (
        f"{kernel} {gflops}" + (f" ({marks[kernel]})" if kernel in marks else "")
        for kernel, gflops in by_speed
    )
    return ", ".join(named) or "not found out"


def _inherited(facts: dict[str, Any]) -> str:
    """What the setting in the environment costs."""
    kernel, without = facts["inherited_kernel"], facts.get("gflops_without_it")
    if kernel is None:
        return "not set"
    if not without or not facts["gflops_a_core"]:
        return f"{kernel} (what it costs was not found out)"
    change = facts["gflops_a_core"] / without - 1
    return f"{kernel}: {change:+.0%} against {without} GFLOP/s without it"
