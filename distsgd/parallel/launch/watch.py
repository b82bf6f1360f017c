"""What watches a run from outside while it is made."""

from __future__ import annotations

from typing import Protocol

from distsgd.parallel.server.spec import Status

LOOK_S = 0.1  # How often a run is looked at.


class Watch(Protocol):
    """Watches a run; each message of the server is shown to it once."""

    def __call__(self, status: Status) -> bool:
        """Show `status`; should the run stop now?"""
