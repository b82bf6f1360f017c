"""How many cores this process may use."""

from __future__ import annotations

import os


def num_cores() -> int:
    """The cores that this process may run on; all of the machine where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
