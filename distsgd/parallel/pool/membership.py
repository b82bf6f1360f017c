"""Who is there: the workers that are connected, checked, and fit to be given work."""

from __future__ import annotations

from collections.abc import Callable
from sys import maxsize

from distsgd.errors import ClusterError, NumericsError
from distsgd.parallel.messages import WorkerInfo
from distsgd.parallel.pool.autotuner import Planner
from distsgd.parallel.pool.stragglers import Stragglers
from distsgd.parallel.transport.interface import Event, Joined, Lost, Reduced, Replied


class Membership:
    """Keeps the planner told of who can be given work; `own` describes the server's process."""

    def __init__(
        self, own: WorkerInfo, planner: Planner, *, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self._own = own
        self._planner = planner
        self._say = say
        self._workers: dict[int, WorkerInfo] = {}
        self._fit: tuple[int, ...] = ()
        self.stragglers = Stragglers()
        self.most_expected = maxsize  # Workers that there will be; who has a higher number leaves.

    @property
    def members(self) -> tuple[int, ...]:
        """The workers that are connected."""
        return tuple(self._workers)

    def notice(self, event: Event) -> None:
        """Workers come and go, and answer late.

        Raises:
            ClusterError: A worker came that would compute something else than this process.
        """
        worker = event.worker
        if isinstance(event, Joined):
            self._check(event.description)
            self._workers[worker] = event.description
            self._planner.forget()
            self.stragglers.forget(worker)
            self._say(f"worker {worker} is there (process {event.description.pid})")
        elif isinstance(event, Lost):
            self._workers.pop(worker, None)
            self.stragglers.forget(worker)
            is_surplus = worker >= self.most_expected
            how = (
                "has left, as was asked"
                if is_surplus
                else f"is lost ({event.reason}); {self._heir(worker)} its blocks"
            )
            self._say(f"worker {worker} {how}")
        elif isinstance(event, Replied | Reduced) and self.stragglers.is_watching:
            self.stragglers.answered(worker)

    def backup_took_over(self, worker: int, *, now_s: float, step: int) -> None:
        """Somebody else computed the blocks of `worker` at `step`."""
        self.stragglers.pending_reply(worker, since_s=now_s)
        self.stragglers.rest(worker, step=step)
        self._say(f"worker {worker} is late at step {step}; the server computes its blocks")

    def is_late_in_summing(self, worker: int, *, now_s: float, step: int) -> None:
        """The server summed the range of `worker`, which may still have been reading ahead."""
        self.stragglers.pending_reply(worker, since_s=now_s)
        self._say(f"worker {worker} is late in summing at step {step}; the server does it")

    def summed_wrong(self, worker: int, step: int) -> None:
        """What `worker` summed is no number, and summed by the server it is."""
        self._say(f"worker {worker} summed wrong at step {step}; the server did it, and ends it")

    def waited_for(self, worker: int, step: int) -> None:
        """The steps up to `step` waited for `worker` alone."""
        self.stragglers.rest(worker, step=step)
        heir = self._heir(worker)
        self._say(f"worker {worker} is slow, seen at step {step}; {heir} its blocks")

    def update_plan(self, step: int) -> None:
        """Tell the planner who can be given work at `step`, if that has changed."""
        fit = self.stragglers.fit(self._workers, step)
        if fit != self._fit:
            self._fit = fit
            self._planner.set_members(fit)

    def _heir(self, worker: int) -> str:
        """Who computes the blocks of `worker` now, and that it does."""
        has_others = any(other != worker for other in self._workers)
        return "others compute" if has_others else "the server computes"

    def _check(self, found: WorkerInfo) -> None:
        """Refuse a worker that would compute something else than this process."""
        own = self._own
        if found.version != own.version:
            raise ClusterError(
                f"worker {found.worker} runs distsgd {found.version}, the server {own.version}; "
                "install the same version on every node"
            )
        if found.data_digest != own.data_digest:
            raise ClusterError(
                f"worker {found.worker} sees other data than the server; "
                "the prepared data set must be the same on every node"
            )
        if found.probe != own.probe:
            raise NumericsError(
                f"worker {found.worker} computes other bits than the server (probe {found.probe}, "
                f"not {own.probe}); give every process the same numpy, processor kind and "
                "OPENBLAS_CORETYPE"
            )
