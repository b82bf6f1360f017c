"""Servers of runs on a cluster, found by name from any of its hosts.

On a cluster a run's server is an actor with a name: what the run directory is called, a digest of
where it lies, and something that no other server has.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

from blake3 import blake3

from distsgd.errors import ClusterError, RunError
from distsgd.parallel.launch.actors.desired_workers import check_count
from distsgd.parallel.launch.actors.remote_server import RemoteServer
from distsgd.parallel.launch.calls.calls import ActorDied, Calls, errors_of_ray
from distsgd.parallel.launch.session.session import session

NAMESPACE = "distsgd"
ANSWER_TIMEOUT_S = 15.0


def new_name(run: str) -> str:
    """A name for a server of `run`, a path or an address, that no other server has.

    >>> new_name("/runs/digits").rpartition(".")[0]
    'digits.0927ca87'
    """
    return f"{PurePath(run).name}.{_digest(run)}.{secrets.token_hex(4)}"


def matching(names: Sequence[str], run: str) -> list[str]:
    """Those of `names` that are of `run`, which is typed as a path, an address or a name.

    A path from the root and an address name one run, and never another of the same last name.

    >>> names = ["a.04d35f75.1", "b.00000000.2"]
    >>> matching(names, "a"), matching(names, "/elsewhere/a")
    (['a.04d35f75.1'], [])
    """
    exact = [name for name in names if name.split(".")[-2] == _digest(run)]
    if exact or "://" in run or PurePath(run).is_absolute():
        return exact
    return [name for name in names if name.rsplit(".", 2)[0] == PurePath(run).name]


def _digest(run: str) -> str:
    """Of an address, or of a path, in which links are followed as far as they are seen here."""
    if "://" not in run and PurePath(run).is_absolute():
        run = os.path.realpath(run)
    return blake3(run.encode()).hexdigest()[:8]


class NamedServer:
    """A server that trains on a cluster, as another process of the cluster sees it."""

    def __init__(self, calls: Calls, actor: Any, run: str) -> None:
        self._server, self._run = RemoteServer(calls, actor), run

    def report(self) -> dict[str, Any]:
        """Where the run is; see `distsgd.parallel.server.report`. Raises ClusterError."""
        found: dict[str, Any] = self._ask("report", "the server to say where the run is")
        return found

    def want(self, num_workers: int) -> int:
        """Have another number of workers; returns how many there were.

        Raises:
            RunError: No run can have so many.
            ClusterError: The server is gone, or does not answer.
        """
        check_count(self._run, num_workers)
        before = int(self.report()["num_workers"])
        self._ask("want_workers", "the server to take a number", num_workers)
        return before

    def stop(self) -> None:
        """Have the run stop after its present step, with a checkpoint. Raises ClusterError."""
        self._ask("request_stop", "the server to take the request to stop")

    def _ask(self, method: str, waited_for: str, *arguments: Any) -> Any:
        return self._server.ask_once(method, waited_for, ANSWER_TIMEOUT_S, *arguments)


@contextlib.contextmanager
def named_server(run: str, address: str) -> Iterator[NamedServer]:
    """The server of `run` on the cluster at `address`; this process joins it meanwhile.

    Raises:
        ClusterError: There is no cluster, or it does not answer.
        RunError: No such run is trained there, or several are.
    """
    with session(address, num_cpus=0) as joined:
        calls = Calls(joined.ray, joined.head)
        with errors_of_ray("looking for the runs of the cluster"):
            every = joined.ray.util.list_named_actors(all_namespaces=True)
        names = sorted(it["name"] for it in every if it["namespace"] == NAMESPACE)
        living = list(_living(joined.ray, calls, matching(names, run)))
        if len(living) > 1:
            places = ", ".join(sorted(str(report["run"]) for _, report in living))
            raise RunError(run, f"names several runs of {address}: {places}; give the whole path")
        if not living:
            there = ", ".join(sorted({name.rsplit(".", 2)[0] for name in names})) or "none"
            raise RunError(
                run,
                f"is not being trained on the cluster at {address} (runs there: {there}; a path or "
                "an address is found as its driver has it, a name alone anywhere); `distsgd show "
                "RUN`, where its directory is, says how it ended",
            )
        yield living[0][0]


def _living(
    ray: Any, calls: Calls, names: Sequence[str]
) -> Iterator[tuple[NamedServer, dict[str, Any]]]:
    """Servers that answer; one that has died may still have its name."""
    for name in names:
        try:
            with errors_of_ray(f"looking for {name}"):
                actor = ray.get_actor(name, namespace=NAMESPACE)
            server = NamedServer(calls, actor, name.rsplit(".", 2)[0])
            report = server.report()
        except ActorDied:
            continue
        except ClusterError as error:
            if isinstance(error.__cause__, ValueError):  # It has just ended.
                continue
            raise
        yield server, report
