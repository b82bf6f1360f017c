"""Deaths on the same blocks count over servers whose working copies are gone with them."""

from __future__ import annotations

import pytest

from distsgd.base.locations import Location
from distsgd.errors import ClusterError
from distsgd.parallel.messages import ComputeRequest, RequestKind
from distsgd.parallel.pool.crash_loop import CrashLoopGuard
from distsgd.store.run_directory import RunDirectory
from tests.storage.proxy import FaultProxy

REQUEST = ComputeRequest(0, RequestKind.GRADIENT, 7, 0, 4, 0, 0)


def guard_of_a_new_server(bucket: Location) -> CrashLoopGuard:
    guard = CrashLoopGuard()
    guard.remember_in(RunDirectory.of(bucket / "run").deaths_place)
    return guard


def test_worker_server_worker_on_the_same_blocks_ends_a_run_on_object_storage(
    bucket: Location,
) -> None:
    guard_of_a_new_server(bucket).died(REQUEST)  # The server computes them next, and dies.
    with pytest.raises(ClusterError, match="3 processes died one after the other on blocks 0 to 3"):
        guard_of_a_new_server(bucket).died(REQUEST)
    assert (bucket / "run").files() == []


def test_blocks_that_somebody_computed_are_forgotten(bucket: Location) -> None:
    for _ in range(3):
        guard = guard_of_a_new_server(bucket)
        guard.died(REQUEST)
        guard.cleared()
    assert (bucket / "run").files() == []


def test_outage_ends_no_run_by_this(bucket: Location, proxy: FaultProxy) -> None:
    guard = guard_of_a_new_server(bucket)
    proxy.refusals = 1000
    guard.died(REQUEST)
    guard.cleared()
    proxy.refusals = 0
    assert (bucket / "run").files() == []
