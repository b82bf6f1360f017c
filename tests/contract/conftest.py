"""Each transport, without workers and with one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest

from distsgd.parallel.transport.in_process import InProcessTransport
from distsgd.parallel.transport.interface import Transport
from tests.contract.transports import KINDS, LAYOUT, SAMPLER, Place, Served
from tests.fakes import FakeWorker


@pytest.fixture
def place() -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(stack)


@pytest.fixture(params=["in_process", "shared_memory", "zmq"])
def served(request: pytest.FixtureRequest, place: Place) -> Transport:
    """A transport with a fake worker, number 0, behind it."""
    if request.param == "in_process":
        return InProcessTransport(
            LAYOUT, FakeWorker(SAMPLER), weights=np.zeros(LAYOUT.num_parameters, LAYOUT.dtype)
        )
    transport = place.open(request.param)
    place.serve(transport, 0, FakeWorker(SAMPLER))
    return transport


@pytest.fixture(params=KINDS)
def transport(request: pytest.FixtureRequest, place: Place) -> Served:
    """A transport without workers yet."""
    return place.open(request.param)
