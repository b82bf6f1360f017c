"""Tasks on a cluster: plain functions by name, each done once, as many at once as there is room.

Ray places them and keeps their queue. It makes none again: what is lost with its process is sent
again here.
"""

from __future__ import annotations

import json
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from distsgd.base.files import write_bytes_atomic
from distsgd.errors import ClusterError, HeadLostError, NumericsError
from distsgd.parallel.launch.actors.processes import task_function
from distsgd.parallel.launch.actors.task import Needs, NotSharedError, do_task
from distsgd.parallel.launch.calls.calls import ActorDied, Calls, errors_of_ray
from distsgd.parallel.launch.nodes.check import check_nodes
from distsgd.parallel.launch.nodes.cluster import room_of
from distsgd.parallel.launch.nodes.placement import Placement
from distsgd.parallel.launch.session.import_path import refuse_shadowing
from distsgd.parallel.launch.session.session import Session, session

LOOK_S = 0.2
ROOM_TIMEOUT_S = 6.0
GET_TIMEOUT_S = 10.0  # What is fetched is there already.
END_TIMEOUT_S = 30.0  # To write a checkpoint.
SESSION = "session-"  # What the file of one begins with.
MOST_DEATHS = 3  # Of the process of one task.

Task = tuple[str, Mapping[str, Any]]  # As `do_work` has them.


class Tasks:
    """Does tasks of one CPU each on the cluster that was joined.

    Args:
        joined: The cluster.
        placement: On which nodes.
        needs: What these must have in common with this process. The file of its session exists
            while tasks are done.
    """

    def __init__(self, joined: Session, placement: Placement, needs: Needs) -> None:
        self._ray, self._calls = joined.ray, Calls(joined.ray, joined.head)
        self._placement = replace(placement, resources={"CPU": 1.0})
        self._needs = needs
        with errors_of_ray("preparing the tasks"):
            self._function = task_function(joined.ray, self._placement.worker_options())
        self._under_way: dict[Any, int] = {}  # Numbers of tasks, by Ray's references.

    def run(self, tasks: Sequence[Task], is_over: Callable[[], bool]) -> Iterator[tuple[int, str]]:
        """Do all `tasks`; blocks between two of them. What is left ends when the caller stops.

        Args:
            tasks: In the order in which they begin.
            is_over: Asked now and then; when it says so no more task begins, and what is under way
                is asked to end.

        Yields:
            The number of each that has ended, and its failure, or "".

        Raises:
            NotSharedError, NumericsError: A node cannot do them.
            ClusterError: No node has room for any, or the cluster is gone.
            DiskError: The session cannot be written.
        """
        deaths: Counter[int] = Counter()
        self._wait_for_room()
        write_bytes_atomic(self._needs.session, b"")
        try:
            for number, task in enumerate(tasks):
                self._send(number, task)
            while self._under_way and not is_over():
                self._calls.check_head()
                for ref in self._calls.ended([*self._under_way], LOOK_S, at_most=1):
                    number = self._under_way.pop(ref)
                    failure = self._failure(ref, number, deaths)
                    if failure is None:
                        self._wait_for_room(is_begun=True)
                        self._send(number, tasks[number])
                    else:
                        yield number, failure
        finally:
            self.end()

    def end(self) -> None:
        """Have what is under way end, and end what has not by then. Blocks."""
        self._needs.session.unlink(missing_ok=True)
        left = [*self._under_way]
        self._under_way.clear()
        try:
            ended = self._calls.ended(left, END_TIMEOUT_S)
            left = [ref for ref in left if ref not in ended]
        finally:
            for ref in left:
                self._calls.cancel(ref)

    def _send(self, number: int, task: Task) -> None:
        name, told = task
        with errors_of_ray("sending a task"):
            ref = self._function.remote(name, json.dumps(told), self._needs)
        self._under_way[ref] = number

    def _failure(self, ref: Any, number: int, deaths: Counter[int]) -> str | None:
        """Of a task that has ended, or ""; None where its process died and it is sent again."""
        try:
            return str(self._calls.get(ref, "a task to say how it ended", GET_TIMEOUT_S))
        except ActorDied as death:
            self._calls.confirm_head()
            deaths[number] += 1
            if deaths[number] < MOST_DEATHS:
                return None
            return f"its process died {MOST_DEATHS} times: {death}"
        except (NotSharedError, NumericsError, HeadLostError):
            raise
        except ClusterError as error:
            return str(error)

    def _wait_for_room(self, *, is_begun: bool = False) -> None:
        """Make sure that a task has room, or will have it once others of ours have ended.

        Raises:
            ClusterError: None has within `ROOM_TIMEOUT_S`.
        """
        deadline = time.monotonic() + ROOM_TIMEOUT_S
        while True:
            with errors_of_ray("looking for room on Ray"):
                room = room_of(self._ray)
            if is_begun:
                room = replace(room, nodes=[replace(it, free=it.total) for it in room.nodes])
            lack = room.says(self._placement, 1)
            if room.grows or not lack:
                return
            if time.monotonic() >= deadline:
                way_out = room.way_out(self._placement, 1)
                raise ClusterError(f"no run can begin: {lack}; {way_out}")
            time.sleep(LOOK_S)


@contextmanager
def tasks_at(
    placement: Placement, directory: Path, files: Sequence[Path], dtype: str
) -> Iterator[Tasks]:
    """The cluster of `placement`, joined.

    Its nodes see `files` and `directory`, where this alone has sessions, and compute the same bits.

    Raises:
        ClusterError: There is none, or a node has other versions than this process.
    """
    refuse_shadowing(f"{do_task.__module__}:{do_task.__name__}")
    for old in directory.glob(f"{SESSION}*"):  # Of a process that was killed: its tasks end.
        old.unlink(missing_ok=True)
    file = directory / f"{SESSION}{secrets.token_hex(8)}"
    with ExitStack() as stack:
        joined = stack.enter_context(session(placement.address, num_cpus=0))
        check_nodes(joined)
        tasks = Tasks(joined, placement, Needs.of(file, files, dtype))
        stack.callback(tasks.end)
        yield tasks
