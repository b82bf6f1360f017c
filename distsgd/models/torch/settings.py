"""PyTorch as a run computes: one thread, deterministic algorithms; and as it was, afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def as_runs_compute() -> Iterator[None]:
    """One thread and deterministic algorithms inside the block; nothing of the user's changes."""
    threads = torch.get_num_threads()
    is_deterministic = torch.are_deterministic_algorithms_enabled()
    warns_only = torch.is_deterministic_algorithms_warn_only_enabled()
    if threads != 1:
        torch.set_num_threads(1)
    if not is_deterministic or warns_only:
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        if not is_deterministic or warns_only:
            torch.use_deterministic_algorithms(is_deterministic, warn_only=warns_only)
        if threads != 1:
            torch.set_num_threads(threads)


@contextmanager
def chance_by(key: int) -> Iterator[None]:
    """What draws numbers inside the block draws them by `key`; the user's generator is kept."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key)
        yield
