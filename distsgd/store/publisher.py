"""A run's checkpoints on their way to object storage, through an outage of that.

Nothing to do for a run on a disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from distsgd.base import leases
from distsgd.errors import PublishError, StorageError
from distsgd.store.run_directory import RunDirectory


class Publisher:
    """Publishes `run`, which this process has, and lets it train on where the storage fails.

    Args:
        run: Under its lock.
        say: Told when an outage begins, and when it has ended.
        clock: Seconds.
        sleep: Waits so many of them.
    """

    def __init__(
        self,
        run: RunDirectory,
        say: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._run, self._say = run, say
        self._clock, self._sleep = clock, sleep
        self._is_behind = False

    def at_checkpoint(self, step: int) -> None:
        """Publish what there is after `step`, or leave it to the next time; blocks.

        Raises:
            RunError: Another process has taken the run; what was published is as it was.
        """
        try:
            self._run.publish()
        except StorageError as error:
            if not self._is_behind:
                self._say(
                    f"WARNING: {error}; the run trains on, and the checkpoint of step {step} is "
                    "published with the next one that the storage takes"
                )
            self._is_behind = True
            return
        if self._is_behind:
            self._say(f"{self._run.place} is published again, up to step {step}")
        self._is_behind = False

    def at_end(self) -> None:
        """Publish what there is; blocks, and tries again for `LEASE_S`.

        Raises:
            RunError: As above.
            PublishError: The storage does not answer any more.
        """
        until = self._clock() + leases.LEASE_S
        while True:
            try:
                self._run.publish()
            except StorageError as error:
                if self._clock() >= until:
                    reason = f"the end could not be published within {leases.LEASE_S:g} s ({error})"
                    raise PublishError(str(self._run.place), reason) from error
                self._sleep(leases.LEASE_S / 20)
            else:
                return
