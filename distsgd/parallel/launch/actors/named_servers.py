"""Servers of runs on a cluster, found by name from any of its hosts.

On a cluster a run's server is an actor with a name: what the run directory is called, a digest of
where it lies, and something that no other server has.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath
from typing import Any, get_args

from blake3 import blake3

from distsgd.errors import ClusterError, RunError, WaitTimeoutError
from distsgd.parallel.launch.actors.desired_workers import check_count
from distsgd.parallel.launch.actors.remote_server import RemoteServer
from distsgd.parallel.launch.calls.calls import ActorDied, ActorUnavailable, Calls, errors_of_ray
from distsgd.parallel.launch.session.session import Session, session
from distsgd.parallel.server.spec import LOOK_S, Ending

NAMESPACE = "distsgd"
ANSWER_TIMEOUT_S = 15.0
RESTART_TIMEOUT_S = 15.0  # For the name of a server that follows one that died.
LOOK_AT_END_S = 1.0  # How long one question for the end is open.
WHERE_IT_IS = "the server to say where the run is"
ENDINGS = (*get_args(Ending), "failed")


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


class NamedRun:
    """A run that trains on a cluster, as another process of the cluster sees it.

    Args:
        joined: The cluster.
        run: As it was typed: a path, an address or a name.
        address: Of the cluster, for messages.

    Raises:
        ClusterError: The cluster does not answer.
        RunError: No such run is trained there, or several are.
    """

    def __init__(self, joined: Session, run: str, address: str) -> None:
        self._ray, self._calls = joined.ray, Calls(joined.ray, joined.head)
        self._run, self._address = run, address
        self._name, self._server = self._found(lambda names: matching(names, run))

    def report(self) -> dict[str, Any]:
        """Where the run is; see `distsgd.parallel.server.report`. Raises ClusterError."""
        found: dict[str, Any] = self._ask("report", WHERE_IT_IS)
        return found

    def want(self, num_workers: int) -> int:
        """Have another number of workers; returns how many were wanted before.

        Raises:
            RunError: No run can have so many.
            ClusterError: The server is gone, or does not answer.
        """
        check_count(self._run, num_workers)
        before = int(self.report()["wanted_workers"])
        self._ask("want_workers", "the server to take a number", num_workers)
        return before

    def stop(self) -> None:
        """Have the run stop after its present step, with a checkpoint. Raises ClusterError."""
        self._ask("want_stop", "the server to take the request to stop")

    def stopped(self, timeout_s: float) -> dict[str, Any]:
        """Stop the run and wait for its end; how it ended. A server that follows is asked too.

        Raises:
            WaitTimeoutError: It has not ended within `timeout_s` seconds.
            ClusterError: Whether it has ended is not known.
        """
        deadline, asked = time.monotonic() + timeout_s, None
        while (left_s := deadline - time.monotonic()) > 0:
            try:
                if asked is not self._server:
                    self.stop()
                    asked = self._server
                last = self._ask("wait_for_end", "the run to end", min(left_s, LOOK_AT_END_S))
                if last["status"] in ENDINGS:
                    return dict(last)
            except ActorUnavailable:  # It may be there, and is asked again.
                time.sleep(LOOK_S)
            except ActorDied as death:
                self._follow(death, deadline)
        raise WaitTimeoutError("the run to end after its present step", timeout_s)

    def _follow(self, death: ActorDied, deadline: float) -> None:
        """The server that follows one that died is the server now; blocks until there is one."""
        of_this_run = self._name.rpartition(".")[0] + "."
        deadline = min(deadline, time.monotonic() + RESTART_TIMEOUT_S)
        while True:
            try:
                self._name, self._server = self._found(
                    lambda names: [it for it in names if it.startswith(of_this_run)]
                )
            except RunError:
                if time.monotonic() < deadline:
                    time.sleep(LOOK_S)
                    continue
                raise ClusterError(
                    f"{self._run}: its server is gone ({death}), and no other follows; whether it "
                    "was saved before that is not known here: `distsgd show RUN`, where its "
                    "directory is, says how it ended"
                ) from death
            return

    def _ask(self, method: str, waited_for: str, *arguments: Any) -> Any:
        return self._server.ask_once(method, waited_for, ANSWER_TIMEOUT_S, *arguments)

    def _found(self, choose: Callable[[list[str]], list[str]]) -> tuple[str, RemoteServer]:
        """The name and the server of the one run whose name `choose` chooses."""
        with errors_of_ray("looking for the runs of the cluster"):
            every = self._ray.util.list_named_actors(all_namespaces=True)
        names = sorted(it["name"] for it in every if it["namespace"] == NAMESPACE)
        living = list(_living(self._ray, self._calls, choose(names)))
        if len(living) > 1:
            places = ", ".join(sorted(place for *_, place in living))
            reason = f"names several runs of {self._address}: {places}; give the whole path"
            raise RunError(self._run, reason)
        if not living:
            there = ", ".join(sorted({name.rsplit(".", 2)[0] for name in names})) or "none"
            raise RunError(
                self._run,
                f"is not being trained on the cluster at {self._address} (runs there: {there}; a "
                "path or an address is found as its driver has it, a name alone anywhere); "
                "`distsgd show RUN`, where its directory is, says how it ended",
            )
        name, server, _ = living[0]
        return name, server


@contextlib.contextmanager
def named_run(run: str, address: str) -> Iterator[NamedRun]:
    """The `run` on the cluster at `address`; this process joins it meanwhile. Raises as that."""
    with session(address, num_cpus=0) as joined:
        yield NamedRun(joined, run, address)


def _living(
    ray: Any, calls: Calls, names: Sequence[str]
) -> Iterator[tuple[str, RemoteServer, str]]:
    """Name, server and place of the run where that answers; one that died may have its name yet."""
    for name in names:
        try:
            with errors_of_ray(f"looking for {name}"):
                actor = ray.get_actor(name, namespace=NAMESPACE)
            server = RemoteServer(calls, actor)
            report = server.ask_once("report", WHERE_IT_IS, ANSWER_TIMEOUT_S)
        except ActorUnavailable:
            raise  # It may live.
        except ActorDied:
            continue
        except ClusterError as error:
            if isinstance(error.__cause__, ValueError):  # It has just ended.
                continue
            raise
        yield name, server, str(report["run"])
