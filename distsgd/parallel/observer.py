"""The one observer of a run: it is told of the phases of the loop, in each of its processes.

A run names its observer (`base.named.Named`), and each process makes its own: none is pickled. An
observer may measure, log, wait, or break something; it is no input to the bits. Without one, a
phase costs one comparison. No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distsgd.base.named import Kind, Named

Role = Literal["driver", "server", "worker"]
Phase = Literal[
    "before_read",  # Worker: asked for blocks of a training step; it has not read their rows.
    "after_compute",  # Worker: has computed them; their sums are not sent yet.
    "before_update",  # Server: has the sums of all blocks; the weights are those of before.
    "after_update",  # Server: has updated the weights.
    "during_evaluation",  # Server: begins one. Worker: asked for blocks of the held-out rows.
    "after_evaluation",  # Worker: has computed these; their sums are not sent yet.
    "during_checkpoint",  # Server: writes one next.
    "on_status",  # Driver: was told where the run is, about ten times a second.
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserverContext:
    """What an observer is told of the process that makes it.

    Attributes:
        role: What this process does. Without workers, the driver and the server are one process
            with two observers.
        run: The run directory; a worker on another node may not see it.
        worker: The number of the worker, in a worker's process.
        members: The connected workers, in the server's process.
        process_of: The process of a connected worker on the server's node, in the server's process;
            None where the kernel does not vouch for it.
    """

    role: Role
    run: Path
    worker: int | None = None
    members: Callable[[], tuple[int, ...]] = tuple
    process_of: Callable[[int], int | None] = lambda _: None


class Observer:
    """Base of all observers; one is made by ``named(context, **options)`` in each process.

    An error that it raises in the server or the driver ends the run. In a worker, `ServerGone` of
    `parallel.transport.interface` ends its connection; the process lives, and connects again.
    """

    def on_phase(self, phase: Phase, step: int) -> None:
        """This process is in `phase`, with `step` updates made; it waits for the answer."""

    def summary(self) -> Mapping[str, Any]:
        """Plain values for ``result.json``; asked of the server's at the end of the run."""
        return {}

    def report(self) -> str:
        """The same in one line for people; "" where there is nothing to say."""
        return ""

    def planned_server_deaths(self) -> int:
        """How many deaths of the server were the doing of this run's observers so far.

        Asked of the driver's: these deaths are no crash loop.
        """
        return 0

    @classmethod
    def check(cls, options: Mapping[str, Any], *, has_workers: bool) -> Iterable[str]:
        """What is wrong with `options` in a run with or without workers, a line each.

        Asked before anything is started.
        """
        del options, has_workers
        return ()


OBSERVER = Kind(
    "parallel.observer",
    rule="an Observer",
    way_out="derive a class from distsgd.parallel.observer:Observer",
    base=Observer,
)


def make_observer(named: Named, context: ObserverContext) -> Observer:
    """The observer of this process.

    Raises:
        ConfigError: It cannot be found, does not take its options, or is no `Observer`; then
            nothing was called.
    """
    made: Observer = named.make(OBSERVER, context)
    return made
