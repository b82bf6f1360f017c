"""A run on Ray: its server and its workers are placed, started, supervised, and given a secret.

How Ray is started or joined: `session`. No arrays go through it.
"""

from __future__ import annotations

import time
from typing import Any

from distsgd.errors import ClusterError, DistSGDError, HeadLostError, RunError, WaitTimeoutError
from distsgd.parallel.launch.actors.desired_workers import DesiredWorkers, session_of
from distsgd.parallel.launch.actors.events import Delivery
from distsgd.parallel.launch.actors.named_servers import NAMESPACE, new_name
from distsgd.parallel.launch.actors.processes import RunNotSeenError, actor_classes
from distsgd.parallel.launch.actors.remote_server import RemoteServer
from distsgd.parallel.launch.actors.worker_actors import WorkerActors
from distsgd.parallel.launch.calls.calls import (
    ActorDied,
    Calls,
    ServerLeft,
    errors_of_ray,
)
from distsgd.parallel.launch.calls.deaths import remedy
from distsgd.parallel.launch.nodes.cluster import Cluster
from distsgd.parallel.launch.nodes.placement import Where
from distsgd.parallel.launch.session.session import Session
from distsgd.parallel.launch.supervisor.server_deaths import ServerDeaths
from distsgd.parallel.observer import Observer
from distsgd.parallel.pool.crash_loop import MAX_DEATHS
from distsgd.parallel.server.spec import LOOK_S, Outcome, ServerSpec, Status, Watch
from distsgd.parallel.transport.interface import Address

END_TIMEOUT_S = 120.0
LEAVE_TIMEOUT_S = 15.0  # Ray ends a process that is without a head for 60 s.


class Supervisor:
    """Keeps one server and its workers running until the run has ended.

    A dead worker's actor is started again by Ray, and told again whom to serve. A dead server is
    started as a new incarnation that continues from the last durable state; its workers follow it.
    """

    def __init__(
        self,
        session: Session,
        spec: ServerSpec,
        worker: str,
        *,
        where: Where,
        observer: Observer | None = None,
    ) -> None:
        self._ray, self._calls = session.ray, Calls(session.ray, session.head)
        self._head = session.head.address if session.head else None
        self._spec, self._num_workers = spec, spec.pool.num_workers or 0
        self._worker = worker
        self._where = where
        with errors_of_ray("preparing the processes of the run"):
            takes = where.worker_options()
            self._server_class, worker_class = actor_classes(session.ray, takes)
        self._worker_actors = WorkerActors(
            self._calls,
            lambda: worker_class.remote(
                spec.worker, worker, run=spec.record.run, observer=spec.observer
            ),
        )
        self._desired = DesiredWorkers(spec.record.run)
        self._server = RemoteServer(self._calls, None)  # None yet.
        self._training: Any = None
        self._seen_step = 0
        self._has_workers, self._lack = False, ""
        self._observer = observer
        self._planned_deaths = self._count_planned_deaths()
        self._known_messages = self._known_wanted = 0  # Of the present server.
        self._deaths, self._death = ServerDeaths(), ""  # The latter of the last server.
        self._cluster = None if session.is_local else Cluster(session.ray, session.head)
        self._is_moving = False  # Is the server to be started again elsewhere?
        self._is_stopping = False  # Is the run to end? Servers that follow are told so too.

    def run(self, watch: Watch, delivery: Delivery | None) -> Outcome:
        """Run the server to its end, as often as it dies on the way.

        Raises:
            ClusterError: It died `MAX_DEATHS` times one after the other where one step may be to
                blame for all of them: see `server_deaths`.
        """
        incarnation = 0
        address = self._head if self._cluster else None
        self._desired.begin(self._num_workers, session_of(self._spec.pool.secret), address)
        while True:
            try:
                self._training = training = self._start_server(incarnation)
                while not self._has_ended(training, delivery, incarnation):
                    self._follow_desired()
                    self._look(watch)
                outcome = self._outcome(training)
                self._look(watch)
                is_moving = self._is_moving and not self._is_stopping
                if is_moving and outcome.status == "interrupted":
                    self._is_moving, incarnation = False, incarnation + 1
                    self._server.kill()
                    continue
            except ActorDied as death:
                self._calls.confirm_head()
                # Ray says so too where only its answer was lost: two must not train.
                self._server.kill()
                incarnation += 1
                deaths = self._deaths
                self._death = "" if (is_planned := self._was_planned()) else str(death)
                deaths.died(counts=not is_planned)
                if deaths.count >= MAX_DEATHS:
                    raise ClusterError(
                        f"the server died {deaths.count} times {deaths.place()}: {death}; "
                        f"what is durable is kept, {remedy(str(death))}"
                    ) from death
            else:
                if delivery:
                    delivery.end()
                return outcome

    def end(self) -> None:
        """End all processes of this run, also those that do not answer."""
        self._desired.end()
        self._worker_actors.end()
        self._server.kill()

    def leave(self, lost: HeadLostError) -> HeadLostError:
        """The cluster is gone: have a server that lives stop with a checkpoint, and say so.

        Calls to it go through without a head for a while; new processes cannot be had.
        """
        run, is_saved = self._spec.record.run, True
        try:
            self._server.send_stop()
            outcome = Calls(self._ray).get(self._training, "training to stop", LEAVE_TIMEOUT_S)
            self._seen_step = outcome.steps
        except ServerLeft as left:
            self._seen_step = left.step
        except DistSGDError:
            is_saved = False
        return HeadLostError(lost.place, lost.silent_s, run, self._seen_step, is_saved)

    def _start_server(self, incarnation: int) -> Any:
        """A server that is ready, and workers that are sent to it; its training's end."""
        self._known_messages = self._known_wanted = 0
        self._worker_actors.serve(self._place_server(incarnation))
        if incarnation:
            self._server.expect(self._num_workers, self._lack)
        if self._death:
            self._server.note(f"the server died: {self._death}")
        if not self._has_workers:
            self._start_workers()
            self._expect(self._num_workers, self._where.lacks(self._num_workers))
        return self._server.train()

    def _place_server(self, incarnation: int) -> Address:
        """The address of a server that is ready, on the first node that sees the run."""
        places = self._server_places()
        for place in places:
            with errors_of_ray("starting the server's process"):
                server_class = self._server_class.options(**place)
                actor = server_class.remote(self._spec, self._worker, incarnation, head=self._head)
            self._server = RemoteServer(self._calls, actor)
            if self._where.is_local:
                # There is room for all of them, and processes start side by side. In a cluster
                # workers that came first would take the server's.
                self._start_workers()
            try:
                return self._server.address()
            except RunNotSeenError:
                self._server.kill()
                if place is places[-1]:
                    raise
        raise AssertionError(places)

    def _start_workers(self) -> None:
        """Once; from then on `DesiredWorkers` says how many there are."""
        if not self._has_workers:
            self._has_workers = True
            self._worker_actors.scale(self._num_workers)

    def _expect(self, count: int, lack: str) -> None:
        """Tell the server how many workers there will be, and of those without room."""
        self._num_workers, self._lack = count, lack
        self._server.expect(count, lack)
        if lack:
            self._server.note(f"warning: {lack}; the others join when there is room for them")

    def _has_ended(self, training: Any, delivery: Delivery | None, incarnation: int) -> bool:
        """Has training ended? Waits a little, and delivers what there is to see meanwhile."""
        if delivery is None:
            return bool(self._calls.ended([training], LOOK_S))
        deadline = time.monotonic() + LOOK_S
        while True:
            has_ended = bool(self._calls.ended([training], 0))
            left_s = max(0.0, deadline - time.monotonic())
            events = self._server.take_events(left_s)
            if not delivery.deliver(events, incarnation):
                self._server.stop_events()
            if has_ended or not left_s:
                return has_ended

    def _outcome(self, training: Any) -> Outcome:
        """How training ended."""
        try:
            outcome: Outcome = self._calls.get(training, "training to end", END_TIMEOUT_S)
        except WaitTimeoutError as silence:
            # Workers that do not come may be waiting for room.
            if not (lack := self._where.lacks(self._num_workers)):
                raise
            waited_for = f"{silence.waited_for} ({lack})"
            raise WaitTimeoutError(waited_for, silence.timeout_s) from silence
        return outcome

    def _look(self, watch: Watch) -> None:
        """Show where the run is, and pass a request to stop on."""
        self._calls.check_head()
        try:
            seen = self._server.status(self._known_messages)
            self._known_messages = seen.num_messages
            if seen.wanted[self._known_wanted :]:
                self._known_wanted = len(seen.wanted)
                self._want(seen.wanted[-1])
            self._is_stopping |= watch(seen) or seen.is_to_stop
            if seen.phase != "starting":  # Before that it is not where it continues.
                self._deaths.looked(seen.step)
                self._seen_step = seen.step
            self._look_at_workers(seen)
            self._leave_draining_nodes()
        except WaitTimeoutError as silence:
            # A stopped process (SIGSTOP) would stay so for ever.
            self._server.kill()
            raise ActorDied(str(silence)) from None
        except KeyboardInterrupt:
            self._is_stopping = True
        if self._is_stopping:
            self._server.request_stop()

    def _look_at_workers(self, seen: Status) -> None:
        """Send restarted workers to the server; a run that has begun continues without failed ones.

        Raises:
            WorkerStartError: A worker cannot be started, and the run waits for it.
            DistSGDError: What a worker raised while it served.
        """
        for failure in self._worker_actors.look(seen.members):
            if seen.phase == "starting":
                raise failure
            self._server.note(f"{failure}; the run continues without it")
        for death in self._worker_actors.take_deaths():
            if self._observer is None:  # It may have been planned.
                self._server.note(death)

    def _server_places(self) -> list[dict[str, Any]]:
        """Where the server can go and its name, for its actor; nothing on a Ray of one's own."""
        if (cluster := self._cluster) is None:
            return [{}]
        places = self._where.server_places(self._num_workers, cluster.leaving())
        if self._has_workers:
            # The CPU of a server before it may be a worker's: one that waits for it is locked out.
            places = [(node, 0) for node, _ in places]
        return [
            {
                "num_cpus": num_cpus,
                "scheduling_strategy": cluster.preferring(node, num_cpus),
                "name": new_name(str(self._spec.record.run)),
                "namespace": NAMESPACE,
            }
            for node, num_cpus in places
        ]

    def _leave_draining_nodes(self) -> None:
        """Have what runs on nodes that are about to go run elsewhere, before they go."""
        cluster = self._cluster
        if cluster is None or not (new := cluster.newly_draining()):
            return
        self._server.note(
            f"{', '.join(new.values())} about to go (draining); what runs there is moved"
        )
        for number in self._worker_actors.restart(lambda it: cluster.node_of(it) in new):
            self._server.note(f"worker {number} is started again elsewhere")
        if cluster.node_of(self._server.actor) in new:
            self._server.note("the server saves the run, and is started again elsewhere")
            self._is_moving = True
            self._server.request_stop()

    def _want(self, count: int) -> None:
        """Have `count` workers, as a server was asked for."""
        try:
            self._desired.want(count)
        except RunError as error:  # A disk that is full ends no run by this.
            self._server.note(f"passed over: {count} workers: {error}")

    def _follow_desired(self) -> None:
        """Have as many workers as are wanted by now."""
        try:
            wanted = self._desired.changed()
        except RunError as error:
            message, wanted = f"passed over: {error}", None
        else:
            if wanted is None:
                return
            message = f"workers wanted: {wanted} (before: {self._num_workers})"
        self._server.note(message)
        if wanted is not None:
            self._expect(wanted, self._lack_of(wanted))
            self._worker_actors.scale(wanted)

    def _lack_of(self, wanted: int) -> str:
        """Why there is no room by now for those of `wanted` workers that have none yet."""
        cluster = self._cluster
        if cluster is None or (room := cluster.room()) is None:
            return ""
        num_placed = self._worker_actors.count(lambda it: cluster.node_of(it) is not None)
        return room.says(self._where.placement, max(0, wanted - num_placed))

    def _was_planned(self) -> bool:
        """Was the server's death the observer's doing? Then it is not the step."""
        before, self._planned_deaths = self._planned_deaths, self._count_planned_deaths()
        return before != self._planned_deaths

    def _count_planned_deaths(self) -> int:
        return 0 if self._observer is None else self._observer.planned_server_deaths()
