"""A run on object storage as another process sees it, whose time passes where it waits."""

from __future__ import annotations

from collections.abc import Callable

from distsgd.store.remote_run import RemoteRun


def _nothing_happens() -> None:
    """Its owner does not live."""


class Elsewhere:
    """The same `run`; `meanwhile` is called whenever it waits.

    Attributes:
        run: It.
        now_s: How long it has waited.
    """

    def __init__(self, run: RemoteRun, meanwhile: Callable[[], object] = _nothing_happens) -> None:
        self.now_s, self._meanwhile = 0.0, meanwhile
        self.run = RemoteRun(run.location, clock=lambda: self.now_s, sleep=self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self._meanwhile()
